//! Changes to graphs that know what a graph is.

use fastrand::Rng;
use isqrt_cov_proto::onnx::tensor_shape_proto::{Dimension, dimension};
use isqrt_cov_proto::onnx::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, type_proto,
};
use prost::Message as _;

use crate::mutation::Bytes;

/// Numbers that attributes, sizes and constants may be made.
const NUMBERS: [i64; 16] =
    [0, 1, -1, 2, 3, 5, 7, 8, 64, 1000, 65_536, -2, 1 << 31, 1 << 40, i64::MAX, i64::MIN];

/// Operators that a node may be made.
const OPERATORS: &str = "Add Sub Mul Div MatMul Gemm Transpose Reshape ReduceMean ReduceSum Sqrt Relu Identity Constant \
    ConstantOfShape Expand Gather GatherND Slice Concat Shape Cast Unsqueeze Squeeze Flatten Einsum EyeLike Trilu Range \
    ScatterND Compress NonZero Where Loop If Scan Conv BatchNormalization MaxPool GlobalAveragePool Tile CumSum TopK \
    Split Resize Pad OneHot Pow Equal IsqrtCov CovariancePooling MatrixSqrt";

/// Changes a model in one to three places; what is none is left to `bytes`.
pub fn mutate(input: &mut Vec<u8>, random: &mut Rng, bytes: Bytes<'_>) {
    let Ok(mut model) = ModelProto::decode(input.as_slice()) else { return bytes(input, random) };
    for _ in 0..random.usize(1..=3) {
        change(&mut model, random);
    }
    *input = model.encode_to_vec();
}

/// One of several things; nothing where there are none.
fn pick<'a, T>(random: &mut Rng, things: &'a mut [T]) -> Option<&'a mut T> {
    if things.is_empty() { None } else { Some(&mut things[random.usize(..things.len())]) }
}

/// The main graph, or one inside a node.
fn graph<'a>(model: &'a mut ModelProto, random: &mut Rng) -> &'a mut GraphProto {
    let graph = model.graph.get_or_insert_default();
    let inner = |graph: &GraphProto| {
        let nodes = graph.node.iter().enumerate();
        let places =
            nodes.flat_map(|(node, it)| (0..it.attribute.len()).map(move |attribute| (node, attribute)));
        places
            .filter(|&(node, attribute)| graph.node[node].attribute[attribute].g.is_some())
            .collect::<Vec<_>>()
    };
    let places = inner(graph);
    if places.is_empty() || random.bool() {
        return graph;
    }
    let (node, attribute) = places[random.usize(..places.len())];
    graph.node[node].attribute[attribute].g.get_or_insert_default()
}

fn change(model: &mut ModelProto, random: &mut Rng) {
    match random.u8(..32) {
        0 => recurse(model, random),
        1 => {
            if let Some(import) = pick(random, &mut model.opset_import) {
                import.version = Some(random.i64(0..30));
            }
        }
        choice => {
            let graph = graph(model, random);
            match choice {
                2..=5 => rewire(graph, random),
                6..=8 => reorder(graph, random),
                9..=16 => {
                    if let Some(node) = pick(random, &mut graph.node) {
                        change_node(node, random);
                    }
                }
                17..=22 => {
                    if let Some(tensor) = pick(random, &mut graph.initializer) {
                        change_tensor(tensor, random);
                    }
                }
                23..=26 => {
                    if let Some(port) = pick(random, &mut graph.input) {
                        change_port(port, random);
                    }
                }
                27 => {
                    if let Some(port) = pick(random, &mut graph.output) {
                        change_port(port, random);
                    }
                }
                28 => {
                    let name = name(graph, random);
                    if let Some(port) = pick(random, &mut graph.output) {
                        port.name = Some(name);
                    }
                }
                _ => nest(graph, random),
            }
        }
    }
}

/// A name of a value of the graph.
fn name(graph: &GraphProto, random: &mut Rng) -> String {
    let values = graph.node.iter().flat_map(|node| node.output.iter().chain(&node.input).map(String::as_str));
    let ports = graph.input.iter().chain(&graph.output).map(ValueInfoProto::name);
    let names: Vec<&str> =
        values.chain(ports).chain(graph.initializer.iter().map(TensorProto::name)).collect();
    if names.is_empty() { String::new() } else { names[random.usize(..names.len())].to_owned() }
}

/// Lets a node read or compute another value: what comes later, or itself.
fn rewire(graph: &mut GraphProto, random: &mut Rng) {
    let name = name(graph, random);
    let Some(node) = pick(random, &mut graph.node) else { return };
    match random.u8(..6) {
        0 => node.input.push(name),
        1 => drop(node.input.pop()),
        2 => pick(random, &mut node.output).into_iter().for_each(|output| output.clone_from(&name)),
        3 if node.input.len() > 1 => {
            let (one, other) = (random.usize(..node.input.len()), random.usize(..node.input.len()));
            node.input.swap(one, other);
        }
        _ => pick(random, &mut node.input).into_iter().for_each(|input| input.clone_from(&name)),
    }
}

/// Leaves a node out, has it twice, or elsewhere.
fn reorder(graph: &mut GraphProto, random: &mut Rng) {
    if graph.node.is_empty() {
        return;
    }
    let (one, other) = (random.usize(..graph.node.len()), random.usize(..graph.node.len()));
    match random.u8(..3) {
        0 => drop(graph.node.remove(one)),
        1 => graph.node.insert(other, graph.node[one].clone()),
        _ => graph.node.swap(one, other),
    }
}

fn change_node(node: &mut NodeProto, random: &mut Rng) {
    match random.u8(..6) {
        0 => {
            let operators: Vec<&str> = OPERATORS.split_whitespace().collect();
            node.op_type = Some(operators[random.usize(..operators.len())].to_owned());
        }
        1 if !node.attribute.is_empty() => {
            node.attribute.remove(random.usize(..node.attribute.len()));
        }
        _ => {
            if let Some(attribute) = pick(random, &mut node.attribute) {
                change_attribute(attribute, random);
            }
        }
    }
}

fn number(random: &mut Rng) -> i64 {
    NUMBERS[random.usize(..NUMBERS.len())]
}

fn change_attribute(attribute: &mut AttributeProto, random: &mut Rng) {
    if random.u8(..8) == 0 {
        attribute.r#type = Some(random.i32(0..15));
    }
    if let Some(tensor) = &mut attribute.t {
        change_tensor(tensor, random);
    } else if let Some(value) = &mut attribute.f {
        *value = f32::from_bits(random.u32(..));
    } else if let Some(word) = &mut attribute.s {
        let mut letters = word.to_vec();
        crate::mutation::bytes(&mut letters, random);
        *word = letters.into();
    } else if !attribute.ints.is_empty() {
        match random.u8(..4) {
            0 => attribute.ints.push(number(random)),
            1 => drop(attribute.ints.pop()),
            _ => pick(random, &mut attribute.ints)
                .into_iter()
                .for_each(|place| *place = number_near(*place, random)),
        }
    } else {
        attribute.i = Some(number_near(attribute.i(), random));
    }
}

/// A number beside this one, or any of those that do harm.
fn number_near(value: i64, random: &mut Rng) -> i64 {
    if random.bool() { value.wrapping_add(random.i64(-2..=2)) } else { number(random) }
}

fn change_tensor(tensor: &mut TensorProto, random: &mut Rng) {
    match random.u8(..8) {
        0 => tensor.data_type = Some(random.i32(0..24)),
        1 => pick(random, &mut tensor.dims).into_iter().for_each(|dim| *dim = number_near(*dim, random)),
        2 => tensor.dims.push(1),
        3 => {
            if let Some(value) = pick(random, &mut tensor.int64_data) {
                *value = number_near(*value, random);
            }
        }
        _ => {
            let Some(raw) = &tensor.raw_data else { return };
            let mut data = raw.to_vec();
            let eights = data.len() / 8;
            if tensor.data_type == Some(7) && eights > 0 {
                let at = 8 * random.usize(..eights);
                let mut value = [0; 8];
                value.copy_from_slice(&data[at..at + 8]);
                let value = number_near(i64::from_le_bytes(value), random);
                data[at..at + 8].copy_from_slice(&value.to_le_bytes());
            } else if !data.is_empty() {
                let at = random.usize(..data.len());
                data[at] = random.u8(..);
            }
            tensor.raw_data = Some(data.into());
        }
    }
}

fn change_port(port: &mut ValueInfoProto, random: &mut Rng) {
    let Some(type_proto::Value::TensorType(tensor)) =
        port.r#type.as_mut().and_then(|kind| kind.value.as_mut())
    else {
        return;
    };
    let shape = tensor.shape.get_or_insert_default();
    match random.u8(..6) {
        0 => tensor.elem_type = Some(random.i32(0..24)),
        1 => drop(shape.dim.pop()),
        2 => shape.dim.push(Dimension::default()),
        3 => {
            let name = Some(dimension::Value::DimParam(["N", "height", ""][random.usize(..3)].to_owned()));
            pick(random, &mut shape.dim).into_iter().for_each(|dim| dim.value.clone_from(&name));
        }
        _ => {
            let size = Some(dimension::Value::DimValue(number(random)));
            pick(random, &mut shape.dim).into_iter().for_each(|dim| dim.value.clone_from(&size));
        }
    }
}

/// Makes a node of the graph a function that calls itself, or two that call each other.
fn recurse(model: &mut ModelProto, random: &mut Rng) {
    let Some(node) = model.graph.as_mut().and_then(|graph| pick(random, &mut graph.node)) else { return };
    let other = if random.bool() { node.op_type().to_owned() } else { "Other".to_owned() };
    let domain = if random.bool() { "local".to_owned() } else { node.domain().to_owned() };
    node.domain = Some(domain.clone());
    for (name, calls) in [(node.op_type().to_owned(), other.clone()), (other, node.op_type().to_owned())] {
        let call = NodeProto { op_type: Some(calls), ..node.clone() };
        model.functions.push(FunctionProto {
            name: Some(name),
            domain: Some(domain.clone()),
            input: node.input.clone(),
            output: node.output.clone(),
            opset_import: model.opset_import.clone(),
            node: vec![call; random.usize(1..3)],
            ..FunctionProto::default()
        });
    }
}

/// Puts some of the graph's nodes into a graph inside one of them.
fn nest(graph: &mut GraphProto, random: &mut Rng) {
    let nodes = graph.node.clone();
    let output = graph.output.clone();
    let Some(node) = pick(random, &mut graph.node) else { return };
    node.op_type = Some(["If", "Loop", "Scan"][random.usize(..3)].to_owned());
    let inner = GraphProto { node: nodes, output, ..GraphProto::default() };
    for name in ["then_branch", "else_branch", "body"] {
        node.attribute.push(AttributeProto {
            name: Some(name.to_owned()),
            r#type: Some(5),
            g: Some(Box::new(inner.clone())),
            ..AttributeProto::default()
        });
    }
}
