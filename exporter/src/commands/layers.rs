//! What recognition found, for machines and for people.

use std::path::Path;

use anyhow::{Result, bail};
use isqrt_cov_op::layer::Value as AttributeValue;
use isqrt_cov_op::{DOMAIN, Layer};
use isqrt_cov_proto::each_node;
use isqrt_cov_proto::onnx::{ModelProto, NodeProto};
use serde_json::{Value, json};

use crate::body::OLDEST_OPSET;
use crate::commands::answer::Refusal;
use crate::found::Found;
use crate::functions::{Fault, newer};
use crate::fused::{layer_of, standard_opset};
use crate::recognize::{Findings, Lost, Miss};
use crate::runtime::Runtime;
use crate::table::{Table, one_line};

/// What is to be known of a layer that is the same down to small inputs only.
pub fn guarded(found: &Found) -> Option<String> {
    found.recognition()?.evidence.down_to.map(|scale| {
        format!(
            "the model adds or limits something by next to nothing, against a division by 0 as a rule; the operator does not. \
             The numbers are the same where the layer reads some of about {scale:.0e}, a thousandth of what is usual, and \
             others where all are far smaller"
        )
    })
}

/// A layer found, as JSON; every attribute is listed, defaults too.
pub fn layer_json(found: &Found) -> Value {
    json!({
        "operator": found.layer.name(),
        "attributes": attributes_json(&found.layer),
        "input": found.input,
        "output": found.output,
        "within": within(&found.within),
        "axes": found.view.order,
        "sample_axes": found.view.samples,
        "groups": found.groups.as_ref().map(|sizes| sizes.iter().product::<usize>()),
        "element_type": found.element.name(),
        "nodes_replaced": found.nodes.len(),
        "evidence": evidence_json(found),
    })
}

/// Why a layer was recognized, as JSON with the same fields where it was not.
fn evidence_json(found: &Found) -> Value {
    let evidence = found.recognition().map(|recognition| &recognition.evidence);
    let runner_up = evidence.and_then(|evidence| evidence.runner_up_layer.as_ref());
    json!({
        "evaluated_in": found.recognition().map_or("", |recognition| &recognition.evaluator),
        "error": evidence.map(|evidence| evidence.error),
        "runner_up_error": evidence.map(|evidence| evidence.runner_up),
        "runner_up": runner_up.map(|layer| difference(layer, &found.layer)),
        "probes": evidence.map_or(0, |evidence| evidence.probes),
        "same_down_to": evidence.and_then(|evidence| evidence.down_to),
    })
}

/// A layer by the value that it computes, and the graph that it is in.
pub fn place(found: &Found) -> String {
    match within(&found.within) {
        None => found.output.clone(),
        Some(within) => format!("{} ({within})", found.output),
    }
}

/// The graph that a layer is in: nothing for the main graph.
fn within(place: &str) -> Option<&str> {
    (!place.is_empty()).then_some(place)
}

/// A near miss, as JSON.
pub fn miss_json(miss: &Miss) -> Value {
    json!({
        "input": miss.input,
        "output": miss.output,
        "reason": miss.reason,
        "closest_operator": miss.closest.as_ref().map(Layer::name),
        "closest_attributes": miss.closest.as_ref().map(attributes_json),
        "error": miss.error,
        "evaluated_in": miss.evaluator,
    })
}

/// A layer that lost its iteration, as JSON.
pub fn lost_json(lost: &Lost) -> Value {
    json!({ "input": lost.input, "output": lost.output, "reason": lost.reason })
}

/// What the columns of the table below say.
const LEGEND: &str = "\
ERROR is how far the operator in float64 is from what the model's nodes compute, as a share of the greatest value; NEXT BEST is the
same of the attributes that come second, which must be far worse.
";

/// The layers found, as a table with the columns that people compare.
pub fn layer_table(layers: &[Found]) -> String {
    let mut table = Table::new(&["layer", "attributes", "input", "output", "nodes", "error", "next best"]);
    for found in layers {
        let evidence = found.recognition().map(|recognition| &recognition.evidence);
        let error =
            evidence.map_or_else(|| "assumed".to_owned(), |evidence| format!("{:.0e}", evidence.error));
        let next = evidence.and_then(|evidence| {
            let layer = evidence.runner_up_layer.as_ref()?;
            Some(format!("{:.0e} ({})", evidence.runner_up, difference(layer, &found.layer)))
        });
        table.row([
            found.layer.name().to_owned(),
            attributes_text(&found.layer),
            input_text(found),
            found.output.clone(),
            found.nodes.len().to_string(),
            error,
            next.unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    let legend = if layers.iter().all(Found::is_put_back) { "" } else { LEGEND };
    table.render() + legend
}

/// What a layer reads, where that is, and how, where that is not as it is.
fn input_text(found: &Found) -> String {
    let order = found.view.order.as_ref().map(|order| {
        let axes: Vec<String> = order.iter().map(usize::to_string).collect();
        format!("axes {}", axes.join(", "))
    });
    let samples = (found.view.samples != 1).then(|| match found.view.samples {
        0 => "all of it one sample".to_owned(),
        count => format!("the first {count} of its axes count samples"),
    });
    let within = within(&found.within).map(str::to_owned);
    let notes: Vec<String> = [within, order, samples].into_iter().flatten().collect();
    if notes.is_empty() { found.input.clone() } else { format!("{} ({})", found.input, notes.join("; ")) }
}

/// Layers by the values that they read and compute, in one line.
pub fn listed<'f>(layers: impl IntoIterator<Item = &'f Found>) -> String {
    let one = |found: &Found| format!("`{}` → `{}`", found.input, found.output);
    layers.into_iter().map(one).collect::<Vec<_>>().join(", ")
}

/// An operator with its attributes.
pub fn named(layer: &Layer) -> String {
    format!("{} ({})", layer.name(), attributes_text(layer))
}

/// What is to be known of layers beside their attributes, near misses and lost iterations, a paragraph each.
pub fn others_text(findings: &Findings) -> String {
    let guarded = findings.layers.iter().filter_map(|found| Some((found, guarded(found)?)));
    let guarded = guarded.map(|(found, words)| ("guarded", &found.input, &found.output, words));
    let lost = findings.lost.iter();
    let lost = lost.map(|lost| ("lost iteration", &lost.input, &lost.output, lost.reason.clone()));
    let misses = findings.misses.iter();
    let misses = misses.map(|miss| ("not a layer", &miss.input, &miss.output, miss.reason.clone()));
    let line = |(what, input, output, reason): (_, &String, &String, String)| {
        one_line(&format!("{what}: `{input}` → `{output}`: {reason}")) + "\n"
    };
    guarded.chain(lost).chain(misses).map(line).collect()
}

/// Why a model with these findings, and these faults of the operators that it has, cannot be converted; nothing where it can.
pub fn refusal(
    findings: &Findings,
    model: &ModelProto,
    faults: &[Fault],
    runtime: &dyn Runtime,
) -> Option<Refusal> {
    if let Some(lost) = findings.lost.first() {
        return Some(Refusal { reason: "lost-iteration", message: lost_message(lost) });
    }
    if !findings.layers.is_empty() {
        return None;
    }
    let fused = fused(model);
    if !fused.is_empty() {
        let faults = faults.iter().map(|fault| format!("; {fault}"));
        let message = format!(
            "the model is converted already: it holds {}{}",
            fused_text(&fused),
            faults.collect::<String>()
        );
        return Some(Refusal { reason: "already-converted", message });
    }
    let what =
        if findings.misses.is_empty() { "covariance layer" } else { "layer that an operator computes" };
    let message = match &findings.not_evaluated {
        None => format!("the model holds no {what} (evaluated in {}){}", runtime.name(), hidden(model)),
        Some(failure) => format!(
            "no {what} was found, but not all of the model could be evaluated, so there may be one: {failure}"
        ),
    };
    Some(Refusal { reason: "no-layer-found", message })
}

/// What a model has that a layer may be hidden in, and what to do about it.
fn hidden(model: &ModelProto) -> &'static str {
    let nodes = all_nodes(model);
    let sparse = |node: &&NodeProto| node.is("Constant") && node.find("sparse_value").is_some();
    let quantizes = |node: &&NodeProto| {
        let name = node.op_type();
        ["Quantize", "Dequantize", "DynamicQuantize", "QLinear"].iter().any(|begin| name.starts_with(begin))
            || matches!(name, "MatMulInteger" | "ConvInteger")
    };
    if model.graph.iter().any(|graph| !graph.sparse_initializer.is_empty()) || nodes.iter().any(sparse) {
        "; its sparse tensors are not read: write them as dense ones"
    } else if nodes.iter().any(quantizes) {
        "; it is quantized, and a layer that is quantized itself is not recognized: convert the model first, or quantize its other nodes only"
    } else {
        ""
    }
}

/// Whether nothing is refused but to convert a model again.
pub fn is_converted_already(refusal: &Refusal) -> bool {
    refusal.reason == "already-converted"
}

/// Why `convert` refuses a model though it holds layers; nothing where it does not.
pub fn obstacle(findings: &Findings, model: &ModelProto) -> Option<String> {
    let standard = standard_opset(&model.opset_import);
    (!findings.layers.is_empty() && standard < OLDEST_OPSET).then(|| {
        format!(
            "convert takes operator sets from {OLDEST_OPSET} on, and this model is of {standard}: convert it with \
             onnx.version_converter first"
        )
    })
}

/// What to do about a layer whose iteration is gone.
fn lost_message(lost: &Lost) -> String {
    let again = "convert the checkpoint itself, or export it again with torch.onnx.export(…, dynamo=True)";
    if lost.hole.is_none() {
        return format!(
            "{}: the model does not compute what was trained, and the layer is gone; {again}",
            lost.reason
        );
    }
    let dropped = format!(
        "the exporter dropped the iteration of the layer that reads `{}`: the model does not compute what was trained",
        lost.input
    );
    if lost.can_be_put_back() {
        format!(
            "{dropped}. Either {again}; or, as the trained weights are all there, put the layer back with convert --repair \
             --iterations K [--expected FILE], where K is the number of steps that the model was trained with (published: 5)"
        )
    } else {
        format!(
            "{dropped}, and no operator gives what stood in place of `{}`: {}; {again}",
            lost.output,
            lost.shapes()
        )
    }
}

/// The nodes of our domain that a model holds already, wherever they are.
pub fn fused(model: &ModelProto) -> Vec<&NodeProto> {
    all_nodes(model).into_iter().filter(|node| node.domain() == DOMAIN).collect()
}

/// Holds a model that is to be changed to the versions of the operators that are known here.
///
/// # Errors
/// A newer one: what it computes is not known, and cannot be kept.
pub fn ensure_known(model: &ModelProto, path: &Path) -> Result<()> {
    match newer(model, &fused(model)) {
        Some(newer) => bail!("{}: {newer}", path.display()),
        None => Ok(()),
    }
}

/// Nodes of our domain, as JSON. Attributes that only the caller of a function knows are null.
pub fn fused_json(nodes: &[&NodeProto]) -> Value {
    let one = |node: &&NodeProto| {
        json!({
            "operator": node.op_type(),
            "attributes": layer_of(node).ok().as_ref().map(attributes_json),
            "input": node.input.first(),
            "output": node.output.first(),
        })
    };
    nodes.iter().map(one).collect()
}

/// Nodes of our domain with their attributes, and how many there are of each.
pub fn fused_text(nodes: &[&NodeProto]) -> String {
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for node in nodes {
        let attributes = layer_of(node).map_or_else(|_| "?".to_owned(), |layer| attributes_text(&layer));
        *counts.entry(format!("{} ({attributes})", node.op_type())).or_default() += 1;
    }
    counts.into_iter().map(|(operator, count)| format!("{count} {operator}")).collect::<Vec<_>>().join(", ")
}

/// Number of nodes in the graph, in functions but the operators' own, and in every graph inside these.
pub fn node_count(model: &ModelProto) -> usize {
    all_nodes(model).len()
}

fn all_nodes(model: &ModelProto) -> Vec<&NodeProto> {
    let functions = model.functions.iter().filter(|function| function.domain() != DOMAIN);
    let graphs = model.graph.iter().map(|graph| &graph.node);
    let mut nodes = Vec::new();
    for list in graphs.chain(functions.map(|function| &function.node)) {
        each_node(list, &mut |node| nodes.push(node));
    }
    nodes
}

fn attributes_json(layer: &Layer) -> Value {
    let value = |value: AttributeValue| match value {
        AttributeValue::Integer(value) => json!(value),
        AttributeValue::Float(value) => json!(f64::from(value)),
        AttributeValue::Word(word) => json!(word),
    };
    layer.attributes().into_iter().map(|(name, given)| (name, value(given))).collect()
}

/// The attributes that differ from their defaults, and always the number of iterations where there is one.
fn attributes_text(layer: &Layer) -> String {
    let changed = layer.changed_attributes();
    let listed = layer.attributes().into_iter();
    let listed = listed.filter(|given| given.0 == "iterations" || changed.contains(given));
    let listed: Vec<_> = listed.map(|(name, value)| format!("{name}={value}")).collect();
    if listed.is_empty() { "defaults".to_owned() } else { listed.join(" ") }
}

/// The attributes in which `layer` differs from `other`.
pub fn difference(layer: &Layer, other: &Layer) -> String {
    let mine = layer.attributes();
    let theirs = other.attributes();
    let differing = mine.into_iter().filter(|pair| !theirs.contains(pair));
    let mut parts: Vec<_> = differing.map(|(name, value)| format!("{name}={value}")).collect();
    if layer.operator != other.operator {
        parts.insert(0, layer.name().to_owned());
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use isqrt_cov_op::OperatorKind;

    use super::*;
    use crate::found::View;

    #[test]
    fn what_is_read_otherwise_than_as_it_is_is_said() {
        let found = |within: &str, order: Option<&[usize]>, samples| Found {
            within: within.to_owned(),
            view: View { order: order.map(<[usize]>::to_vec), samples },
            ..Found::example(Layer::new(OperatorKind::IsqrtCov), "x", "y", vec![0])
        };
        assert_eq!(input_text(&found("", None, 1)), "x");
        assert_eq!(input_text(&found("function `f`", None, 1)), "x (function `f`)");
        assert_eq!(input_text(&found("", None, 0)), "x (all of it one sample)");
        assert_eq!(
            input_text(&found("loop", Some(&[0, 2, 1, 3]), 2)),
            "x (loop; axes 0, 2, 1, 3; the first 2 of its axes count samples)"
        );
    }

    #[test]
    fn a_layer_that_is_the_same_down_to_some_inputs_says_so() {
        let found = Found::example(Layer::new(OperatorKind::IsqrtCov), "x", "y", vec![0]);
        let text =
            |found: &Found| others_text(&Findings { layers: vec![found.clone()], ..Findings::default() });
        assert_eq!(text(&found), "");
        assert_eq!(layer_json(&found)["evidence"]["same_down_to"], Value::Null);
        let found = found.recognized_with(|recognition| recognition.evidence.down_to = Some(2e-3));
        assert!(text(&found).starts_with("guarded: `x` → `y`: ") && text(&found).contains("2e-3"));
        assert_eq!(layer_json(&found)["evidence"]["same_down_to"], 2e-3);
    }
}
