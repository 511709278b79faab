//! The reverse of conversion: every node of the operators' domain in standard operators, for runtimes that know
//! neither the library nor functions.

use std::collections::{HashMap, HashSet};

use isqrt_cov_proto::onnx::{ModelProto, NodeProto};

use crate::body;
use crate::functions;
use crate::fused::{self, Error, Fused, place_of};
use crate::graph;

/// `model` with each node of the operators' domain replaced by the standard operators that compute it, in the graph,
/// in subgraphs and in functions. The operators' own functions and imports of their domain are gone.
///
/// What a node computes is taken from its attributes and the declarations, not from a function in the model.
///
/// # Errors
/// A node that is not one of the declared operators, an operator set that is too old, an input whose type cannot be
/// told before operator set 15.
pub fn inline(model: &ModelProto) -> Result<ModelProto, Error> {
    let mut model = model.clone();
    functions::remove(&mut model);
    let stem = free_stem(&model);
    let mut count = 0;
    fused::replace(&mut model, &mut |found| {
        count += 1;
        expand(found, &format!("{stem}{count}/"))
    })?;
    functions::import(&mut model);
    Ok(model)
}

/// The nodes that compute what `found` computes; their own values begin with `prefix`.
fn expand(found: Fused, prefix: &str) -> Result<Vec<NodeProto>, Error> {
    let Fused { node, layer, element, opset } = found;
    let function = body::function_of(&[layer], element, opset)
        .map_err(|source| Error::Body { node: place_of(&node), source })?;
    let outer: HashMap<&String, &String> =
        function.input.iter().zip(&node.input).chain(function.output.iter().zip(&node.output)).collect();
    let rename = |name: &mut String| {
        *name = outer.get(name).map_or_else(|| format!("{prefix}{name}"), |&outer| outer.clone());
    };
    let mut nodes = function.node.clone();
    for inner in &mut nodes {
        inner.input.iter_mut().for_each(rename);
        inner.output.iter_mut().for_each(rename);
        inner.name = inner.output.first().cloned();
    }
    Ok(nodes)
}

/// The beginning of names that no value or node of the model has.
fn free_stem(model: &ModelProto) -> String {
    let taken: HashSet<usize> = graph::all_names(model).into_iter().filter_map(number_of_stem).collect();
    // One of so many is free.
    match (0..=taken.len()).find(|number| !taken.contains(number)) {
        None | Some(0) => format!("{STEM}/"),
        Some(number) => format!("{STEM}.{number}/"),
    }
}

const STEM: &str = "isqrt_cov";

/// The number of the stem that a name begins with.
fn number_of_stem(name: &str) -> Option<usize> {
    let (number, _) = name.strip_prefix(STEM)?.split_once('/')?;
    if number.is_empty() { Some(0) } else { number.strip_prefix('.')?.parse().ok() }
}

#[cfg(test)]
mod tests {
    use isqrt_cov_op::{DOMAIN, Layer, OperatorKind};
    use isqrt_cov_proto::onnx::{FunctionProto, OperatorSetIdProto};

    use super::*;
    use crate::fused::node_of;
    use crate::fused::tests::{branches, model};

    /// Every node of the model with the names that are visible where it stands.
    fn nodes(model: &ModelProto) -> Vec<&NodeProto> {
        fn of<'a>(nodes: &'a [NodeProto], all: &mut Vec<&'a NodeProto>) {
            for node in nodes {
                all.push(node);
                let graphs = node.attribute.iter().filter_map(|attribute| attribute.g.as_deref());
                graphs.for_each(|graph| of(&graph.node, all));
            }
        }
        let mut all = Vec::new();
        of(&model.graph.as_ref().unwrap().node, &mut all);
        model.functions.iter().for_each(|function| of(&function.node, &mut all));
        all
    }

    fn layer() -> Layer {
        Layer::new(OperatorKind::IsqrtCov)
    }

    #[test]
    fn nodes_are_expanded_wherever_they_are() {
        let inner = branches(node_of(&layer(), "x", "b"), node_of(&layer(), "x", "c"));
        let mut fused = model(vec![node_of(&layer(), "x", "a"), inner]);
        fused.functions.push(FunctionProto {
            domain: Some("com.example".to_owned()),
            input: vec!["p".to_owned()],
            output: vec!["q".to_owned()],
            node: vec![node_of(&layer(), "p", "q")],
            opset_import: vec![OperatorSetIdProto::new("", 17)],
            ..FunctionProto::default()
        });
        functions::attach(&mut fused).unwrap();
        let expanded = inline(&fused).unwrap();

        let nodes = nodes(&expanded);
        assert!(nodes.iter().all(|node| node.domain().is_empty()));
        let outputs: Vec<&String> = nodes.iter().flat_map(|node| &node.output).collect();
        let distinct: HashSet<&&String> = outputs.iter().collect();
        assert_eq!(distinct.len(), outputs.len(), "names are used once");
        for name in ["a", "b", "c", "q"] {
            assert!(outputs.contains(&&name.to_owned()), "{name} is still computed");
        }
        assert_eq!(expanded.functions.len(), 1);
        assert!(expanded.opset_import.iter().all(|import| import.domain() != DOMAIN));
        assert!(expanded.functions[0].opset_import.iter().all(|import| import.domain() != DOMAIN));
    }

    #[test]
    fn new_names_avoid_those_of_the_model() {
        let taken = NodeProto::new("Relu", &["x"], &["isqrt_cov/1/shape"]);
        let expanded = inline(&model(vec![taken, node_of(&layer(), "x", "y")])).unwrap();
        let nodes = nodes(&expanded);
        assert!(
            nodes[1..].iter().all(|node| node.name() == "y" || node.name().starts_with("isqrt_cov.1/1/"))
        );
    }

    /// In one pass over the names, however many stems are taken.
    #[test]
    fn the_first_stem_that_is_free_is_taken() {
        let named = |names: &[String]| {
            model(names.iter().map(|name| NodeProto::new("Relu", &["x"], &[name])).collect())
        };
        assert_eq!(free_stem(&named(&[])), "isqrt_cov/");
        let names = ["isqrt_cov.2/a", "isqrt_cov.1", "isqrt_covers/b", "isqrt_cov/c", "isqrt_cov.x/d"];
        assert_eq!(free_stem(&named(&names.map(str::to_owned))), "isqrt_cov.1/");
        let many: Vec<String> = (1..200_000).map(|number| format!("isqrt_cov.{number}/")).collect();
        assert_eq!(free_stem(&named(&[vec!["isqrt_cov/".to_owned()], many].concat())), "isqrt_cov.200000/");
    }

    #[test]
    fn what_else_is_in_a_model_stays_as_it_was() {
        let plain = model(vec![NodeProto::new("Relu", &["x"], &["y"])]);
        assert_eq!(inline(&plain).unwrap(), plain);
    }

    #[test]
    fn a_type_that_cannot_be_told_is_an_error_only_where_it_matters() {
        let mut unknown = model(vec![node_of(&layer(), "untyped", "y")]);
        let expanded = inline(&unknown).unwrap();
        assert_eq!(nodes(&expanded).last().unwrap().op_type(), "CastLike");
        unknown.opset_import[0].version = Some(13);
        let error = inline(&unknown).unwrap_err().to_string();
        assert!(error.starts_with("node `y`: the type of the input is not known"), "{error}");
    }
}
