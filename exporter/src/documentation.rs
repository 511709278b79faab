//! `docs/Operators.md`: the declarations in the form of ONNX's `Operators.md`.

use std::fmt::{self, Write as _};

use isqrt_cov_op::declaration::{Attribute, Domain, ELEMENT_TYPES};
use isqrt_cov_op::{DOMAIN, Layer, Layout, OPERATORS, Operator, OperatorKind, VERSION, Vectorization};
use isqrt_cov_proto::TensorData;
use isqrt_cov_proto::onnx::attribute_proto::AttributeType;
use isqrt_cov_proto::onnx::tensor_proto::DataType;
use isqrt_cov_proto::onnx::{AttributeProto, FunctionProto, NodeProto};

use crate::body;

/// The operator set in whose words the function bodies are shown.
const SHOWN_OPSET: i64 = 17;

/// The text of `docs/Operators.md`.
#[must_use]
pub fn operators() -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut text);
    text
}

fn write(out: &mut String) -> fmt::Result {
    writeln!(out, "<!-- Printed from the declarations by `isqrt-cov operators`. Do not edit. -->\n")?;
    writeln!(out, "# Operators of the domain `{DOMAIN}`\n")?;
    writeln!(out, "|**Operator**|**Since version**|\n|-|-|")?;
    for operator in &OPERATORS {
        let name = operator.name;
        writeln!(out, "|<a href=\"#{DOMAIN}.{name}\">{DOMAIN}.{name}</a>|{VERSION}|")?;
    }
    OPERATORS.iter().try_for_each(|operator| write_operator(out, operator))
}

fn write_operator(out: &mut String, operator: &Operator) -> fmt::Result {
    let name = operator.name;
    writeln!(out, "\n## <a name=\"{DOMAIN}.{name}\"></a>**{DOMAIN}.{name}**\n")?;
    writeln!(out, "{}\n", operator.doc)?;
    writeln!(out, "#### Version\n")?;
    writeln!(
        out,
        "This version of the operator has been available since version {VERSION} of the `{DOMAIN}` operator set.\n"
    )?;
    writeln!(out, "#### Attributes\n\n<dl>")?;
    operator.attributes.iter().try_for_each(|attribute| write_attribute(out, attribute))?;
    writeln!(out, "</dl>\n")?;
    for (title, port) in [("Inputs", &operator.input), ("Outputs", &operator.output)] {
        writeln!(out, "#### {title}\n\n<dl>")?;
        writeln!(out, "<dt><tt>{}</tt> : T</dt>\n<dd>{}</dd>\n</dl>\n", port.name, port.doc)?;
    }
    let types = ELEMENT_TYPES.map(|name| format!("tensor({name})")).join(", ");
    writeln!(out, "#### Type Constraints\n\n<dl>\n<dt><tt>T</tt> : {types}</dt>")?;
    writeln!(out, "<dd>Input and output are of one type. Sums run in float32 at least.</dd>\n</dl>\n")?;
    write_shapes(out, operator)?;
    writeln!(out, "#### Function Body\n")?;
    writeln!(out, "Of the defaults, for float32, in operator set {SHOWN_OPSET}:\n")?;
    writeln!(out, "```text")?;
    match body::function_for(&[Layer::new(operator.kind)], Some(DataType::Float), SHOWN_OPSET) {
        Ok(function) => write_function(out, &function)?,
        Err(error) => writeln!(out, "{error}")?,
    }
    writeln!(out, "```")
}

fn write_attribute(out: &mut String, attribute: &Attribute) -> fmt::Result {
    let r#type = match attribute.domain {
        Domain::Integer { .. } => "int",
        Domain::Float { .. } => "float",
        Domain::Word(_) => "string",
    };
    let (domain, default) = (&attribute.domain, attribute.domain.default());
    writeln!(out, "<dt><tt>{}</tt> : {type} (default is {default})</dt>", attribute.name)?;
    writeln!(out, "<dd>{} Allowed: {domain}.</dd>", attribute.doc)
}

/// Examples of what shape inference says, each computed by it.
fn write_shapes(out: &mut String, operator: &Operator) -> fmt::Result {
    let layer = Layer::new(operator.kind);
    let mut cases: Vec<(Layer, Vec<Option<usize>>)> = Vec::new();
    if operator.kind == OperatorKind::MatrixSqrt {
        cases.push((layer, vec![None, Some(64), Some(64)]));
        cases.push((layer, vec![None, None, Some(64)]));
    } else {
        for vectorization in Vectorization::ALL {
            cases.push((Layer { vectorization, ..layer }, vec![None, Some(256), Some(14), Some(14)]));
        }
        cases.push((layer, vec![None, Some(256), None, None]));
        cases.push((layer, vec![None, None, Some(14), Some(14)]));
        let last = Layer { layout: Layout::ChannelsLast, ..layer };
        cases.push((last, vec![None, Some(14), Some(14), Some(256)]));
    }
    writeln!(out, "#### Shape Inference\n")?;
    writeln!(
        out,
        "The first axis of the output is that of the input. Unknown sizes are shown as `?`; in ONNX Runtime they have names.\n"
    )?;
    writeln!(out, "|Attributes|{}|{}|\n|-|-|-|", operator.input.name, operator.output.name)?;
    for (case, input) in cases {
        let defaults = layer.attributes();
        let changed: Vec<String> = case
            .attributes()
            .into_iter()
            .filter(|attribute| !defaults.contains(attribute))
            .map(|(name, value)| format!("`{name}` = {value}"))
            .collect();
        let changed = if changed.is_empty() { "defaults".to_owned() } else { changed.join(", ") };
        let mut output = vec![None];
        output.extend(case.output_tail(&input).map_err(|_| fmt::Error)?);
        writeln!(out, "|{changed}|`{}`|`{}`|", shape(&input), shape(&output))?;
    }
    writeln!(out)
}

fn shape(dims: &[Option<usize>]) -> String {
    let mut names = vec!["N".to_owned()];
    names.extend(dims[1..].iter().map(|dim| dim.map_or("?".to_owned(), |dim| dim.to_string())));
    format!("[{}]", names.join(", "))
}

/// A function in ONNX's textual syntax.
fn write_function(out: &mut String, function: &FunctionProto) -> fmt::Result {
    let signature = (function.input.join(", "), function.output.join(", "));
    writeln!(out, "{} ({}) => ({})\n{{", function.name(), signature.0, signature.1)?;
    function.node.iter().try_for_each(|node| write_node(out, node))?;
    writeln!(out, "}}")
}

fn write_node(out: &mut String, node: &NodeProto) -> fmt::Result {
    let attributes: Vec<String> = node.attribute.iter().map(attribute_text).collect();
    let attributes =
        if attributes.is_empty() { String::new() } else { format!(" <{}>", attributes.join(", ")) };
    writeln!(
        out,
        "   {} = {}{attributes} ({})",
        node.output.join(", "),
        node.op_type(),
        node.input.join(", ")
    )
}

fn attribute_text(attribute: &AttributeProto) -> String {
    let value = match attribute.r#type() {
        AttributeType::Int => attribute.i().to_string(),
        AttributeType::Ints => format!("{:?}", attribute.ints),
        AttributeType::Tensor => attribute
            .t
            .as_ref()
            .and_then(|tensor| TensorData::inline(tensor).ok())
            .map_or_else(|| "…".to_owned(), |data| tensor_text(&data)),
        _ => "…".to_owned(),
    };
    format!("{} = {value}", attribute.name())
}

fn tensor_text(data: &TensorData) -> String {
    let dims: Vec<String> = data.dims().iter().map(ToString::to_string).collect();
    let dims = if dims.is_empty() { String::new() } else { format!("[{}]", dims.join(",")) };
    let values: Vec<String> = match data.to_i64() {
        Some(values) => values.iter().map(ToString::to_string).collect(),
        None => data.to_f64().unwrap_or_default().iter().map(|value| format!("{value:?}")).collect(),
    };
    format!("{}{dims} {{{}}}", data.data_type().as_str_name().to_lowercase(), values.join(", "))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_committed_page_is_current() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/Operators.md");
        let current = super::operators();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &current).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == current,
            "docs/Operators.md is not what the declarations say; run this test with UPDATE_DOCS=1 and commit it"
        );
    }
}
