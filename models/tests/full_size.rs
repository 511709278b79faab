//! The published networks at full size, by the names and shapes of their tensors alone: which they are, and that they have
//! as many parameters as their authors say.

use std::collections::BTreeMap;

use isqrt_cov_models::{Recognition, Settings, Weights, recognize, recognize_within};
use isqrt_cov_proto::onnx::TensorProto;
use isqrt_cov_proto::onnx::tensor_proto::DataType;
use serde_json::Value;

/// Network, what it is found to be, in whose names, and the published number of parameters.
const PUBLISHED: [(&str, &str, &str, u64); 12] = [
    ("resnet18", "ResNet-18", "released models", 44_205_096),
    ("resnet34", "ResNet-34", "released models", 54_313_256),
    ("resnet50", "ResNet-50", "released models", 56_929_832),
    ("resnet101", "ResNet-101", "released models", 75_921_960),
    ("resnet152", "ResNet-152", "released models", 91_565_608),
    ("resnet50_training", "ResNet-50", "training code, from scratch", 56_929_832),
    ("resnet50_finetuned", "ResNet-50", "training code, fine-tuned", 30_612_232),
    ("resnet50_imgclsmob", "ResNet-50", "imgclsmob", 56_929_832),
    ("resnet50b_imgclsmob", "ResNet-50", "imgclsmob", 56_929_832),
    ("vgg16_bn", "VGG-16 with batch normalization", "training code", 170_479_144),
    ("gsop50", "GSoP-Net2 on ResNet-50", "released models", 58_278_568),
    ("gsop50_every_block", "GSoP-Net2 on ResNet-50", "released models", 63_540_136),
];

fn networks() -> BTreeMap<String, Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/corpus/checkpoints/shapes.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn tensor(name: &str, dims: &Value) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        dims: dims.as_array().unwrap().iter().map(|dim| dim.as_i64().unwrap()).collect(),
        data_type: Some(DataType::Float.into()),
        ..TensorProto::default()
    }
}

fn weights(network: &Value, change: impl Fn(&str, TensorProto) -> Option<TensorProto>) -> Weights {
    let tensors = network["tensors"].as_object().unwrap();
    let tensors = tensors.iter().filter_map(|(name, dims)| change(name, tensor(name, dims)));
    Weights::new(tensors, vec![]).unwrap()
}

#[test]
fn published_networks_are_known_with_all_of_their_parameters() {
    let networks = networks();
    assert_eq!(networks.len(), PUBLISHED.len());
    for (name, title, layout, parameters) in PUBLISHED {
        let weights = weights(&networks[name], |_, tensor| Some(tensor));
        let found = recognize(&weights, &Settings::default()).unwrap();
        assert!(found.fits(), "{name}: {:?}", found.built.problems);
        assert_eq!((found.built.title.as_str(), found.layout.name), (title, layout), "{name}");
        assert_eq!(found.built.parameters(&weights), parameters, "{name}");
        assert_eq!(networks[name]["parameters"], parameters, "{name}");
    }
}

/// What is said of a ResNet-50 with a change.
fn problems(change: impl Fn(&str, TensorProto) -> Option<TensorProto>) -> Vec<String> {
    let weights = weights(&networks()["resnet50"], change);
    let found = recognize(&weights, &Settings::default()).unwrap();
    found.built.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn everything_that_does_not_fit_is_named() {
    let without = problems(|name, tensor| {
        (name != "layer2.3.bn1.running_var" && name != "fc.weight").then_some(tensor)
    });
    assert_eq!(without, ["`layer2.3.bn1.running_var` is missing", "`fc.weight` is missing"]);
    let renamed = problems(|name, mut tensor| {
        if name == "layer_reduce_bn.bias" {
            tensor.name = Some("layer_reduce_bn.offset".to_owned());
        }
        Some(tensor)
    });
    let surplus = "`layer_reduce_bn.offset` [256] belongs to nothing";
    assert_eq!(renamed, ["`layer_reduce_bn.bias` is missing", surplus]);
    let reshaped = problems(|name, mut tensor| {
        match name {
            "layer1.0.conv2.weight" => tensor.dims = vec![64, 64, 5, 5],
            "fc.weight" => tensor.dims = vec![1000, 2048],
            _ => {}
        }
        Some(tensor)
    });
    assert_eq!(
        reshaped,
        [
            "`layer1.0.conv2.weight` has shape [64, 64, 5, 5]; expected [any, 64, 3, 3]",
            "`fc.weight` has shape [1000, 2048]; expected [any, 32896]",
        ]
    );
    let typed = problems(|name, mut tensor| {
        match name {
            "bn1.weight" => tensor.data_type = Some(DataType::Int32.into()),
            "fc.bias" => tensor.dims = vec![10],
            _ => {}
        }
        Some(tensor)
    });
    let of_type = "`bn1.weight` is int32; expected float32, float64, float16 or bfloat16";
    assert_eq!(typed, [of_type, "`fc.bias` has shape [10]; expected [1000]"]);
}

#[test]
fn a_classifier_needs_no_bias() {
    let without = |name: &str, tensor| (name != "fc.bias").then_some(tensor);
    let found = recognize(&weights(&networks()["resnet50"], without), &Settings::default()).unwrap();
    assert!(found.fits(), "{:?}", found.built.problems);
    assert!(found.built.assumptions.iter().any(|assumed| assumed.contains("without a bias")));
}

/// A small network's tensors after each of `prefixes`, and these others.
fn beside(prefixes: &[&str], others: &[&str]) -> Recognition {
    let network = &networks()["resnet18"]["tensors"];
    let tensors = prefixes.iter().flat_map(|prefix| {
        let tensors = network.as_object().unwrap().iter();
        tensors.map(move |(name, dims)| tensor(&format!("{prefix}{name}"), dims))
    });
    let others = others.iter().map(|name| tensor(name, &serde_json::json!([1])));
    let weights = Weights::new(tensors.chain(others), vec![]).unwrap();
    recognize_within(&weights, &Settings::default())
}

#[test]
fn a_network_is_found_among_other_modules() {
    for (prefixes, others, left) in [
        (&[""][..], &[][..], 0),
        (&["net.module."], &["net.n_averaged"], 0),
        (&["lightning.model."], &["criterion.weight", "scale"], 2),
        (&["model_ema.", "model."], &[], 128),
        (&["copy.ema.", "copy.model."], &[], 128),
    ] {
        let found = beside(prefixes, others);
        let candidate = found.fitting().unwrap_or_else(|| panic!("{prefixes:?}: {:?}", found.doubt));
        assert_eq!(candidate.built.title, "ResNet-18");
        assert_eq!(found.left.len(), left, "{prefixes:?}");
        assert!(!found.left.iter().any(|name| name.starts_with("model.")), "{prefixes:?}");
    }
}

#[test]
fn a_network_that_may_not_be_the_one_that_is_meant_is_in_doubt() {
    let several = beside(&["student.", "teacher."], &[]);
    assert!(several.fitting().is_none());
    assert_eq!(several.doubt.unwrap(), "several of its modules are networks: `student`, `teacher`");
    let alike = beside(&["student.net.", "teacher.net."], &[]);
    assert!(alike.doubt.unwrap().contains("`student.net`, `teacher.net`"));
    let head = beside(&["backbone."], &["fc.1.weight"]);
    assert!(head.fitting().is_none());
    assert!(head.doubt.unwrap().contains("`fc.1.weight` stands beside it"));
    // The same name beside a module that is no network is no reason for doubt: what does not fit is.
    let torn = beside(&["backbone."], &["backbone.more", "fc.1.weight"]);
    assert_eq!((torn.doubt, torn.module.as_deref()), (None, Some("backbone")));
    assert!(torn.candidate.is_some_and(|candidate| !candidate.fits()));
}

/// A network with a part too many, a copy of it whole, and one inside of another.
#[test]
fn what_is_told_of_where_several_come_near() {
    let copy = beside(&["", "ema."], &["more"]);
    assert_eq!(copy.module.as_deref(), Some("ema"));
    assert!(copy.doubt.unwrap().contains("stands beside it"));
    let both = beside(&["", "ema."], &["more", "ema.more"]);
    assert_eq!(both.module, None);
    let nested = beside(&["a.b."], &["a.more", "a.b.more"]);
    assert_eq!(nested.module.as_deref(), Some("a.b"));
}

#[test]
fn other_networks_are_not_taken_for_these() {
    let names = ["encoder.layer.0.attention.weight", "encoder.layer.1.attention.weight", "head.bias"];
    let tensors = names.map(|name| tensor(name, &serde_json::json!([4])));
    let weights = Weights::new(tensors, vec![]).unwrap();
    assert!(recognize(&weights, &Settings::default()).is_none());
    // A network that is the smaller part of what there is.
    let networks = networks();
    let network = networks["resnet18"]["tensors"].as_object().unwrap();
    let among = |others: usize| {
        let others = (0..others).map(|index| tensor(&format!("other{index}"), &serde_json::json!([1])));
        let own = network.iter().map(|(name, dims)| tensor(name, dims));
        recognize(&Weights::new(own.chain(others), vec![]).unwrap(), &Settings::default())
    };
    assert!(among(2 * network.len()).is_some() && among(4 * network.len()).is_none());
    assert!(recognize(&Weights::default(), &Settings::default()).is_none());
}

/// A network without its last convolution is another one; its name says that no published one is so deep.
#[test]
fn depths_that_are_not_published_are_named() {
    for (network, last) in [("vgg16_bn", &["features.40.", "features.41."][..]), ("resnet50", &["layer4.2."])]
    {
        let kept = |name: &str, tensor| (!last.iter().any(|last| name.starts_with(last))).then_some(tensor);
        let found = recognize(&weights(&networks()[network], kept), &Settings::default()).unwrap();
        assert!(found.fits(), "{:?}", found.built.problems);
        assert!(found.built.title.contains("that no published one has"), "{}", found.built.title);
    }
}

/// A classifier's linear layers with nothing between them, or with more than is known, are not taken for the published one.
#[test]
fn what_stands_between_linear_layers_is_not_guessed() {
    for (place, fits) in [("1", false), ("2", true), ("3", true), ("4", false)] {
        let moved = |name: &str, mut tensor: TensorProto| {
            if let Some(leaf) = name.strip_prefix("classifier.3.") {
                tensor.name = Some(format!("classifier.{place}.{leaf}"));
            } else if let Some(leaf) = name.strip_prefix("classifier.6.") {
                let last = place.parse::<usize>().unwrap() + 2;
                tensor.name = Some(format!("classifier.{last}.{leaf}"));
            }
            Some(tensor)
        };
        let weights = weights(&networks()["vgg16_bn"], moved);
        let found = recognize(&weights, &Settings::default()).unwrap();
        assert_eq!(found.fits(), fits, "{place}: {:?}", found.built.problems);
    }
}
