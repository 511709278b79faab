//! AlexNet with the layer.
//!
//! Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014, without the last pooling.

use super::head::{AS_PUBLISHED, classified, reduced};
use crate::layout::plain;
use crate::network::Window;
use crate::recognize::Architecture;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "AlexNet with iSQRT-COV",
    layouts: &[plain("training code")],
    describe: |network| {
        network.is_called("AlexNet");
        network.assumes("3×3 max pooling of stride 2 stands behind the first two convolutions, and the first has stride 4");
        let mut x = network.images("features.0");
        for (place, window, is_pooled) in [
            (0, Window::square(11).stride(4).padding(2), true),
            (3, Window::square(5), true),
            (6, Window::square(3), false),
            (8, Window::square(3), false),
            (10, Window::square(3), false),
        ] {
            x = network.convolution(&x, &format!("features.{place}"), window);
            x = network.relu(&x);
            if is_pooled {
                x = network.max_pool(&x, Window::square(3).stride(2).padding(0));
            }
        }
        let x = reduced(network, x, "representation.conv_dr_block.0", "representation.conv_dr_block.1");
        let pooled = network.isqrt_cov(&x, "5", AS_PUBLISHED);
        classified(network, &pooled, "classifier");
    },
};
