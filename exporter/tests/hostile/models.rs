//! ONNX models that mean harm: an honest graph with the layer in it, and one thing more.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use isqrt_cov_proto::Model;
use isqrt_cov_proto::onnx::tensor_proto::{DataLocation, DataType};
use isqrt_cov_proto::onnx::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, ValueInfoProto,
};
use prost::Message as _;

use super::{Case, Given, corpus};

/// The name of every hostile model.
const NAME: &str = "hostile.onnx";

/// The domain of the functions here.
pub const DOMAIN: &str = "hostile";

fn honest() -> ModelProto {
    let path = corpus().join("layer/stripped_noDotData_d16_hw7_it1_ts17_dynbatch.onnx");
    Model::load(path).unwrap().proto
}

fn write(folder: &Path, content: &[u8]) -> Given {
    let path = folder.join(NAME);
    fs::write(&path, content).unwrap();
    Given::input(path)
}

/// A case that changes the honest model.
pub fn changed(
    item: &'static str,
    name: &str,
    said: &str,
    change: impl Fn(&mut ModelProto) + 'static,
) -> Case {
    let make = move |folder: &Path| {
        let mut model = honest();
        change(&mut model);
        write(folder, &model.encode_to_vec())
    };
    Case { item, name: name.to_owned(), said: said.to_owned(), make: Box::new(make) }
}

/// A case whose graph is changed.
pub fn graph(item: &'static str, name: &str, said: &str, change: impl Fn(&mut GraphProto) + 'static) -> Case {
    changed(item, name, said, move |model| change(model.graph.as_mut().unwrap()))
}

/// A tensor of two numbers in another file, with the given entries.
fn external(dims: &[i64], entries: &[(&str, &str)]) -> TensorProto {
    let entry = |(key, value): &(&str, &str)| StringStringEntryProto {
        key: Some((*key).to_owned()),
        value: Some((*value).to_owned()),
    };
    TensorProto {
        name: Some("w".to_owned()),
        dims: dims.to_vec(),
        data_type: Some(DataType::Float.into()),
        data_location: Some(DataLocation::External.into()),
        external_data: entries.iter().map(entry).collect(),
        ..TensorProto::default()
    }
}

/// A folder `models` for the model, with `weights` in it, beside a `secret`; and links between them.
fn surroundings(folder: &Path) -> PathBuf {
    let models = folder.join("models");
    fs::create_dir_all(models.join("sub")).unwrap();
    fs::write(folder.join("secret"), [7; 64]).unwrap();
    fs::write(models.join("weights"), [1; 64]).unwrap();
    symlink("../secret", models.join("link")).unwrap();
    symlink("..", models.join("up")).unwrap();
    symlink("loop", models.join("loop")).unwrap();
    fs::hard_link(folder.join("secret"), models.join("hard")).unwrap();
    models
}

/// A case with a tensor in another file.
fn elsewhere(item: &'static str, said: &str, dims: &[i64], entries: &[(&str, &str)]) -> Case {
    let tensor = external(dims, entries);
    let described: Vec<String> = entries.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let make = move |folder: &Path| {
        let models = surroundings(folder);
        let mut model = honest();
        model.graph.as_mut().unwrap().initializer.push(tensor.clone());
        write(&models, &model.encode_to_vec())
    };
    Case { item, name: described.join(" "), said: said.to_owned(), make: Box::new(make) }
}

/// A tensor that says what it likes of four bytes.
fn lying(name: &str, dims: &[i64]) -> TensorProto {
    let mut tensor = TensorProto::from_values(name, &[1], &[1.0_f32]);
    tensor.dims = dims.to_vec();
    tensor
}

/// Puts `node`, which reads the graph's input and writes `changed`, before everything that reads that input.
pub fn before(graph: &mut GraphProto, nodes: Vec<NodeProto>) {
    let input = graph.input[0].name().to_owned();
    for node in &mut graph.node {
        for name in node.input.iter_mut().filter(|name| **name == input) {
            "changed".clone_into(name);
        }
    }
    graph.node.splice(0..0, nodes);
}

pub fn input_of(graph: &GraphProto) -> String {
    graph.input[0].name().to_owned()
}

/// A function of one value that calls `calls` one after the other.
pub fn function(name: &str, calls: &[&str]) -> FunctionProto {
    let mut node = Vec::new();
    let mut from = "x".to_owned();
    for (index, call) in calls.iter().enumerate() {
        let to = if index + 1 == calls.len() { "y".to_owned() } else { format!("t{index}") };
        let domain = if *call == "Relu" { "" } else { DOMAIN };
        node.push(NodeProto::new(call, &[&from], &[&to]).in_domain(domain));
        from = to;
    }
    FunctionProto {
        name: Some(name.to_owned()),
        domain: Some(DOMAIN.to_owned()),
        input: vec!["x".to_owned()],
        output: vec!["y".to_owned()],
        opset_import: vec![OperatorSetIdProto::new("", 17), OperatorSetIdProto::new(DOMAIN, 1)],
        node,
        ..FunctionProto::default()
    }
}

/// Adds functions, the first of which the graph's input goes through.
fn call(model: &mut ModelProto, functions: Vec<FunctionProto>) {
    let graph = model.graph.as_mut().unwrap();
    let first = functions[0].name().to_owned();
    let node = NodeProto::new(&first, &[&input_of(graph)], &["changed"]).in_domain(DOMAIN);
    before(graph, vec![node]);
    model.opset_import.push(OperatorSetIdProto::new(DOMAIN, 1));
    model.functions.extend(functions);
}

/// A graph in a graph and so on; the innermost passes its input on.
fn nested(depth: usize) -> GraphProto {
    let port = |name: &str| ValueInfoProto::of_any_shape(name, DataType::Float);
    let mut graph = GraphProto {
        name: Some("innermost".to_owned()),
        node: vec![NodeProto::new("Identity", &["x"], &["y"])],
        output: vec![port("y")],
        ..GraphProto::default()
    };
    for _ in 0..depth {
        let node = NodeProto::new("If", &["condition"], &["y"])
            .with(AttributeProto::graph("then_branch", graph.clone()))
            .with(AttributeProto::graph("else_branch", GraphProto::default()));
        graph = GraphProto {
            name: Some("g".to_owned()),
            node: vec![node],
            output: vec![port("y")],
            ..GraphProto::default()
        };
    }
    graph
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let plain = "is not a plain relative path";
    for location in ["../secret", "sub/../../secret", "..//secret", "./weights", "..", ""] {
        cases.push(elsewhere("path traversal", plain, &[2], &[("location", location)]));
    }
    for location in ["/etc/passwd", "/", "//etc/passwd"] {
        cases.push(elsewhere("absolute paths", plain, &[2], &[("location", location)]));
    }
    for location in ["link", "up/secret"] {
        let said = "leads out of the folder";
        cases.push(elsewhere("symlinked parents", said, &[2], &[("location", location)]));
    }
    cases.push(elsewhere("symlinked parents", "cannot be read", &[2], &[("location", "loop")]));
    cases.push(elsewhere("hard links", "is a hard link", &[2], &[("location", "hard")]));
    let weights = ("location", "weights");
    for (said, entries) in [
        ("location is given twice", [weights, ("location", "../secret"), ("checksum", "")]),
        ("end outside the file", [weights, ("basepath", "/etc"), ("offset", "64")]),
        ("holds 64", [weights, ("__class__", "os"), ("length", "64")]),
    ] {
        cases.push(elsewhere("unknown keys", said, &[2], &entries));
    }
    for (said, key, value) in [
        ("holds 9223372036854775807 bytes", "length", "9223372036854775807"),
        ("expected a decimal number", "length", "99999999999999999999999"),
        ("expected a decimal number", "length", "-1"),
        ("18446744073709551615", "offset", "18446744073709551615"),
        ("expected a decimal number", "offset", "-8"),
        ("expected a decimal number", "offset", "0x10"),
    ] {
        cases.push(elsewhere("huge lengths", said, &[2], &[weights, (key, value)]));
    }
    cases.push(elsewhere("overflowing dimensions", "end outside the file", &[1 << 40], &[weights]));
    cases.push(elsewhere("overflowing dimensions", "product fits in memory", &[1 << 62, 4], &[weights]));
    cases.push(elsewhere("negative dimensions", "expected sizes of 0 or more", &[-2], &[weights]));

    for (item, said, dims) in [
        ("negative dimensions", "expected sizes of 0 or more", &[-1_i64][..]),
        ("negative dimensions", "expected sizes of 0 or more", &[-2, -2]),
        ("overflowing dimensions", "product fits in memory", &[1 << 62, 4]),
        ("overflowing dimensions", "product fits in memory", &[i64::MAX, i64::MAX]),
        ("overflowing dimensions", "raw_data holds 4 bytes", &[1 << 40]),
    ] {
        let name = format!("initializer {dims:?}");
        let dims = dims.to_vec();
        cases.push(graph(item, &name, said, move |graph| graph.initializer.push(lying("w", &dims))));
    }
    cases.extend(inputs());
    cases.extend(structures());
    cases.extend(truncated());
    cases
}

/// Inputs that no machine has room for.
fn inputs() -> Vec<Case> {
    let sizes = [1_i64 << 40, i64::MAX];
    let case = |size: i64| {
        graph("overflowing dimensions", &format!("input of {size}"), "too large", move |graph| {
            let dims = [size as usize, 16, 7, 7].map(Into::into);
            graph.input[0] = ValueInfoProto::tensor(&input_of(graph), DataType::Float, dims);
        })
    };
    sizes.map(case).into()
}

/// Graphs and functions that do not end, or not soon, or say two things.
fn structures() -> Vec<Case> {
    let nesting = "deep nesting";
    let cyclic = "cyclic graphs and functions";
    let twice = "duplicate names";
    let mut cases = Vec::new();
    cases.push(graph(nesting, "If in If", "recursion limit", |graph| graph.node.extend(nested(200).node)));
    cases.push(changed(nesting, "functions in functions", "more than 48 deep", |model| {
        let names: Vec<String> = (0..20_000).map(|index| format!("f{index}")).collect();
        let function =
            |index: usize| function(&names[index], &[names.get(index + 1).map_or("Relu", |name| name)]);
        call(model, (0..names.len()).map(function).collect());
    }));
    cases.push(changed(nesting, "functions that nothing calls", "more than 48 deep", |model| {
        let names: Vec<String> = (0..20_000).map(|index| format!("f{index}")).collect();
        let function =
            |index: usize| function(&names[index], &[names.get(index + 1).map_or("Relu", |name| name)]);
        model.functions.extend((0..names.len()).map(function));
    }));
    cases.push(changed("compression bombs", "functions that double", "more than 1048576 nodes", |model| {
        let names: Vec<String> = (0..40).map(|index| format!("f{index}")).collect();
        let function =
            |index: usize| function(&names[index], &[names.get(index + 1).map_or("Relu", |name| name); 2]);
        call(model, (0..names.len()).map(function).collect());
    }));
    cases.push(changed(cyclic, "a function that calls itself", "calls itself", |model| {
        call(model, vec![function("f", &["f"])]);
    }));
    cases.push(changed(cyclic, "functions that call each other", "calls itself", |model| {
        call(model, vec![function("f", &["g"]), function("g", &["f"])]);
    }));
    cases.push(graph(cyclic, "a node that reads what it writes", "is computed from itself", |graph| {
        let input = input_of(graph);
        before(graph, vec![NodeProto::new("Add", &[&input, "changed"], &["changed"])]);
    }));
    cases.push(graph(cyclic, "nodes that read each other", "is computed from itself", |graph| {
        let input = input_of(graph);
        before(
            graph,
            vec![
                NodeProto::new("Add", &[&input, "b"], &["changed"]),
                NodeProto::new("Relu", &["changed"], &["b"]),
            ],
        );
    }));
    cases.push(graph(twice, "a value written twice", "two values are called `changed`", |graph| {
        let input = input_of(graph);
        before(
            graph,
            vec![
                NodeProto::new("Relu", &[&input], &["changed"]),
                NodeProto::new("Neg", &[&input], &["changed"]),
            ],
        );
    }));
    cases.push(graph(twice, "an initializer twice", "two initializers are called `w`", |graph| {
        graph.initializer.push(lying("w", &[1]));
        graph.initializer.push(lying("w", &[1]));
    }));
    cases.push(graph(twice, "an input twice", "two values are called", |graph| {
        let port = graph.input[0].clone();
        graph.input.push(port);
    }));
    cases.push(changed(twice, "a function twice", "two functions are called `f`", |model| {
        call(model, vec![function("f", &["Relu"]), function("f", &["Relu", "Relu"])]);
    }));
    let names = "names that control the terminal, or have no end";
    cases.push(graph(names, "an escape sequence", "expected sizes of 0 or more", |graph| {
        graph.initializer.push(lying("\x1b[2J\x1b[1;1Hall is well\r\n\u{202e}", &[-1]));
    }));
    cases.push(graph(names, "a mebibyte", "expected sizes of 0 or more", |graph| {
        graph.initializer.push(lying(&"w".repeat(1 << 20), &[-1]));
    }));
    cases
}

fn truncated() -> Vec<Case> {
    let whole = honest().encode_to_vec();
    [0, 1, whole.len() / 4, whole.len() / 2, whole.len() * 3 / 4, whole.len() - 20, whole.len() - 1]
        .map(|length| {
            let part = whole[..length].to_vec();
            let make = move |folder: &Path| write(folder, &part);
            let (name, said) = (format!("cut at {length}"), "is not an ONNX model".to_owned());
            Case { item: "truncated", name, said, make: Box::new(make) }
        })
        .into()
}
