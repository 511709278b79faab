//! The functions that let a model run where the operator library is absent.

use isqrt_cov_op::{DOMAIN, Layer, OPERATORS, VERSION};
use isqrt_cov_proto::onnx::tensor_proto::DataType;
use isqrt_cov_proto::onnx::{FunctionProto, ModelProto, OperatorSetIdProto};
use isqrt_cov_proto::whole_graphs;

use crate::body;
use crate::fused::{self, Error, place_of, standard_opset};
use crate::graph::holds_operator;

mod faults;
mod words;

pub use faults::{Fault, faults, newer};

/// The IR version that brought functions into models.
const IR_WITH_FUNCTIONS: i64 = 8;

/// Gives `model` a function for each of the operators that its nodes use, in place of those that it had, and imports
/// the operators' domain wherever it is used. The IR version is raised to 8 where it is lower.
///
/// # Errors
/// A node that is not one of the declared operators, or that cannot be written in the model's operator set.
pub fn attach(model: &mut ModelProto) -> Result<(), Error> {
    let opset = standard_opset(&model.opset_import);
    let mut used: Vec<(String, Layer, Option<DataType>)> = Vec::new();
    remove(model);
    fused::replace(model, &mut |mut found| {
        used.push((place_of(&found.node), found.layer, found.element));
        // The functions have none.
        found.node.overload = None;
        Ok(vec![found.node])
    })?;
    for operator in &OPERATORS {
        let mut layers: Vec<Layer> = Vec::new();
        let mut elements = Vec::new();
        let mut first = None;
        for (place, layer, element) in used.iter().filter(|(_, layer, _)| layer.operator == operator.kind) {
            first = first.or(Some(place));
            if !layers.contains(layer) {
                layers.push(*layer);
            }
            if !elements.contains(element) {
                elements.push(*element);
            }
        }
        let Some(place) = first else { continue };
        let element = if let [element] = elements[..] { element } else { None };
        let function = body::function_for(&layers, element, opset)
            .map_err(|source| Error::Body { node: place.clone(), source })?;
        model.functions.push(function);
        model.ir_version = Some(model.ir_version().max(IR_WITH_FUNCTIONS));
    }
    import(model);
    Ok(())
}

/// Removes the operators' functions from `model`; with the library it runs without them.
pub fn remove(model: &mut ModelProto) {
    model.functions.retain(|function| function.domain() != DOMAIN);
}

/// Imports the operators' domain where nodes use it, and only there.
pub fn import(model: &mut ModelProto) {
    for function in &mut model.functions {
        let uses = function.node.iter().any(holds_operator);
        import_if(&mut function.opset_import, uses);
    }
    let in_graphs = whole_graphs(model).flat_map(|graph| &graph.node).any(holds_operator);
    let in_functions = model.functions.iter().any(imports_or_is);
    import_if(&mut model.opset_import, in_graphs || in_functions);
}

fn imports_or_is(function: &FunctionProto) -> bool {
    function.domain() == DOMAIN || function.opset_import.iter().any(|import| import.domain() == DOMAIN)
}

fn import_if(imports: &mut Vec<OperatorSetIdProto>, used: bool) {
    let known = |import: &OperatorSetIdProto| import.domain() == DOMAIN && import.version() <= VERSION;
    // One of another version is there for nothing: a model with newer nodes is not changed.
    imports.retain(|import| import.domain() != DOMAIN || used && known(import));
    if used && !imports.iter().any(known) {
        imports.push(OperatorSetIdProto::new(DOMAIN, VERSION));
    }
}

#[cfg(test)]
mod tests {
    use isqrt_cov_op::OperatorKind;
    use isqrt_cov_proto::onnx::{GraphProto, NodeProto, TrainingInfoProto};

    use super::*;
    use crate::fused::node_of;
    use crate::fused::tests::{branches, model};

    fn imported(model: &ModelProto) -> usize {
        model.opset_import.iter().filter(|import| import.domain() == DOMAIN).count()
    }

    #[test]
    fn each_operator_gets_one_function_that_knows_its_layers() {
        let five = Layer::new(OperatorKind::IsqrtCov);
        let three = Layer { iterations: 3, ..five };
        let covariance = Layer::new(OperatorKind::CovariancePooling);
        let inner = branches(node_of(&three, "x", "b"), node_of(&covariance, "x", "c"));
        let mut model = model(vec![node_of(&five, "x", "a"), inner]);
        attach(&mut model).unwrap();

        let names: Vec<&str> = model.functions.iter().map(FunctionProto::name).collect();
        assert_eq!(names, ["IsqrtCov", "CovariancePooling"]);
        let both = body::function_for(&[five, three], Some(DataType::Float), 17).unwrap();
        assert_eq!(model.functions[0], both);
        assert!(both.node.iter().any(|node| node.op_type() == "If"));
        assert_eq!((model.ir_version(), imported(&model)), (8, 1));
        // One of another version that no node needed says nothing of those here.
        let other = OperatorSetIdProto::new(DOMAIN, VERSION + 1);
        let mut imported_before =
            ModelProto { opset_import: vec![OperatorSetIdProto::new("", 17), other], ..model.clone() };
        import(&mut imported_before);
        assert_eq!(imported_before.opset_import, model.opset_import);

        let once = model.clone();
        attach(&mut model).unwrap();
        assert_eq!(model, once);
        model.ir_version = Some(10);
        attach(&mut model).unwrap();
        assert_eq!(model.ir_version(), 10);
    }

    #[test]
    fn layers_of_several_types_share_a_body_that_takes_them_all() {
        let layer = Layer::new(OperatorKind::IsqrtCov);
        let mut model = model(vec![node_of(&layer, "x", "a"), node_of(&layer, "half", "b")]);
        attach(&mut model).unwrap();
        assert_eq!(model.functions, [body::function_for(&[layer], None, 17).unwrap()]);
    }

    #[test]
    fn the_domain_is_imported_only_where_it_is_used() {
        let layer = Layer::new(OperatorKind::IsqrtCov);
        let user = FunctionProto {
            domain: Some("com.example".to_owned()),
            name: Some("Block".to_owned()),
            node: vec![node_of(&layer, "a", "b")],
            opset_import: vec![OperatorSetIdProto::new("", 17)],
            ..FunctionProto::default()
        };
        let mut model = model(vec![NodeProto::new("Relu", &["x"], &["y"])]);
        model.functions.push(user);
        attach(&mut model).unwrap();
        assert_eq!(imported(&model), 1);
        assert_eq!(model.functions[0].opset_import.len(), 2);
        // Nothing says of what type a function's input is.
        assert_eq!(model.functions[1], body::function_for(&[layer], None, 17).unwrap());

        // The library runs what another function calls.
        remove(&mut model);
        import(&mut model);
        assert_eq!((model.functions.len(), imported(&model)), (1, 1));
        model.functions.remove(0);
        let graph = GraphProto { node: vec![node_of(&layer, "a", "b")], ..GraphProto::default() };
        model.training_info =
            vec![TrainingInfoProto { algorithm: Some(graph), ..TrainingInfoProto::default() }];
        import(&mut model);
        assert_eq!(imported(&model), 1);
        model.training_info.clear();
        import(&mut model);
        assert_eq!((model.functions.len(), imported(&model)), (0, 0));
    }

    #[test]
    fn an_operator_set_that_is_too_old_is_named() {
        let mut model = model(vec![node_of(&Layer::new(OperatorKind::IsqrtCov), "x", "pooled")]);
        model.opset_import[0].version = Some(9);
        let error = attach(&mut model).unwrap_err().to_string();
        assert!(error.starts_with("node `pooled`: operator set 9; expected 11 or later"), "{error}");
    }
}
