//! The floating-point numbers of a tensor one after the other, however many there are.

use half::{bf16, f16};

use crate::onnx::tensor_proto::DataType;
use crate::tensor::{Element, TensorData};

impl TensorData {
    /// Shows the elements of any floating-point type of 16 bits or more in float64, with their places; none where they are of
    /// another type.
    #[must_use]
    pub fn each_float(&self, show: impl FnMut(usize, f64)) -> Option<()> {
        fn widened<T: Element>(data: &TensorData, mut show: impl FnMut(usize, f64)) {
            let elements = data.bytes().chunks_exact(size_of::<T>());
            elements.enumerate().for_each(|(place, bytes)| show(place, T::from_le(bytes).to_f64()));
        }
        match self.data_type() {
            DataType::Float => widened::<f32>(self, show),
            DataType::Double => widened::<f64>(self, show),
            DataType::Float16 => widened::<f16>(self, show),
            DataType::Bfloat16 => widened::<bf16>(self, show),
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::TensorProto;

    #[test]
    fn floats_of_every_type_are_shown_in_order() {
        fn shown<T: Element>(values: &[T]) -> Option<Vec<(usize, f64)>> {
            let tensor = TensorProto::from_values("t", &[values.len()], values);
            let mut shown = Vec::new();
            TensorData::inline(&tensor).unwrap().each_float(|place, value| shown.push((place, value)))?;
            Some(shown)
        }
        let expected = Some(vec![(0, 1.5), (1, f64::INFINITY)]);
        assert_eq!(shown(&[1.5, f64::INFINITY]), expected);
        assert_eq!(shown(&[1.5, f32::INFINITY]), expected);
        assert_eq!(shown(&[f16::from_f32(1.5), f16::INFINITY]), expected);
        assert_eq!(shown(&[bf16::from_f32(1.5), bf16::INFINITY]), expected);
        assert_eq!(shown(&[1_i64]), None);
    }
}
