//! Coefficients of programs that agree with the Newton–Schulz polynomial on [0, 1] to float32 rounding.
//!
//! Made by `op/programs/fit.py`: change them there. The greatest relative errors that stand with the programs are proven
//! for the coefficients as they are here, float32 numbers.
//!
//! ```text
//! B₀ = I,  B₁ = A,  B₂ = A²,  B_{j+1} = (Σ left_i B_i)(Σ right_i B_i) for j ≥ 2,  q = Σ result_i B_i
//! ```
//!
//! An iterate is its last product. No left factor of its program has a term in I, nor has a squared one, so that every
//! B_j from B₁ on is A times a polynomial, and small where A is: its eigenvalues near zero keep their relative accuracy.
#![allow(clippy::excessive_precision, clippy::unreadable_literal)]

use super::Target;

/// A fitted program.
pub(super) struct Fitted {
    /// K.
    pub iterations: u32,
    /// The factors of B₃, B₄, …: the left one's coefficients and the right one's; none where the left one is squared.
    pub products: &'static [(&'static [f32], Option<&'static [f32]>)],
    /// The coefficients of q; none where the program is for A q(A).
    pub result: Option<&'static [f32]>,
}

impl Fitted {
    /// What the program computes.
    pub(super) fn target(&self) -> Target {
        if self.result.is_some() { Target::Factor } else { Target::Iterate }
    }
}

/// The programs, one for each K and target that has one.
pub(super) static PROGRAMS: [Fitted; 5] = [
    // 4 products, 7 combinations of 23 terms, error 3.8e-08.
    Fitted {
        iterations: 3,
        products: &[
            (&[-0.26661962, 1.1054277, -0.7046593], Some(&[-0.26645598, 1.1057022, -0.70524853])),
            (
                &[1.2312931, -2.1232371, 1.0974169, 0.13194467],
                Some(&[1.2314725, -2.1226902, 1.0970938, 0.13852668]),
            ),
            (
                &[1.0778738, -1.5668057, 0.7386627, -0.04551964, 0.46745104],
                Some(&[0.3847855, 0.9825268, -0.767658, 0.008025153, 0.60734874]),
            ),
        ],
        result: Some(&[1.0433043, -0.049861547, -0.14566752, 0.028656483, 0.2105437, 0.8461423]),
    },
    // 5 products, 9 combinations of 34 terms, error 1.8e-09.
    Fitted {
        iterations: 4,
        products: &[
            (&[1.2082331, -2.215691, 1.3358018], Some(&[1.2083572, -2.2153802, 1.3357639])),
            (
                &[-0.99807185, 1.2259238, -0.7760506, -0.4342704],
                Some(&[1.0089363, -1.0283082, 0.47924247, 0.4145003]),
            ),
            (
                &[-0.11650118, 0.20110877, -0.10440997, -0.28622136, 0.45098704],
                Some(&[-0.11672682, 0.20139313, -0.1040839, -0.28624222, 0.45098758]),
            ),
            (
                &[-0.029389273, -2.0741208, 1.6767282, 0.0902066, 0.13735096, -0.37577474],
                Some(&[0.667383, -1.0873882, 0.61850446, 0.10611076, -0.30567184, 0.38717118]),
            ),
        ],
        result: Some(&[
            1.0369407,
            -0.06756062,
            -0.21959627,
            0.20297706,
            -0.42912456,
            0.020804418,
            -0.6647929,
        ]),
    },
    // 5 products, 6 combinations of 25 terms, error 8.5e-08.
    Fitted {
        iterations: 5,
        products: &[
            (&[1.7063944, -6.704896, 5.08244], None),
            (&[0.006426653, 1.5922652, -1.603265, 0.5541044], None),
            (&[-0.3745191, -0.41334516, 1.1528385, 0.037190344, 0.6624742], None),
            (
                &[0.9021889, -3.5814097, 1.9799507, 0.030326735, 0.35510057, 0.080175914],
                Some(&[-1.067281, 6.3480015, -5.5254073, -0.36691165, -0.050574135, -0.33915913]),
            ),
        ],
        result: Some(&[3.1476076, -5.6014237, 3.5584984, -0.12427404, 0.32482535, 0.11210059, -0.58980453]),
    },
    // 5 products, 7 combinations of 26 terms, error 1.9e-07.
    Fitted {
        iterations: 5,
        products: &[
            (&[0.0, -1.603315, 1.3066955], None),
            (&[0.0, 0.6041924, -0.5643336, -3.0978575], Some(&[3.1793673, -8.99468, 7.768585, 3.9422035])),
            (
                &[0.0, -3.8715177, 3.6864452, -2.2776713, -1.8846483],
                Some(&[0.49074888, -3.3521569, 2.0028768, -2.1393986, -1.0260521]),
            ),
            (
                &[0.0, 1.9671994, -1.2680503, -0.7590329, 0.16670649, -0.24976882],
                Some(&[2.3688002, -5.5143104, 4.8847027, 1.5045764, -0.9782721, 2.5274694]),
            ),
        ],
        result: None,
    },
    // 7 products, 13 combinations of 62 terms, error 1.1e-07.
    Fitted {
        iterations: 7,
        products: &[
            (&[-1.6527667, 5.3265934, -4.0741763], Some(&[-1.803161, 6.8158665, -5.691026])),
            (
                &[0.8124008, -6.3834004, 6.1656685, 0.62883675],
                Some(&[-1.1088289, 7.644051, -7.453156, -0.58792925]),
            ),
            (
                &[0.3111199, -1.1196982, 0.6163388, 0.03954253, 0.518834],
                Some(&[0.431669, -2.4272132, 2.1945581, -0.016330585, 0.54099107]),
            ),
            (
                &[-0.10415299, 1.008056, -1.1906861, 0.112555765, 0.2352781, 0.33174974],
                Some(&[-0.11504831, 1.3009543, -1.4107825, -0.01914746, 0.16258888, 0.40513703]),
            ),
            (
                &[-0.61951727, 1.7300633, -1.1221397, 0.020573238, 0.20262735, 0.10468256, 0.16567962],
                Some(&[0.33969635, 0.15877108, -0.6338859, 0.055280827, 0.06941836, 0.21853381, -0.25761634]),
            ),
            (
                &[
                    -0.7142253,
                    2.4213243,
                    -1.5307262,
                    0.04645495,
                    0.16562393,
                    0.055123303,
                    -0.2407019,
                    0.08123177,
                ],
                Some(&[
                    0.2787877,
                    0.06633762,
                    -0.47725752,
                    0.32094246,
                    -0.25439838,
                    0.17069088,
                    0.017431483,
                    -0.27341014,
                ]),
            ),
        ],
        result: Some(&[
            2.0678558,
            -1.2155797,
            0.062578134,
            0.56243855,
            0.073226854,
            -0.08664627,
            0.16652252,
            -0.4284579,
            -0.5877856,
        ]),
    },
];
