//! Whether a model's functions compute what its nodes of the operators' domain ask for. Tools drop functions, give them and their nodes
//! other names, or keep one of two; and a node whose attribute somebody changes has the function that it had.

use std::collections::HashMap;
use std::fmt;

use isqrt_cov_op::{Layer, OPERATORS, OperatorKind, VERSION, reference};
use isqrt_cov_proto::onnx::tensor_proto::DataType;
use isqrt_cov_proto::onnx::tensor_shape_proto::Dimension;
use isqrt_cov_proto::onnx::{
    FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, ValueInfoProto,
};
use isqrt_cov_proto::{FunctionKey, domain_of};
use prost::Message as _;

use super::words;
use crate::budget;
use crate::distance::relative_distance;
use crate::evaluate::{Evaluator, Precision};
use crate::fused::{self, layer_of, place_of, standard_opset};
use crate::graph::{self, any_inside};
use crate::recognize::probe::{Generator, PROBES};
use crate::tensor::{ElementType, Tensor};

/// Where a function is looked at: the evaluator computes nodes of the operators' own domain by their attributes.
const DOMAIN: &str = "functions";

/// The greatest distance, relative to the greatest value, of a function that is the layer: bodies hold their numbers in float32, or in less.
const ROUNDING: [f64; 2] = [1e-5, 1e-2];

/// The version that ONNX Runtime writes of every domain of custom operators in a model that it saves, whatever it read.
const SAVED: i64 = 1000;

/// The multiplications that looking at all functions of a model may take: a second or two.
const MULTIPLICATIONS: u64 = 1 << 33;

/// What a node that is made ready for that counts as.
const NODE: usize = 1 << 15;

/// The most channels, and elements of a sample, of a shape that a function is looked at with where the model tells it.
const SMALL: (usize, usize) = (64, 4096);

/// So many nodes of a fault are named.
const NAMED: usize = 3;

/// What is wrong with nodes of the operators' domain.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// The names of the nodes, or of their outputs.
    nodes: Vec<String>,
    operator: String,
    what: What,
}

#[derive(Debug, Clone, PartialEq)]
enum What {
    /// It is none of the declared operators as they are declared: why.
    Undeclared(String),
    /// The model has no function for it.
    Missing,
    /// Its function computes something else, so far off.
    Different(f64),
    /// Its function was not looked at: why.
    Unknown(String),
    /// It is of this version of the operators, which is not known here.
    Newer(i64),
}

impl Fault {
    /// Whether the function is another, so that what the model computes depends on whether the library is there, or on which.
    #[must_use]
    pub fn is_of_meaning(&self) -> bool {
        matches!(self.what, What::Different(_) | What::Newer(_))
    }

    /// Whether a function written anew is right.
    #[must_use]
    pub fn is_of_function(&self) -> bool {
        matches!(self.what, What::Missing | What::Different(_))
    }

    /// One fault that stands for both, where they are of one kind and operator.
    fn key(&self) -> (String, String) {
        let what = match &self.what {
            What::Undeclared(why) | What::Unknown(why) => why.clone(),
            What::Missing => "missing".to_owned(),
            What::Newer(_) => "newer".to_owned(),
            What::Different(_) => "different".to_owned(),
        };
        (self.operator.clone(), what)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nodes, operator, what } = self;
        let noun = if nodes.len() == 1 { "node" } else { "nodes" };
        let names: Vec<String> = nodes.iter().take(NAMED).map(|node| format!("`{node}`")).collect();
        let others = nodes.len().saturating_sub(NAMED);
        let others = if others > 0 { format!(" and {others} more") } else { String::new() };
        let nodes = format!("{noun} {}{others}", names.join(", "));
        match what {
            What::Undeclared(why) => {
                write!(f, "{nodes}: {why}")?;
                let is_prefixed = |name: &str| operator.ends_with(name) && operator != name;
                if let Some(declared) = OPERATORS.iter().find(|declared| is_prefixed(declared.name)) {
                    write!(
                        f,
                        ": a tool gave `{}` another name, under which no kernel runs; have it leave the names of functions as they \
                         are (onnx.compose: rename_functions=False)",
                        declared.name
                    )?;
                }
                Ok(())
            }
            What::Newer(version) => write!(
                f,
                "{nodes}: the model asks for version {version} of the operators, and this program knows none after {VERSION}: runtimes \
                 load such a model all the same, and compute what version {VERSION} says; a newer isqrt-cov is needed"
            ),
            What::Missing => write!(
                f,
                "{nodes}: the model has no function `{operator}`, and runs only where the operator library is loaded"
            ),
            What::Different(error) => write!(
                f,
                "{nodes}: the function `{operator}`, which runs where the operator library is not loaded, is {error:.1e} off what the \
                 attributes ask for"
            ),
            What::Unknown(why) => write!(
                f,
                "{nodes}: whether the function `{operator}`, which runs where the operator library is not loaded, computes what the \
                 attributes ask for was not found out: {why}"
            ),
        }
    }
}

/// What is wrong with these nodes of the operators' domain, which `model` has. Nodes whose attributes are their function's caller's are not looked
/// at.
#[must_use]
pub fn faults(model: &ModelProto, nodes: &[&NodeProto]) -> Vec<Fault> {
    if nodes.is_empty() {
        return Vec::new();
    }
    if let Some(newer) = newer(model, nodes) {
        return vec![newer];
    }
    budget::within(MULTIPLICATIONS, || of_nodes(&Functions::of(model), nodes))
}

/// That these nodes, which `model` has, are of a version of the operators that is not known here, if so.
#[must_use]
pub fn newer(model: &ModelProto, nodes: &[&NodeProto]) -> Option<Fault> {
    let imports =
        model.functions.iter().flat_map(|function| &function.opset_import).chain(&model.opset_import);
    let ours = imports.filter(|import| import.domain() == isqrt_cov_op::DOMAIN);
    let versions = ours.map(OperatorSetIdProto::version).filter(|&version| version != SAVED);
    let version = versions.max().filter(|&version| version > VERSION)?;
    let operator = nodes.first()?.op_type().to_owned();
    Some(Fault {
        nodes: nodes.iter().map(|node| place_of(node)).collect(),
        operator,
        what: What::Newer(version),
    })
}

fn of_nodes<'m>(functions: &Functions<'m>, nodes: &[&'m NodeProto]) -> Vec<Fault> {
    let mut known: HashMap<(FunctionKey<'m>, Vec<u8>, Vec<usize>), Option<What>> = HashMap::new();
    let mut faults: Vec<Fault> = Vec::new();
    let mut places: HashMap<(String, String), usize> = HashMap::new();
    for node in nodes {
        let what = match layer_of(node) {
            Err(fused::Error::Attribute { .. }) => None,
            Err(fused::Error::Layer { problem, .. }) => Some(What::Undeclared(problem.to_string())),
            Err(error) => Some(What::Undeclared(error.to_string())),
            Ok(layer) => {
                let attributes = NodeProto { attribute: node.attribute.clone(), ..NodeProto::default() };
                let dims = functions.dims(node, &layer);
                let key = (node.called(), attributes.encode_to_vec(), dims.clone());
                known.entry(key).or_insert_with(|| functions.what_is_wrong(node, &layer, &dims)).clone()
            }
        };
        let Some(what) = what else { continue };
        let fault = Fault { nodes: vec![place_of(node)], operator: node.op_type().to_owned(), what };
        let at = *places.entry(fault.key()).or_insert(faults.len());
        match faults.get_mut(at) {
            Some(same) => {
                if let (What::Different(most), What::Different(error)) = (&mut same.what, &fault.what) {
                    *most = most.max(*error);
                }
                same.nodes.extend(fault.nodes);
            }
            None => faults.push(fault),
        }
    }
    faults
}

/// What functions are looked at with.
struct Functions<'m> {
    by_key: graph::Functions<'m>,
    /// The shapes that the main graph tells.
    shapes: HashMap<&'m str, Vec<Option<usize>>>,
}

impl<'m> Functions<'m> {
    fn of(model: &'m ModelProto) -> Self {
        let values = model.graph.iter().flat_map(|graph| graph.input.iter().chain(&graph.value_info));
        let shape = |value: &'m ValueInfoProto| {
            Some((value.name(), value.dims()?.iter().map(Dimension::size).collect()))
        };
        Self { by_key: graph::by_key(&model.functions), shapes: values.filter_map(shape).collect() }
    }

    /// The shape of inputs that a node's function is looked at with: the node's own where it is known and small, for a function may be made for it.
    fn dims(&self, node: &NodeProto, layer: &Layer) -> Vec<usize> {
        let own = node.input.first().and_then(|name| {
            let [samples, rest @ ..] = &self.shapes.get(name.as_str())?[..] else { return None };
            let rest: Vec<usize> = rest.iter().copied().collect::<Option<_>>()?;
            let dims = [&[samples.filter(|&samples| samples <= 8).unwrap_or(2)], &rest[..]].concat();
            let extent = layer.extent(&dims).ok()?;
            let is_small = extent.channels <= SMALL.0 && extent.channels * extent.positions <= SMALL.1;
            is_small.then_some(dims)
        });
        own.unwrap_or_else(|| vec![2, 4, if layer.operator == OperatorKind::MatrixSqrt { 4 } else { 5 }])
    }

    fn what_is_wrong(&self, node: &NodeProto, layer: &Layer, dims: &[usize]) -> Option<What> {
        let Some(function) = self.by_key.get(&node.called()) else { return Some(What::Missing) };
        let mut why = String::new();
        for element in [ElementType::F32, ElementType::F64] {
            match self.distance(function, node, layer, element, dims) {
                Ok(distance) => {
                    let rounding = ROUNDING[usize::from(holds_half(function))];
                    return (distance > rounding).then_some(What::Different(distance));
                }
                // Of the usual type, which says more.
                Err(error) if why.is_empty() => why = format!("{error:#}"),
                Err(_) => {}
            }
        }
        Some(What::Unknown(why))
    }

    /// How far off a function is, relative to the greatest value.
    fn distance(
        &self,
        function: &'m FunctionProto,
        node: &NodeProto,
        layer: &Layer,
        element: ElementType,
        dims: &[usize],
    ) -> anyhow::Result<f64> {
        let port = |name: &str| vec![ValueInfoProto::of_any_shape(name, element.into())];
        let graph = GraphProto {
            // As it is written: what it leaves out, the function's own defaults say.
            node: vec![NodeProto {
                attribute: node.attribute.clone(),
                ..NodeProto::new(layer.name(), &["x"], &["y"]).in_domain(DOMAIN)
            }],
            input: port("x"),
            output: port("y"),
            ..GraphProto::default()
        };
        let mut own = FunctionProto {
            domain: Some(DOMAIN.to_owned()),
            overload: None,
            name: Some(layer.name().to_owned()),
            ..function.clone()
        };
        words::settle(&mut own, &node.attribute);
        let mut functions = vec![own];
        functions.extend(graph::called(&self.by_key, [&function.node[..]]).into_iter().cloned());
        for function in &functions {
            budget::spend(&[function.node.len() + 1, NODE])?;
        }
        let opset = standard_opset(&function.opset_import);
        let mut model = ModelProto { functions, ..ModelProto::new(graph, opset).importing(DOMAIN, 1) };
        let others = function.opset_import.iter().filter(|import| !domain_of(import.domain()).is_empty());
        model.opset_import.extend(others.cloned());
        let evaluator = Evaluator::new(&model, Precision::Exact, None)?;
        let mut generator = Generator::new(0);
        let mut greatest = 0.0_f64;
        for probe in PROBES {
            let values = match layer.operator {
                OperatorKind::MatrixSqrt => probe.matrices(&mut generator, dims),
                _ => probe.features(&mut generator, dims),
            };
            let input = Tensor::from_f64(element, dims, &values);
            let expected = reference::evaluate(layer, &input.to_f64(), dims)?;
            let outputs = evaluator.run(&[input])?;
            let found = outputs.first().map_or_else(Vec::new, Tensor::to_f64);
            if found.len() != expected.len() {
                return Ok(f64::INFINITY);
            }
            greatest = greatest.max(relative_distance(&found, &expected));
        }
        Ok(greatest)
    }
}

/// Whether any constant of a function is of a type of half precision.
fn holds_half(function: &FunctionProto) -> bool {
    let half = [DataType::Float16, DataType::Bfloat16].map(i32::from);
    let holds = |node: &NodeProto| {
        let mut tensors = node.attribute.iter().filter_map(|attribute| attribute.t.as_ref());
        tensors.any(|tensor| half.contains(&tensor.data_type()))
    };
    function.node.iter().any(|node| any_inside(node, &holds))
}

#[cfg(test)]
mod tests {
    use isqrt_cov_proto::onnx::{AttributeProto, TensorProto};

    use super::*;
    use crate::functions::attach;
    use crate::fused::tests::model;

    fn said(model: &ModelProto) -> Vec<String> {
        let nodes: Vec<&NodeProto> = model.graph.iter().flat_map(|graph| &graph.node).collect();
        faults(model, &nodes).iter().map(Fault::to_string).collect()
    }

    fn layers() -> Vec<Layer> {
        use isqrt_cov_op::{Layout, Normalization, Vectorization};
        let root = Layer::new(OperatorKind::IsqrtCov);
        vec![
            root,
            Layer { iterations: 3, ..root },
            Layer { iterations: 12, compensated: false, ..root },
            Layer { epsilon: 1e-5, correction: 1, centered: false, ..root },
            Layer { normalization: Normalization::Frobenius, layout: Layout::ChannelsLast, ..root },
            Layer { vectorization: Vectorization::UpperColumnMajor, off_diagonal_scale: 1.5, ..root },
        ]
    }

    /// Functions are right as they are written, alone and of several layers, and each is wrong for every other layer.
    #[test]
    fn a_function_is_held_against_the_attributes_of_each_node() {
        let layers = layers();
        let named = |layer: &Layer, index: usize| fused::node_of(layer, "x", "y").named(&format!("n{index}"));
        let mut all = model(layers.iter().enumerate().map(|(index, layer)| named(layer, index)).collect());
        attach(&mut all).unwrap();
        assert_eq!(said(&all), Vec::<String>::new());
        for own in &layers {
            let mut one = model(vec![named(own, 0)]);
            attach(&mut one).unwrap();
            for other in &layers {
                one.graph.as_mut().unwrap().node = vec![named(other, 0)];
                let said = said(&one);
                assert_eq!(said.is_empty(), own == other, "{own}, {other}: {said:?}");
                assert!(
                    said.iter().all(|said| said.starts_with("node `n0`: the function `IsqrtCov`, which"))
                );
            }
        }
        for operator in [OperatorKind::CovariancePooling, OperatorKind::MatrixSqrt] {
            let mut one = model(vec![named(&Layer::new(operator), 0)]);
            attach(&mut one).unwrap();
            assert_eq!(said(&one), Vec::<String>::new());
        }
    }

    #[test]
    fn what_tools_leave_is_named() {
        let node = || fused::node_of(&layers()[0], "x", "y").named("n");
        assert_eq!(
            said(&model(vec![node()])),
            [
                "node `n`: the model has no function `IsqrtCov`, and runs only where the operator library is loaded"
            ]
        );
        let all = (0..5).map(|index| node().named(&format!("n{index}"))).collect();
        let several = &said(&model(all))[0];
        assert!(
            several.starts_with("nodes `n0`, `n1`, `n2` and 2 more: the model has no function"),
            "{several}"
        );
        let renamed = NodeProto { op_type: Some("b_IsqrtCov".to_owned()), ..node() };
        let renamed = &said(&model(vec![renamed]))[0];
        assert!(renamed.contains("`b_IsqrtCov`") && renamed.contains("rename_functions=False"), "{renamed}");
        let none = NodeProto { attribute: vec![AttributeProto::int("iterations", 0)], ..node() };
        let none = &said(&model(vec![none]))[0];
        assert!(none.contains("`iterations` is 0") && !none.contains("rename"), "{none}");
    }

    #[test]
    fn a_newer_version_of_the_operators_is_not_taken_for_this_one() {
        let mut model = model(vec![fused::node_of(&layers()[0], "x", "y").named("n")]);
        attach(&mut model).unwrap();
        let import = |model: &mut ModelProto, version| {
            model.opset_import.retain(|import| import.domain() != isqrt_cov_op::DOMAIN);
            model.opset_import.push(OperatorSetIdProto::new(isqrt_cov_op::DOMAIN, version));
        };
        for known in [VERSION, SAVED] {
            import(&mut model, known);
            assert_eq!(said(&model), Vec::<String>::new());
        }
        import(&mut model, VERSION + 1);
        let [said] = &said(&model)[..] else { panic!("one fault") };
        assert!(said.contains(&format!("asks for version {} of the operators", VERSION + 1)), "{said}");
    }

    /// What the node leaves out, the function's defaults say; and a function may call others.
    #[test]
    fn a_function_is_evaluated_as_the_model_would() {
        let layer = layers()[0];
        let bare = || NodeProto { attribute: Vec::new(), ..fused::node_of(&layer, "x", "y").named("n") };
        let written = |change: &dyn Fn(&mut FunctionProto)| {
            let mut one = model(vec![bare()]);
            attach(&mut one).unwrap();
            change(&mut one.functions[0]);
            one
        };
        assert_eq!(said(&written(&|_| ())), Vec::<String>::new());
        for (factor, is_right) in [(2.0_f32, false), (1.0, true)] {
            let mut one = written(&|function| {
                let result = std::mem::replace(&mut function.output[0], "scaled".to_owned());
                function.node.push(NodeProto::new("Scaled", &[&result], &["scaled"]).in_domain("blocks"));
                function.opset_import.push(OperatorSetIdProto::new("blocks", 1));
            });
            let factor = TensorProto::from_values("", &[], &[factor]);
            one.functions.push(FunctionProto {
                name: Some("Scaled".to_owned()),
                domain: Some("blocks".to_owned()),
                input: vec!["a".to_owned()],
                output: vec!["b".to_owned()],
                node: vec![
                    NodeProto::new("Constant", &[], &["factor"])
                        .with(AttributeProto::tensor("value", factor)),
                    NodeProto::new("Mul", &["a", "factor"], &["b"]),
                ],
                opset_import: vec![OperatorSetIdProto::new("", 17)],
                ..FunctionProto::default()
            });
            assert_eq!(said(&one).is_empty(), is_right, "{:?}", said(&one));
        }
        // One that nothing evaluates is none that is right.
        let odd = written(&|function| function.node[0].op_type = Some("Odd".to_owned()));
        assert!(said(&odd)[0].contains("was not found out"), "{:?}", said(&odd));
    }

    /// A function may be made for the sizes of its model.
    #[test]
    fn a_function_is_evaluated_at_the_size_that_the_model_tells() {
        let covariance = Layer::new(OperatorKind::CovariancePooling);
        let mut one = model(vec![fused::node_of(&covariance, "x", "y")]);
        attach(&mut one).unwrap();
        // As an optimizer folds it for 7 positions.
        let count = one.functions[0].node.iter_mut().find(|node| node.op_type() == "ReduceProd").unwrap();
        let folded = NodeProto::new("Constant", &[], &[])
            .with(AttributeProto::tensor("value", TensorProto::from_values("", &[1], &[7_i64])));
        *count = NodeProto { output: count.output.clone(), ..folded };
        assert!(!said(&one).is_empty());
        let dims = ["n".into(), 3.into(), 7.into()];
        one.graph.as_mut().unwrap().input = vec![ValueInfoProto::tensor("x", DataType::Float, dims)];
        assert_eq!(said(&one), Vec::<String>::new());
    }
}
