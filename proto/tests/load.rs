//! Reading whole files, and writing what was read.

use std::path::{Path, PathBuf};

use isqrt_cov_proto::onnx::tensor_proto::DataType;
use isqrt_cov_proto::onnx::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto,
    attribute_proto,
};
use isqrt_cov_proto::{Bytes, DEEPEST, Error, Model, TensorData, stand_in};
use prost::Message;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn error(content: &[u8]) -> String {
    Model::decode(Bytes::copy_from_slice(content), "m.onnx").unwrap_err().to_string()
}

#[test]
fn models_of_every_exporter_are_written_as_they_were_read() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["torchscript.onnx", "dynamo.onnx", "every.onnx"] {
        let copy = folder.path().join(name);
        Model::load(data(name)).unwrap().save(&copy).unwrap();
        assert_eq!(std::fs::read(data(name)).unwrap(), std::fs::read(copy).unwrap(), "{name}");
    }
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 3, "nothing but the models is left");
}

#[test]
fn every_storage_form_is_read() {
    let model = Model::load(data("every.onnx")).unwrap();
    let initializers = &model.proto.graph.as_ref().unwrap().initializer;
    let mut seen = 0;
    for tensor in initializers.iter().filter(|tensor| tensor.name().ends_with("_typed")) {
        let data = model.tensor(tensor).unwrap();
        assert_eq!(data.dims(), [3], "{}", tensor.name());
        match data.data_type() {
            DataType::Int4 | DataType::Uint4 => assert_eq!(data.bytes()[..], [0x21, 0x03]),
            DataType::Bool => assert_eq!(data.to_f64().unwrap(), [1.0, 0.0, 1.0]),
            other => assert_eq!(data.to_f64().unwrap(), [1.0, 2.0, 3.0], "{other:?}"),
        }
        seen += 1;
    }
    assert_eq!(seen, 15);
    let named = |name| initializers.iter().find(|tensor| tensor.name() == name).unwrap();
    assert_eq!(model.tensor(named("negative")).unwrap().to_i64().unwrap(), [-1, -128]);
    let error = model.tensor(named("strings")).unwrap_err().to_string();
    assert!(error.contains("every.onnx: tensor `strings`: data_type is 8; expected"), "{error}");
}

/// What reads such a model without looking at its texts takes it.
#[test]
fn text_in_another_encoding_is_named() {
    let model =
        ModelProto { doc_string: Some("a note".to_owned()), ..ModelProto::new(GraphProto::default(), 17) };
    let mut content = model.encode_to_vec();
    let at = content.windows(6).position(|bytes| bytes == b"a note").unwrap();
    content[at] = 0xe9;
    let error = error(&content);
    assert!(
        error.starts_with("m.onnx: has text that is not UTF-8") && error.contains("doc_string"),
        "{error}"
    );
}

#[test]
fn raw_data_is_not_copied() {
    let tensor = TensorProto::from_values("w", &[2], &[1.0_f32, 2.0]);
    let model = ModelProto::new(GraphProto { initializer: vec![tensor], ..GraphProto::default() }, 17);
    let content = Bytes::from(model.encode_to_vec());
    let model = Model::decode(content.clone(), "m.onnx").unwrap();
    let tensor = model.tensor(&model.proto.graph.as_ref().unwrap().initializer[0]).unwrap();
    assert!(content.as_ptr_range().contains(&tensor.bytes().as_ptr()));
    assert_eq!(tensor.values::<f32>().unwrap(), [1.0, 2.0]);
    assert_eq!(tensor.values::<f64>(), None);
}

const TEXTPROTO: &str = "it is in ONNX's text format, not in the binary one: rewrite it with onnx.save(onnx.load(FILE, format=\"textproto\"), \"model.onnx\")";
const PARSED: &str = "it is in ONNX's text format, not in the binary one: rewrite it with onnx.save(onnx.parser.parse_model(open(FILE).read()), \"model.onnx\")";

#[test]
fn what_is_not_a_model_is_refused_with_a_reason() {
    assert_eq!(error(b""), "m.onnx: is not an ONNX model: the file is empty");
    assert!(error(b"PK\x03\x04 a zip archive").contains("is not an ONNX model"));
    for (content, what) in [
        (&b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a"[..], "it is a pointer of git-lfs"),
        (b"\n<!DOCTYPE html><html>Quota exceeded", "it is a web page"),
        (b"\x1f\x8b\x08\0\0", "it is compressed with gzip"),
        (b"\x18\0\0\0ORTM\0\0\0\0", "it is in ONNX Runtime's own format (.ort): give the .onnx"),
        (b"ir_version: 8\nproducer_name: \"p\"\n", TEXTPROTO),
        (b"# made by hand\n\nopset_import {\n  version: 17\n}\n", TEXTPROTO),
        (b"<\n   ir_version: 8,\n   opset_import: [\"\" : 17]\n>\n", PARSED),
        (b"<opset_import : [\"\" : 17], ir_version: 8>", PARSED),
        (b"{\n  \"ir_version\": \"8\",\n", "it is in ONNX's JSON format"),
    ] {
        let error = error(content);
        assert!(error.starts_with(&format!("m.onnx: is not an ONNX model: {what}")), "{error}");
    }
    // A well-formed message of one unknown field.
    assert_eq!(error(&[0xa0, 0x06, 0x01]), "m.onnx: is not an ONNX model: it has no graph");
    for (path, reason) in [("missing.onnx", "missing.onnx: cannot be read"), ("", "is not a regular file")] {
        let error = Model::load(data(path)).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

/// What a model is named may be what another format begins with.
#[test]
fn names_do_not_make_a_model_another_file() {
    for name in ["ORTM", "ORTModel", "ir_version: 8", "<ir_version: 8>", "graph {"] {
        let model =
            ModelProto { producer_name: Some(name.to_owned()), ..ModelProto::new(GraphProto::default(), 17) };
        let content = model.encode_to_vec();
        assert!(stand_in(&content).is_none() && Model::decode(content.into(), "m.onnx").is_ok(), "{name}");
    }
    for content in [
        &b"graphics: none"[..],
        b"ir_version",
        b"<graph>",
        b"#",
        b"# ir_version: 8",
        b"{\"graphs\": 1",
        b"{}",
    ] {
        assert_eq!(stand_in(content), None, "{content:?}");
    }
}

#[test]
fn truncated_files_are_refused_wherever_they_end() {
    let whole = std::fs::read(data("dynamo.onnx")).unwrap();
    for length in (1..whole.len()).step_by(97) {
        assert!(error(&whole[..length]).contains("is not an ONNX model"), "at {length}");
    }
}

#[test]
fn damaged_files_never_panic() {
    let whole = std::fs::read(data("every.onnx")).unwrap();
    for position in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[position] ^= 0x55;
        if let Ok(model) = Model::decode(damaged.into(), "m.onnx") {
            for tensor in &model.proto.graph.as_ref().unwrap().initializer {
                let _ = model.tensor(tensor);
            }
        }
    }
}

#[test]
fn nesting_is_bounded() {
    let mut graph = GraphProto::default();
    for _ in 0..10_000 {
        let attribute = AttributeProto {
            r#type: Some(attribute_proto::AttributeType::Graph.into()),
            g: Some(Box::new(graph)),
            ..AttributeProto::default()
        };
        let mut outer = GraphProto::default();
        outer.node.push(NodeProto { attribute: vec![attribute], ..NodeProto::default() });
        graph = outer;
        if graph.encoded_len() > 4000 {
            break;
        }
    }
    let model = ModelProto { graph: Some(graph), ..ModelProto::default() };
    assert!(matches!(
        Model::decode(model.encode_to_vec().into(), "m.onnx"),
        Err(Error::Decode { source, .. }) if source.to_string().contains("recursion limit")
    ));
}

#[test]
fn data_must_have_the_size_of_its_shape() {
    let problem = |change: &dyn Fn(&mut TensorProto)| {
        let mut tensor = TensorProto::from_values("w", &[2, 2], &[1.0_f32; 4]);
        change(&mut tensor);
        TensorData::inline(&tensor).unwrap_err().to_string()
    };
    assert_eq!(
        problem(&|tensor| tensor.dims = vec![2, 3]),
        "tensor `w`: raw_data holds 16 bytes; expected 24 for FLOAT [2, 3]"
    );
    assert_eq!(
        problem(&|tensor| tensor.raw_data = None),
        "tensor `w`: float_data holds 0 entries; expected 4 for FLOAT [2, 2]"
    );
    assert!(
        problem(&|tensor| tensor.dims = vec![-2, -2])
            .contains("dims are [-2, -2]; expected sizes of 0 or more")
    );
    assert!(problem(&|tensor| tensor.dims = vec![1 << 31, 1 << 31]).contains("product fits in memory"));
    assert!(problem(&|tensor| tensor.dims = vec![1 << 62, 4]).contains("product fits in memory"));
    assert!(problem(&|tensor| tensor.data_type = Some(99)).contains("data_type is 99; expected"));
    assert!(problem(&|tensor| tensor.data_type = None).contains("data_type is 0; expected"));
    assert!(problem(&|tensor| tensor.data_location = Some(1)).contains("in another file"));
    let range = problem(&|tensor| {
        *tensor = TensorProto {
            name: Some("w".to_owned()),
            data_type: Some(DataType::Uint8.into()),
            int32_data: vec![256],
            dims: vec![1],
            ..TensorProto::default()
        }
    });
    assert_eq!(range, "tensor `w`: int32_data holds 256; expected values of UINT8");
}

/// What is said of a graph with these nodes, which reads `x`, and of functions of domain `d` with one value each.
fn structure(nodes: Vec<NodeProto>, functions: Vec<FunctionProto>) -> Result<Model, Error> {
    let input = vec![ValueInfoProto::of_any_shape("x", DataType::Float)];
    let graph = GraphProto { node: nodes, input, ..GraphProto::default() };
    let model = ModelProto { functions, ..ModelProto::new(graph, 17) };
    Model::decode(model.encode_to_vec().into(), "m.onnx")
}

fn function(name: &str, calls: &[&str]) -> FunctionProto {
    let node = |(index, call): (usize, &&str)| {
        let (from, to) = (format!("v{index}"), format!("v{}", index + 1));
        NodeProto::new(call, &[&from], &[&to]).in_domain("d")
    };
    FunctionProto {
        name: Some(name.to_owned()),
        domain: Some("d".to_owned()),
        input: vec!["v0".to_owned()],
        node: calls.iter().enumerate().map(node).collect(),
        ..FunctionProto::default()
    }
}

#[test]
fn graphs_without_an_end_are_refused() {
    let relu = |from: &str, to: &str| NodeProto::new("Relu", &[from], &[to]);
    let message = |nodes| structure(nodes, vec![]).unwrap_err().to_string();
    // In any order, with a branch that has names of its own and reads from outside.
    let branch = GraphProto { node: vec![relu("y", "z")], ..GraphProto::default() };
    let chosen = NodeProto::new("If", &["x"], &["z"]).with(AttributeProto::graph("then_branch", branch));
    assert!(structure(vec![chosen.clone(), relu("x", "y")], vec![]).is_ok());
    assert!(message(vec![chosen, relu("z", "y")]).contains("m.onnx: value `z` is computed from itself"));
    // A branch may put out what is around it, but not what comes of it.
    let passing = |name: &str| {
        let output = vec![ValueInfoProto::named(name)];
        let branch = GraphProto { output, ..GraphProto::default() };
        NodeProto::new("If", &["x"], &["z"]).with(AttributeProto::graph("then_branch", branch))
    };
    assert!(structure(vec![passing("y"), relu("x", "y")], vec![]).is_ok());
    assert!(message(vec![passing("z")]).contains("value `z` is computed from itself"));
    assert!(message(vec![relu("y", "y")]).contains("value `y` is computed from itself"));
    assert!(message(vec![relu("x", "y"), relu("x", "y")]).contains("two values are called `y`"));
    assert!(message(vec![relu("x", "x")]).contains("two values are called `x`"));
    let optional = NodeProto::new("Dropout", &["x", ""], &["y", ""]);
    assert!(structure(vec![optional, NodeProto::new("Dropout", &["y"], &["z", ""])], vec![]).is_ok());
}

#[test]
fn functions_end_and_soon() {
    let call = NodeProto::new("f0", &["x"], &["y"]).in_domain("d");
    let outcome = |functions| structure(vec![call.clone()], functions);
    let message = |functions| outcome(functions).unwrap_err().to_string();
    let chain = |length: usize, times: usize| -> Vec<FunctionProto> {
        let names: Vec<String> = (0..=length).map(|index| format!("f{index}")).collect();
        (0..length).map(|index| function(&names[index], &vec![names[index + 1].as_str(); times])).collect()
    };
    assert!(outcome(chain(DEEPEST, 1)).is_ok());
    assert!(message(chain(DEEPEST + 1, 1)).contains("more than 48 deep"));
    assert!(outcome(chain(18, 2)).is_ok());
    assert!(message(chain(20, 2)).contains("more than 1048576 nodes"));
    assert!(message(chain(40, 2)).contains("more than 1048576 nodes"));
    let same = vec![function("f0", &["f0"])];
    assert!(message(same).contains("function `f0` calls itself"));
    let other = vec![function("f0", &["f1", "f2"]), function("f1", &["f2"]), function("f2", &["f1"])];
    assert!(message(other).contains("calls itself"));
    assert!(
        message(vec![function("f0", &[]), function("f0", &[])]).contains("two functions are called `f0`")
    );
}

#[test]
fn tensors_that_nothing_reads_are_checked_too() {
    let lying = TensorProto { dims: vec![1 << 40], ..TensorProto::from_values("w", &[1], &[1.0_f32]) };
    let node = NodeProto::new("Constant", &[], &["y"]).with(AttributeProto::tensor("value", lying));
    let message = structure(vec![node], vec![]).unwrap_err().to_string();
    assert!(message.contains("m.onnx: tensor `w`: raw_data holds 4 bytes; expected"), "{message}");
}
