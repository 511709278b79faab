//! VGG with the layer, with or without batch normalization.
//!
//! Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015, without the last
//! pooling. Where pooling stands, the places of the convolutions in their sequence tell.

use super::head::{AS_PUBLISHED, PLACES, classified, reduced};
use crate::layout::plain;
use crate::network::Window;
use crate::recognize::Architecture;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "VGG with iSQRT-COV",
    layouts: &[plain("training code")],
    describe: |network| {
        let places: Vec<usize> = (0..PLACES)
            .filter(|place| {
                network.dims(&format!("features.{place}.weight")).is_some_and(|dims| dims.len() == 4)
            })
            .collect();
        if places.first() != Some(&0) {
            network.cannot_tell(
                "`features.0` is no convolution, and the names do not tell what is computed before the first one",
            );
        }
        network.assumes("2×2 max pooling stands where a convolution's place leaves room for it, and a ReLU behind each convolution");
        let mut x = network.images("features.0");
        let mut is_normalized = false;
        for (index, &place) in places.iter().enumerate() {
            let (name, norm) = (format!("features.{place}"), format!("features.{}", place + 1));
            is_normalized = network.has(&format!("{norm}.running_mean"));
            x = if is_normalized {
                network.normalized(&x, &name, &norm, Window::square(3))
            } else {
                network.convolution(&x, &name, Window::square(3))
            };
            x = network.relu(&x);
            // Convolution, normalization, ReLU; then the next convolution, or a pooling before it.
            let next = place + if is_normalized { 3 } else { 2 };
            match places.get(index + 1) {
                Some(&found) if found == next + 1 => {
                    x = network.max_pool(&x, Window::square(2).stride(2).padding(0));
                }
                Some(&found) if found != next => {
                    network.cannot_tell(format!(
                        "the names do not tell what is computed between `features.{place}` and `features.{found}`"
                    ));
                }
                _ => {}
            }
        }
        // Three layers of the whole are the classifier's, also where it has been replaced by one.
        let depth = places.len() + 3;
        let normalized = if is_normalized { " with batch normalization" } else { "" };
        let unusual =
            if [11, 13, 16, 19].contains(&depth) { "" } else { ", a depth that no published one has" };
        network.is_called(format!("VGG-{depth}{normalized}{unusual}"));
        let x = reduced(network, x, "representation.conv_dr_block.0", "representation.conv_dr_block.1");
        let pooled = network.isqrt_cov(&x, "5", AS_PUBLISHED);
        classified(network, &pooled, "classifier");
    },
};
