//! Sizes that weights ask of input axes which a model leaves open: an exporter may declare every axis open, the channels too.

use std::collections::HashMap;

use isqrt_cov_proto::TensorData;
use isqrt_cov_proto::onnx::tensor_shape_proto::dimension::Value as Size;
use isqrt_cov_proto::onnx::{AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto};

use crate::constants::Constants;
use crate::graph::given;

/// Axes beyond which a value is not followed: files may have any number.
const MOST_AXES: usize = 8;

/// Operators whose output has the shape of their first input, and asks nothing of it.
const ALIKE: [&str; 24] = [
    "Abs",
    "Cast",
    "Clip",
    "Dropout",
    "Elu",
    "Erf",
    "Exp",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "Mish",
    "Neg",
    "Relu",
    "Selu",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Sqrt",
    "Tanh",
    "QuickGelu",
];

/// Operators of two operands that are broadcast to each other.
const BROADCAST: [&str; 7] = ["Add", "Div", "Max", "Min", "Mul", "PRelu", "Sub"];

/// An axis of a graph input: which input, and which axis of it.
type Origin = (usize, usize);

/// The sizes that weights ask for, of each input that has to be given and each axis but the first, which counts samples.
#[derive(Debug, Default)]
pub struct Demands {
    /// None for an axis of which different sizes are asked.
    sizes: HashMap<Origin, Option<usize>>,
    /// The same for all axes of one name.
    symbols: HashMap<String, Option<usize>>,
}

impl Demands {
    /// Follows every input of `graph` to the weights that it meets first.
    #[must_use]
    pub fn of(graph: &GraphProto) -> Self {
        let mut demands = Self::default();
        let mut values: HashMap<&str, Vec<Option<Origin>>> = HashMap::new();
        let inputs: Vec<&ValueInfoProto> = given(graph).collect();
        for (index, input) in inputs.iter().enumerate() {
            let dims = input.dims().unwrap_or_default();
            let rank = dims.len();
            if rank <= MOST_AXES && dims.iter().skip(1).any(|dim| dim.size().is_none()) {
                values.insert(input.name(), (0..rank).map(|axis| Some((index, axis))).collect());
            }
        }
        if values.is_empty() {
            return demands;
        }
        let constants = Constants::new(graph);
        for node in &graph.node {
            let Some(output) = node.output.first() else { continue };
            let found = node.input.iter().take(2).position(|name| values.contains_key(name.as_str()));
            let Some((at, axes)) = found.and_then(|at| Some((at, values.get(node.input[at].as_str())?)))
            else {
                continue;
            };
            let (asked, made) =
                Reading { node, at, axes, constants: &constants }.outcome().unwrap_or_default();
            for (origin, size) in asked {
                demands.ask(origin, size);
            }
            if (1..=MOST_AXES).contains(&made.len()) {
                values.insert(output, made);
            }
        }
        // What one axis of a name is, all are.
        for (&(index, axis), &size) in &demands.sizes {
            let symbol = inputs[index].dims().and_then(|dims| dims.get(axis)?.value.as_ref());
            if let Some(Size::DimParam(symbol)) = symbol {
                let asked = demands.symbols.entry(symbol.clone()).or_insert(size);
                *asked = asked.filter(|asked| Some(*asked) == size);
            }
        }
        demands
    }

    /// The size that is asked of the axis of an input, the first of those that have to be given being 0, which has this name, if it
    /// has one.
    #[must_use]
    pub fn size(&self, input: usize, axis: usize, symbol: Option<&str>) -> Option<usize> {
        let named = symbol.filter(|symbol| !symbol.is_empty()).and_then(|symbol| self.symbols.get(symbol));
        named.or_else(|| self.sizes.get(&(input, axis))).copied().flatten().filter(|_| axis > 0)
    }

    /// Notes a size. Two that differ are none.
    fn ask(&mut self, origin: Origin, size: usize) {
        if origin.1 > 0 && size > 0 {
            let asked = self.sizes.entry(origin).or_insert(Some(size));
            *asked = asked.filter(|asked| *asked == size);
        }
    }
}

/// A node that reads a value whose axes are known as those of inputs.
struct Reading<'r> {
    node: &'r NodeProto,
    /// Which of its inputs the value is.
    at: usize,
    axes: &'r [Option<Origin>],
    constants: &'r Constants<'r>,
}

/// The sizes asked for, and the axes of what is made.
type Outcome = (Vec<(Origin, usize)>, Vec<Option<Origin>>);

impl Reading<'_> {
    /// What the node asks for; none where nothing is known of it.
    fn outcome(&self) -> Option<Outcome> {
        let Self { node, at, axes, .. } = *self;
        let rank = axes.len();
        let same = || Some((Vec::new(), axes.to_vec()));
        let first = |size: usize| [&axes[..size], &vec![None; rank - size]].concat();
        if !["", "ai.onnx", "com.microsoft"].contains(&node.domain()) {
            return None;
        }
        match (node.op_type(), at) {
            (name, 0) if ALIKE.contains(&name) => same(),
            (name, _) if BROADCAST.contains(&name) => self.broadcast(),
            ("BatchNormalization" | "InstanceNormalization", 0) if rank > 1 => {
                Some((self.asks(1, *self.weight(1)?.first()?), axes.to_vec()))
            }
            ("LayerNormalization", 0) => {
                let scale = self.weight(1)?;
                let begin = rank.checked_sub(scale.len())?;
                let asked = scale.iter().enumerate().filter(|(_, size)| **size > 1);
                Some((asked.flat_map(|(axis, &size)| self.asks(begin + axis, size)).collect(), axes.to_vec()))
            }
            ("Conv", 0) if rank > 2 => {
                let weight = self.weight(1).filter(|weight| weight.len() == rank)?;
                let groups = node.find("group").map_or(1, AttributeProto::i);
                Some((self.asks(1, weight[1].checked_mul(usize::try_from(groups).ok()?)?), first(1)))
            }
            ("ConvTranspose", 0) if rank > 2 => Some((self.asks(1, *self.weight(1)?.first()?), first(1))),
            ("AveragePool" | "MaxPool", 0) if rank > 2 => Some((Vec::new(), first(2))),
            ("MatMul", 0) => {
                let weight = self.weight(1)?;
                let rows = *weight.get(weight.len().saturating_sub(2))?;
                let made =
                    if weight.len() <= rank && weight.len() > 1 { first(rank - 1) } else { Vec::new() };
                Some((self.asks(rank - 1, rows), made))
            }
            ("MatMul", 1) if rank > 1 => Some((self.asks(rank - 2, *self.weight(0)?.last()?), Vec::new())),
            ("Gemm", 0) if rank == 2 => {
                let is_set = |name: &str| node.find(name).is_some_and(|flag| flag.i() != 0);
                let rows = *self.weight(1)?.get(usize::from(is_set("transB")))?;
                Some((self.asks(usize::from(!is_set("transA")), rows), Vec::new()))
            }
            ("GRU" | "LSTM" | "RNN", 0) if rank == 3 => {
                Some((self.asks(2, *self.weight(1)?.get(2)?), Vec::new()))
            }
            ("Transpose", 0) => {
                let backwards = || (0..rank as i64).rev().collect();
                let order = node.find("perm").map_or_else(backwards, |order| order.ints.clone());
                if order.len() != rank {
                    return None;
                }
                let axis = |axis: &i64| axes.get(usize::try_from(*axis).ok()?).copied();
                Some((Vec::new(), order.iter().map(axis).collect::<Option<_>>()?))
            }
            ("Unsqueeze", 0) => {
                let made = self.integers("axes", 1)?;
                let rank = (rank + made.len()) as i64;
                let is_made = |axis: &i64| made.iter().any(|made| made.rem_euclid(rank) == *axis);
                let mut old = axes.iter();
                let axis = |axis| if is_made(&axis) { None } else { old.next().copied().flatten() };
                Some((Vec::new(), (0..rank).map(axis).collect()))
            }
            _ => None,
        }
    }

    /// What is asked where a constant is broadcast to the value.
    fn broadcast(&self) -> Option<Outcome> {
        // Before operator set 7 these attributes said along which axes.
        if self.node.input.len() != 2 || ["axis", "broadcast"].iter().any(|old| self.node.find(old).is_some())
        {
            return None;
        }
        let other = self.weight(1 - self.at)?;
        let rank = self.axes.len();
        let added = other.len().saturating_sub(rank);
        let made = [&vec![None; added], self.axes].concat();
        let asked = other.iter().rev().zip((0..rank).rev()).filter(|(size, _)| **size > 1);
        Some((asked.flat_map(|(&size, axis)| self.asks(axis, size)).collect(), made))
    }

    /// This size of the axis, where it is one of an input.
    fn asks(&self, axis: usize, size: usize) -> Vec<(Origin, usize)> {
        self.axes[axis].map(|origin| (origin, size)).into_iter().collect()
    }

    /// The shape of the constant that is input `at`.
    fn weight(&self, at: usize) -> Option<Vec<usize>> {
        let TensorProto { dims, .. } = self.constants.get(self.node.input.get(at)?)?;
        let dims = Some(dims).filter(|dims| dims.len() <= MOST_AXES)?;
        dims.iter().map(|&dim| usize::try_from(dim).ok()).collect()
    }

    /// Integers that are an attribute or, in newer operator sets, input `at`.
    fn integers(&self, name: &str, at: usize) -> Option<Vec<i64>> {
        if let Some(attribute) = self.node.find(name) {
            return Some(&attribute.ints).filter(|integers| integers.len() <= MOST_AXES).cloned();
        }
        let tensor = self.constants.get(self.node.input.get(at)?)?;
        let is_short = matches!(tensor.dims[..], [count] if count <= MOST_AXES as i64);
        TensorData::inline(tensor).ok().filter(|_| is_short)?.to_i64()
    }
}

#[cfg(test)]
mod tests {
    use isqrt_cov_proto::onnx::tensor_proto::DataType;
    use isqrt_cov_proto::onnx::tensor_shape_proto::Dimension;

    use super::*;

    /// What is asked of the axes of `x`, of this many open ones, by these nodes with weights of these shapes.
    fn asked<const N: usize>(nodes: Vec<NodeProto>, weights: &[(&str, &[usize])]) -> [Option<usize>; N] {
        let weight = |&(name, dims): &(&str, &[usize])| {
            TensorProto::from_values(name, dims, &vec![0.5_f32; dims.iter().product()])
        };
        let graph = GraphProto {
            node: nodes,
            initializer: weights.iter().map(weight).collect(),
            input: vec![ValueInfoProto::tensor(
                "x",
                DataType::Float,
                [const { Dimension { value: None, denotation: None } }; N],
            )],
            ..GraphProto::default()
        };
        let demands = Demands::of(&graph);
        std::array::from_fn(|axis| demands.size(0, axis, None))
    }

    fn node(name: &str, inputs: &[&str], output: &str) -> NodeProto {
        NodeProto::new(name, inputs, &[output])
    }

    #[test]
    fn weights_ask_for_channels() {
        let grouped = node("Conv", &["x", "w"], "y").with(AttributeProto::int("group", 2));
        assert_eq!(asked(vec![grouped], &[("w", &[8, 3, 3, 3])]), [None, Some(6), None, None]);
        assert_eq!(
            asked(vec![node("ConvTranspose", &["x", "w"], "y")], &[("w", &[8, 3, 3])]),
            [None, Some(8), None]
        );
        assert_eq!(
            asked(vec![node("MatMul", &["x", "w"], "y")], &[("w", &[20, 12])]),
            [None, None, Some(20)]
        );
        assert_eq!(
            asked(vec![node("MatMul", &["w", "x"], "y")], &[("w", &[20, 12])]),
            [None, Some(12), None]
        );
        let turned = node("Gemm", &["x", "w"], "y").with(AttributeProto::int("transB", 1));
        assert_eq!(asked(vec![turned], &[("w", &[20, 12])]), [None, Some(12)]);
        assert_eq!(asked(vec![node("LSTM", &["x", "w"], "y")], &[("w", &[1, 40, 6])]), [None, None, Some(6)]);
        assert_eq!(
            asked(vec![node("LayerNormalization", &["x", "w"], "y")], &[("w", &[5])]),
            [None, None, Some(5)]
        );
        // Of a convolution over other axes, and of what is not known to be anything.
        assert_eq!(asked(vec![node("Conv", &["x", "w"], "y")], &[("w", &[8, 3, 3])]), [None; 4]);
        assert_eq!(
            asked(vec![node("Conv", &["x", "w"], "y").in_domain("own")], &[("w", &[8, 3, 3])]),
            [None; 3]
        );
    }

    #[test]
    fn what_stands_in_between_moves_axes() {
        let first = vec![
            node("Sub", &["x", "mean"], "a"),
            node("Transpose", &["a"], "b").with(AttributeProto::ints("perm", &[0, 3, 1, 2])),
            node("Relu", &["b"], "c"),
            node("Conv", &["c", "w"], "y"),
        ];
        let weights: [(&str, &[usize]); 2] = [("mean", &[1, 1, 7, 1]), ("w", &[8, 3, 3, 3])];
        assert_eq!(asked(first, &weights), [None, None, Some(7), Some(3)]);
        let wave = node("Unsqueeze", &["x"], "a").with(AttributeProto::ints("axes", &[-2]));
        let second = || vec![wave.clone(), node("MatMul", &["a", "w"], "y")];
        assert_eq!(asked(second(), &[("w", &[400, 16])]), [None, Some(400)]);
        // Positions are added behind a product that leaves them where they are.
        let tokens = vec![node("MatMul", &["x", "w"], "a"), node("Add", &["positions", "a"], "y")];
        assert_eq!(
            asked(tokens, &[("w", &[20, 12]), ("positions", &[1, 50, 12])]),
            [None, Some(50), Some(20)]
        );
        // Along an axis that an attribute names, and beside a third.
        let [old, three] = [&["x", "v"][..], &["x", "v", "s"]].map(|inputs| node("Max", inputs, "y"));
        assert_eq!(asked(vec![old.with(AttributeProto::int("axis", 1))], &[("v", &[21])]), [None; 3]);
        assert_eq!(asked(vec![three], &[("v", &[21]), ("s", &[1, 1, 1, 1])]), [None; 3]);
        // Readers that do not agree.
        let both = vec![node("MatMul", &["x", "w"], "y"), node("Add", &["x", "v"], "z")];
        assert_eq!(asked(both, &[("w", &[20, 12]), ("v", &[21])]), [None; 3]);
    }

    #[test]
    fn axes_of_one_name_have_one_size() {
        let named = |name: &str| Dimension { value: Some(Size::DimParam(name.to_owned())), denotation: None };
        let port =
            |name: &str| ValueInfoProto::tensor(name, DataType::Float, [named("n"), named("channels")]);
        let graph = GraphProto {
            node: vec![node("Gemm", &["z", "w"], "y")],
            initializer: vec![TensorProto::from_values("w", &[3, 2], &[0.5_f32; 6])],
            input: vec![port("x"), port("z")],
            ..GraphProto::default()
        };
        let demands = Demands::of(&graph);
        let sizes = [0, 1].map(|input| demands.size(input, 1, Some("channels")));
        assert_eq!((sizes, demands.size(0, 1, Some(""))), ([Some(3); 2], None));
        // Two that differ are none, of whichever of these axes.
        let mut graph = graph;
        graph.node.push(node("Gemm", &["x", "v"], "t"));
        graph.initializer.push(TensorProto::from_values("v", &[4, 2], &[0.5_f32; 8]));
        let demands = Demands::of(&graph);
        assert_eq!([0, 1].map(|input| demands.size(input, 1, Some("channels"))), [None; 2]);
    }
}
