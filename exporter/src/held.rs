//! Numbers of samples that a model asks for though it leaves the first axis of its inputs open: the one that it was traced with, or
//! multiples of the frames of a clip.

use std::collections::HashMap;

use isqrt_cov_proto::TensorData;
use isqrt_cov_proto::onnx::{GraphProto, tensor_shape_proto::dimension::Value as Size};

use crate::constants::Constants;
use crate::graph::given;

/// The axes that a shape has at most; longer constants are none.
const MOST_AXES: i64 = 16;
/// How many of either kind are tried, and up to which.
const MOST_TRIED: usize = 3;
const MOST_SAMPLES: i64 = 1 << 10;
const MOST_FRAMES: i64 = 1 << 7;

/// The numbers of samples that a graph asks for, as far as its shapes tell.
#[derive(Debug, PartialEq, Eq)]
pub struct Asked {
    /// Numbers above one that shapes put together where they fold the first axis: frames of a clip, views of an image, or classes of an
    /// episode. Only multiples of the right one are what the model takes. Those that an input's own axis names, as `8*clips`, come first,
    /// then small ones.
    pub folded: Vec<usize>,
    /// Numbers above one with which shapes begin that nodes make of constants; behind them, as many clips of as many frames as are
    /// folded.
    pub held: Vec<usize>,
}

impl Asked {
    /// What `graph` asks for.
    #[must_use]
    pub fn of(graph: &GraphProto) -> Self {
        let constants = Constants::new(graph);
        let folded = folded(graph, &constants);
        let mut held = held(graph, &constants);
        let clips: Vec<usize> =
            held.iter().flat_map(|clips| folded.iter().map(move |frames| clips * frames)).collect();
        held.extend(clips.into_iter().filter(|samples| *samples <= MOST_SAMPLES as usize));
        Self { folded, held }
    }
}

fn folded(graph: &GraphProto, constants: &Constants<'_>) -> Vec<usize> {
    let is_some = |samples: &usize| (2..=MOST_FRAMES as usize).contains(samples);
    let named = given(graph).filter_map(|input| match input.dims()?.first()?.value.as_ref()? {
        Size::DimParam(name) => name.split('*').find_map(|factor| factor.trim().parse().ok()),
        Size::DimValue(_) => None,
    });
    let of_type = |name| graph.node.iter().filter(move |node| node.op_type() == name);
    let joined = of_type("Concat").filter_map(|node| Some((node.output.first()?.as_str(), &node.input[..])));
    let joined: HashMap<&str, &[String]> = joined.collect();
    let together = of_type("Reshape").filter_map(|node| {
        let shape = node.input.get(1)?;
        match leading(shape, joined.get(shape.as_str()).copied(), constants)[..] {
            [Some(-1) | None, Some(together), ..] | [Some(together), Some(-1), _, ..] => {
                usize::try_from(together).ok()
            }
            _ => None,
        }
    });
    let mut together: Vec<usize> = together.filter(is_some).collect();
    together.sort_unstable();
    first_of(named.filter(is_some).chain(together))
}

fn held(graph: &GraphProto, constants: &Constants<'_>) -> Vec<usize> {
    let shapes = graph.node.iter().filter_map(|node| match node.op_type() {
        "Reshape" | "Expand" | "Tile" => node.input.get(1),
        "ConstantOfShape" => node.input.first(),
        _ => None,
    });
    let first = shapes.filter_map(|name| sizes(name, constants)?.first().copied());
    first_of(first.filter(|first| (2..=MOST_SAMPLES).contains(first)).map(|first| first as usize))
}

/// The first few that differ.
fn first_of(numbers: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut first = Vec::new();
    for number in numbers {
        if !first.contains(&number) {
            first.push(number);
            if first.len() == MOST_TRIED {
                break;
            }
        }
    }
    first
}

/// The first sizes of a shape, where it is a constant or is joined of `parts`, some of which are.
fn leading(shape: &str, parts: Option<&[String]>, constants: &Constants<'_>) -> Vec<Option<i64>> {
    let known = |name: &str| Some(sizes(name, constants)?.into_iter().map(Some).collect());
    let each = || parts.unwrap_or_default().iter().take(3).flat_map(|part| known(part).unwrap_or(vec![None]));
    known(shape).unwrap_or_else(|| each().collect())
}

/// The numbers of a constant that may be a shape.
fn sizes(name: &str, constants: &Constants<'_>) -> Option<Vec<i64>> {
    let tensor = constants.get(name).filter(|tensor| matches!(tensor.dims[..], [1..=MOST_AXES]))?;
    TensorData::inline(tensor).ok()?.to_i64()
}

#[cfg(test)]
mod tests {
    use isqrt_cov_proto::onnx::tensor_proto::DataType;
    use isqrt_cov_proto::onnx::{NodeProto, TensorProto, ValueInfoProto};

    use super::*;

    #[test]
    fn what_folds_the_first_axis_puts_samples_together() {
        let shape = |name: &str, sizes: &[i64]| TensorProto::from_values(name, &[sizes.len()], sizes);
        let graph = GraphProto {
            node: vec![
                NodeProto::new("Reshape", &["x", "channels"], &["a"]),
                NodeProto::new("Reshape", &["a", "frames"], &["b"]),
                NodeProto::new("Concat", &["n", "views", "rest"], &["made"]),
                NodeProto::new("Reshape", &["b", "made"], &["c"]),
                // What keeps the axis, flattens it, says how large it is, or is no shape.
                NodeProto::new("Reshape", &["c", "kept"], &["d"]),
                NodeProto::new("Reshape", &["d", "flat"], &["e"]),
                NodeProto::new("Reshape", &["e", "traced"], &["f"]),
                NodeProto::new("Expand", &["f", "other"], &["g"]),
                NodeProto::new("Reshape", &["g", "long"], &["h"]),
                NodeProto::new("Reshape", &["h", "traced flat"], &["i"]),
            ],
            initializer: vec![
                shape("channels", &[-1, 64, 49]),
                shape("frames", &[-1, 8, 64, 49]),
                shape("views", &[10]),
                shape("kept", &[0, 5, 7]),
                shape("flat", &[-1]),
                shape("traced", &[4, 6, 49]),
                shape("other", &[-1, 3]),
                shape("long", &[-1, 129]),
                shape("traced flat", &[7, -1]),
            ],
            ..GraphProto::default()
        };
        assert_eq!(Asked::of(&graph).folded, [8, 10, 64]);
        let mut episode = graph.clone();
        episode.initializer.push(shape("classes", &[5, -1, 64]));
        episode.node.push(NodeProto::new("Reshape", &["i", "classes"], &["j"]));
        assert_eq!(Asked::of(&episode).folded, [5, 8, 10]);
        let input = |first: &str| ValueInfoProto::tensor("x", DataType::Float, [first.into(), 3.into()]);
        let named =
            |first: &str| Asked::of(&GraphProto { input: vec![input(first)], ..graph.clone() }).folded;
        assert_eq!(named("16*clips"), [16, 8, 10]);
        assert_eq!(named("clips * 10"), [10, 8, 64]);
        assert_eq!(named("n"), [8, 10, 64]);
        let several = GraphProto { input: vec![input("16*clips"); 4], ..graph.clone() };
        assert_eq!(Asked::of(&several).folded, [16, 8, 10]);
    }

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
        assert_eq!(Asked::of(&graph).held, [4, 3, 6, 128, 96, 192]);
        // As clips of frames they are more samples.
        let mut clips = graph;
        clips.initializer.push(shape("frames", &[-1, 8, 32, 144]));
        clips.node.push(NodeProto::new("Reshape", &["j", "frames"], &["k"]));
        assert_eq!(Asked::of(&clips).held, [4, 3, 6, 32, 128, 24, 96, 48, 192]);
    }
}
