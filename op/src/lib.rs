//! The iSQRT-COV layer as operators of the ONNX domain `ai.isqrtcov`.
//!
//! Per sample, X is C×M (C channels, M positions):
//!
//! ```text
//! covariance          Σ = (1/(M−δ)) X (I − 11ᵀ/M) Xᵀ
//! pre-normalisation   t = tr Σ (or ‖Σ‖_F);  A = Σ / t
//! iteration, K steps  Y₀ = A, Z₀ = I;  T = ½(3I − ZY);  Y ← YT;  Z ← TZ
//! post-compensation   S = √t · Y_K
//! vectorisation       the upper triangle of S, row by row: C(C+1)/2 numbers
//! ```
//!
//! Source: Li, Xie, Wang, Gao, "Towards Faster Training of Global Covariance Pooling Networks by Iterative
//! Matrix Square Root Normalization", CVPR 2018.
//!
//! [`declaration`] declares the operators once; everything else is derived from it: [`layer`] checks attributes
//! and shapes against it, [`reference`] says in float64 what the numbers are, [`cpu`] and [`cuda`] compute them, and [`plugin`]
//! hands them to ONNX Runtime.
//!
//! Who builds this crate in a workspace of their own should give it `codegen-units = 1` in the release profile: vector instructions
//! reach only what is inlined, and compiled in many units the kernels are much slower.

pub mod cpu;
pub mod cuda;
pub mod declaration;
mod error;
mod form;
pub mod layer;
pub mod plugin;
mod program;
pub mod reference;
mod vectorization;

pub use declaration::{DOMAIN, OPERATORS, Operator, STEPS, VERSION};
pub use error::Error;
pub use layer::{Layer, Layout, Normalization, OperatorKind};
pub use vectorization::Vectorization;
