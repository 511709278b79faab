//! What the kernels are passed: the structures of `kernels/arguments.cuh`, which says what their fields mean.
//!
//! Addresses are the device's; zero says that there is nothing.

use std::ffi::c_void;

use crate::layer::Layout;
use crate::vectorization::Vectorization;

/// The most matrices that a combination can have.
pub(super) const TERMS: usize = 12;

/// The most products of a chain: a kernel's arguments may take 4 KiB.
pub(super) const CHAIN: usize = 9;

/// The bytes of shared memory that a block of a cluster keeps its Turn in.
pub(super) const TURN: u32 = 32;

/// Bytes of a `Scale`.
pub(super) const SCALE: usize = 48;

/// An address on the device.
pub(super) type Address = u64;

/// What a kernel computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum Form {
    /// The root of the covariance, or of a matrix that is given.
    Direct = 0,
    /// The same by way of the Gram matrix.
    Gram = 1,
    /// The covariance.
    Covariance = 2,
}

/// A structure that a kernel takes by value, as its only parameter.
pub(super) trait Arguments {
    /// Where the driver finds it.
    fn address(&self) -> *const c_void;
}

macro_rules! arguments {
    ($(#[$doc:meta])* $name:ident$(<$real:ident>)? { $($field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        #[repr(C)]
        pub(super) struct $name$(<$real>)? {
            $(pub $field: $type,)*
        }

        #[cfg(test)]
        impl$(<$real>)? $name$(<$real>)? {
            /// Each field's name and where it begins.
            fn fields() -> Vec<(&'static str, usize)> {
                vec![$((stringify!($field), std::mem::offset_of!(Self, $field))),*]
            }
        }
    };
}

arguments!(
    /// Of `moments_T`.
    Moments {
        x: Address, means: Address, squares: Address,
        samples: i32, channels: i32, positions: i32, channels_last: i32, centered: i32,
    }
);
arguments!(
    /// Of `center_T`.
    Center {
        x: Address, means: Address, squares: Address, straight: Address, transposed: Address, scale: Address,
        divisor: f64, epsilon: f64,
        samples: i32, channels: i32, positions: i32, channels_last: i32, straight_ld: i32, transposed_ld: i32,
        form: Form, compensated: i32, frobenius: i32, raised: i32,
    }
);
arguments!(
    /// Of `measure_T`.
    Measure {
        matrix: Address, scale: Address, stride: i64, divisor: f64, epsilon: f64,
        samples: i32, side: i32, ld: i32, form: Form, compensated: i32, frobenius: i32, given: i32,
    }
);
arguments!(
    /// What becomes of a new symmetric matrix.
    Epilogue<R> {
        places: Address, place_stride: i64, out: [Address; 2],
        samples: i32, side: i32, ld: i32, place: i32, keep: i32, terms: i32,
        identity: [R; 2], own: [R; 2], factors: [[R; TERMS]; 2], places_read: [i32; TERMS],
    }
);
arguments!(
    /// Of `load_T`.
    Load<R> { matrix: Address, scale: Address, stride: i64, side: i32, ld: i32, given: i32, epilogue: Epilogue<R> }
);
arguments!(
    /// The factors of a product.
    Factors<R> {
        left: Address, right: Address, left_stride: i64, right_stride: i64, left_ld: i32, right_ld: i32,
        rows: i32, columns: i32, depth: i32, tiles: i32, stages: i32, scale: R,
    }
);
arguments!(
    /// Of `product_R`.
    Product<R> {
        factors: Factors<R>, scale: Address, plain: Address, plain_stride: i64, plain_ld: i32, plain_scale: R,
        epilogue: Epilogue<R>,
    }
);
arguments!(
    /// Of `chain_R`.
    Chain<R> { products: [Product<R>; CHAIN], count: i32, resident: i32 }
);
arguments!(
    /// Of `write_T`.
    Write<R> {
        factors: Factors<R>, scale: Address, out: Address, epsilon: f64, off_diagonal: R, vectorization: i32, covariance: i32,
    }
);
arguments!(
    /// Of `cluster_halves_T`.
    Cluster<R> { products: [Product<R>; CHAIN], write: Write<R>, count: i32, blocks: i32, single: i32, behind: i32 }
);
arguments!(
    /// Of `read_halves_T`.
    Read { center: Center, centered: i32, blocks: i32 }
);
macro_rules! passed {
    ($($name:ident$(<$real:ident>)?),*) => {$(
        impl$(<$real>)? Arguments for $name$(<$real>)? {
            fn address(&self) -> *const c_void {
                (&raw const *self).cast()
            }
        }
    )*};
}
passed!(Moments, Center, Read, Measure, Load<R>, Product<R>, Chain<R>, Write<R>, Cluster<R>);

/// `enum Vectorization`.
pub(super) fn vectorization(vectorization: Vectorization) -> i32 {
    match vectorization {
        Vectorization::Upper => 0,
        Vectorization::UpperColumnMajor => 1,
        Vectorization::None => 2,
    }
}

/// `channels_last`.
pub(super) fn channels_last(layout: Layout) -> i32 {
    i32::from(layout == Layout::ChannelsLast)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::Write as _;
    use std::path::Path;
    use std::process::{Command, Stdio};

    use super::super::arithmetic::Arithmetic;
    use super::super::{read, slab};
    use super::*;

    /// Has the C++ compiler compare sizes, and places of fields, as the kernels' tests have them compiled.
    #[test]
    fn layouts_are_those_of_the_kernels() {
        let mut lines = vec!["#include \"measure.cuh\"\n".to_owned()];
        let mut equal = |found: &str, expected: usize| {
            lines.push(format!("static_assert({found} == {expected}, \"{found}\");\n"));
        };
        macro_rules! compare {
            ($($name:ty => $($like:literal),*;)*) => {$($({
                equal(concat!("sizeof(", $like, ")"), size_of::<$name>());
                equal(concat!("alignof(", $like, ")"), align_of::<$name>());
                for (field, offset) in <$name>::fields() {
                    equal(&format!(concat!("__builtin_offsetof(", $like, ", {})"), field), offset);
                }
            })*)*};
        }
        compare! {
            Moments => "Moments<f16>", "Moments<double>";
            Center => "Center<f16, float>", "Center<double, double>";
            Read => "Read<f16, float>";
            Measure => "Measure<f16>", "Measure<double>";
            Epilogue<f32> => "Epilogue<float>";
            Epilogue<f64> => "Epilogue<double>";
            Load<f32> => "Load<bf16, float>";
            Load<f64> => "Load<double, double>";
            Factors<f32> => "Factors<float>";
            Factors<f64> => "Factors<double>";
            Product<f32> => "Product<float>";
            Product<f64> => "Product<double>";
            Chain<f32> => "Chain<float>";
            Chain<f64> => "Chain<double>";
            Write<f32> => "Write<f16, float>";
            Write<f64> => "Write<double, double>";
            Cluster<f32> => "Cluster<f16, float>";
        }
        for (found, expected) in [
            ("sizeof(Scale)", SCALE),
            ("TERMS", TERMS),
            ("CHAIN", CHAIN),
            ("TURN", TURN as usize),
            ("DIRECT", Form::Direct as usize),
            ("GRAM", Form::Gram as usize),
            ("COVARIANCE", Form::Covariance as usize),
            ("READ_THREADS", read::READ_THREADS as usize),
            ("CENTER_CHANNELS", read::CENTER_CHANNELS),
            ("CENTER_POSITIONS", read::CENTER_POSITIONS),
            ("LOAD_THREADS", slab::LOAD_THREADS as usize),
            ("PRODUCT_THREADS", slab::PRODUCT_THREADS as usize),
            ("TILE", slab::TILE),
            ("WARP_ROOM * sizeof(float)", slab::warp_room(4) as usize),
            ("Halves::WHOLE", slab::TILE * slab::TILE * 4),
        ] {
            equal(found, expected);
        }
        for (arithmetic, name) in [(Arithmetic::Plain, "Plain<float>"), (Arithmetic::Halves, "Halves")] {
            for (alone, stages) in [(false, "STAGES"), (true, "MORE_STAGES")] {
                let (count, bytes) = arithmetic.stages::<f32>(alone);
                equal(&format!("{name}::{stages}"), count as usize);
                equal(&format!("{name}::CHUNKS * 2 * {name}::SIZE"), bytes as usize);
            }
        }
        for known in [Vectorization::Upper, Vectorization::UpperColumnMajor, Vectorization::None] {
            let name = match known {
                Vectorization::Upper => "UPPER",
                Vectorization::UpperColumnMajor => "UPPER_COLUMN_MAJOR",
                Vectorization::None => "WHOLE",
            };
            equal(name, vectorization(known) as usize);
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "g++".to_owned());
        let mut child = Command::new(&compiler)
            .args(["-x", "c++", "-std=c++17", "-fsyntax-only", "-DISQRT_SHIM", "-DISQRT_TIER=80", "-"])
            .arg("-I")
            .arg(root.join("src/cuda/kernels"))
            .arg("-I")
            .arg(root.join("tests/cuda"))
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the kernels' tests take a C++ compiler: install g++, or set CXX");
        child
            .stdin
            .take()
            .expect("a pipe")
            .write_all(lines.concat().as_bytes())
            .expect("the compiler reads all of it");
        let output = child.wait_with_output().expect("the compiler ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
