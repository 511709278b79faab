//! The operators of `ai.isqrtcov` for tract, computed by the same CPU kernels as in the plugin.

use std::sync::Arc;

use isqrt_cov_op::cpu::{Element, Kernel, Serial};
use isqrt_cov_op::layer::Value;
use isqrt_cov_op::{Layer, OPERATORS};
use tract_onnx::Onnx;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::prelude::{Datum, DatumType, TValue, TVec, Tensor, TractResult, TypedFact, tvec};
use tract_onnx::tract_core::internal::{
    DatumTypeExt, DimLike, EvalContext, EvalOp, IntoTValue, Op, OutletId, SpecialOps, StaticName, TDim,
    ToDim, TractErrorContext, TypedModel, TypedOp, args_1, as_op, bail, op_as_typed_op, op_out_of_plan,
};
use tract_onnx::tract_hir::internal::{
    Expansion, InferenceOp, InferenceResult, Solver, TensorProxy, check_input_arity, check_output_arity,
    expand,
};

/// Teaches tract the operators, so that it runs converted models.
pub fn register(onnx: &mut Onnx) {
    for operator in &OPERATORS {
        onnx.op_register.insert(operator.name, build);
    }
}

/// One node of a graph.
#[derive(Debug, Clone)]
struct Fused {
    kernel: Arc<Kernel>,
}

impl PartialEq for Fused {
    fn eq(&self, other: &Self) -> bool {
        self.kernel.layer() == other.kernel.layer()
    }
}

impl Eq for Fused {}

fn build(_: &ParsingContext, node: &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let attributes = node.attribute.iter().map(|attribute| {
        let value = match attribute.r#type() {
            AttributeType::Int => Value::Integer(attribute.i),
            AttributeType::Float => Value::Float(attribute.f),
            _ => Value::Word(String::from_utf8_lossy(&attribute.s).into_owned()),
        };
        (attribute.name.as_str(), value)
    });
    let layer = Layer::from_attributes(&node.op_type, attributes)?;
    Ok((expand(Fused { kernel: Arc::new(Kernel::new(layer)) }), vec![]))
}

impl Fused {
    fn output_dims(&self, input: &[TDim]) -> TractResult<TVec<TDim>> {
        let known: Vec<Option<usize>> = input.iter().map(|dim| dim.to_usize().ok()).collect();
        let tail = self.kernel.layer().output_tail(&known)?;
        let mut dims = tvec![input[0].clone()];
        for dim in tail {
            dims.push(dim.with_context(|| format!("the channels of {input:?} are not known"))?.to_dim());
        }
        Ok(dims)
    }

    fn compute<T: Element + Datum>(&self, input: &Tensor) -> TractResult<Tensor> {
        let dims = input.shape();
        let shape = self.kernel.layer().output_dims(dims)?;
        let input = input.to_plain_array_view::<T>()?;
        let input = input.as_standard_layout();
        let input = input.as_slice().context("a tensor in standard layout is one slice")?;
        let mut output = vec![T::from_f64(0.0); shape.iter().product()];
        self.kernel.run(input, dims, &mut output, &Serial)?;
        Tensor::from_shape(&shape, &output)
    }
}

impl Op for Fused {
    fn name(&self) -> StaticName {
        self.kernel.layer().name().into()
    }

    op_as_typed_op!();
}

impl EvalOp for Fused {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let output = match input.datum_type() {
            DatumType::F32 => self.compute::<f32>(&input)?,
            DatumType::F64 => self.compute::<f64>(&input)?,
            DatumType::F16 => self.compute::<half::f16>(&input)?,
            other => bail!(
                "in tract, {} takes float, double and float16, found {other:?}; ONNX Runtime runs it",
                Op::name(self)
            ),
        };
        Ok(tvec![output.into_tvalue()])
    }
}

impl TypedOp for Fused {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let dims: Vec<TDim> = inputs[0].shape.iter().cloned().collect();
        Ok(tvec![inputs[0].datum_type.fact(self.output_dims(&dims)?)])
    }

    as_op!();
}

impl Expansion for Fused {
    fn name(&self) -> StaticName {
        Op::name(self)
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 1)?;
        solver.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
        solver.given(&inputs[0].shape, move |solver, dims| {
            let shape = self.output_dims(&dims)?;
            solver.equals(&outputs[0].shape, shape)
        })
    }

    fn wire(&self, name: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        model.wire_node(name, self.clone(), inputs)
    }
}
