//! ResNets with the layer: the authors' MPN-COV networks, in the names of four projects.
//!
//! He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, with the last stage at stride 1, a 1×1
//! reduction, and the covariance's root in place of the average (Li, Xie, Wang, Gao, CVPR 2018, section 4.1).

use super::head::{AS_PUBLISHED, classified, reduced};
use crate::layout::{Layout, plain, renamed};
use crate::network::{Features, Network, Window};
use crate::recognize::Architecture;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "ResNet with iSQRT-COV",
    layouts: &[
        plain(RELEASED),
        // Both fit where there is no reduction, and that comes of fine-tuning.
        Layout { name: FINE_TUNED, rename: |name| renamed(name, &[TRUNK, &TUNED].concat()) },
        Layout { name: TRAINING, rename: |name| renamed(name, &[TRUNK, &TRAINED].concat()) },
        Layout { name: IMGCLSMOB, rename: imgclsmob },
    ],
    describe: |network| {
        let x = trunk(network, None);
        let title = network_name(network, "");
        network.is_called(title);
        head(network, x, "5", AS_PUBLISHED);
    },
};

pub(super) const RELEASED: &str = "released models";
const TRAINING: &str = "training code, from scratch";
const FINE_TUNED: &str = "training code, fine-tuned";
const IMGCLSMOB: &str = "imgclsmob";

/// The training code puts the trunk's children into one sequence, ReLU and pooling among them.
const TRUNK: &[(&str, &str)] = &[
    ("conv1", "features.0"),
    ("bn1", "features.1"),
    ("layer1", "features.4"),
    ("layer2", "features.5"),
    ("layer3", "features.6"),
    ("layer4", "features.7"),
];
const TRAINED: [(&str, &str); 3] = [
    ("layer_reduce", "representation.conv_dr_block.0"),
    ("layer_reduce_bn", "representation.conv_dr_block.1"),
    ("fc", "classifier"),
];
/// From a released model, whose reduction comes along as part of the trunk.
const TUNED: [(&str, &str); 3] =
    [("layer_reduce", "features.8"), ("layer_reduce_bn", "features.9"), ("fc", "classifier")];

/// The names of imgclsmob: stages and units counted from one, a module for each convolution with its normalization.
fn imgclsmob(name: &str) -> String {
    let part = |module: &str| match module.strip_prefix("bn") {
        Some(number) => format!("conv{number}.bn"),
        None => format!("{module}.conv"),
    };
    let parts: Vec<&str> = name.split('.').collect();
    match parts[..] {
        ["conv1" | "bn1", leaf] => {
            format!("features.init_block.{}.{leaf}", part(parts[0]).replace("conv1", "conv"))
        }
        ["layer_reduce", leaf] => format!("features.final_block.conv.{leaf}"),
        ["layer_reduce_bn", leaf] => format!("features.final_block.bn.{leaf}"),
        ["fc", leaf] => format!("output.{leaf}"),
        [stage, block, module, ref rest @ ..] if stage.starts_with("layer") => {
            let unit = block.parse::<usize>().map_or(0, |block| block + 1);
            let inner = match (module, rest) {
                ("downsample", ["0", leaf]) => format!("identity_conv.conv.{leaf}"),
                ("downsample", ["1", leaf]) => format!("identity_conv.bn.{leaf}"),
                (module, rest) => format!("body.{}.{}", part(module), rest.join(".")),
            };
            format!("features.{}.unit{unit}.{inner}", stage.replace("layer", "stage"))
        }
        _ => name.to_owned(),
    }
}

/// What a block computes between its last normalization and the sum.
pub(super) type Attention = fn(&mut Network<'_>, &Features, &str) -> Features;

/// The trunk, to the last stage.
pub(super) fn trunk(network: &mut Network<'_>, attention: Option<Attention>) -> Features {
    let x = network.images("conv1");
    let x = network.normalized(&x, "conv1", "bn1", Window::square(7).stride(2));
    let x = network.relu(&x);
    let mut x = network.max_pool(&x, Window::square(3).stride(2));
    network.assumes(
        "a 3×3 max pooling of stride 2 and padding 1 stands behind the first convolution, which has stride 2",
    );
    for stage in 1..=4 {
        let stride = match stage {
            1 => 1,
            4 => last_stride(network),
            _ => 2,
        };
        for index in 0..blocks(network, stage).max(1) {
            let stride = if index == 0 { stride } else { 1 };
            x = block(network, &x, &format!("layer{stage}.{index}"), stride, attention);
        }
    }
    x
}

/// Reduction, layer and classifier.
pub(super) fn head(network: &mut Network<'_>, x: Features, iterations: &str, because: &str) {
    let x = reduced(network, x, "layer_reduce", "layer_reduce_bn");
    let pooled = network.isqrt_cov(&x, iterations, because);
    classified(network, &pooled, "fc");
}

/// More blocks than any stage has.
const MOST_BLOCKS: usize = 1000;

fn blocks(network: &Network<'_>, stage: usize) -> usize {
    let has = |index: &usize| network.has(&format!("layer{stage}.{index}.conv1.weight"));
    (0..MOST_BLOCKS).take_while(has).count()
}

fn is_bottleneck(network: &Network<'_>) -> bool {
    network.has("layer1.0.conv3.weight")
}

/// The stride of the last stage's first block.
fn last_stride(network: &mut Network<'_>) -> usize {
    // The training code puts the layer on plain ResNets too, whose last stage has stride 2.
    let arch = network.fact("arch").filter(|arch| arch.starts_with("resnet"));
    let (usual, because) = match arch.filter(|_| [TRAINING, FINE_TUNED].contains(&network.layout())) {
        Some(arch) => ("2", format!("the checkpoint's `arch` is {arch}, a plain ResNet")),
        None => (
            "1",
            arch.map_or_else(
                || "as in the published models".to_owned(),
                |arch| format!("as in the published models, though the checkpoint's `arch` is {arch}"),
            ),
        ),
    };
    let meaning = "stride of the last stage";
    let stride = network.choose("last-stride", meaning, &["1", "2"], usual, &because);
    if stride == "2" { 2 } else { 1 }
}

/// Strides of a bottleneck's first and second convolution.
fn strides(network: &mut Network<'_>, stride: usize) -> [usize; 2] {
    let (usual, because) = if network.layout() == IMGCLSMOB {
        ("first", "as in isqrtcovresnet50 and 101; in 50b and 101b it is the second")
    } else {
        ("second", "as in the published models")
    };
    let meaning = "convolution of a bottleneck that has the stride";
    let place = network.choose("bottleneck-stride", meaning, &["first", "second"], usual, because);
    if place == "first" { [stride, 1] } else { [1, stride] }
}

fn block(
    network: &mut Network<'_>,
    x: &Features,
    name: &str,
    stride: usize,
    attention: Option<Attention>,
) -> Features {
    let mut y = x.clone();
    let windows = if is_bottleneck(network) {
        let [first, second] = strides(network, stride);
        vec![Window::square(1).stride(first), Window::square(3).stride(second), Window::square(1)]
    } else {
        vec![Window::square(3).stride(stride), Window::square(3)]
    };
    for (index, window) in windows.into_iter().enumerate() {
        if index > 0 {
            y = network.relu(&y);
        }
        let number = index + 1;
        y = network.normalized(&y, &format!("{name}.conv{number}"), &format!("{name}.bn{number}"), window);
    }
    if let Some(attention) = attention {
        y = attention(network, &y, name);
    }
    let is_projected = stride != 1 || x.channels != y.channels;
    let shortcut = if is_projected || network.has(&format!("{name}.downsample.0.weight")) {
        let window = Window::square(1).stride(stride);
        network.normalized(x, &format!("{name}.downsample.0"), &format!("{name}.downsample.1"), window)
    } else {
        x.clone()
    };
    let sum = network.add(&y, &shortcut, name);
    network.relu(&sum)
}

/// What a ResNet of these blocks is called.
pub(super) fn network_name(network: &Network<'_>, prefix: &str) -> String {
    let depths: Vec<usize> = (1..=4).map(|stage| blocks(network, stage)).collect();
    let published = match (is_bottleneck(network), &depths[..]) {
        (false, [2, 2, 2, 2]) => "18",
        (false, [3, 4, 6, 3]) => "34",
        (true, [3, 4, 6, 3]) => "50",
        (true, [3, 4, 23, 3]) => "101",
        (true, [3, 8, 36, 3]) => "152",
        (true, _) => {
            return format!("{prefix}ResNet of bottlenecks {depths:?}, depths that no published one has");
        }
        (false, _) => {
            return format!("{prefix}ResNet of basic blocks {depths:?}, depths that no published one has");
        }
    };
    format!("{prefix}ResNet-{published}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_projects() {
        let of = |layout: &str, name: &str| {
            let layout = ARCHITECTURE.layouts.iter().find(|known| known.name == layout).unwrap();
            (layout.rename)(name)
        };
        assert_eq!(of(RELEASED, "layer_reduce.weight"), "layer_reduce.weight");
        assert_eq!(of(TRAINING, "layer4.2.bn3.bias"), "features.7.2.bn3.bias");
        assert_eq!(of(TRAINING, "layer_reduce_bn.bias"), "representation.conv_dr_block.1.bias");
        assert_eq!(of(FINE_TUNED, "layer_reduce.weight"), "features.8.weight");
        assert_eq!(of(FINE_TUNED, "fc.bias"), "classifier.bias");
        let of = |name: &str| of(IMGCLSMOB, name);
        assert_eq!(of("conv1.weight"), "features.init_block.conv.conv.weight");
        assert_eq!(of("bn1.running_var"), "features.init_block.conv.bn.running_var");
        assert_eq!(of("layer2.0.conv3.weight"), "features.stage2.unit1.body.conv3.conv.weight");
        assert_eq!(of("layer2.1.bn2.bias"), "features.stage2.unit2.body.conv2.bn.bias");
        assert_eq!(of("layer2.0.downsample.1.bias"), "features.stage2.unit1.identity_conv.bn.bias");
        assert_eq!(of("layer_reduce_bn.weight"), "features.final_block.bn.weight");
        assert_eq!(of("fc.weight"), "output.weight");
    }
}
