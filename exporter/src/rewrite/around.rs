//! The node that computes a layer, with those around it that make its input and its output what the graph has.

use isqrt_cov_proto::onnx::{AttributeProto, NodeProto, TensorProto};

use super::Names;
use crate::found::{Arrangement, Found};
use crate::fused;

/// The first version of the standard operators in which a Reshape may be told that a size of 0 is one.
const WITH_ZEROS: i64 = 14;

/// The nodes of a layer that was `found`, in this version of the standard operators. The constants that they refer to are added to
/// `constants`.
pub fn nodes_for(
    found: &Found,
    opset: i64,
    names: &mut Names,
    constants: &mut Vec<TensorProto>,
) -> Vec<NodeProto> {
    let name = names.fresh(&format!("{}/{}", found.output, found.layer.name()));
    let mut around = Around { found, opset, name, names, constants, nodes: Vec::new() };
    let ordered = around.order();
    let (input, sizes) = around.merge(ordered);
    around.write(&input, sizes.as_deref());
    around.nodes
}

/// The nodes so far.
struct Around<'a> {
    found: &'a Found,
    /// The version of the standard operators.
    opset: i64,
    /// The name of the layer's node, which those of the others begin with.
    name: String,
    names: &'a mut Names,
    constants: &'a mut Vec<TensorProto>,
    nodes: Vec<NodeProto>,
}

impl Around<'_> {
    fn fresh(&mut self, what: &str) -> String {
        self.names.fresh(&format!("{}/{what}", self.name))
    }

    fn constant(&mut self, name: &str, numbers: &[i64]) {
        self.constants.push(TensorProto::from_values(name, &[numbers.len()], numbers));
    }

    /// Adds a node that is named after what it makes.
    fn add(&mut self, node: NodeProto) {
        let name = format!("{}/node", node.output[0]);
        self.nodes.push(node.named(&name));
    }

    /// The layer's input with its axes in the operator's order.
    fn order(&mut self) -> String {
        let Some(order) = &self.found.view.order else { return self.found.input.clone() };
        let order: Vec<i64> = order.iter().map(|&axis| axis as i64).collect();
        let ordered = self.fresh("ordered");
        self.add(
            NodeProto::new("Transpose", &[&self.found.input], &[&ordered])
                .with(AttributeProto::ints("perm", &order)),
        );
        ordered
    }

    /// The same with the axes that count samples as one, whatever sizes there are: a batch may be empty. Beside it, the shape that
    /// it had, where that is needed.
    fn merge(&mut self, input: String) -> (String, Option<String>) {
        let samples = self.found.view.samples;
        if samples == 1 {
            return (input, None);
        }
        let [merged, sizes, rest, shape, all, from, to] =
            ["input", "sizes", "rest", "merged", "all", "from", "to"].map(|what| self.fresh(what));
        for (name, number) in [(&all, -1), (&from, samples as i64), (&to, i64::MAX)] {
            self.constant(name, &[number]);
        }
        self.add(NodeProto::new("Shape", &[&input], &[&sizes]));
        self.add(NodeProto::new("Slice", &[&sizes, &from, &to], &[&rest]));
        self.add(NodeProto::new("Concat", &[&all, &rest], &[&shape]).with(AttributeProto::int("axis", 0)));
        self.add(NodeProto::new("Reshape", &[&input, &shape], &[&merged]));
        (merged, Some(sizes))
    }

    /// Adds the layer's node, and those that write its output as the graph has it. `sizes` are those of the input before its first
    /// axes were merged.
    fn write(&mut self, input: &str, sizes: Option<&str>) {
        let (found, name) = (self.found, self.name.clone());
        let node = |output: &str| fused::node_of(&found.layer, input, output).named(&name);
        if found.arrangement == Arrangement::AsGiven {
            self.nodes.push(node(&found.output));
            return;
        }
        let own = self.fresh("output");
        self.nodes.push(node(&own));
        let groups = found.groups.as_deref();
        let mut reshape = NodeProto::new("Reshape", &[&own], &[&found.output]);
        let shape = match &found.arrangement {
            Arrangement::AsGiven | Arrangement::SamplesLast => {
                let transpose = NodeProto::new("Transpose", &[&own], &[&found.output])
                    .with(AttributeProto::ints("perm", &[1, 0]));
                self.nodes.push(transpose.named(&format!("{name}/transpose")));
                return;
            }
            // 0 copies the batch axis, whatever its size; of groups there are several in a sample.
            Arrangement::Reshaped(sample) if found.view.samples == 1 => self.shape(&[0], &[], sample),
            Arrangement::Reshaped(sample) => self.shape(&[-1], &[], sample),
            Arrangement::Apart(sample) => match (sizes.filter(|_| found.view.samples > 0), groups) {
                (None, _) => self.shape(&[], &[], sample),
                (Some(_), Some(groups)) => self.shape(&[-1], groups, sample),
                (Some(sizes), None) => {
                    if self.opset >= WITH_ZEROS {
                        // There may be no group. Before, a 0 means the size that what is reshaped has there.
                        reshape.attribute.push(AttributeProto::int("allowzero", 1));
                    }
                    self.shape_behind(sizes, sample)
                }
            },
        };
        reshape.input.push(shape);
        self.nodes.push(reshape.named(&format!("{name}/reshape")));
    }

    /// A shape that is known.
    fn shape(&mut self, first: &[i64], groups: &[usize], sample: &[usize]) -> String {
        let shape = self.fresh("shape");
        let sizes = groups.iter().chain(sample).map(|&size| size as i64);
        let dims: Vec<i64> = first.iter().copied().chain(sizes).collect();
        self.constant(&shape, &dims);
        shape
    }

    /// The shape of samples of which there are as many as the first of these sizes say.
    fn shape_behind(&mut self, sizes: &str, sample: &[usize]) -> String {
        let [shape, groups, begin, end] = ["shape", "groups", "begin", "end"].map(|what| self.fresh(what));
        let rest = self.fresh("sample");
        let dims: Vec<i64> = sample.iter().map(|&size| size as i64).collect();
        let samples = self.found.view.samples as i64;
        self.constant(&begin, &[0]);
        self.constant(&end, &[samples]);
        self.constant(&rest, &dims);
        self.add(NodeProto::new("Slice", &[sizes, &begin, &end], &[&groups]));
        self.add(NodeProto::new("Concat", &[&groups, &rest], &[&shape]).with(AttributeProto::int("axis", 0)));
        shape
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use isqrt_cov_op::{Layer, OperatorKind};
    use isqrt_cov_proto::TensorData;

    use super::*;
    use crate::found::View;

    /// The operators around a layer, and the numbers of the last constant.
    fn around(view: View, groups: Option<&[usize]>, arrangement: Arrangement) -> (Vec<String>, Vec<i64>) {
        let example = Found::example(Layer::new(OperatorKind::IsqrtCov), "x", "y", vec![0]);
        let found = Found { view, groups: groups.map(<[usize]>::to_vec), arrangement, ..example };
        let mut constants = Vec::new();
        let nodes = nodes_for(&found, 17, &mut Names { used: HashSet::new() }, &mut constants);
        assert_eq!(nodes.last().unwrap().output, ["y"]);
        let last = constants.last().map(|last| TensorData::inline(last).unwrap().to_i64().unwrap());
        (nodes.iter().map(|node| node.op_type().to_owned()).collect(), last.unwrap_or_default())
    }

    #[test]
    fn as_little_stands_around_a_layer_as_its_view_needs() {
        const MERGING: [&str; 4] = ["Shape", "Slice", "Concat", "Reshape"];
        let views = |samples, order: Option<&[usize]>| View { order: order.map(<[usize]>::to_vec), samples };
        let apart = || Arrangement::Apart(vec![6]);
        let seen = around(views(1, Some(&[1, 0, 2])), None, Arrangement::AsGiven);
        assert_eq!(seen, (["Transpose", "IsqrtCov"].map(str::to_owned).to_vec(), vec![]));
        let with = |rest: &[&'static str]| [&MERGING, rest].concat();
        assert_eq!(around(views(0, None), None, apart()), (owned(&with(&["IsqrtCov", "Reshape"])), vec![6]));
        let seen = around(views(3, None), Some(&[2, 3]), apart());
        assert_eq!(seen, (owned(&with(&["IsqrtCov", "Reshape"])), vec![-1, 2, 3, 6]));
        // Any number of groups, which the input tells.
        let seen = around(views(2, None), None, apart());
        assert_eq!(seen, (owned(&with(&["IsqrtCov", "Slice", "Concat", "Reshape"])), vec![6]));
    }

    fn owned(operators: &[&str]) -> Vec<String> {
        operators.iter().map(|&operator| operator.to_owned()).collect()
    }
}
