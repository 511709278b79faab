//! The launches of a slab: samples that a call computes together, one launch for each stage of all of them.

use super::arguments::{
    self, Address, Center, Combination, Epilogue, Factors, Load, Measure, Moments, Product, TERMS, Write,
};
use super::element::ElementType;
use super::plan::{Addresses, Launch, Launching, Plan};
use super::real::Real;
use super::workspace::{Part, row_stride};
use crate::Error;
use crate::form::Form;
use crate::layer::{Extent, Normalization, OperatorKind};
use crate::program::{self, Outcome, Program};

/// The sizes of `kernels/read.cuh`, `measure.cuh` and `product.cuh`: threads of a block, and what it has a part of.
const READ_THREADS: u32 = 256;
const MOMENTS_CHANNELS: usize = 8;
const CENTER_CHANNELS: usize = 32;
const CENTER_POSITIONS: usize = 128;
const LOAD_SIDE: usize = 32;
const PRODUCT_THREADS: u32 = 128;
const TILE: usize = 64;
/// Shared memory, in bytes.
const MOMENTS_SHARED: u32 = 2048;
const CENTER_SHARED: u32 = 32 * 33 * 8;
const MEASURE_SHARED: u32 = 2048;
const PRODUCT_SHARED: u32 = 2 * 4 * 16 * 72 * 4;

/// A kind of kernel.
#[derive(Debug, Clone, Copy)]
enum Stage {
    Moments,
    Center,
    Measure,
    Load,
    Product,
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
struct Matrix {
    address: Address,
    /// Numbers from one sample's to the next sample's.
    stride: usize,
    /// Numbers from row to row.
    ld: usize,
    /// Its columns.
    columns: usize,
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
        if layer.operator == OperatorKind::MatrixSqrt {
            let given = (self.plan.element, self.addresses.input, channels * channels, channels);
            self.load(given, true, first, launch)?;
        } else {
            self.read::<R>(self.form(), launch)?;
            if layer.normalization == Normalization::Frobenius {
                // Its norm is known when all of P is there.
                let kept = Epilogue { left: no_factor(), right: no_factor(), keep: 1, ..first };
                self.launch_product(&self.gram(kept), launch)?;
                let side = self.side();
                let ld = row_stride(side, size_of::<R>()).unwrap_or(side);
                self.load(
                    (R::ELEMENT, self.at(self.plan.parts.places), side * ld, ld),
                    false,
                    first,
                    launch,
                )?;
            } else {
                self.launch_product(&self.gram(first), launch)?;
            }
        }
        for product in self.products::<R>(program) {
            self.launch_product(&product, launch)?;
        }
        self.launch_write(&self.result::<R>(program), launch)
    }

    /// What a kernel computes that reads samples.
    pub(super) fn form(&self) -> arguments::Form {
        if self.plan.form == Form::Gram { arguments::Form::Gram } else { arguments::Form::Direct }
    }

    /// P, of X̄ in the order that the form asks for.
    pub(super) fn gram<R: Real>(&self, epilogue: Epilogue<R>) -> Product<R> {
        let Extent { channels, positions, .. } = self.plan.extent;
        let (factor, depth) = if self.plan.form == Form::Gram {
            (self.matrix::<R>(self.plan.parts.straight, channels, positions), channels)
        } else {
            (self.positions_by_channels::<R>(self.plan.parts.transposed), positions)
        };
        let scale = self.at(self.plan.parts.scales);
        Product { scale, ..self.product([factor; 2], depth, epilogue) }
    }

    /// The products between A and the last one.
    pub(super) fn products<R: Real>(&self, program: &Program) -> Vec<Product<R>> {
        let count = program.products.len();
        let mut products = Vec::with_capacity(count + 1);
        products.extend((0..count).map(|step| {
            let epilogue = self.epilogue::<R>(program, Some(step));
            self.product(self.factors::<R>(program, step), self.side(), epilogue)
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
                ..self.product([q, transposed], self.side(), no_epilogue())
            });
        }
        products
    }

    /// The last product.
    pub(super) fn result<R: Real>(&self, program: &Program) -> Write<R> {
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
    fn side(&self) -> usize {
        let Extent { channels, positions, .. } = self.plan.extent;
        if self.plan.form == Form::Gram { positions } else { channels }
    }

    fn at(&self, part: Part) -> Address {
        self.addresses.workspace + part.offset as Address
    }

    fn matrix<R: Real>(&self, part: Part, rows: usize, columns: usize) -> Matrix {
        let ld = row_stride(columns, size_of::<R>()).unwrap_or(columns);
        Matrix { address: self.at(part), stride: rows * ld, ld, columns }
    }

    fn positions_by_channels<R: Real>(&self, part: Part) -> Matrix {
        self.matrix::<R>(part, self.plan.extent.positions, self.plan.extent.channels)
    }

    /// The factors of a program's product; after all products, those of the result.
    fn factors<R: Real>(&self, program: &Program, step: usize) -> [Matrix; 2] {
        let parts = self.plan.parts.factors[step % 2];
        let matrix = |part| self.matrix::<R>(part, self.side(), self.side());
        let [_, right] = program.factors(step);
        [matrix(parts[0]), matrix(parts[usize::from(right.is_some())])]
    }

    /// The arguments of the kernel that sums over each channel.
    pub(super) fn moments(&self) -> Moments {
        let Plan { layer, extent, parts, .. } = self.plan;
        Moments {
            x: self.addresses.input,
            means: self.at(parts.means),
            squares: self.at(parts.squares),
            samples: self.samples as i32,
            channels: extent.channels as i32,
            positions: extent.positions as i32,
            channels_last: arguments::channels_last(layer.layout),
            centered: layer.centered.into(),
        }
    }

    /// The arguments of the kernel that makes X̄ in the orders that are needed.
    pub(super) fn center<R: Real>(&self, form: arguments::Form) -> Center {
        let Plan { layer, extent, parts, .. } = self.plan;
        let straight = self.matrix::<R>(parts.straight, extent.channels, extent.positions);
        let transposed = self.positions_by_channels::<R>(parts.transposed);
        let Moments { x, means, squares, samples, channels, positions, channels_last, .. } = self.moments();
        Center {
            x,
            means,
            squares,
            straight: if form == arguments::Form::Gram { straight.address } else { 0 },
            transposed: transposed.address,
            scale: self.at(parts.scales),
            divisor: self.divisor(),
            epsilon: layer.epsilon.into(),
            samples,
            channels,
            positions,
            channels_last,
            straight_ld: straight.ld as i32,
            transposed_ld: transposed.ld as i32,
            form,
            compensated: layer.compensated.into(),
            frobenius: self.frobenius(),
        }
    }

    /// From the elements to X̄.
    fn read<R: Real>(&self, form: arguments::Form, launch: Launching<'_>) -> Result<(), Error> {
        let Extent { channels, positions, .. } = self.plan.extent;
        launch(Launch {
            function: name(Stage::Moments, self.plan.element),
            blocks: self.blocks(channels.div_ceil(MOMENTS_CHANNELS)),
            threads: READ_THREADS,
            shared: MOMENTS_SHARED,
            cluster: 1,
            arguments: &self.moments(),
        })?;
        launch(Launch {
            function: name(Stage::Center, self.plan.element),
            blocks: self.blocks(channels.div_ceil(CENTER_CHANNELS) * positions.div_ceil(CENTER_POSITIONS)),
            threads: READ_THREADS,
            shared: CENTER_SHARED,
            cluster: 1,
            arguments: &self.center::<R>(form),
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
            function: name(Stage::Measure, element),
            blocks: self.blocks(1),
            threads: READ_THREADS,
            shared: MEASURE_SHARED,
            cluster: 1,
            arguments: &measure,
        })?;
        let (side, ld) = (side as i32, ld as i32);
        let load = Load { matrix, scale, stride: stride as i64, side, ld, given: given.into(), epilogue };
        launch(Launch {
            function: name(Stage::Load, element),
            blocks: self.blocks(triangle(self.side().div_ceil(LOAD_SIDE))),
            threads: READ_THREADS,
            shared: 0,
            cluster: 1,
            arguments: &load,
        })
    }

    /// A symmetric product.
    fn product<R: Real>(&self, factors: [Matrix; 2], depth: usize, epilogue: Epilogue<R>) -> Product<R> {
        let factors = self.operands(factors, depth);
        Product { factors, scale: 0, plain: 0, plain_stride: 0, plain_ld: 0, epilogue }
    }

    fn launch_product<R: Real>(&self, product: &Product<R>, launch: Launching<'_>) -> Result<(), Error> {
        let [down, across] =
            [product.factors.rows, product.factors.columns].map(|size| (size as usize).div_ceil(TILE));
        let tiles = if product.plain == 0 { triangle(down) } else { down * across };
        launch(Launch {
            function: name(Stage::Product, R::ELEMENT),
            blocks: self.blocks(tiles),
            threads: PRODUCT_THREADS,
            shared: PRODUCT_SHARED,
            cluster: 1,
            arguments: product,
        })
    }

    fn write<R: Real>(&self, factors: [Matrix; 2], depth: usize) -> Write<R> {
        let layer = &self.plan.layer;
        let covariance = layer.operator == OperatorKind::CovariancePooling;
        Write {
            factors: self.operands(factors, depth),
            scale: self.at(self.plan.parts.scales),
            out: self.addresses.output,
            epsilon: if covariance { layer.epsilon.into() } else { 0.0 },
            off_diagonal: R::from_f64(layer.off_diagonal_scale.into()),
            vectorization: arguments::vectorization(layer.vectorization),
            covariance: covariance.into(),
        }
    }

    fn launch_write<R: Real>(&self, write: &Write<R>, launch: Launching<'_>) -> Result<(), Error> {
        launch(Launch {
            function: name(Stage::Write, self.plan.element),
            blocks: self.blocks(triangle(self.plan.extent.channels.div_ceil(TILE))),
            threads: PRODUCT_THREADS,
            shared: PRODUCT_SHARED,
            cluster: 1,
            arguments: write,
        })
    }

    fn operands(&self, [left, right]: [Matrix; 2], depth: usize) -> Factors {
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
            samples: self.samples as i32,
        }
    }

    /// What is made of the matrix that product `step` gives, or of A where there is none.
    pub(super) fn epilogue<R: Real>(&self, program: &Program, step: Option<usize>) -> Epilogue<R> {
        let next = step.map_or(0, |step| step + 1);
        let place = step.map_or(0, |step| program.products[step].1);
        let [left, right] = program.factors(next);
        let parts = self.plan.parts.factors[next % 2];
        let side = self.side();
        let matrix = self.matrix::<R>(self.plan.parts.places, side, side);
        Epilogue {
            places: matrix.address,
            place_stride: (matrix.stride * self.samples) as i64,
            samples: self.samples as i32,
            side: side as i32,
            ld: matrix.ld as i32,
            place: place as i32,
            keep: program.is_read_later(place, next).into(),
            left: left.map_or_else(no_factor, |left| combination(left, self.at(parts[0]))),
            right: right.map_or_else(no_factor, |right| combination(right, self.at(parts[1]))),
        }
    }

    /// M − δ; 1 for a matrix that is given.
    fn divisor(&self) -> f64 {
        if self.plan.layer.operator == OperatorKind::MatrixSqrt {
            1.0
        } else {
            self.plan.extent.positions as f64 - f64::from(self.plan.layer.correction)
        }
    }

    fn frobenius(&self) -> i32 {
        i32::from(self.plan.layer.normalization == Normalization::Frobenius)
    }

    fn blocks(&self, of_a_sample: usize) -> u32 {
        (of_a_sample * self.samples) as u32
    }
}

/// The tiles of an upper triangle with `rows` rows of tiles.
fn triangle(rows: usize) -> usize {
    rows * (rows + 1) / 2
}

fn no_epilogue<R: Real>() -> Epilogue<R> {
    Epilogue {
        places: 0,
        place_stride: 0,
        samples: 0,
        side: 0,
        ld: 0,
        place: 0,
        keep: 0,
        left: no_factor(),
        right: no_factor(),
    }
}

/// A product that is not there.
pub(super) fn no_product<R: Real>() -> Product<R> {
    let factors = Factors {
        left: 0,
        right: 0,
        left_stride: 0,
        right_stride: 0,
        left_ld: 0,
        right_ld: 0,
        rows: 0,
        columns: 0,
        depth: 0,
        samples: 0,
    };
    Product { factors, scale: 0, plain: 0, plain_stride: 0, plain_ld: 0, epilogue: no_epilogue() }
}

fn no_factor<R: Real>() -> Combination<R> {
    Combination {
        out: 0,
        identity: R::default(),
        terms: 0,
        factors: [R::default(); TERMS],
        places: [0; TERMS],
    }
}

fn combination<R: Real>(sum: &program::Combination, out: Address) -> Combination<R> {
    let mut combination = no_factor();
    combination.out = out;
    combination.identity = R::from_f64(sum.identity);
    combination.terms = sum.terms.len() as i32;
    for (index, &(place, factor)) in sum.terms.iter().enumerate() {
        combination.factors[index] = R::from_f64(factor);
        combination.places[index] = place as i32;
    }
    combination
}

/// The name of a kernel for an element type.
fn name(kernel: Stage, element: ElementType) -> &'static str {
    use ElementType::{BFloat16, Double, Float, Float16};
    macro_rules! names {
        ($($stage:ident $name:literal),*) => {
            match (kernel, element) {$(
                (Stage::$stage, Float) => concat!($name, "_f32"),
                (Stage::$stage, Double) => concat!($name, "_f64"),
                (Stage::$stage, Float16) => concat!($name, "_f16"),
                (Stage::$stage, BFloat16) => concat!($name, "_bf16"),
            )*}
        };
    }
    names!(Moments "moments", Center "center", Measure "measure", Load "load", Product "product", Write "write")
}
