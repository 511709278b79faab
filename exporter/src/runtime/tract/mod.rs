//! tract, the embedded runtime: no ONNX Runtime needs to be installed to convert and prove a model.

mod mend;
mod operator;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use isqrt_cov_proto::onnx::ModelProto;
use prost::Message;
use tract_onnx::Onnx;
use tract_onnx::prelude::{
    DatumType, Framework, InferenceFact, InferenceModelExt, IntoRunnable, IntoTValue, TValue, TVec,
    TypedRunnableModel,
};
use tract_onnx::tract_hir::infer::Factoid;

use super::{Runtime, Session};
use crate::signature::Signature;
use crate::tensor::{ElementType, Tensor};

pub use operator::register;

/// Elements of the largest tensor that is made: with eight bytes each, 2 GiB.
const LARGEST: usize = 1 << 28;

/// tract with the operators of `ai.isqrtcov` registered.
pub struct Tract {
    onnx: Onnx,
}

impl Default for Tract {
    fn default() -> Self {
        Self::new()
    }
}

impl Tract {
    /// The version of tract that is built in.
    pub const VERSION: &'static str = "0.23.9";

    /// tract, ready to load models.
    #[must_use]
    pub fn new() -> Self {
        // Exporters leave value infos with symbolic or stale shapes that clash with concrete inputs.
        let mut onnx = tract_onnx::onnx().with_ignore_value_info(true);
        register(&mut onnx);
        Self { onnx }
    }
}

impl Runtime for Tract {
    fn name(&self) -> String {
        format!("tract {}", Self::VERSION)
    }

    fn prepare(&self, model: &Arc<ModelProto>, shapes: &[Vec<usize>]) -> Result<Box<dyn Session>> {
        guarded(|| self.load(model, shapes))
    }
}

impl Tract {
    fn load(&self, model: &Arc<ModelProto>, shapes: &[Vec<usize>]) -> Result<Box<dyn Session>> {
        let signature = Signature::of(model);
        let declared = signature.into_iter().flat_map(|own| own.outputs).map(|port| port.element).collect();
        let mended = mend::mend(model);
        let bytes = prost::bytes::Bytes::from(mended.encode_to_vec());
        drop(mended);
        let proto = tract_onnx::pb::ModelProto::decode(bytes).context("tract could not decode the model")?;
        let mut model = self.onnx.model_for_proto_model(&proto).context("tract could not load the model")?;
        // tract puts a placeholder there, and complains of that.
        let is_unknown = |kind: &&str| !self.onnx.op_register.0.contains_key(*kind);
        let mut kinds = proto.graph.iter().flat_map(|graph| &graph.node).map(|node| node.op_type.as_str());
        let unknown = kinds.find(is_unknown).map(str::to_owned);
        drop(proto);
        let inputs = model.inputs.clone();
        ensure!(
            inputs.len() == shapes.len(),
            "the model has {} inputs, {} shapes were given",
            inputs.len(),
            shapes.len()
        );
        for (index, (outlet, shape)) in inputs.iter().zip(shapes).enumerate() {
            let element = model.outlet_fact(*outlet)?.datum_type.concretize();
            let element = element.with_context(|| format!("input {index} has no element type"))?;
            model.set_input_fact(index, InferenceFact::dt_shape(element, shape))?;
        }
        let optimized = model.into_optimized().map_err(|error| match unknown {
            Some(kind) => anyhow!("tract does not know the operator {kind}"),
            None => error.context("tract could not prepare the model"),
        })?;
        let mut largest = 0;
        for node in optimized.nodes() {
            let shapes = node.outputs.iter().filter_map(|output| output.fact.shape.as_concrete());
            for shape in shapes {
                let size = shape.iter().fold(1, |size: usize, &dim| size.saturating_mul(dim));
                ensure!(
                    size <= LARGEST,
                    "`{}` would have the shape {shape:?}; at most {LARGEST} elements are made",
                    node.name
                );
                largest = largest.max(size);
            }
        }
        let runnable = optimized.into_runnable().context("tract could not prepare the model")?;
        Ok(Box::new(TractSession { runnable, declared, largest }))
    }
}

struct TractSession {
    runnable: Arc<TypedRunnableModel>,
    /// The types of the outputs, where the model says them.
    declared: Vec<Option<ElementType>>,
    /// Elements of the largest tensor whose shape is known.
    largest: usize,
}

impl Session for TractSession {
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let inputs: TVec<TValue> = inputs.iter().map(to_tract).collect::<Result<_>>()?;
        let outputs = guarded(|| self.runnable.run(inputs).context("tract could not run the model"))?;
        let outputs: Vec<Tensor> = outputs.iter().map(from_tract).collect::<Result<_>>()?;
        for (output, declared) in outputs.iter().zip(&self.declared) {
            // Out of `If` and `Scan` float32 may come as float64.
            let (found, declared) = (output.element_type(), declared.unwrap_or(output.element_type()));
            ensure!(
                found == declared,
                "tract gave an output as {}; the model declares {}",
                found.name(),
                declared.name()
            );
        }
        Ok(outputs)
    }

    fn largest(&self) -> usize {
        self.largest
    }
}

/// Does something in tract, which panics on some models where it should refuse them.
fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // What is unwound is dropped: the model that was being prepared, or the state of one run.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panicked(&*panic)))
}

fn panicked(panic: &(dyn Any + Send)) -> anyhow::Error {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text =
        text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("for no reason that it gives");
    anyhow!("tract panicked: {text}")
}

fn to_tract(tensor: &Tensor) -> Result<TValue> {
    let value: tract_onnx::prelude::Tensor = match tensor {
        Tensor::F32(array) => array.clone().into(),
        Tensor::F64(array) => array.clone().into(),
        Tensor::F16(array) => array.clone().into(),
        Tensor::BF16(_) => anyhow::bail!("tract has no bfloat16; use `--runtime ort`"),
        Tensor::I64(array) => array.clone().into(),
        Tensor::I32(array) => array.clone().into(),
        Tensor::U32(array) => array.clone().into(),
        Tensor::I16(array) => array.clone().into(),
        Tensor::U16(array) => array.clone().into(),
        Tensor::U8(array) => array.clone().into(),
        Tensor::I8(array) => array.clone().into(),
        Tensor::Bool(array) => array.clone().into(),
    };
    Ok(value.into_tvalue())
}

fn from_tract(value: &TValue) -> Result<Tensor> {
    Ok(match value.datum_type() {
        DatumType::F32 => Tensor::F32(value.to_plain_array_view()?.to_owned()),
        DatumType::F64 => Tensor::F64(value.to_plain_array_view()?.to_owned()),
        DatumType::F16 => Tensor::F16(value.to_plain_array_view()?.to_owned()),
        DatumType::I32 => Tensor::I32(value.to_plain_array_view()?.to_owned()),
        DatumType::U32 => Tensor::U32(value.to_plain_array_view()?.to_owned()),
        DatumType::I16 => Tensor::I16(value.to_plain_array_view()?.to_owned()),
        DatumType::U16 => Tensor::U16(value.to_plain_array_view()?.to_owned()),
        DatumType::U8 => Tensor::U8(value.to_plain_array_view()?.to_owned()),
        DatumType::I8 => Tensor::I8(value.to_plain_array_view()?.to_owned()),
        DatumType::Bool => Tensor::Bool(value.to_plain_array_view()?.to_owned()),
        // Shapes are symbolic dimensions inside tract and come out as such.
        DatumType::I64 | DatumType::TDim => {
            Tensor::I64(value.cast_to::<i64>()?.to_plain_array_view()?.to_owned())
        }
        other => anyhow::bail!("an output of type {other:?} cannot be compared"),
    })
}
