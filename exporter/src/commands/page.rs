//! A conversion's report as a page.

use std::path::Path;

use isqrt_cov_proto::onnx::{ModelProto, NodeProto};

use super::conversion::{Conversion, Converted};
use super::layers::guarded;
use super::{facts, layers};
use crate::found::{Found, Origin, Recognition};
use crate::proof::{Accuracy, Difference, Latency, Proof, number};
use crate::report::chart::histogram;
use crate::report::html::{self, Markup, element, figure, paragraph, section, table, text};
use crate::report::picture::{Picture, picture};
use crate::rewrite;
use crate::signature::Signature;
use crate::table::Table;

/// Outputs whose errors are drawn.
const OUTPUTS: usize = 4;

/// The page on `conversion` of the model `original`, read from `input` and, where it was proven, written to `written`.
pub fn page(conversion: &Conversion, original: &ModelProto, input: &Path, written: Option<&Path>) -> String {
    let name = input.file_name().unwrap_or_default().to_string_lossy();
    let title = format!("Conversion of {name}");
    let mut body = element("h1", "", &text(&title));
    body.extend([verdict(conversion), model(conversion, original, input, written)]);
    if let Some(Converted { proof, latency, .. }) = &conversion.converted {
        body.extend([outputs(proof)]);
        body.extend(latency.as_ref().map(|latency| section("Latency", &latencies(latency))));
    }
    for (index, found) in conversion.findings.layers.iter().enumerate() {
        let accuracy = conversion.converted.as_ref().and_then(|done| done.accuracies.get(index));
        let truth = accuracy.map(|accuracy| truth(accuracy, conversion.refusal.is_none()));
        body.extend([layer(index + 1, found, truth, original)]);
    }
    body.extend([others(conversion)]);
    body.extend([paragraph("note", &format!("Written by isqrt-cov {}.", env!("CARGO_PKG_VERSION")))]);
    html::page(&title, &body)
}

fn verdict(conversion: &Conversion) -> Markup {
    if let Some(refusal) = &conversion.refusal {
        return paragraph("verdict bad", &format!("No ({}): {}", refusal.reason, refusal.message));
    }
    let count = conversion.findings.layers.len();
    let layers = if count == 1 { "One layer is now".to_owned() } else { format!("{count} layers are now") };
    let nodes = if count == 1 { "a single node" } else { "a single node each" };
    if conversion.trained.is_some() {
        let what = "The model computes what the checkpoint's network does, with a single node for each of its layers.";
        return paragraph("verdict good", what);
    }
    let assumed = conversion.findings.layers.iter().any(Found::is_put_back);
    let function = if assumed {
        "and the model computes what it would with the layers that were lost, put back as assumed"
    } else {
        "and the model computes the same function"
    };
    paragraph("verdict good", &format!("{layers} {nodes}, {function}."))
}

/// A table of names and values as markup.
fn rows(table: &Table) -> Markup {
    let rows: Vec<(&str, &str)> = table.rows().iter().map(|row| (row[0].as_str(), row[1].as_str())).collect();
    html::pairs(&rows)
}

fn model(conversion: &Conversion, original: &ModelProto, input: &Path, written: Option<&Path>) -> Markup {
    let mut table = Table::pairs();
    table.row(["model".to_owned(), input.display().to_string()]);
    if let Some(trained) = &conversion.trained {
        trained.describe(&mut table);
    }
    if let Ok(signature) = Signature::of(original) {
        facts::describe(original, &signature, &mut table);
    }
    if conversion.converted.is_none() && conversion.nodes_before > 0 {
        table.row(["nodes".to_owned(), conversion.nodes_before.to_string()]);
    }
    conversion.summary(&mut table);
    table
        .row(["written".to_owned(), written.map_or("nothing".to_owned(), |path| path.display().to_string())]);
    section("Model and proof", &rows(&table))
}

/// How far the outputs of both models are apart.
fn outputs(proof: &Proof) -> Markup {
    let drawn = proof.outputs.iter().take(OUTPUTS);
    let mut content: Markup = drawn
        .map(|(name, difference)| {
            let caption = format!(
                "Output {name}: original against converted, {} of {} numbers equal to the last bit.",
                difference.bins(1).0,
                difference.finite
            );
            errors(&[("original against converted", difference)], Some(proof.tolerance), &caption)
        })
        .collect();
    if proof.outputs.len() > OUTPUTS {
        content.extend([paragraph(
            "note",
            &format!("{} outputs are not drawn.", proof.outputs.len() - OUTPUTS),
        )]);
    }
    section("Difference of the outputs", &content)
}

/// A histogram with its caption; the caption alone where there is no error to draw.
fn errors(series: &[(&str, &Difference)], limit: Option<f64>, caption: &str) -> Markup {
    histogram(series, limit).map_or_else(|| paragraph("", caption), |drawn| figure(&drawn, caption))
}

fn latencies(latency: &Result<Latency, String>) -> Markup {
    let latency = match latency {
        Ok(latency) => latency,
        Err(reason) => return paragraph("note", &format!("Not measured: {reason}")),
    };
    let row = |name: &str, time: f64| {
        vec![name.to_owned(), format!("{time:.3}"), format!("{:.2}×", latency.before / time)]
    };
    let rows = [row("original", latency.before), row("converted", latency.after)];
    let how = format!(
        "The whole model in {}, on inputs of shape {:?}: medians of {} runs of each, in turns. It is a look, not a \
         benchmark: isqrt-cov bench measures longer, on your batch and threads.",
        latency.runtime, latency.inputs, latency.rounds
    );
    [table(&["model", "ms a run", "ratio"], &rows), paragraph("note", &how)].into_iter().collect()
}

fn layer(place: usize, found: &Found, truth: Option<Markup>, original: &ModelProto) -> Markup {
    let heading = format!("Layer {place}: {} at {}", found.layer.name(), layers::place(found));
    let mut facts = vec![
        ("reads", found.input.clone()),
        ("computes", found.output.clone()),
        ("element type", found.element.name().to_owned()),
        ("nodes replaced", found.nodes.len().to_string()),
        ("recognized by", recognized(found)),
    ];
    if let Some(Recognition { evidence, .. }) = found.recognition()
        && let Some(runner_up) = &evidence.runner_up_layer
    {
        let margin = evidence.runner_up / evidence.error.max(f64::MIN_POSITIVE);
        facts.push((
            "next best",
            format!(
                "{}: error {}, {margin:.0} times as far off",
                layers::difference(runner_up, &found.layer),
                number(evidence.runner_up)
            ),
        ));
    }
    let attributes: Vec<(&str, String)> =
        found.layer.attributes().into_iter().map(|(name, value)| (name, value.to_string())).collect();
    let mut content = html::pairs(&facts);
    content.extend([heading_3("Attributes"), html::pairs(&attributes)]);
    content.extend(truth);
    content.extend([heading_3("Graph"), pictures(found, original)]);
    section(&heading, &content)
}

/// How it is known what a layer is.
fn recognized(found: &Found) -> String {
    match &found.origin {
        Origin::Built => "the architecture that the checkpoint is of".to_owned(),
        Origin::PutBack(_) => "nothing: it was put back as told".to_owned(),
        Origin::Recognized(recognition) => {
            let guarded = guarded(found).map_or_else(String::new, |words| format!(". Guarded: {words}"));
            format!(
                "max error {} against the float64 reference, over {} probes, evaluated by {}{guarded}",
                number(recognition.evidence.error),
                recognition.evidence.probes,
                recognition.evaluator
            )
        }
    }
}

fn heading_3(words: &str) -> Markup {
    element("h3", "", &text(words))
}

/// A layer's errors against float64, in numbers and drawn; which is nearer is said of a model that is proven.
fn truth(accuracy: &Result<Accuracy, String>, is_proven: bool) -> Markup {
    let mut content = heading_3("Error against float64");
    match accuracy {
        Err(reason) => content.extend([paragraph("note", &format!("Not measured: {reason}"))]),
        Ok(accuracy) => {
            let row = |name: &str, difference: &Difference| {
                let errors = [difference.max, difference.quantile_999(), difference.mean()].map(number);
                std::iter::once(name.to_owned()).chain(errors).collect::<Vec<_>>()
            };
            let rows = [row("before", &accuracy.before), row("after", &accuracy.after)];
            let verdict = if is_proven {
                format!("On {} samples {}.", accuracy.samples, accuracy.verdict())
            } else {
                format!("On {} samples.", accuracy.samples)
            };
            let series = [("before", &accuracy.before), ("after", &accuracy.after)];
            content.extend([
                table(&["layer", "max", "99.9 %", "mean"], &rows),
                paragraph("", &verdict),
                errors(
                    &series,
                    None,
                    "Errors before (gray) and after (blue), relative to the greatest value of a run.",
                ),
            ]);
        }
    }
    content
}

/// The region before and after.
fn pictures(found: &Found, original: &ModelProto) -> Markup {
    let nodes = found.scope.nodes(original).unwrap_or_default();
    let before: Vec<&NodeProto> = found.nodes.iter().filter_map(|&node| nodes.get(node)).collect();
    let before = picture(&before, &found.input, &found.output);
    let after = rewrite::nodes_of(found);
    let count = after.len();
    let after = picture(&after.iter().collect::<Vec<_>>(), &found.input, &found.output);
    let side = |caption: &str, nodes: usize, picture: &Picture| {
        let nodes = if nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") };
        let left_out =
            if picture.left_out.is_empty() { String::new() } else { format!("; {}", picture.left_out) };
        figure(&picture.svg, &format!("{caption}: {nodes}{left_out}"))
    };
    let sides = [side("Before", found.nodes.len(), &before), side("After", count, &after)];
    element("div", "sides", &sides.into_iter().collect())
}

/// What was found and not converted.
fn others(conversion: &Conversion) -> Markup {
    let skipped =
        conversion.skipped.iter().map(|found| ["left as it is", &found.input, &found.output, "as asked"]);
    let findings = &conversion.findings;
    let lost = findings.lost.iter().map(|lost| ["lost iteration", &lost.input, &lost.output, &lost.reason]);
    let misses = findings.misses.iter().map(|miss| ["not a layer", &miss.input, &miss.output, &miss.reason]);
    let rows: Vec<Vec<String>> =
        skipped.chain(lost).chain(misses).map(|row| row.map(str::to_owned).to_vec()).collect();
    if rows.is_empty() {
        return Markup::default();
    }
    section("Not converted", &table(&["what", "reads", "computes", "why"], &rows))
}
