//! Which set of vector instructions runs, chosen when the program does.

use super::portable::Portable;
#[cfg(target_arch = "x86_64")]
use super::x86::{Avx2, Avx512};
use super::{Real, Simd};

/// A version of the kernels. A value proves that the CPU has the instructions.
#[derive(Debug, Clone, Copy)]
pub struct Version(Set);

/// A set of instructions.
#[derive(Debug, Clone, Copy)]
enum Set {
    /// What the compiler makes of plain Rust.
    Portable(Portable),
    /// Eight float32 at a time.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// Sixteen float32 at a time.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

impl Version {
    /// Every version that the CPU runs, the fastest first.
    pub fn available() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let vectorized = [Avx512::detect().map(Set::Avx512), Avx2::detect().map(Set::Avx2)];
        #[cfg(not(target_arch = "x86_64"))]
        let vectorized: [Option<Set>; 0] = [];
        vectorized.into_iter().flatten().chain([Set::Portable(Portable)]).map(Self)
    }

    /// The name of its instructions.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            Set::Portable(_) => "portable",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2(_) => "AVX2",
            #[cfg(target_arch = "x86_64")]
            Set::Avx512(_) => "AVX-512",
        }
    }

    /// The fastest version that the CPU runs.
    #[must_use]
    pub fn best() -> Self {
        Self::available().next().unwrap_or(Self(Set::Portable(Portable)))
    }
}

/// Work written once for every version.
pub trait Task<R: Real> {
    /// What it gives.
    type Output;

    /// Does it with vectors of W numbers and tiles of MR rows.
    fn run<S: Simd<R, W>, const W: usize, const MR: usize>(self, simd: S) -> Self::Output;
}

/// A type whose vectors and tiles are known for every version.
pub trait Dispatch: Sized {
    /// Does the work with the vectors and tiles of a version.
    fn dispatch<T: Task<Self>>(version: Version, task: T) -> T::Output
    where
        Self: Real;
}

/// A tile of [`Simd::PANELS`] vectors by MR rows leaves registers for the operands: 24 of 32 with AVX-512, 8 of 16 with AVX2. The
/// portable version's "vector" is what two of the narrowest registers hold.
macro_rules! dispatch {
    ($type:ty, $portable:literal, $avx2:literal, $avx512:literal) => {
        impl Dispatch for $type {
            fn dispatch<T: Task<Self>>(version: Version, task: T) -> T::Output {
                match version.0 {
                    Set::Portable(simd) => task.run::<_, $portable, 4>(simd),
                    #[cfg(target_arch = "x86_64")]
                    Set::Avx2(simd) => task.run::<_, $avx2, 4>(simd),
                    #[cfg(target_arch = "x86_64")]
                    Set::Avx512(simd) => task.run::<_, $avx512, 8>(simd),
                }
            }
        }
    };
}
dispatch!(f32, 8, 8, 16);
dispatch!(f64, 4, 4, 8);
