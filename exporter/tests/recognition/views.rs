//! Layers whose input has its axes in another order than the operator, several that count samples, or none.

use std::sync::Arc;

use isqrt_cov::found::{Arrangement, View};
use isqrt_cov::recognize::{Findings, recognize};
use isqrt_cov::runtime::Runtime;
use isqrt_cov::runtime::embedded::Embedded;
use isqrt_cov::tensor::{ElementType, Tensor};
use isqrt_cov_op::{Layout, OperatorKind};
use isqrt_cov_proto::onnx::tensor_proto::DataType;
use isqrt_cov_proto::onnx::tensor_shape_proto::Dimension;
use isqrt_cov_proto::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto,
};

use super::rewritten;

/// Steps of the iteration.
const STEPS: usize = 3;

/// The root of the covariance that `equation` makes of features `x`, centered along the axes of their positions, of which there are so many.
/// The matrices are of so many channels, and the last two axes.
fn root<const AXES: usize>(
    dims: [Dimension; AXES],
    positions: (&[i64], f32),
    equation: &str,
    channels: usize,
) -> ModelProto {
    let of = |operator: &str, inputs: &[&str], output: &str| NodeProto::new(operator, inputs, &[output]);
    let product = |left: &str, right: &str, output: &str| of("MatMul", &[left, right], output);
    let identity = |scale: f32| -> Vec<f32> {
        let is_on = |at: usize| at.is_multiple_of(channels + 1);
        (0..channels * channels).map(|at| if is_on(at) { scale } else { 0.0 }).collect()
    };
    let matrix =
        |name: &str, scale: f32| TensorProto::from_values(name, &[channels, channels], &identity(scale));
    let number = |name: &str, value: f32| TensorProto::from_values(name, &[], &[value]);
    let mut nodes = vec![
        of("ReduceMean", &["x"], "mean").with(AttributeProto::ints("axes", positions.0)),
        of("Sub", &["x", "mean"], "centered"),
        of("Einsum", &["centered", "centered"], "product").with(AttributeProto::string("equation", equation)),
        of("Div", &["product", "positions"], "covariance"),
        of("Mul", &["covariance", "identity"], "diagonal"),
        of("ReduceSum", &["diagonal", "matrix axes"], "trace"),
        of("Div", &["covariance", "trace"], "y0"),
        of("Identity", &["identity"], "z0"),
    ];
    for step in 0..STEPS {
        let [y, z, zy, left, half] = ["y", "z", "zy", "left", "half"].map(|name| format!("{name}{step}"));
        let [next_y, next_z] = ["y", "z"].map(|name| format!("{name}{}", step + 1));
        nodes.extend([
            product(&z, &y, &zy),
            of("Sub", &["three", &zy], &left),
            of("Mul", &[&left, "one half"], &half),
            product(&y, &half, &next_y),
            product(&half, &z, &next_z),
        ]);
    }
    nodes.extend([
        of("Sqrt", &["trace"], "scale"),
        of("Mul", &[&format!("y{STEPS}"), "scale"], "root"),
        of("Sin", &["root"], "out"),
    ]);
    // The last factor is not needed.
    nodes.retain(|node| node.output[0] != format!("z{STEPS}"));
    let graph = GraphProto {
        name: Some("views".to_owned()),
        node: nodes,
        initializer: vec![
            number("positions", positions.1),
            number("one half", 0.5),
            matrix("identity", 1.0),
            matrix("three", 3.0),
            TensorProto::from_values("matrix axes", &[2], &[-2_i64, -1]),
        ],
        input: vec![ValueInfoProto::tensor("x", DataType::Float, dims)],
        output: vec![ValueInfoProto::of_any_shape("out", DataType::Float)],
        ..GraphProto::default()
    };
    let opset = OperatorSetIdProto { version: Some(17), ..OperatorSetIdProto::default() };
    ModelProto { ir_version: Some(8), opset_import: vec![opset], graph: Some(graph), ..ModelProto::default() }
}

fn open(name: &str) -> Dimension {
    name.into()
}

fn fixed(size: usize) -> Dimension {
    size.into()
}

/// Checks that the one layer of a model is the root, viewed and arranged so, with so many groups, and that the converted model computes
/// the same on inputs of these shapes and holds nothing more.
fn check(
    model: &ModelProto,
    view: (Option<&[usize]>, usize),
    groups: Option<&[usize]>,
    arrangement: &Arrangement,
    shapes: &[&[usize]],
) -> Findings {
    let findings = recognize(model, &Embedded::new()).unwrap();
    let [found] = &findings.layers[..] else { panic!("{findings:?}") };
    assert_eq!((found.layer.operator, found.layer.iterations as usize), (OperatorKind::IsqrtCov, STEPS));
    assert_eq!((&*found.input, &*found.output), ("x", "root"));
    assert_eq!(found.view, View { order: view.0.map(<[usize]>::to_vec), samples: view.1 });
    assert_eq!(found.groups.as_deref(), groups);
    assert_eq!(found.arrangement, *arrangement);
    let converted = rewritten(model, &findings);
    for dims in shapes {
        let numbers: Vec<f64> = (0..dims.iter().product()).map(|at: usize| (at as f64 * 1.7).sin()).collect();
        let input = Tensor::from_f64(ElementType::F32, dims, &numbers);
        let [before, after] = [model, &converted].map(|model| {
            let session = Embedded::new().prepare(&Arc::new(model.clone()), &[dims.to_vec()]).unwrap();
            session.run(std::slice::from_ref(&input)).unwrap().remove(0)
        });
        assert_eq!(before.dims(), after.dims());
        let (before, after) = (before.to_f64(), after.to_f64());
        assert!(before.iter().zip(&after).all(|(before, after)| (before - after).abs() < 1e-5), "{dims:?}");
    }
    let again = recognize(&converted, &Embedded::new()).unwrap();
    assert!(again.layers.is_empty(), "{again:?}");
    findings
}

/// Heads of tokens, which lie behind the tokens.
#[test]
fn groups_may_lie_behind_positions() {
    let model = root([open("n"), fixed(16), fixed(2), fixed(8)], (&[1], 16.0), "nmhi,nmhj->nhij", 8);
    let apart = Arrangement::Apart(vec![8, 8]);
    let shapes: [&[usize]; 2] = [&[1, 16, 2, 8], &[3, 16, 2, 8]];
    let findings = check(&model, (Some(&[0, 2, 1, 3]), 2), Some(&[2]), &apart, &shapes);
    assert_eq!(findings.layers[0].layer.layout, Layout::ChannelsLast);
}

/// Groups of channels that are interleaved.
#[test]
fn groups_may_lie_behind_channels() {
    let model = root([open("n"), fixed(6), fixed(3), fixed(20)], (&[3], 20.0), "ncgm,ndgm->ngcd", 6);
    let apart = Arrangement::Apart(vec![6, 6]);
    let shapes: [&[usize]; 2] = [&[1, 6, 3, 20], &[4, 6, 3, 20]];
    check(&model, (Some(&[0, 2, 1, 3]), 2), Some(&[3]), &apart, &shapes);
}

/// Frames of a video are positions like those of each frame, around the channels.
#[test]
fn channels_may_lie_between_positions() {
    let dims = [open("n"), fixed(3), fixed(8), fixed(5), fixed(4)];
    let model = root(dims, (&[1, 3, 4], 60.0), "btchw,btdhw->bcd", 8);
    let shapes: [&[usize]; 2] = [&[1, 3, 8, 5, 4], &[2, 3, 8, 5, 4]];
    check(&model, (Some(&[0, 2, 1, 3, 4]), 1), None, &Arrangement::AsGiven, &shapes);
}

/// Sequences of which the samples lie behind the tokens.
#[test]
fn samples_may_lie_behind_positions() {
    let model = root([fixed(20), open("n"), fixed(6)], (&[0], 20.0), "mni,mnj->nij", 6);
    let shapes: [&[usize]; 2] = [&[20, 1, 6], &[20, 5, 6]];
    check(&model, (Some(&[1, 0, 2]), 1), None, &Arrangement::AsGiven, &shapes);
}

/// Frames of a video that have a covariance each, and of which there are any number.
#[test]
fn groups_may_be_any_number() {
    let dims = [open("b"), open("t"), fixed(8), fixed(5), fixed(4)];
    let model = root(dims, (&[3, 4], 20.0), "btchw,btdhw->btcd", 8);
    let apart = Arrangement::Apart(vec![8, 8]);
    let shapes: [&[usize]; 3] = [&[1, 1, 8, 5, 4], &[2, 7, 8, 5, 4], &[5, 3, 8, 5, 4]];
    let findings = check(&model, (None, 2), None, &apart, &shapes);
    // Or none: a 0 in a shape would mean the size in front of the Reshape.
    let converted = rewritten(&model, &findings);
    let shape = |node: &&NodeProto| node.op_type() == "Reshape" && node.output == ["root"];
    let reshape = converted.graph.as_ref().unwrap().node.iter().find(shape).unwrap();
    assert_eq!(reshape.find("allowzero").map(AttributeProto::i), Some(1));
}

/// But what depends on how many there are is no layer.
#[test]
fn what_the_number_of_groups_changes_is_no_layer() {
    let dims = [open("b"), open("t"), fixed(8), fixed(5), fixed(4)];
    let mut model = root(dims, (&[3, 4], 20.0), "btchw,btdhw->btcd", 8);
    super::sizes::scaled_beyond(&mut model, 1, 16);
    let graph = model.graph.as_mut().unwrap();
    // The nodes that scale come first.
    let scaling = graph.node.split_off(graph.node.len() - 6);
    graph.node.splice(0..0, scaling);
    let findings = recognize(&model, &Embedded::new()).unwrap();
    let [found] = &findings.layers[..] else { panic!("{findings:?}") };
    assert_eq!((&*found.input, &*found.output), ("scaled", "root"));
    let is_told = |reason: &str| reason.contains("depends on the shape");
    assert!(findings.misses.iter().any(|miss| miss.input == "x" && is_told(&miss.reason)), "{findings:?}");
}

/// Regions in rows and columns.
#[test]
fn groups_may_have_two_axes() {
    let dims = [open("n"), fixed(2), fixed(3), fixed(5), fixed(16)];
    let model = root(dims, (&[4], 16.0), "nghcm,nghdm->nghcd", 5);
    let apart = Arrangement::Apart(vec![5, 5]);
    let shapes: [&[usize]; 2] = [&[1, 2, 3, 5, 16], &[3, 2, 3, 5, 16]];
    check(&model, (None, 3), Some(&[2, 3]), &apart, &shapes);
}

/// A single sample, without an axis that counts it.
#[test]
fn there_may_be_no_samples() {
    let apart = Arrangement::Apart(vec![6, 6]);
    let model = root([fixed(6), fixed(20)], (&[1], 20.0), "cm,dm->cd", 6);
    check(&model, (None, 0), None, &apart, &[&[6, 20]]);
    let model = root([fixed(20), fixed(6)], (&[0], 20.0), "mc,md->cd", 6);
    let findings = check(&model, (None, 0), None, &apart, &[&[20, 6]]);
    assert_eq!(findings.layers[0].layer.layout, Layout::ChannelsLast);
}
