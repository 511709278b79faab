//! Layers of the corpus written in another way, and with something made of what is inside.

use std::collections::HashSet;
use std::sync::Arc;

use isqrt_cov::found::{Arrangement, Found, View};
use isqrt_cov::recognize::{Findings, recognize};
use isqrt_cov::runtime::Runtime;
use isqrt_cov::runtime::embedded::Embedded;
use isqrt_cov::tensor::Tensor;
use isqrt_cov_op::{OperatorKind, Vectorization};
use isqrt_cov_proto::onnx::tensor_proto::DataType;
use isqrt_cov_proto::onnx::tensor_shape_proto::{Dimension, dimension};
use isqrt_cov_proto::onnx::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    ValueInfoProto,
};

use super::common::{corpus, load};
use super::rewritten;

/// Lets all nodes read another value instead of one.
pub fn read_instead(graph: &mut GraphProto, value: &str, other: &str) {
    for name in graph.node.iter_mut().flat_map(|node| &mut node.input).filter(|name| *name == value) {
        other.clone_into(name);
    }
}

/// A node that makes what an initializer is: functions have none.
pub fn constant(tensor: TensorProto) -> NodeProto {
    let name = tensor.name().to_owned();
    NodeProto::new("Constant", &[], &[&name]).with(AttributeProto::tensor("value", tensor))
}

/// Lets all nodes read another value instead of the graph's input, whose name it says.
pub fn read_instead_of_input(graph: &mut GraphProto, other: &str) -> String {
    let input = graph.input[0].name().to_owned();
    read_instead(graph, &input, other);
    input
}

/// Two layers of which the number of samples chooses are two, whatever it is.
#[test]
fn what_the_shape_chooses_is_no_formula() {
    let branch = |name: &str| {
        let mut graph = load(&corpus().join(name)).graph.unwrap();
        graph.input.clear();
        graph
    };
    let mut model = load(&corpus().join("layer/official_noDotData_d16_hw7_it5_dyn18_dynbatch.onnx"));
    let graph = model.graph.as_mut().unwrap();
    let input = graph.input[0].name().to_owned();
    let choice = NodeProto::new("If", &["many"], &["chosen"])
        .with(AttributeProto::graph(
            "then_branch",
            branch("layer/official_noDotData_d16_hw7_it5_dyn18_dynbatch.onnx"),
        ))
        .with(AttributeProto::graph(
            "else_branch",
            branch("layer/stripped_noDotData_d16_hw7_it1_ts17_dynbatch.onnx"),
        ));
    graph.node = vec![
        NodeProto::new("Shape", &[&input], &["shape"]),
        NodeProto::new("Gather", &["shape", "first"], &["samples"]),
        NodeProto::new("Greater", &["samples", "limit"], &["many"]),
        choice,
    ];
    graph.initializer = vec![
        TensorProto::from_values("first", &[], &[0_i64]),
        TensorProto::from_values("limit", &[], &[16_i64]),
    ];
    graph.value_info.clear();
    graph.output[0].name = Some("chosen".to_owned());
    let findings = recognize(&model, &Embedded::new()).unwrap();
    let mut iterations: Vec<u32> = findings.layers.iter().map(|found| found.layer.iterations).collect();
    iterations.sort_unstable();
    assert_eq!(iterations, [1, 5]);
    assert!(findings.layers.iter().all(|found| !found.scope.is_main()));
}

/// A layer that ends in the matrix, which is made by the value `root`.
pub fn ending_in_the_root() -> ModelProto {
    let mut model = load(&corpus().join("layer/official_sqrt1_vec0_d16_hw7_it5_dyn18_b2.onnx"));
    let graph = model.graph.as_mut().unwrap();
    "root".clone_into(&mut graph.node.last_mut().unwrap().output[0]);
    graph.node.push(NodeProto::new("Identity", &["root"], &[graph.output[0].name()]));
    model
}

/// The difference of the root and the covariance, and the covariance's name.
fn root_less_covariance() -> (ModelProto, String) {
    let mut model = ending_in_the_root();
    let graph = model.graph.as_mut().unwrap();
    let covariance = graph.node.iter().filter(|node| node.op_type() == "MatMul").nth(1).unwrap();
    let covariance = covariance.output[0].clone();
    let last = graph.node.last_mut().unwrap();
    last.op_type = Some("Sub".to_owned());
    last.input.push(covariance.clone());
    (model, covariance)
}

/// The same nodes once more: what they make has other names.
fn copied(nodes: &[NodeProto]) -> Vec<NodeProto> {
    let made: HashSet<&String> = nodes.iter().flat_map(|node| &node.output).collect();
    let mut copies = nodes.to_vec();
    let names = copies.iter_mut().flat_map(|node| node.input.iter_mut().chain(&mut node.output));
    for name in names.filter(|name| made.contains(&**name)) {
        *name = format!("other/{name}");
    }
    copies
}

/// A root stays one where a sum or a difference hides it from what leaves the region.
#[test]
fn a_root_is_found_where_something_is_subtracted_of_it() {
    let (model, covariance) = root_less_covariance();
    let findings = recognize(&model, &Embedded::new()).unwrap();
    let mut found: Vec<_> =
        findings.layers.iter().map(|found| (found.layer.name(), &*found.output)).collect();
    found.sort_unstable();
    assert_eq!(found, [("CovariancePooling", &*covariance), ("IsqrtCov", "root")]);
    check_nothing_left(&rewritten(&model, &findings));
}

/// A layer that centers by the mean, without its triangle: the model, its feature map of three axes, and the root.
fn without_triangle() -> (ModelProto, String, String) {
    let mut model = load(&corpus().join("variants/re_R2_matmul_Mm1_dyn18_dynbatch.onnx"));
    let graph = model.graph.as_mut().unwrap();
    let flattened = graph.node.len() - 2;
    graph.node.truncate(flattened);
    let map = graph.node[0].output[0].clone();
    let root = graph.node.last().unwrap().output[0].clone();
    (model, map, root)
}

/// Checks that a converted model has nothing left to convert.
fn check_nothing_left(converted: &ModelProto) {
    let again = recognize(converted, &Embedded::new()).unwrap();
    assert!(again.layers.is_empty(), "{again:?}");
}

/// Attention multiplies the features with the root of their covariance: the model, the features, and the root.
fn attention() -> (ModelProto, String, String) {
    let (mut model, map, root) = without_triangle();
    let graph = model.graph.as_mut().unwrap();
    graph.node.push(NodeProto::new("MatMul", &[&root, &map], &[graph.output[0].name()]));
    (model, map, root)
}

#[test]
fn a_layer_begins_before_its_centering_where_the_features_are_read_beside_it() {
    let (model, map, root) = attention();
    let findings = recognize(&model, &Embedded::new()).unwrap();
    let [found] = &findings.layers[..] else { panic!("{findings:?}") };
    assert!(found.layer.centered && found.layer.operator == OperatorKind::IsqrtCov);
    assert_eq!((&found.input, &found.output), (&map, &root));
    check_nothing_left(&rewritten(&model, &findings));
}

/// A model may multiply a covariance by zero: that is no iteration that an exporter dropped.
#[test]
fn a_zero_that_is_written_is_no_lost_iteration() {
    let (mut model, map, root) = without_triangle();
    let graph = model.graph.as_mut().unwrap();
    let product = graph.node.iter().position(|node| node.op_type() == "MatMul").unwrap();
    // The covariance of the map itself, and the layer on what is left of it.
    let own = copied(&graph.node[1..product + 2]);
    for name in graph.node[1..].iter_mut().flat_map(|node| &mut node.input).filter(|name| **name == map) {
        "positive".clone_into(name);
    }
    let layer = graph.node.split_off(1);
    graph.node.extend(own);
    let own = graph.node.last().unwrap().output[0].clone();
    graph.node.push(NodeProto::new("Relu", &[&map], &["positive"]));
    graph.node.extend(layer);
    graph.initializer.push(TensorProto::from_values("zero", &[], &[0_f32]));
    graph.initializer.push(TensorProto::from_values("flat", &[2], &[0_i64, -1]));
    graph.node.extend([
        NodeProto::new("Mul", &[&own, "zero"], &["zeros"]),
        NodeProto::new("Reshape", &["zeros", "flat"], &["flat zeros"]),
        NodeProto::new("Reshape", &[&root, "flat"], &["flat root"]),
        NodeProto::new("Concat", &["flat root", "flat zeros"], &[graph.output[0].name()])
            .with(AttributeProto::int("axis", 1)),
    ]);
    let findings = recognize(&model, &Embedded::new()).unwrap();
    assert!(findings.lost.is_empty(), "{findings:?}");
    assert!(findings.layers.iter().any(|found| found.input == "positive"), "{findings:?}");
}

/// Graphs in two nodes may give other values the same names.
#[test]
fn a_root_is_found_beside_one_of_the_same_name() {
    let (mut model, _) = root_less_covariance();
    let graph = model.graph.as_mut().unwrap();
    let mut branch = graph.clone();
    branch.input.clear();
    let choice = |output: &str| {
        NodeProto::new("If", &["always"], &[output])
            .with(AttributeProto::graph("then_branch", branch.clone()))
            .with(AttributeProto::graph("else_branch", branch.clone()))
    };
    graph.node = vec![
        NodeProto::new("Greater", &["one", "zero"], &["always"]),
        choice("left"),
        choice("right"),
        NodeProto::new("Add", &["left", "right"], &[graph.output[0].name()]),
    ];
    graph.initializer = [("one", 1_i64), ("zero", 0)]
        .map(|(name, number)| TensorProto::from_values(name, &[], &[number]))
        .to_vec();
    graph.value_info.clear();
    let findings = recognize(&model, &Embedded::new()).unwrap();
    let roots = findings.layers.iter().filter(|found| found.layer.operator == OperatorKind::IsqrtCov);
    let places: HashSet<_> = roots.map(|found| &found.scope).collect();
    assert_eq!(places.len(), 4);
}

/// Both roots that go into a difference are found, from the value that both begin with.
#[test]
fn every_root_of_a_difference_is_found() {
    let mut model = ending_in_the_root();
    let graph = model.graph.as_mut().unwrap();
    let end = graph.node.pop().unwrap();
    let products = graph.node.iter().enumerate().filter(|(_, node)| node.op_type() == "MatMul");
    let covariance = products.map(|(index, _)| index).nth(1).unwrap();
    let mut other = copied(&graph.node[covariance + 1..]);
    // The second root is not scaled by the trace's.
    let scaling = other.pop().unwrap();
    assert_eq!(scaling.op_type(), "Mul");
    graph.node.extend(other);
    graph.node.push(NodeProto::new("Sub", &["root", &scaling.input[0]], &[&end.output[0]]));
    let findings = recognize(&model, &Embedded::new()).unwrap();
    let mut found: Vec<_> =
        findings.layers.iter().map(|found| (&*found.output, found.layer.compensated)).collect();
    found.sort_unstable();
    assert_eq!(found, [(&*scaling.input[0], false), ("root", true)]);
    assert_eq!(findings.layers[0].input, findings.layers[1].input);
    check_nothing_left(&rewritten(&model, &findings));
}

/// Matrices may be multiplied without a product of matrices.
#[test]
fn products_that_are_written_as_sums_are_products() {
    let mut model = ending_in_the_root();
    let graph = model.graph.as_mut().unwrap();
    let axis = |name: &str, axis: i64| TensorProto::from_values(name, &[1], &[axis]);
    graph.initializer.extend([axis("last", -1), axis("rows", 1), axis("summed", 2)]);
    let mut products = 0;
    for node in std::mem::take(&mut graph.node) {
        if node.op_type() != "MatMul" {
            graph.node.push(node);
            continue;
        }
        products += 1;
        let name = |what: &str| format!("{}/{what}", node.output[0]);
        let (left, right, terms) = (name("left"), name("right"), name("terms"));
        let no_axis = AttributeProto::int("keepdims", 0);
        graph.node.extend([
            NodeProto::new("Unsqueeze", &[&node.input[0], "last"], &[&left]),
            NodeProto::new("Unsqueeze", &[&node.input[1], "rows"], &[&right]),
            NodeProto::new("Mul", &[&left, &right], &[&terms]),
            NodeProto::new("ReduceSum", &[&terms, "summed"], &[&node.output[0]]).with(no_axis),
        ]);
    }
    assert_eq!(products, 14);
    let findings = recognize(&model, &Embedded::new()).unwrap();
    let [found] = &findings.layers[..] else { panic!("{:?}", findings.misses) };
    assert_eq!((found.layer.operator, found.layer.iterations), (OperatorKind::IsqrtCov, 5));
}

/// The root of a matrix over its trace does not see the scale of what it is made of: it follows from the value in front of a
/// scale as well, but the whole layer does not.
#[test]
fn a_layer_behind_a_scale_is_found_whole() {
    let mut model = load(&corpus().join("layer/official_noDotData_d16_hw7_it5_dyn18_dynbatch.onnx"));
    let graph = model.graph.as_mut().unwrap();
    let input = read_instead_of_input(graph, "scaled");
    graph.initializer.push(TensorProto::from_values("scale", &[], &[0.25_f32]));
    graph.node.push(NodeProto::new("Mul", &[&input, "scale"], &["scaled"]));
    let findings = recognize(&model, &Embedded::new()).unwrap();
    let [found] = &findings.layers[..] else { panic!("{findings:?}") };
    assert!(found.layer.compensated);
    assert_eq!((&*found.input, &*found.output), ("scaled", model.graph.as_ref().unwrap().output[0].name()));
}

/// The root before it is scaled by the trace's.
fn unscaled_root(graph: &GraphProto) -> String {
    let scaling = graph.node.iter().find(|node| node.output[0] == "root").unwrap();
    assert_eq!(scaling.op_type(), "Mul");
    scaling.input[0].clone()
}

/// What is made of an operator's output is no layer of its own, though it computes one.
#[test]
fn what_is_made_of_an_operator_is_not_found_again() {
    let mut model = ending_in_the_root();
    let graph = model.graph.as_mut().unwrap();
    let unscaled = unscaled_root(graph);
    let end = graph.node.last_mut().unwrap();
    end.op_type = Some("Add".to_owned());
    end.input.push(unscaled.clone());
    let findings = recognize(&model, &Embedded::new()).unwrap();
    let [found] = &findings.layers[..] else { panic!("{findings:?}") };
    assert_eq!((&found.output, found.layer.compensated), (&unscaled, false));
    check_nothing_left(&rewritten(&model, &findings));
}

/// Adds the upper triangle of a matrix of 16 rows as an output.
fn add_triangle(graph: &mut GraphProto, matrix: &str) -> String {
    let rows = 16_i64;
    let upper: Vec<i64> =
        (0..rows).flat_map(|row| (row..rows).map(move |column| row * rows + column)).collect();
    let triangle = format!("{matrix}/triangle");
    let [shape, order, flat] = ["shape", "order", "flat"].map(|what| format!("{triangle}/{what}"));
    graph.initializer.extend([
        TensorProto::from_values(&shape, &[2], &[-1, rows * rows]),
        TensorProto::from_values(&order, &[upper.len()], &upper),
    ]);
    graph.node.extend([
        NodeProto::new("Reshape", &[matrix, &shape], &[&flat]),
        NodeProto::new("Gather", &[&flat, &order], &[&triangle]).with(AttributeProto::int("axis", 1)),
    ]);
    graph.output.push(ValueInfoProto::named(triangle.clone()));
    triangle
}

/// One operator gives the root where the model reads the whole and its triangle.
#[test]
fn a_triangle_of_a_root_that_is_found_is_taken_of_it() {
    let (mut model, _, root) = attention();
    add_triangle(model.graph.as_mut().unwrap(), &root);
    let findings = recognize(&model, &Embedded::new()).unwrap();
    let [found] = &findings.layers[..] else { panic!("{findings:?}") };
    assert_eq!((&found.output, found.layer.vectorization), (&root, Vectorization::None));
    check_nothing_left(&rewritten(&model, &findings));
}

/// A function that gives a covariance and its root serves both, until one of them is an operator.
#[test]
fn what_one_layer_leaves_is_searched_for_others() {
    let (mut model, _, root) = without_triangle();
    let graph = model.graph.as_mut().unwrap();
    let mut body: Vec<NodeProto> = std::mem::take(&mut graph.initializer).into_iter().map(constant).collect();
    body.append(&mut graph.node);
    let product = body.iter().position(|node| node.op_type() == "MatMul").unwrap();
    // It is divided by the number of positions.
    let covariance = body[product + 1].output[0].clone();
    model.functions.push(FunctionProto {
        domain: Some("of.test".to_owned()),
        name: Some("Both".to_owned()),
        input: vec![graph.input[0].name().to_owned()],
        output: vec![covariance, root],
        node: body,
        opset_import: model.opset_import.clone(),
        ..FunctionProto::default()
    });
    let (input, output) = (graph.input[0].name().to_owned(), graph.output[0].name().to_owned());
    let mut both = NodeProto::new("Both", &[&input], &["covariance", "root"]);
    both.domain = Some("of.test".to_owned());
    graph.node.extend([both, NodeProto::new("Relu", &["root"], &[&output])]);
    add_triangle(graph, "covariance");
    add_triangle(graph, "root");
    model.opset_import.push(OperatorSetIdProto::new("of.test", 1));
    let findings = recognize(&model, &Embedded::new()).unwrap();
    let mut found: Vec<_> = findings.layers.iter().map(|found| found.layer.name()).collect();
    found.sort_unstable();
    assert_eq!(found, ["CovariancePooling", "IsqrtCov"]);
    assert!(findings.layers.iter().any(|found| found.output == "root"), "{findings:?}");
    check_nothing_left(&rewritten(&model, &findings));
}

/// Optimizers leave the transposition of a triangle to the product behind it.
#[test]
fn a_triangle_may_stand_in_columns() {
    let (mut model, _, root) = without_triangle();
    let graph = model.graph.as_mut().unwrap();
    graph.node.push(
        NodeProto::new("Transpose", &[&root], &["last"]).with(AttributeProto::ints("perm", &[1, 2, 0])),
    );
    graph.output.clear();
    let triangle = add_triangle(graph, "last");
    // Rows of entries, a column for each sample.
    let shape = graph.initializer.iter_mut().find(|tensor| tensor.name().ends_with("/shape")).unwrap();
    *shape = TensorProto::from_values(shape.name(), &[2], &[256_i64, -1]);
    graph.node.last_mut().unwrap().attribute = vec![AttributeProto::int("axis", 0)];
    let findings = recognize(&model, &Embedded::new()).unwrap();
    let [found] = &findings.layers[..] else { panic!("{findings:?}") };
    assert_eq!((&found.output, &found.arrangement), (&triangle, &Arrangement::SamplesLast));

    assert_eq!(outputs_of(&model, found).dims(), [136, 2]);
    check_same(&model, &findings);
}

/// What a model computes of what its first layer read.
fn outputs_of(model: &ModelProto, found: &Found) -> Tensor {
    let input = found.recognition().unwrap().seen.clone();
    assert_eq!(model.graph.as_ref().unwrap().input[0].name(), found.input);
    let session = Embedded::new().prepare(&Arc::new(model.clone()), &[input.dims().to_vec()]).unwrap();
    session.run(&[input]).unwrap().remove(0)
}

/// Checks that a model computes the same once it is converted, and has nothing left to convert.
fn check_same(model: &ModelProto, findings: &Findings) {
    let converted = rewritten(model, findings);
    let [before, after] = [model, &converted].map(|model| outputs_of(model, &findings.layers[0]));
    assert_eq!(before.dims(), after.dims());
    let (before, after) = (before.to_f64(), after.to_f64());
    assert!(before.iter().zip(&after).all(|(before, after)| (before - after).abs() < 1e-5));
    check_nothing_left(&converted);
}

/// Groups of channels have a root each, and an axis of their own: to the operator they are samples.
#[test]
fn groups_are_samples() {
    let (mut model, map, root) = without_triangle();
    let graph = model.graph.as_mut().unwrap();
    assert_eq!((graph.node[0].op_type(), &graph.node[0].output[0]), ("Reshape", &map));
    // Two groups of 16 channels, in front of the axes that the layer knows.
    let constants = |node: &NodeProto| node.input[1].clone();
    let of = |graph: &GraphProto, operator: &str| {
        graph.node.iter().position(|node| node.op_type() == operator).unwrap()
    };
    let [shape, mean, trace] =
        ["Reshape", "ReduceMean", "ReduceSum"].map(|operator| constants(&graph.node[of(graph, operator)]));
    for (name, values) in [(shape, &[-1, 2, 16, 49][..]), (mean, &[3]), (trace, &[2, 3])] {
        graph.initializer.retain(|tensor| tensor.name() != name);
        graph.initializer.push(TensorProto::from_values(&name, &[values.len()], values));
    }
    let transpose = of(graph, "Transpose");
    graph.node[transpose].attribute = vec![AttributeProto::ints("perm", &[0, 1, 3, 2])];
    let any = |size: usize| Dimension::from(size);
    let open = Dimension { value: Some(dimension::Value::DimParam("n".to_owned())), ..Dimension::default() };
    let input = graph.input[0].name().to_owned();
    graph.input = vec![ValueInfoProto::tensor(&input, DataType::Float, [open, any(32), any(7), any(7)])];
    graph.output = vec![ValueInfoProto::named(root.clone())];
    graph.value_info.clear();
    let findings = recognize(&model, &Embedded::new()).unwrap();
    let [found] = &findings.layers[..] else { panic!("{findings:?}") };
    assert_eq!((&found.input, &found.output), (&map, &root));
    assert_eq!((&found.view, &found.groups), (&View::grouped(), &Some(vec![2])));
    assert!(found.layer.centered && found.layer.iterations == 5);
    // The region of what is found reads the map itself.
    check_same(
        &found.recognition().unwrap().region,
        &Findings { layers: vec![alone(found)], ..Findings::default() },
    );
    check_nothing_left(&rewritten(&model, &findings));
}

/// A finding in the model that it was cut out as.
fn alone(found: &Found) -> Found {
    let nodes = (0..found.recognition().unwrap().region.graph.as_ref().unwrap().node.len()).collect();
    Found { nodes, ..found.clone() }
}

/// Where the iteration is needed for something else, an operator beside it would be computed in vain.
#[test]
fn a_root_whose_iteration_stays_is_left() {
    let mut model = ending_in_the_root();
    let graph = model.graph.as_mut().unwrap();
    let products = graph.node.iter().filter(|node| node.op_type() == "MatMul");
    let products: Vec<String> = products.map(|node| node.output[0].clone()).collect();
    for product in &products[2..products.len() - 1] {
        let other = format!("{product}/other");
        graph.node.push(NodeProto::new("Relu", &[product], &[&other]));
        graph.output.push(ValueInfoProto::named(other));
    }
    let findings = recognize(&model, &Embedded::new()).unwrap();
    assert!(findings.layers.iter().all(|found| found.layer.operator == OperatorKind::CovariancePooling));
    assert!(findings.misses.iter().any(|miss| miss.reason.contains("add to the work")), "{findings:?}");
}

/// What is rounded in front of a layer, or behind it, is rounded still.
#[test]
fn casts_that_round_are_no_part_of_a_layer() {
    let to = |from: &str, to: &str, element: DataType| {
        NodeProto::new("Cast", &[from], &[to]).with(AttributeProto::int("to", element as i64))
    };
    let mut model = load(&corpus().join("layer/official_noDotData_d16_hw7_it5_dyn18_dynbatch.onnx"));
    let graph = model.graph.as_mut().unwrap();
    let input = read_instead_of_input(graph, "features");
    let output = graph.output[0].name().to_owned();
    "layer".clone_into(&mut graph.node.last_mut().unwrap().output[0]);
    graph.node.extend([
        to(&input, "half", DataType::Float16),
        to("half", "features", DataType::Float),
        to("layer", "half of layer", DataType::Float16),
        to("half of layer", &output, DataType::Float),
    ]);
    let findings = recognize(&model, &Embedded::new()).unwrap();
    let [found] = &findings.layers[..] else { panic!("{:?}", findings.misses) };
    assert_eq!(found.layer.operator, OperatorKind::IsqrtCov);
    // Between float16 and float16 the operator rounds as the graph does.
    let between = [("features", "layer"), ("half", "half of layer")];
    assert!(between.contains(&(&found.input, &found.output)), "{} → {}", found.input, found.output);
}
