//! Tensors of the operators' element types, which are equal where every bit is, and numbers to fill them with.

use half::{bf16, f16};
use ort::session::SessionInputValue;
use ort::value::{DynTensor, TensorElementType, TensorRef};

/// An element type that the operators take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// `tensor(float)`
    Float,
    /// `tensor(double)`
    Double,
    /// `tensor(float16)`
    Float16,
    /// `tensor(bfloat16)`
    Bfloat16,
}

impl Element {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Float, Self::Double, Self::Float16, Self::Bfloat16];

    /// The name that models and their inputs have here.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Double => "double",
            Self::Float16 => "float16",
            Self::Bfloat16 => "bfloat16",
        }
    }
}

#[derive(Debug, Clone)]
enum Numbers {
    Float(Vec<f32>),
    Double(Vec<f64>),
    Float16(Vec<f16>),
    Bfloat16(Vec<bf16>),
}

/// Does the same with the numbers of any type.
macro_rules! each {
    ($numbers:expr, $list:ident => $body:expr) => {
        match $numbers {
            Numbers::Float($list) => $body,
            Numbers::Double($list) => $body,
            Numbers::Float16($list) => $body,
            Numbers::Bfloat16($list) => $body,
        }
    };
}

/// A tensor in this process's memory.
#[derive(Debug, Clone)]
pub struct Tensor {
    shape: Vec<usize>,
    numbers: Numbers,
}

/// The same type, the same shape, and every number the same bits.
impl PartialEq for Tensor {
    fn eq(&self, other: &Self) -> bool {
        self.shape == other.shape
            && match (&self.numbers, &other.numbers) {
                (Numbers::Float(a), Numbers::Float(b)) => same_bits(a, b, f32::to_bits),
                (Numbers::Double(a), Numbers::Double(b)) => same_bits(a, b, f64::to_bits),
                (Numbers::Float16(a), Numbers::Float16(b)) => same_bits(a, b, f16::to_bits),
                (Numbers::Bfloat16(a), Numbers::Bfloat16(b)) => same_bits(a, b, bf16::to_bits),
                _ => false,
            }
    }
}

fn same_bits<T: Copy, B: Eq>(a: &[T], b: &[T], bits: impl Fn(T) -> B) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(&a, &b)| bits(a) == bits(b))
}

impl Tensor {
    /// `values`, rounded to `element`.
    ///
    /// # Panics
    /// If there are not as many as `shape` says.
    #[must_use]
    pub fn new(element: Element, shape: Vec<usize>, values: &[f64]) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "as many numbers as the shape says");
        let numbers = match element {
            Element::Float => Numbers::Float(values.iter().map(|&value| value as f32).collect()),
            Element::Double => Numbers::Double(values.to_vec()),
            Element::Float16 => Numbers::Float16(values.iter().map(|&value| f16::from_f64(value)).collect()),
            Element::Bfloat16 => {
                Numbers::Bfloat16(values.iter().map(|&value| bf16::from_f64(value)).collect())
            }
        };
        Self { shape, numbers }
    }

    /// A tensor of the shape [0, 1, 1], on which every operator has nothing to do.
    #[must_use]
    pub fn empty(element: Element) -> Self {
        Self::new(element, vec![0, 1, 1], &[])
    }

    /// What ONNX Runtime gave; nothing where it is of another type than the operators'.
    #[must_use]
    pub(crate) fn of(value: &DynTensor) -> Option<Self> {
        let shape = value.shape().iter().map(|&size| size as usize).collect();
        let numbers = match value.data_type() {
            TensorElementType::Float32 => Numbers::Float(value.try_extract_tensor().ok()?.1.to_vec()),
            TensorElementType::Float64 => Numbers::Double(value.try_extract_tensor().ok()?.1.to_vec()),
            TensorElementType::Float16 => Numbers::Float16(value.try_extract_tensor().ok()?.1.to_vec()),
            TensorElementType::Bfloat16 => Numbers::Bfloat16(value.try_extract_tensor().ok()?.1.to_vec()),
            _ => return None,
        };
        Some(Self { shape, numbers })
    }

    /// What ONNX Runtime reads, where it lies.
    pub(crate) fn view(&self) -> ort::Result<SessionInputValue<'_>> {
        let shape = self.shape.clone();
        each!(&self.numbers, list => Ok(TensorRef::from_array_view((shape, list.as_slice()))?.into()))
    }

    /// The size of each axis.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The numbers.
    #[must_use]
    pub fn values(&self) -> Vec<f64> {
        match &self.numbers {
            Numbers::Float(list) => list.iter().map(|&number| f64::from(number)).collect(),
            Numbers::Double(list) => list.clone(),
            Numbers::Float16(list) => list.iter().map(|&number| f64::from(number)).collect(),
            Numbers::Bfloat16(list) => list.iter().map(|&number| f64::from(number)).collect(),
        }
    }

    /// The tensors that lie along the first axis, one after another.
    ///
    /// # Panics
    /// If they differ in type or in another axis, or if there are none.
    #[must_use]
    pub fn batch(samples: &[&Self]) -> Self {
        let mut whole = samples[0].clone();
        for sample in &samples[1..] {
            assert_eq!(whole.shape[1..], sample.shape[1..], "samples of one shape");
            whole.shape[0] += sample.shape[0];
            match (&mut whole.numbers, &sample.numbers) {
                (Numbers::Float(all), Numbers::Float(list)) => all.extend(list),
                (Numbers::Double(all), Numbers::Double(list)) => all.extend(list),
                (Numbers::Float16(all), Numbers::Float16(list)) => all.extend(list),
                (Numbers::Bfloat16(all), Numbers::Bfloat16(list)) => all.extend(list),
                _ => panic!("samples of one type"),
            }
        }
        whole
    }

    /// One of those along the first axis.
    ///
    /// # Panics
    /// If there are not so many.
    #[must_use]
    pub fn sample(&self, index: usize) -> Self {
        let mut shape = self.shape.clone();
        let len = shape[1..].iter().product::<usize>();
        shape[0] = 1;
        let range = index * len..(index + 1) * len;
        let numbers = match &self.numbers {
            Numbers::Float(list) => Numbers::Float(list[range].to_vec()),
            Numbers::Double(list) => Numbers::Double(list[range].to_vec()),
            Numbers::Float16(list) => Numbers::Float16(list[range].to_vec()),
            Numbers::Bfloat16(list) => Numbers::Bfloat16(list[range].to_vec()),
        };
        Self { shape, numbers }
    }
}

/// Numbers that look random and are the same every time (SplitMix64).
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    /// Any 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `least` to `greatest`, both included.
    pub fn between(&mut self, least: usize, greatest: usize) -> usize {
        least + (self.bits() % (greatest - least + 1) as u64) as usize
    }

    /// Between −1 and 1.
    pub fn number(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }
}
