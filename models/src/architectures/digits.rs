//! Classifiers of small gray digits: three convolutions, the reduction, the layer.

use super::head::{classified, reduced};
use crate::layout::{Layout, plain, renamed};
use crate::network::Window;
use crate::recognize::Architecture;

/// Each convolution reads what the one before it gives.
pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "digit classifier",
    layouts: &[
        plain("released models"),
        Layout {
            name: "training code, from scratch",
            rename: |name| {
                renamed(
                    name,
                    &[
                        TRUNK,
                        &[
                            ("layer_reduce", "representation.conv_dr_block.0"),
                            ("layer_reduce_bn", "representation.conv_dr_block.1"),
                            ("fc", "classifier"),
                        ],
                    ]
                    .concat(),
                )
            },
        },
        Layout {
            name: "training code, fine-tuned",
            rename: |name| {
                renamed(
                    name,
                    &[
                        TRUNK,
                        &[
                            ("layer_reduce", "features.6"),
                            ("layer_reduce_bn", "features.7"),
                            ("fc", "classifier"),
                        ],
                    ]
                    .concat(),
                )
            },
        },
    ],
    describe: |network| {
        network.is_called("digit classifier");
        network.assumes("convolutions have stride 1 and keep the size, and nothing is pooled");
        let mut x = network.images("conv1");
        for (convolution, norm) in
            [("conv1", "bn1"), ("layer1.0", "layer1.1"), ("layer2.0", "layer2.1"), ("layer3.0", "layer3.1")]
        {
            x = network.normalized(&x, convolution, norm, Window::square(3));
            x = network.relu(&x);
        }
        let x = reduced(network, x, "layer_reduce", "layer_reduce_bn");
        let pooled = network.isqrt_cov(&x, "5", AS_TRAINED);
        classified(network, &pooled, "fc");
    },
};

const TRUNK: &[(&str, &str)] = &[
    ("conv1", "features.0"),
    ("bn1", "features.1"),
    ("layer1", "features.3"),
    ("layer2", "features.4"),
    ("layer3", "features.5"),
];

/// The one in `models/digits`, whose third convolution is added to what it reads.
pub(super) const RESIDUAL: Architecture = Architecture {
    name: "digit classifier with a residual",
    layouts: &[plain("models/digits")],
    describe: |network| {
        network.is_called("digit classifier with a residual");
        let x = network.images("conv1");
        let x = network.normalized(&x, "conv1", "bn1", Window::square(3));
        let x = network.relu(&x);
        let x = network.normalized(&x, "conv2", "bn2", Window::square(3));
        let x = network.relu(&x);
        let y = network.normalized(&x, "conv3", "bn3", Window::square(3));
        let y = network.relu(&y);
        let x = network.add(&x, &y, "residual");
        let x = reduced(network, x, "reduce", "reduce_bn");
        let pooled = network.isqrt_cov(&x, "5", AS_TRAINED);
        classified(network, &pooled, "classifier");
    },
};

const AS_TRAINED: &str = "as the project's own are trained";
