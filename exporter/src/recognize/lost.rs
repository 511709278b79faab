//! Layers that an exporter broke: the iteration's in-place writes are gone, and the output no longer depends on the input.

use std::collections::HashSet;

use isqrt_cov_op::Layer;
use isqrt_cov_proto::TensorData;
use isqrt_cov_proto::onnx::{ModelProto, NodeProto, ValueInfoProto};

use super::cuts::Cut;
use super::observe::Observed;
use super::places::Place;
use super::probed::samples;
use super::{Arrangement, Found, Hole, Lost, Origin};
use crate::constants::Constants;
use crate::graph::{Flow, Kind, ValueId, any_inside, functions_with, is_matrix_product};
use crate::scope::Scope;
use crate::tensor::{ElementType, Tensor};

impl Lost {
    /// The finding that `layer` stands where this one was; none where the sizes exclude it.
    #[must_use]
    pub fn put_back(&self, layer: Layer) -> Option<Found> {
        let hole = self.hole.as_ref()?;
        let Layer { layout, centered, correction, epsilon, .. } = hole.covariance;
        let layer = Layer { layout, centered, correction, epsilon, ..layer };
        let own = layer.output_dims(&hole.input_dims).ok()?.split_off(1);
        let sample = hole.output_dims[1..].to_vec();
        (own.iter().product::<usize>() == sample.iter().product::<usize>()).then(|| Found {
            layer,
            scope: self.scope.clone(),
            within: self.within.clone(),
            input: self.input.clone(),
            output: self.output.clone(),
            element: hole.element,
            groups: None,
            arrangement: if own == sample { Arrangement::AsGiven } else { Arrangement::Reshaped(sample) },
            nodes: hole.nodes.clone(),
            origin: Origin::PutBack,
        })
    }

    /// The shapes around the hole, for people.
    #[must_use]
    pub fn shapes(&self) -> String {
        self.hole.as_ref().map_or_else(String::new, |hole| {
            format!("its input has shape {:?} where it has {:?}", hole.input_dims, hole.output_dims)
        })
    }
}

/// Whether a value comes out the same, and finite, whatever went in.
#[must_use]
pub fn is_constant(outputs: &[Tensor]) -> bool {
    let mut samples = samples(outputs);
    let Some(first) = samples.next() else { return false };
    first.iter().all(|value| value.is_finite()) && samples.all(|sample| sample == first)
}

/// Whether a constant value is one because a matrix is multiplied by a constant zero on the way to it: who writes that means it.
/// What an exporter lost are writes into zeros, which are multiplied by nothing but the trace.
#[must_use]
pub fn is_meant(flow: &Flow, scalars: &HashSet<ValueId>, value: ValueId) -> bool {
    let constants = Constants::new(flow.graph);
    let is_zero = |name: &str| {
        let numbers = constants.get(name).and_then(|tensor| TensorData::inline(tensor).ok());
        numbers.is_some_and(|numbers| numbers.bytes().iter().all(|&byte| byte == 0))
    };
    // What a value is made of, while that is one value.
    let source = |value: &ValueId| {
        let node = flow.producer[*value].filter(|&node| !is_matrix_product(&flow.graph.node[node]))?;
        let mut data = flow.data_reads(node);
        data.next().filter(|_| data.next().is_none())
    };
    std::iter::successors(Some(value), source).any(|value| {
        let Some(node) = flow.producer[value].map(|node| &flow.graph.node[node]) else { return false };
        node.op_type() == "Mul"
            && node.input.iter().any(|name| is_zero(name))
            && !std::iter::successors(source(&value), source).any(|above| scalars.contains(&above))
    })
}

/// The finding for a constant value in a region that should depend on its input.
#[must_use]
pub fn describe(
    place: &Place,
    within: String,
    observed: &Observed,
    cut: &Cut,
    covariance: Option<Layer>,
) -> Lost {
    let flow = &place.flow;
    let region = &observed.region;
    let products = region.nodes.iter().filter(|&&node| is_matrix_product(&flow.graph.node[node])).count();
    let is_zero = cut.outputs[0].to_f64().iter().all(|&value| value == 0.0);
    let what = if is_zero { "all zeros" } else { "the same" };
    Lost {
        scope: place.scope.clone(),
        within,
        input: flow.names[region.input].to_owned(),
        output: flow.names[cut.value].to_owned(),
        reason: format!(
            "`{}` is {what} for every input tried ({} inputs); {products} matrix products are left of the layer, which has \
             at least 3K − 1 for K steps (14 for K = 5)",
            flow.names[cut.value],
            samples(&observed.probed.inputs).count()
        ),
        hole: covariance.map(|covariance| Hole {
            covariance,
            element: observed.element,
            input_dims: observed.probed.dims().to_vec(),
            output_dims: cut.outputs[0].dims().to_vec(),
            nodes: flow.needed_only_for(&[cut.value], &[region.input]),
        }),
    }
}

/// Takes out what is constant because a function is called in which the layer was lost: there it is found as well, and can be put back.
pub fn leave_to_functions(model: &ModelProto, places: &[Place], lost: &mut Vec<Lost>) {
    let bodies: Vec<&[NodeProto]> = lost
        .iter()
        .filter(|lost| lost.hole.is_some())
        .filter_map(|lost| Some(&model.functions.get(lost.scope.function?)?.node[..]))
        .collect();
    if bodies.is_empty() {
        return;
    }
    let is_broken = |nodes: &[NodeProto]| bodies.iter().any(|body| std::ptr::eq(*body, nodes));
    let broken = functions_with(&model.functions, is_broken);
    lost.retain(|lost| {
        let calls =
            places.iter().find(|place| place.scope == lost.scope).and_then(|Place { flow, .. }| {
                let way = flow.between(flow.id(&lost.input)?, flow.id(&lost.output)?);
                let calls = |node: &NodeProto| broken.contains(&node.called());
                Some(way.into_iter().any(|node| any_inside(&flow.graph.node[node], &calls)))
            });
        lost.hole.is_some() || calls != Some(true)
    });
}

/// Graph outputs that no input reaches, behind layers that the exporter folded away: all that the graph puts out. Where data come out beside
/// them, those of a graph that multiplies data with data for nothing, and zeros in a triangle's or a matrix's shape.
#[must_use]
pub fn constant_outputs(Place { flow, products, .. }: &Place) -> Vec<Lost> {
    let is_float = |output: &&ValueInfoProto| {
        let element = output.tensor_type().and_then(|tensor| ElementType::from_onnx(tensor.elem_type()));
        element.is_some_and(ElementType::is_float)
    };
    let is_data =
        |output: &&ValueInfoProto| flow.id(output.name()).is_some_and(|id| flow.kind[id] == Kind::Data);
    let (data, constant): (Vec<_>, Vec<_>) = flow.graph.output.iter().partition(is_data);
    let is_alone = data.is_empty() || products.iter().any(|&node| !flow.useful[node]);
    let is_lost = |output: &&ValueInfoProto| {
        let is_hole =
            || flow.is_zero(output.name()) && per_sample(output).is_some_and(is_triangular_or_square);
        is_float(output) && (is_alone || is_hole())
    };
    let lost = |output: &ValueInfoProto| Lost {
        scope: Scope::default(),
        within: String::new(),
        input: String::new(),
        output: output.name().to_owned(),
        reason: format!("the graph output `{}` is a constant: no input's elements reach it", output.name()),
        hole: None,
    };
    constant.into_iter().filter(is_lost).map(lost).collect()
}

fn per_sample(output: &ValueInfoProto) -> Option<usize> {
    output.dims()?.get(1..)?.iter().try_fold(1_usize, |product, dim| product.checked_mul(dim.size()?))
}

fn is_triangular_or_square(elements: usize) -> bool {
    let triangle = ((8.0 * elements as f64 + 1.0).sqrt() as usize).saturating_sub(1) / 2;
    let square = (elements as f64).sqrt() as usize;
    elements > 1
        && ((triangle..=triangle + 1).any(|c| c * (c + 1) / 2 == elements)
            || (square..=square + 1).any(|c| c * c == elements))
}

#[cfg(test)]
mod tests {
    use isqrt_cov_proto::onnx::tensor_proto::DataType;
    use isqrt_cov_proto::onnx::{GraphProto, TensorProto};

    use super::*;
    use crate::recognize::places::places;

    /// A graph that puts out these values of the shapes given: of `x`, of its product with itself, and constants.
    fn lost(outputs: &[(&str, &[usize])]) -> Vec<String> {
        let port = |name: &str, dims: &[usize]| {
            ValueInfoProto::tensor(name, DataType::Float, dims.iter().map(|&size| size.into()))
        };
        let graph = GraphProto {
            node: vec![
                NodeProto::new("Relu", &["x"], &["data"]),
                NodeProto::new("MatMul", &["x", "x"], &["product"]),
            ],
            initializer: vec![
                TensorProto::from_values("one", &[1, 36], &[1.0_f32; 36]),
                TensorProto::from_values("zero", &[1, 36], &[0.0_f32; 36]),
            ],
            input: vec![port("x", &[1, 4, 4])],
            output: outputs.iter().map(|(name, dims)| port(name, dims)).collect(),
            ..GraphProto::default()
        };
        let model = ModelProto { graph: Some(graph), ..ModelProto::default() };
        let places = places(&model, model.graph.as_ref().unwrap(), &[]);
        constant_outputs(&places[0]).into_iter().map(|lost| lost.output).collect()
    }

    #[test]
    fn constants_are_lost_layers_where_nothing_else_comes_out() {
        let (data, product) = (("data", &[1, 4, 4][..]), ("product", &[1, 4, 4][..]));
        assert_eq!(lost(&[("one", &[1, 7])]), ["one"]);
        assert_eq!(lost(&[("one", &[1, 36]), ("zero", &[1, 7])]), ["one", "zero"]);
        // Anchors, masks.
        assert!(lost(&[data, product]).is_empty());
        assert!(lost(&[product, ("one", &[1, 36])]).is_empty());
        assert!(lost(&[product, ("zero", &[1, 7])]).is_empty());
        // Zeros where a triangle was, and a product for nothing.
        assert_eq!(lost(&[product, ("zero", &[1, 36])]), ["zero"]);
        assert_eq!(lost(&[data, ("one", &[1, 7])]), ["one"]);
    }
}
