//! GSoP-Net2: a ResNet of bottlenecks with covariance blocks in it, and the layer behind it.
//!
//! Gao, Xie, Wang, Li, "Global Second-order Pooling Convolutional Networks", CVPR 2019, figure 2: channels are reduced,
//! their covariance's rows are convolved each for itself, and what comes of them scales the channels.

use super::resnet::{RELEASED, head, network_name, trunk};
use crate::layout::plain;
use crate::network::{Features, Network, Window};
use crate::recognize::Architecture;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "GSoP-Net2",
    layouts: &[plain(RELEASED)],
    describe: |network| {
        let x = trunk(network, Some(attention));
        if !network.reads(REDUCTION) {
            network.cannot_tell(format!("no block has a covariance block (`{REDUCTION}`)"));
        }
        let title = network_name(network, "GSoP-Net2 on ");
        network.is_called(title);
        head(network, x, "3", "as the authors of GSoP-Net have it");
    },
};

/// The greatest width of a block whose maps are reduced with stride 2; at the published widths, that of the first stage.
const NARROW: i64 = 64;

/// The reduction in a covariance block; a block of the trunk that has it has all of the others' weights too.
const REDUCTION: &str = "conv_for_DR";

fn attention(network: &mut Network<'_>, x: &Features, block: &str) -> Features {
    let name = |part: &str| format!("{block}.{part}");
    if !network.has(&name("conv_for_DR.weight")) {
        return x.clone();
    }
    let y = network.relu(x);
    let width = network.dims(&name("conv1.weight")).map_or(0, |dims| dims[0]);
    let meaning = "covariance blocks whose reduction has stride 2";
    let values = &["narrow", "first-stage"];
    let which = network.choose(
        "attention-stride",
        meaning,
        values,
        values[0],
        "64 channels and fewer, as in the authors' code",
    );
    let is_large = if which == values[0] { width <= NARROW } else { block.starts_with("layer1.") };
    let window = Window::square(1).stride(if is_large { 2 } else { 1 });
    let y = network.normalized(&y, &name(REDUCTION), &name("bn_for_DR"), window);
    let y = network.relu(&y);
    let channels = y.channels.unwrap_or(1);
    let y = network.covariance(&y, &name("covariance"));
    let y = network.batch_norm(&y, &name("row_bn"));
    let y = network.convolution(&y, &name("row_conv_group"), Window::column_of_each(channels, channels));
    let y = network.convolution(&y, &name("fc_adapt_channels"), Window::square(1));
    let y = network.sigmoid(&y);
    network.multiply(x, &y, &name("attended"))
}
