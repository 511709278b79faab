//! In what form a model is written: in one file or two, and for runtimes of which age.

use anyhow::{Context, Result, ensure};
use clap::Args;
use isqrt_cov_op::DOMAIN;
use isqrt_cov_proto::onnx::tensor_proto::DataType;
use isqrt_cov_proto::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, ValueInfoProto, type_proto};
use isqrt_cov_proto::{Model, each_node, subgraphs, whole_graphs};

/// How a model is written.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Form")]
pub struct Form {
    /// Write weights that are in a file beside the input into the model's own, which may have 2 GiB
    #[arg(long)]
    one_file: bool,
    /// Write IR version N, 8 to 14, for a runtime that reads none as new as the input's: ONNX Runtime 1.17 reads up to 9
    ///
    /// By default it is the input's, or 8 where that is lower. The operator set stays what it is: onnx.version_converter, before the
    /// conversion, changes that.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(8..=14))]
    ir_version: Option<i64>,
}

impl Form {
    /// Brings `model` into this form.
    ///
    /// # Errors
    /// Weights that cannot be read or are too large for one file; what the IR version has not.
    pub fn apply(&self, model: &mut Model) -> Result<()> {
        if self.one_file {
            model.inline().context("--one-file cannot be had")?;
        }
        if let Some(version) = self.ir_version {
            if let Some((needed, what)) = newest(&model.proto) {
                ensure!(
                    needed <= version,
                    "{}: has {what}, which IR version {needed} brought; --ir-version {version} cannot be had",
                    model.path().display()
                );
            }
            model.proto.ir_version = Some(version);
        }
        Ok(())
    }
}

/// The IR version, above 8, without which a model cannot be read, and for what.
fn newest(model: &ModelProto) -> Option<(i64, String)> {
    let mut newest: Option<(i64, String)> = None;
    let mut needs = |version: i64, what: &dyn Fn() -> String| {
        if newest.as_ref().is_none_or(|(known, _)| *known < version) {
            newest = Some((version, what()));
        }
    };
    let mut typed = |element: i32, name: &str| {
        if let Some(version) = brought(element) {
            let element = DataType::try_from(element).map_or("", |element| element.as_str_name());
            needs(version, &|| format!("`{name}` of type {element}"));
        }
    };
    let values = |graph: &GraphProto, typed: &mut dyn FnMut(i32, &str)| {
        let ports = graph.input.iter().chain(&graph.output).chain(&graph.value_info);
        let element = |port: &ValueInfoProto| port.tensor_type().map_or(0, type_proto::Tensor::elem_type);
        ports.for_each(|port| typed(element(port), port.name()));
        graph.initializer.iter().for_each(|tensor| typed(tensor.data_type(), tensor.name()));
    };
    whole_graphs(model).for_each(|graph| values(graph, &mut typed));
    let mut node = |node: &NodeProto| {
        let name = node.output.first().map_or("", String::as_str);
        for attribute in &node.attribute {
            attribute.t.iter().for_each(|tensor| typed(tensor.data_type(), name));
            if matches!(attribute.name(), "to" | "dtype" | "output_dtype") {
                typed(i32::try_from(AttributeProto::i(attribute)).unwrap_or(0), name);
            }
        }
        subgraphs(node).for_each(|graph| values(graph, &mut typed));
    };
    whole_graphs(model).for_each(|graph| each_node(&graph.node, &mut node));
    model.functions.iter().for_each(|function| each_node(&function.node, &mut node));
    // Those of this project say the same without, and are read by runtimes of IR version 8.
    let others = || model.functions.iter().filter(|function| function.domain() != DOMAIN);
    if let Some(function) = others().find(|function| !function.overload().is_empty()) {
        needs(10, &|| format!("function `{}` with an overload", function.name()));
    }
    if others().any(|function| !function.attribute_proto.is_empty()) {
        needs(9, &|| "functions whose attributes have defaults".to_owned());
    }
    newest
}

/// The IR version that brought an element type, above 8.
fn brought(element: i32) -> Option<i64> {
    Some(match DataType::try_from(element).ok()? {
        DataType::Float8e4m3fn
        | DataType::Float8e4m3fnuz
        | DataType::Float8e5m2
        | DataType::Float8e5m2fnuz => 9,
        DataType::Uint4 | DataType::Int4 => 10,
        DataType::Float4e2m1 => 11,
        DataType::Float8e8m0 => 12,
        DataType::Uint2 | DataType::Int2 => 13,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use isqrt_cov_proto::onnx::{FunctionProto, TensorProto};

    use super::*;

    fn model(change: impl FnOnce(&mut ModelProto)) -> Model {
        let graph =
            GraphProto { node: vec![NodeProto::new("Relu", &["x"], &["y"])], ..GraphProto::default() };
        let mut proto = ModelProto::new(graph, 17);
        proto.ir_version = Some(13);
        change(&mut proto);
        Model::new(proto, "model.onnx")
    }

    /// What is said of `version`, if it is refused.
    fn refused(version: i64, change: impl FnOnce(&mut ModelProto)) -> Option<String> {
        let mut model = model(change);
        let form = Form { one_file: false, ir_version: Some(version) };
        let refused = form.apply(&mut model).err().map(|error| format!("{error:#}"));
        assert_eq!(model.proto.ir_version(), if refused.is_some() { 13 } else { version });
        refused
    }

    #[test]
    fn an_ir_version_is_lowered_as_far_as_the_model_can_do_without() {
        assert_eq!(refused(8, |_| ()), None);
        let graph = |model: &mut ModelProto| model.graph.take().unwrap();
        let put = |model: &mut ModelProto, graph: GraphProto| model.graph = Some(graph);
        let typed = |element: DataType| {
            move |model: &mut ModelProto| {
                let mut graph = graph(model);
                graph.value_info.push(ValueInfoProto::tensor("v", element, [2.into()]));
                put(model, graph);
            }
        };
        for (element, version) in [
            (DataType::Float8e5m2, 9),
            (DataType::Int4, 10),
            (DataType::Float4e2m1, 11),
            (DataType::Uint2, 13),
        ] {
            let said = refused(version - 1, typed(element)).unwrap();
            let name = element.as_str_name();
            assert!(
                said.contains(&format!("`v` of type {name}, which IR version {version} brought")),
                "{said}"
            );
            assert_eq!(refused(version, typed(element)), None);
        }
        assert_eq!(refused(8, typed(DataType::Bfloat16)), None);

        let initializer = |model: &mut ModelProto| {
            let mut graph = graph(model);
            let tensor = TensorProto { data_type: Some(DataType::Uint4.into()), ..TensorProto::default() };
            graph.initializer.push(tensor);
            put(model, graph);
        };
        assert!(refused(9, initializer).is_some());
        let to = AttributeProto::int("to", DataType::Float8e8m0 as i64);
        let cast = NodeProto::new("Cast", &["x"], &["cast"]).with(to);
        let inside = |model: &mut ModelProto| {
            let branch = GraphProto { node: vec![cast.clone()], ..GraphProto::default() };
            let choice =
                NodeProto::new("If", &["c"], &["z"]).with(AttributeProto::graph("then_branch", branch));
            let mut graph = graph(model);
            graph.node.push(choice);
            put(model, graph);
        };
        assert!(refused(11, inside).unwrap().contains("`cast` of type FLOAT8E8M0"));
        let function = |function: FunctionProto| move |model: &mut ModelProto| model.functions.push(function);
        assert!(
            refused(11, function(FunctionProto { node: vec![cast.clone()], ..FunctionProto::default() }))
                .is_some()
        );
        let overload = FunctionProto { overload: Some("other".to_owned()), ..FunctionProto::default() };
        assert!(refused(9, function(overload)).unwrap().contains("with an overload"));
        let defaults = FunctionProto { attribute_proto: vec![to_default()], ..FunctionProto::default() };
        assert!(refused(8, function(defaults.clone())).is_some());
        assert!(refused(9, function(defaults.clone())).is_none());
        let own = FunctionProto { domain: Some(DOMAIN.to_owned()), ..defaults };
        assert_eq!(refused(8, function(own)), None);
    }

    fn to_default() -> AttributeProto {
        AttributeProto::int("k", 5)
    }
}
