//! Layers that an exporter broke: the iteration's in-place writes are gone, and the output no longer depends on the input.

use std::collections::HashSet;

use isqrt_cov_op::{Layer, OperatorKind, Vectorization};
use isqrt_cov_proto::TensorData;
use isqrt_cov_proto::onnx::{ModelProto, NodeProto, TensorProto, ValueInfoProto};

use super::divisor::Divisor;
use crate::constants::Constants;
use crate::evaluate::{Evaluator, Precision};
use crate::extract::extract;
use crate::found::{AS_IS, Arrangement, Found, Origin};
use crate::graph::{Flow, Kind, ValueId, any_inside, functions_with, is_matrix_product, moves};
use crate::recognize::identify::probed::samples;
use crate::recognize::observe::cuts::Cut;
use crate::recognize::observe::subject::Observed;
use crate::recognize::propose::places::Place;
use crate::recognize::{Hole, Lost};
use crate::scope::Scope;
use crate::tensor::{ElementType, Tensor};

impl Lost {
    /// The finding that `layer` stands where this one was; none where the sizes exclude it.
    #[must_use]
    pub fn put_back(&self, layer: Layer) -> Option<Found> {
        let hole = self.hole.as_ref()?;
        let Layer { layout, centered, correction, epsilon, .. } = hole.covariance;
        let normalization = hole.normalization.unwrap_or(layer.normalization);
        let layer = Layer { layout, centered, correction, epsilon, normalization, ..layer };
        let is_told = [
            ("iterations", false),
            ("vectorization", [Some(Vectorization::None), hole.order].contains(&Some(layer.vectorization))),
            ("normalization", hole.normalization.is_some()),
        ];
        let assumed = is_told.into_iter().filter(|(_, told)| !told).map(|(name, _)| name).collect();
        let own = layer.output_dims(&hole.input_dims).ok()?.split_off(1);
        let sample = hole.output_dims[1..].to_vec();
        (own.iter().product::<usize>() == sample.iter().product::<usize>()).then(|| Found {
            layer,
            scope: self.scope.clone(),
            within: self.within.clone(),
            input: self.input.clone(),
            output: self.output.clone(),
            element: hole.element,
            view: AS_IS.clone(),
            groups: None,
            arrangement: if own == sample { Arrangement::AsGiven } else { Arrangement::Reshaped(sample) },
            nodes: hole.nodes.clone(),
            origin: Origin::PutBack(assumed),
        })
    }

    /// Whether an operator's output, a triangle or a matrix, has the hole's size.
    #[must_use]
    pub fn can_be_put_back(&self) -> bool {
        let layer = Layer::new(OperatorKind::IsqrtCov);
        let fits = |vectorization| self.put_back(Layer { vectorization, ..layer }).is_some();
        [Vectorization::Upper, Vectorization::None].into_iter().any(fits)
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
    sources(flow, value).any(|value| {
        let Some(node) = flow.producer[value].map(|node| &flow.graph.node[node]) else { return false };
        node.op_type() == "Mul"
            && node.input.iter().any(|name| is_zero(name))
            && !sources(flow, value).skip(1).any(|above| scalars.contains(&above))
    })
}

/// A value and what it is made of, while that is one value.
pub fn sources(flow: &Flow, value: ValueId) -> impl Iterator<Item = ValueId> {
    std::iter::successors(Some(value), |value| {
        let node = flow.producer[*value].filter(|&node| !is_matrix_product(&flow.graph.node[node]))?;
        let mut data = flow.data_reads(node);
        data.next().filter(|_| data.next().is_none())
    })
}

/// Whether the elements of `root` are only moved, or some of them taken, on the way to the value made of it.
#[must_use]
pub fn is_moved(flow: &Flow, root: ValueId, value: ValueId) -> bool {
    let mut way = sources(flow, value).take_while(|value| *value != root);
    way.all(|value| flow.producer[value].is_some_and(|node| moves(&flow.graph.node[node])))
}

/// The finding for a constant value in a region that should depend on its input.
#[must_use]
pub fn describe(
    place: &Place,
    within: String,
    observed: &Observed,
    cut: &Cut,
    covariance: Option<(Layer, Divisor)>,
    order: Option<Vectorization>,
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
             at least 3K − 1 for K steps (14 for K = 5){}",
            flow.names[cut.value],
            samples(&observed.probed.inputs).count(),
            match covariance {
                Some((_, Divisor::Another)) =>
                    "; what multiplies it is no power of the covariance's trace or norm, so that it was another layer",
                _ => "",
            }
        ),
        hole: covariance.filter(|(_, divisor)| *divisor != Divisor::Another).map(|(covariance, divisor)| {
            Hole {
                covariance,
                normalization: divisor.norm(),
                element: observed.element,
                input_dims: observed.probed.dims().to_vec(),
                output_dims: cut.outputs[0].dims().to_vec(),
                order,
                nodes: flow.needed_only_for(&[cut.value], &[region.input]),
            }
        }),
    }
}

/// The order of the triangle `value`, of this shape, where the node that makes it takes its elements by constant indices. `frozen` is
/// what its graph has from outside.
#[must_use]
pub fn order_of(
    model: &ModelProto,
    Place { flow, opsets, .. }: &Place,
    frozen: &[TensorProto],
    (value, dims): (ValueId, &[usize]),
) -> Option<Vectorization> {
    let node = &flow.graph.node[flow.producer[value]?];
    if !matches!(node.op_type(), "Gather" | "GatherND") {
        return None;
    }
    let indices = flow.id(node.input.get(1)?).filter(|&indices| flow.kind[indices] != Kind::Data)?;
    let part = extract(model, flow, opsets, &[], frozen, &[indices]);
    let made = Evaluator::new(&part, Precision::Exact, None).ok()?.run(&[]).ok()?;
    let indices = made.first()?.to_f64();
    let entries: usize = dims[1..].iter().product();
    let side = (1..=entries).find(|side| side * (side + 1) / 2 >= entries)?;
    // Of rows that are flat, or of rows and columns.
    let found: Vec<usize> = match indices.len().checked_div(entries)? {
        1 => indices.iter().map(|&index| index as usize).collect(),
        2 => indices
            .chunks_exact(2)
            .map(|pair| (pair[0] as usize).wrapping_mul(side).wrapping_add(pair[1] as usize))
            .collect(),
        _ => return None,
    };
    // The lower triangle has the same numbers.
    let is_order = |order: &Vectorization| {
        let upper = order.entries(side).map(|(row, column)| row * side + column);
        let lower = order.entries(side).map(|(row, column)| column * side + row);
        upper.eq(found.iter().copied()) || lower.eq(found.iter().copied())
    };
    Vectorization::TRIANGLES.into_iter().find(is_order)
}

/// Takes out what is constant because of a lost layer on the way to it that can be put back, or because a function is called in which there
/// is one.
pub fn leave_to_holes(model: &ModelProto, places: &[Place], lost: &mut Vec<Lost>) {
    let holes: Vec<(Scope, String)> = lost
        .iter()
        .filter(|lost| lost.hole.is_some())
        .map(|lost| (lost.scope.clone(), lost.output.clone()))
        .collect();
    let bodies: Vec<&[NodeProto]> =
        holes.iter().filter_map(|(scope, _)| Some(&model.functions.get(scope.function?)?.node[..])).collect();
    let is_broken = |nodes: &[NodeProto]| bodies.iter().any(|body| std::ptr::eq(*body, nodes));
    let broken = functions_with(&model.functions, is_broken);
    lost.retain(|lost| {
        let is_hole =
            |output: &String| holes.iter().any(|(scope, hole)| *scope == lost.scope && hole == output);
        let is_of_hole = |node: &NodeProto| {
            node.output.iter().any(is_hole) || any_inside(node, &|node| broken.contains(&node.called()))
        };
        let is_explained =
            places.iter().find(|place| place.scope == lost.scope).and_then(|Place { flow, .. }| {
                let way = flow.between(flow.id(&lost.input)?, flow.id(&lost.output)?);
                Some(way.into_iter().any(|node| is_of_hole(&flow.graph.node[node])))
            });
        lost.hole.is_some() || is_explained != Some(true)
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
        // What depends on sizes alone, an encoding of positions say, is no layer's.
        let is_made =
            flow.known(output.name()).is_some_and(|(kind, trained)| kind == Kind::Constant || trained)
                || flow.is_zero(output.name());
        is_float(output) && (is_alone && is_made || is_hole())
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
    // Of sizes that only a file has.
    let elements = elements as u128;
    let triangle = ((8.0 * elements as f64 + 1.0).sqrt() as u128).saturating_sub(1) / 2;
    let square = (elements as f64).sqrt() as u128;
    elements > 1
        && ((triangle..=triangle + 1).any(|c| c * (c + 1) / 2 == elements)
            || (square..=square + 1).any(|c| c * c == elements))
}

#[cfg(test)]
mod tests {
    use isqrt_cov_proto::onnx::tensor_proto::DataType;
    use isqrt_cov_proto::onnx::{GraphProto, TensorProto};

    use super::*;
    use crate::recognize::propose::places::places;

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

    #[test]
    fn what_no_operator_gives_cannot_be_put_back() {
        let lost = |entries: usize| Lost {
            scope: Scope::default(),
            within: String::new(),
            input: "x".to_owned(),
            output: "y".to_owned(),
            reason: String::new(),
            hole: Some(Hole {
                covariance: Layer::new(OperatorKind::CovariancePooling),
                normalization: None,
                element: ElementType::F32,
                input_dims: vec![2, 16, 7, 7],
                output_dims: vec![2, entries],
                order: None,
                nodes: vec![0],
            }),
        };
        assert_eq!(
            [136, 256, 120, 28].map(|entries| lost(entries).can_be_put_back()),
            [true, true, false, false]
        );
        let layer = |vectorization| Layer { vectorization, ..Layer::new(OperatorKind::IsqrtCov) };
        let assumed =
            |entries, order| lost(entries).put_back(layer(order)).unwrap().assumed().unwrap().to_vec();
        assert_eq!(assumed(136, Vectorization::Upper), ["iterations", "vectorization", "normalization"]);
        assert_eq!(assumed(256, Vectorization::None), ["iterations", "normalization"]);
    }

    #[test]
    fn sizes_that_only_a_file_has_are_compared_too() {
        assert!(is_triangular_or_square(36) && is_triangular_or_square(49) && !is_triangular_or_square(7));
        assert!(is_triangular_or_square(1 << 62) && !is_triangular_or_square(usize::MAX));
    }

    #[test]
    fn indices_tell_the_order_of_a_triangle() {
        let order = |operator: &str, indices: &[i64], dims: &[usize]| {
            let port = |name: &str| ValueInfoProto::of_any_shape(name, DataType::Float);
            let graph = GraphProto {
                node: vec![NodeProto::new(operator, &["x", "indices"], &["y"])],
                initializer: vec![TensorProto::from_values("indices", dims, indices)],
                input: vec![port("x")],
                output: vec![port("y")],
                ..GraphProto::default()
            };
            let model = ModelProto::new(graph, 17);
            let places = places(&model, model.graph.as_ref().unwrap(), &[]);
            let value = places[0].flow.id("y").unwrap();
            order_of(&model, &places[0], &[], (value, &[2, 6]))
        };
        let [upper, across] = [Vectorization::Upper, Vectorization::UpperColumnMajor].map(Some);
        assert_eq!(order("Gather", &[0, 1, 2, 4, 5, 8], &[6]), upper);
        assert_eq!(order("Gather", &[0, 1, 4, 2, 5, 8], &[6]), across);
        // Of the lower triangle.
        assert_eq!(order("Gather", &[0, 3, 4, 6, 7, 8], &[6]), across);
        assert_eq!(order("GatherND", &[0, 0, 0, 1, 0, 2, 1, 1, 1, 2, 2, 2], &[6, 2]), upper);
        assert_eq!(order("Gather", &[8, 1, 2, 4, 5, 0], &[6]), None);
        assert_eq!(order("Gather", &[-1, i64::MIN, 2, 4, 5, 0], &[6]), None);
        assert_eq!(order("Add", &[0, 1, 2, 4, 5, 8], &[6]), None);
    }
}
