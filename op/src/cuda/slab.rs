//! The launches of a slab: samples that a call computes together, one launch for each stage of all of them.

use super::arguments::{self, Address, Epilogue, Factors, Load, Measure, Product, Write};
use super::arithmetic::Arithmetic;
use super::element::ElementType;
use super::epilogue::no_epilogue;
use super::plan::{Addresses, Launch, Launching, Plan};
use super::real::Real;
use super::workspace::Part;
use crate::Error;
use crate::form::Form;
use crate::layer::{Extent, Normalization, OperatorKind};
use crate::program::{Outcome, Program};

/// The sizes of `kernels/measure.cuh` and `product.cuh`: threads of a block, and what it has a part of.
const MEASURE_THREADS: u32 = 256;
pub(super) const LOAD_THREADS: u32 = 64;
const LOAD_SIDE: usize = 32;
pub(super) const PRODUCT_THREADS: u32 = 256;
pub(super) const TILE: usize = 64;
/// Shared memory, in bytes.
const MEASURE_SHARED: u32 = 2048;

/// What a warp needs for its tile in the end, in bytes.
pub(super) const fn warp_room(real: u32) -> u32 {
    (16 + 8) * 36 * real
}

/// A kind of kernel.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stage {
    Moments,
    Center,
    Read,
    Measure,
    Load,
    Product,
    Chain,
    Cluster,
    Write,
}

/// Samples that a call computes together.
pub(super) struct Slab<'a> {
    /// What every slab has in common.
    pub plan: &'a Plan,
    /// Where the slab's samples are.
    pub addresses: Addresses,
    /// How many there are.
    pub samples: usize,
}

/// A matrix of every sample.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix {
    pub address: Address,
    /// Numbers from one sample's to the next sample's.
    pub stride: usize,
    /// Numbers from row to row.
    pub ld: usize,
    /// Its columns.
    pub columns: usize,
    /// The exponent of the power of two that its numbers are multiplied by.
    pub exponent: i32,
}

impl Slab<'_> {
    /// Hands over every launch, in order.
    ///
    /// # Errors
    /// What a launch came to.
    pub(super) fn launch<R: Real>(&self, launch: Launching<'_>) -> Result<(), Error> {
        let layer = &self.plan.layer;
        let Extent { channels, positions, .. } = self.plan.extent;
        let Some(program) = &self.plan.program else {
            self.read::<R>(arguments::Form::Covariance, launch)?;
            let transposed = self.positions_by_channels::<R>(self.plan.parts.transposed);
            return self.launch_write(&self.write::<R>([transposed; 2], positions), launch);
        };
        let first = self.epilogue::<R>(program, None);
        let mut products = Vec::with_capacity(program.products.len() + 2);
        if layer.operator == OperatorKind::MatrixSqrt {
            let given = (self.plan.element, self.addresses.input, channels * channels, channels);
            self.load(given, true, first, launch)?;
        } else {
            self.read::<R>(self.form(), launch)?;
            if layer.normalization == Normalization::Frobenius {
                // Its norm is known when all of P is there.
                let kept = Epilogue { out: [0; 2], keep: 1, ..first };
                self.launch_product(&self.gram(kept), launch)?;
                let side = self.side();
                let ld = self.plan.arithmetic.row_stride(side).unwrap_or(side);
                self.load(
                    (R::ELEMENT, self.at(self.plan.parts.places), side * ld, ld),
                    false,
                    first,
                    launch,
                )?;
            } else {
                products.push(self.gram(first));
            }
        }
        products.extend(self.products::<R>(program));
        self.launch_products(&products, &self.result::<R>(program), launch)
    }

    /// What a kernel computes that reads samples.
    fn form(&self) -> arguments::Form {
        if self.plan.form == Form::Gram { arguments::Form::Gram } else { arguments::Form::Direct }
    }

    /// P, of X̄ in the order that the form asks for.
    fn gram<R: Real>(&self, epilogue: Epilogue<R>) -> Product<R> {
        let Extent { channels, positions, .. } = self.plan.extent;
        let (factor, depth) = if self.plan.form == Form::Gram {
            let straight = self.matrix::<R>(self.plan.parts.straight, channels, positions);
            (Matrix { exponent: self.plan.arithmetic.raised(), ..straight }, channels)
        } else {
            (self.positions_by_channels::<R>(self.plan.parts.transposed), positions)
        };
        let scale = self.at(self.plan.parts.scales);
        Product { scale, ..Self::product([factor; 2], depth, epilogue) }
    }

    /// The products between A and the last one.
    fn products<R: Real>(&self, program: &Program) -> Vec<Product<R>> {
        let count = program.products.len();
        let mut products = Vec::with_capacity(count + 1);
        products.extend((0..count).map(|step| {
            let epilogue = self.epilogue::<R>(program, Some(step));
            Self::product(self.factors::<R>(program, step), self.side(), epilogue)
        }));
        if matches!(program.result, Outcome::Factor(_)) {
            // q(G) X̄ᵀ, every entry.
            let [q, _] = self.factors::<R>(program, count);
            let transposed = self.positions_by_channels::<R>(self.plan.parts.transposed);
            let half = self.positions_by_channels::<R>(self.plan.parts.half);
            products.push(Product {
                plain: half.address,
                plain_stride: half.stride as i64,
                plain_ld: half.ld as i32,
                plain_scale: power(half.exponent),
                ..Self::product([q, transposed], self.side(), no_epilogue())
            });
        }
        products
    }

    /// The last product.
    fn result<R: Real>(&self, program: &Program) -> Write<R> {
        match program.result {
            Outcome::Iterate(_) => {
                self.write(self.factors::<R>(program, program.products.len()), self.side())
            }
            Outcome::Factor(_) => {
                let transposed = self.positions_by_channels::<R>(self.plan.parts.transposed);
                let half = self.positions_by_channels::<R>(self.plan.parts.half);
                self.write([transposed, half], self.plan.extent.positions)
            }
        }
    }

    /// The rows of the matrix that the program runs on.
    pub(super) fn side(&self) -> usize {
        let Extent { channels, positions, .. } = self.plan.extent;
        if self.plan.form == Form::Gram { positions } else { channels }
    }

    pub(super) fn at(&self, part: Part) -> Address {
        self.addresses.workspace + part.offset as Address
    }

    pub(super) fn matrix<R: Real>(&self, part: Part, rows: usize, columns: usize) -> Matrix {
        let ld = self.plan.arithmetic.row_stride(columns).unwrap_or(columns);
        Matrix { address: self.at(part), stride: rows * ld, ld, columns, exponent: 0 }
    }

    /// A matrix of positions by channels, X̄ᵀ or q(G) X̄ᵀ; X̄ has the same exponent.
    pub(super) fn positions_by_channels<R: Real>(&self, part: Part) -> Matrix {
        let Extent { channels, positions, .. } = self.plan.extent;
        let exponent = self.plan.arithmetic.raised();
        Matrix { exponent, ..self.matrix::<R>(part, positions, channels) }
    }

    /// The factors of a program's product; after all products, those of the result.
    fn factors<R: Real>(&self, program: &Program, step: usize) -> [Matrix; 2] {
        let parts = self.plan.parts.factors[step % 2];
        let [_, right] = program.factors(step);
        let exponents = self.plan.exponents[step];
        [0, usize::from(right.is_some())].map(|factor| Matrix {
            exponent: exponents[factor],
            ..self.matrix::<R>(parts[factor], self.side(), self.side())
        })
    }

    /// A from a matrix that is there: its type, address, stride from sample to sample and from row to row.
    fn load<R: Real>(
        &self,
        (element, matrix, stride, ld): (ElementType, Address, usize, usize),
        given: bool,
        epilogue: Epilogue<R>,
        launch: Launching<'_>,
    ) -> Result<(), Error> {
        let layer = &self.plan.layer;
        let (side, scale) = (self.side(), self.at(self.plan.parts.scales));
        let form = self.form();
        let measure = Measure {
            matrix,
            scale,
            stride: stride as i64,
            divisor: self.divisor(),
            epsilon: layer.epsilon.into(),
            samples: self.samples as i32,
            side: side as i32,
            ld: ld as i32,
            form,
            compensated: layer.compensated.into(),
            frobenius: self.frobenius(),
            given: given.into(),
        };
        launch(Launch {
            function: name(Stage::Measure, self.plan.arithmetic, element),
            blocks: self.blocks(1),
            cluster: 1,
            threads: MEASURE_THREADS,
            shared: MEASURE_SHARED,
            arguments: &measure,
        })?;
        let (side, ld) = (side as i32, ld as i32);
        let load = Load { matrix, scale, stride: stride as i64, side, ld, given: given.into(), epilogue };
        launch(Launch {
            function: name(Stage::Load, self.plan.arithmetic, element),
            blocks: self.blocks(triangle(self.side().div_ceil(LOAD_SIDE))),
            cluster: 1,
            threads: LOAD_THREADS,
            shared: LOAD_THREADS / 32 * warp_room(size_of::<R>() as u32),
            arguments: &load,
        })
    }

    /// A symmetric product.
    fn product<R: Real>(factors: [Matrix; 2], depth: usize, epilogue: Epilogue<R>) -> Product<R> {
        let factors = Self::operands(factors, depth);
        Product {
            factors,
            scale: 0,
            plain: 0,
            plain_stride: 0,
            plain_ld: 0,
            plain_scale: R::default(),
            epilogue,
        }
    }

    fn write<R: Real>(&self, factors: [Matrix; 2], depth: usize) -> Write<R> {
        let layer = &self.plan.layer;
        let covariance = layer.operator == OperatorKind::CovariancePooling;
        Write {
            factors: Self::operands(factors, depth),
            scale: self.at(self.plan.parts.scales),
            out: self.addresses.output,
            epsilon: if covariance { layer.epsilon.into() } else { 0.0 },
            off_diagonal: R::from_f64(layer.off_diagonal_scale.into()),
            vectorization: arguments::vectorization(layer.vectorization),
            covariance: covariance.into(),
        }
    }

    fn operands<R: Real>([left, right]: [Matrix; 2], depth: usize) -> Factors<R> {
        Factors {
            left: left.address,
            right: right.address,
            left_stride: left.stride as i64,
            right_stride: right.stride as i64,
            left_ld: left.ld as i32,
            right_ld: right.ld as i32,
            rows: left.columns as i32,
            columns: right.columns as i32,
            depth: depth as i32,
            // Who launches it says how many.
            tiles: 0,
            stages: 0,
            scale: power(-left.exponent - right.exponent),
        }
    }

    /// M − δ; 1 for a matrix that is given.
    pub(super) fn divisor(&self) -> f64 {
        if self.plan.layer.operator == OperatorKind::MatrixSqrt {
            1.0
        } else {
            self.plan.extent.positions as f64 - f64::from(self.plan.layer.correction)
        }
    }

    pub(super) fn frobenius(&self) -> i32 {
        i32::from(self.plan.layer.normalization == Normalization::Frobenius)
    }

    /// How many stages a product of so many blocks has, and the bytes of shared memory for them.
    pub(super) fn stages<R: Real>(&self, blocks: u32) -> (i32, u32) {
        product_shared::<R>(self.plan.arithmetic, blocks <= self.plan.target.multiprocessors)
    }

    pub(super) fn blocks(&self, of_a_sample: usize) -> u32 {
        (of_a_sample * self.samples) as u32
    }
}

/// How many stages a product has whose block is `alone` on its multiprocessor or is not, and the bytes of shared memory for them or for its warps'
/// tiles after them.
pub(super) fn product_shared<R: Real>(arithmetic: Arithmetic, alone: bool) -> (i32, u32) {
    let (count, bytes) = arithmetic.stages::<R>(alone);
    (count as i32, (count * bytes).max(product_rooms::<R>()))
}

/// What all warps of a product's block need for their tiles in the end, in bytes.
pub(super) fn product_rooms<R: Real>() -> u32 {
    PRODUCT_THREADS / 32 * warp_room(size_of::<R>() as u32)
}

/// The tiles of an upper triangle with `rows` rows of tiles.
pub(super) fn triangle(rows: usize) -> usize {
    rows * (rows + 1) / 2
}

/// 2^exponent.
fn power<R: Real>(exponent: i32) -> R {
    R::from_f64(2.0_f64.powi(exponent))
}

/// The name of a kernel for an element type.
pub(super) fn name(kernel: Stage, arithmetic: Arithmetic, element: ElementType) -> &'static str {
    use ElementType::{BFloat16, Double, Float, Float16};
    macro_rules! names {
        ($($stage:ident $arithmetic:pat => $name:literal),*) => {
            match (kernel, arithmetic, element) {$(
                (Stage::$stage, $arithmetic, Float) => concat!($name, "_f32"),
                (Stage::$stage, $arithmetic, Double) => concat!($name, "_f64"),
                (Stage::$stage, $arithmetic, Float16) => concat!($name, "_f16"),
                (Stage::$stage, $arithmetic, BFloat16) => concat!($name, "_bf16"),
            )*}
        };
    }
    match (kernel, arithmetic) {
        (Stage::Product, Arithmetic::Halves) => return "product_halves",
        (Stage::Chain, Arithmetic::Halves) => return "chain_halves",
        _ => {}
    }
    names!(
        Moments _ => "moments",
        Measure _ => "measure",
        Product _ => "product",
        Chain _ => "chain",
        Read _ => "read_halves",
        Cluster _ => "cluster_halves",
        Center Arithmetic::Plain => "center",
        Center Arithmetic::Halves => "center_halves",
        Load Arithmetic::Plain => "load",
        Load Arithmetic::Halves => "load_halves",
        Write Arithmetic::Plain => "write",
        Write Arithmetic::Halves => "write_halves"
    )
}
