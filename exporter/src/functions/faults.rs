//! Whether a model's functions compute what its nodes of the operators' domain ask for. Tools drop functions, give them and their nodes
//! other names, or keep one of two; and a node whose attribute somebody changes has the function that it had.

use std::fmt;

use isqrt_cov_op::{Layer, OPERATORS, OperatorKind, reference};
use isqrt_cov_proto::FunctionKey;
use isqrt_cov_proto::onnx::{FunctionProto, GraphProto, ModelProto, NodeProto, ValueInfoProto};

use crate::evaluate::{Evaluator, Precision, budget};
use crate::fused::{self, layer_of, place_of, standard_opset};
use crate::recognize::probe::{Generator, PROBES};
use crate::tensor::{ElementType, Tensor};

/// Where a function is looked at: the evaluator computes nodes of the operators' own domain by their attributes.
const DOMAIN: &str = "functions";

/// The greatest distance, relative to the greatest value, of a function that is the layer: bodies hold their numbers in float32.
const ROUNDING: f64 = 1e-5;

/// The multiplications that looking at all functions of a model may take: a second or two.
const MULTIPLICATIONS: u64 = 1 << 33;

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
}

impl Fault {
    /// Whether the function is another, so that what the model computes depends on whether the library is there.
    #[must_use]
    pub fn is_of_meaning(&self) -> bool {
        matches!(self.what, What::Different(_))
    }

    /// Whether a function written anew is right.
    #[must_use]
    pub fn is_of_function(&self) -> bool {
        !matches!(self.what, What::Undeclared(_))
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
                write!(f, "{why}")?;
                let is_prefixed = |declared: &&isqrt_cov_op::Operator| operator.ends_with(declared.name);
                if let Some(declared) = OPERATORS.iter().find(is_prefixed) {
                    write!(
                        f,
                        ": a tool gave `{}` another name, under which no kernel runs; have it leave the names of functions as they \
                         are (onnx.compose: rename_functions=False)",
                        declared.name
                    )?;
                }
                Ok(())
            }
            What::Missing => write!(
                f,
                "{nodes}: the model has no function `{operator}`, and runs only where the operator library is loaded"
            ),
            What::Different(error) => write!(
                f,
                "{nodes}: the function `{operator}`, which runs where the operator library is not loaded, is {error:.1e} off what the \
                 attributes ask for"
            ),
        }
    }
}

/// What is wrong with these nodes of the operators' domain, which `model` has. Nodes whose attributes are their function's caller's are not looked
/// at, nor functions that cannot be evaluated.
#[must_use]
pub fn faults(model: &ModelProto, nodes: &[&NodeProto]) -> Vec<Fault> {
    budget::within(MULTIPLICATIONS, || of_nodes(model, nodes))
}

fn of_nodes(model: &ModelProto, nodes: &[&NodeProto]) -> Vec<Fault> {
    let mut known: Vec<(FunctionKey<'_>, Layer, Option<What>)> = Vec::new();
    let mut faults: Vec<Fault> = Vec::new();
    for node in nodes {
        let what = match layer_of(node) {
            Err(fused::Error::Attribute { .. }) => continue,
            Err(error) => Some(What::Undeclared(error.to_string())),
            Ok(layer) => {
                let key = node.called();
                let seen = known.iter().position(|(other, of, _)| *other == key && *of == layer);
                let seen = seen.unwrap_or_else(|| {
                    known.push((key, layer, what_is_wrong(model, key, &layer)));
                    known.len() - 1
                });
                known[seen].2.clone()
            }
        };
        let Some(what) = what else { continue };
        match faults.iter_mut().find(|fault| fault.operator == node.op_type() && fault.what == what) {
            Some(fault) => fault.nodes.push(place_of(node)),
            None => {
                faults.push(Fault { nodes: vec![place_of(node)], operator: node.op_type().to_owned(), what });
            }
        }
    }
    faults
}

fn what_is_wrong(model: &ModelProto, key: FunctionKey<'_>, layer: &Layer) -> Option<What> {
    let Some(function) = model.functions.iter().find(|function| function.key() == key) else {
        return Some(What::Missing);
    };
    let mut elements = [ElementType::F32, ElementType::F64].into_iter();
    let distance = elements.find_map(|element| distance(function, layer, element))?;
    (distance > ROUNDING).then_some(What::Different(distance))
}

/// How far off a function is, relative to the greatest value; nothing where it cannot be evaluated on elements of this type.
fn distance(function: &FunctionProto, layer: &Layer, element: ElementType) -> Option<f64> {
    let port = |name: &str| vec![ValueInfoProto::of_any_shape(name, element.into())];
    let graph = GraphProto {
        node: vec![fused::node_of(layer, "x", "y").in_domain(DOMAIN)],
        input: port("x"),
        output: port("y"),
        ..GraphProto::default()
    };
    let opset = standard_opset(&function.opset_import);
    let function = FunctionProto {
        domain: Some(DOMAIN.to_owned()),
        overload: None,
        name: Some(layer.name().to_owned()),
        ..function.clone()
    };
    let model =
        ModelProto { functions: vec![function], ..ModelProto::new(graph, opset).importing(DOMAIN, 1) };
    let evaluator = Evaluator::new(&model, Precision::Exact, None).ok()?;
    let dims = [2, 4, if layer.operator == OperatorKind::MatrixSqrt { 4 } else { 5 }];
    let mut generator = Generator::new(0);
    let mut greatest = 0.0_f64;
    for probe in PROBES {
        let values = match layer.operator {
            OperatorKind::MatrixSqrt => probe.matrices(&mut generator, &dims),
            _ => probe.features(&mut generator, &dims),
        };
        let input = Tensor::from_f64(element, &dims, &values);
        let expected = reference::evaluate(layer, &input.to_f64(), &dims).ok()?;
        let found = evaluator.run(&[input]).ok()?.first()?.to_f64();
        let largest = expected.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
        if found.len() != expected.len() {
            return Some(f64::INFINITY);
        }
        for (found, expected) in found.iter().zip(&expected) {
            let error = (found - expected).abs() / largest;
            greatest = greatest.max(if error.is_nan() { f64::INFINITY } else { error });
        }
    }
    Some(greatest)
}

#[cfg(test)]
mod tests {
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
        let said = &said(&model(vec![renamed]))[0];
        assert!(said.contains("`b_IsqrtCov`") && said.contains("rename_functions=False"), "{said}");
    }
}
