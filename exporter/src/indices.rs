//! How large the whole numbers may be that a model is given: where they pick rows of a table, as of words, fewer than it has.

use std::collections::HashMap;

use isqrt_cov_proto::onnx::{AttributeProto, GraphProto, NodeProto, ValueInfoProto};

use crate::constants::Constants;
use crate::graph::{given, moves};
use crate::tensor::ElementType;

/// For each input that has to be given and picks rows of tables, by its name: how many rows the least of them has.
#[must_use]
pub fn rows(graph: &GraphProto) -> HashMap<&str, usize> {
    let is_whole = |input: &&ValueInfoProto| {
        let element = input.tensor_type().and_then(|tensor| ElementType::from_onnx(tensor.elem_type()));
        element.is_some_and(|element| !element.is_float())
    };
    // The input that each value is, in another shape or type.
    let mut origins: HashMap<&str, &str> =
        given(graph).filter(is_whole).map(ValueInfoProto::name).map(|name| (name, name)).collect();
    let mut rows: HashMap<&str, usize> = HashMap::new();
    // Of most models nothing is to be looked for.
    if origins.is_empty() {
        return rows;
    }
    let constants = Constants::new(graph);
    for node in &graph.node {
        let read = |at: usize| node.input.get(at).and_then(|name| origins.get(name.as_str())).copied();
        if let (Some(origin), Some(count)) = (read(1), table(node, &constants)) {
            rows.entry(origin).and_modify(|least| *least = count.min(*least)).or_insert(count);
        }
        if let (Some(origin), Some(output)) = (read(0), node.output.first())
            && (moves(node) || node.is("Cast"))
        {
            origins.insert(output, origin);
        }
    }
    rows
}

/// How many rows a constant has of which a node picks some.
fn table(node: &NodeProto, constants: &Constants) -> Option<usize> {
    let table = constants.get(node.input.first()?).filter(|_| node.is("Gather"))?;
    let rank = i64::try_from(table.dims.len()).ok().filter(|rank| *rank > 0)?;
    let axis = node.find("axis").map_or(0, AttributeProto::i).rem_euclid(rank);
    let count = *table.dims.get(usize::try_from(axis).ok()?)?;
    usize::try_from(count).ok().filter(|count| *count > 0)
}

#[cfg(test)]
mod tests {
    use isqrt_cov_proto::onnx::tensor_proto::DataType;
    use isqrt_cov_proto::onnx::{ModelProto, TensorProto};

    use super::*;
    use crate::signature::Signature;

    #[test]
    fn the_least_table_says_which_numbers_there_are() {
        let table = |name: &str, dims: &[usize]| {
            TensorProto::from_values(name, dims, &vec![0.0_f32; dims.iter().product()])
        };
        let pick = |table: &str, ids: &str, axis: i64| {
            NodeProto::new("Gather", &[table, ids], &[&format!("{table} {ids}")])
                .with(AttributeProto::int("axis", axis))
        };
        let graph = GraphProto {
            input: vec![
                ValueInfoProto::of_any_shape("ids", DataType::Int64),
                ValueInfoProto::of_any_shape("kinds", DataType::Int32),
                ValueInfoProto::of_any_shape("x", DataType::Int64),
                ValueInfoProto::of_any_shape("image", DataType::Float),
            ],
            initializer: vec![
                table("words", &[50, 2]),
                table("places", &[3, 20]),
                table("kinds of", &[2, 4]),
            ],
            node: vec![
                NodeProto::new("Cast", &["ids"], &["whole"]),
                NodeProto::new("Reshape", &["whole", "shape"], &["flat"]),
                pick("words", "whole", 0),
                pick("places", "flat", -1),
                pick("kinds of", "kinds", 0),
                NodeProto::new("Add", &["x", "x"], &["other"]),
                pick("words", "other", 0),
                NodeProto::new("Cast", &["image"], &["rounded"]),
                pick("kinds of", "rounded", 0),
            ],
            ..GraphProto::default()
        };
        let model = ModelProto { graph: Some(graph), ..ModelProto::default() };
        let inputs = Signature::of(&model).unwrap().inputs;
        assert_eq!(inputs.iter().map(|port| port.rows).collect::<Vec<_>>(), [Some(20), Some(2), None, None]);
    }
}
