//! Numbers of samples that a model holds inside though it leaves the first axis of its inputs open: what it was traced with.

use isqrt_cov_proto::TensorData;
use isqrt_cov_proto::onnx::GraphProto;

use crate::constants::Constants;

/// The axes that a shape has at most; longer constants are none.
const MOST_AXES: i64 = 16;
/// How many are tried, and up to which.
const MOST_TRIED: usize = 3;
const MOST_SAMPLES: i64 = 1 << 10;

/// The numbers of samples, above one, with which shapes begin that nodes of `graph` make of constants.
#[must_use]
pub fn held_batches(graph: &GraphProto) -> Vec<usize> {
    let constants = Constants::new(graph);
    let shapes = graph.node.iter().filter_map(|node| match node.op_type() {
        "Reshape" | "Expand" | "Tile" => node.input.get(1),
        "ConstantOfShape" => node.input.first(),
        _ => None,
    });
    let mut held = Vec::new();
    for name in shapes {
        let shape = constants.get(name).filter(|tensor| matches!(tensor.dims[..], [1..=MOST_AXES]));
        let shape = shape.and_then(|tensor| TensorData::inline(tensor).ok()?.to_i64());
        let Some(&first) = shape.as_ref().and_then(|shape| shape.first()) else { continue };
        if (2..=MOST_SAMPLES).contains(&first) && !held.contains(&(first as usize)) {
            held.push(first as usize);
            if held.len() == MOST_TRIED {
                break;
            }
        }
    }
    held
}

#[cfg(test)]
mod tests {
    use isqrt_cov_proto::onnx::{NodeProto, TensorProto};

    use super::*;

    #[test]
    fn what_constant_shapes_begin_with_may_be_the_batch() {
        let shape = |name: &str, sizes: &[i64]| TensorProto::from_values(name, &[sizes.len()], sizes);
        let graph = GraphProto {
            node: vec![
                NodeProto::new("Reshape", &["x", "traced"], &["a"]),
                NodeProto::new("Reshape", &["a", "open"], &["b"]),
                NodeProto::new("Reshape", &["b", "x"], &["c"]),
                NodeProto::new("Expand", &["c", "traced"], &["d"]),
                NodeProto::new("Add", &["d", "other"], &["e"]),
                NodeProto::new("Reshape", &["e", "long"], &["f"]),
                NodeProto::new("Expand", &["f", "wide"], &["g"]),
                NodeProto::new("ConstantOfShape", &["made"], &["h"]),
                NodeProto::new("Tile", &["h", "times"], &["i"]),
                NodeProto::new("Reshape", &["i", "fourth"], &["j"]),
            ],
            initializer: vec![
                shape("traced", &[4, 32, 144]),
                shape("open", &[-1, 32, 144]),
                shape("other", &[7]),
                shape("long", &[11; 17]),
                shape("wide", &[1025, 8]),
                shape("made", &[3, 5]),
                shape("times", &[6, 1]),
                shape("fourth", &[9, 1]),
            ],
            ..GraphProto::default()
        };
        assert_eq!(held_batches(&graph), [4, 3, 6]);
    }
}
