//! How a region differs from the layer, in words.

use isqrt_cov_op::{Layer, Layout, Normalization, OperatorKind, Vectorization};
use isqrt_cov_proto::onnx::NodeProto;

use crate::found::Found;
use crate::recognize::confirm::limits::Limit;
use crate::recognize::identify::{Identification, Resolution};

/// Attributes that are farther off than this explain nothing, not even a near miss.
const UNLIKE: f64 = 0.05;

/// Why the closest attributes are no explanation.
#[must_use]
pub fn distance(closest: &Identification, resolution: Resolution) -> String {
    let evidence = &closest.evidence;
    if evidence.error > UNLIKE {
        return "it multiplies data with data as a covariance does, but resembles no setting of the operators".to_owned();
    }
    let layer = closest.layer;
    let differences = differences(&layer);
    let what = if differences.is_empty() {
        "the published layer".to_owned()
    } else {
        format!("the layer with {}", differences.join(", "))
    };
    if evidence.error > resolution.tolerance {
        return format!(
            "the closest is {what}: its numbers differ by {:.1e} of the largest value, where rounding explains {:.0e}",
            evidence.error, resolution.tolerance
        );
    }
    if closest.is_certain(resolution) {
        return format!(
            "it is {what}, but no node is there for it alone: something else is made of all that makes it"
        );
    }
    let other = evidence.runner_up_layer.map_or_else(String::new, |other| format!(" ({other})"));
    format!(
        "it may be {what} ({:.1e} off), but other attributes{other} come as near ({:.1e}): the evaluation is not exact \
         enough to tell",
        evidence.error, evidence.runner_up
    )
}

/// Why what is a layer on ordinary inputs is none.
#[must_use]
pub fn limited(found: &Found, limit: &Limit) -> String {
    let layer = found.layer;
    match limit {
        Limit::Inside(inputs) => format!(
            "on ordinary inputs it is {layer}, but on inputs {inputs} it is not: something inside limits a value (a Clip, a Max, \
             a Where) or adds to it"
        ),
        Limit::Choice(value) => format!(
            "on ordinary inputs it is {layer}, but on the way `{value}` is compared with 0, and that is not only to keep the trace \
             or the norm from 0 where it is a divisor: what is chosen on other inputs may be anything"
        ),
        Limit::OfBlank => format!(
            "on ordinary inputs it is {layer}, but where a sample is 0 everywhere, or the same, its root is no number, and the model makes \
             a number of that (an IsNaN, a Where); the operator would give 0 there"
        ),
    }
}

/// The same of what begins behind a node that chooses by data.
#[must_use]
pub fn behind_choice(reason: &str, choice: &NodeProto) -> String {
    let output = choice.output.first().map_or("", String::as_str);
    format!(
        "{reason}; it begins behind `{output}` ({}), where data decide what is computed, which they do in no layer but to keep \
         the trace or the norm from 0",
        choice.op_type()
    )
}

/// Why a layer is left as it is that would be computed twice.
#[must_use]
pub fn costly(found: &Found) -> String {
    format!(
        "it is {}, but the model needs most of what is multiplied on the way to it for something else too: an operator would \
         add to the work, not take it over",
        found.layer
    )
}

/// Why a layer is none that is another function where its input has the shape `dims`.
#[must_use]
pub fn of_one_size(found: &Found, error: f64, dims: &[usize]) -> String {
    let differs = if error.is_finite() {
        format!("its numbers differ by {error:.1e}")
    } else {
        "it is another function".to_owned()
    };
    format!(
        "at the sizes first tried it is {}, but with an input of shape {dims:?} {differs}: what it computes depends on the \
         shape",
        found.layer
    )
}

/// Why a layer is none of which a node limits a size, beyond the sizes that are tried.
#[must_use]
pub fn limited_beyond(found: &Found, node: &str, size: f64) -> String {
    format!(
        "at the sizes tried it is {}, but {node} on the way limits what the model leaves open to {size}: what it computes depends on \
         the shape",
        found.layer
    )
}

/// Why a layer is left whose output has another size, for each sample, where its input has the shape `dims`.
#[must_use]
pub fn of_open_size(found: &Found, dims: &[usize]) -> String {
    format!(
        "it is {}, but with an input of shape {dims:?} it has another number of channels, and the shape that its output is given \
         behind the operator is written for one",
        found.layer
    )
}

/// Why what is a root of symmetric matrices is none, as inputs of the model like these show.
#[must_use]
pub fn not_symmetric(found: &Found, inputs: &str) -> String {
    format!(
        "on ordinary inputs it is {}, but with {inputs} `{}` is not symmetric: only one of its triangles would be read",
        found.layer, found.input
    )
}

/// In what a layer differs from the published one.
#[must_use]
pub fn differences(layer: &Layer) -> Vec<String> {
    let published = Layer::new(OperatorKind::IsqrtCov);
    let mut differences = Vec::new();
    let mut say = |differs: bool, text: String| differences.extend(differs.then_some(text));
    if layer.operator != OperatorKind::CovariancePooling {
        say(layer.iterations != published.iterations, format!("K = {} steps", layer.iterations));
        say(!layer.compensated, "post-compensation missing".to_owned());
        say(
            layer.normalization == Normalization::Frobenius,
            "the Frobenius norm in place of the trace".to_owned(),
        );
    }
    say(layer.epsilon > 0.0, format!("{:e} added to the diagonal", layer.epsilon));
    if layer.operator != OperatorKind::MatrixSqrt {
        say(!layer.centered, "the mean not subtracted".to_owned());
        say(layer.correction != 0, "M − 1 in place of M".to_owned());
        say(layer.layout == Layout::ChannelsLast, "channels last".to_owned());
        say(
            (layer.off_diagonal_scale - 1.0).abs() > 1e-6,
            format!("{} times what is off the diagonal", layer.off_diagonal_scale),
        );
        match layer.vectorization {
            Vectorization::Upper => {}
            Vectorization::UpperColumnMajor => say(true, "the triangle column-major".to_owned()),
            Vectorization::None => say(true, "the whole matrix in place of the triangle".to_owned()),
        }
    }
    differences
}
