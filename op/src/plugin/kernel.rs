//! The kernel of one node: made with the session, called by any of its threads, destroyed with it.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{ptr, slice};

use half::{bf16, f16};
use ort_sys::ONNXTensorElementDataType::{
    self, ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16, ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
};
use ort_sys::{OrtApi, OrtCustomOp, OrtKernelContext, OrtKernelInfo, OrtStatusPtr};

use super::api::{Api, Failure, call};
use super::attributes::Node;
use super::custom_op::{CustomOp, Provider};
use super::tensors::Call;
use super::threads::{PoolSize, Threads};
use crate::cpu::Element;
use crate::cuda::ElementType;
use crate::{Layer, cpu, cuda};

/// The environment's variable that is 1 where kernels may use clusters of blocks.
const CLUSTERS: &str = "ISQRT_COV_CLUSTERS";

/// What ONNX Runtime keeps for a node.
struct State {
    api: Api,
    element: ONNXTensorElementDataType,
    kernel: Kernel,
}

/// A layer ready to run where its provider runs.
enum Kernel {
    Cpu(Box<cpu::Kernel>, PoolSize),
    Cuda(cuda::Kernel),
}

impl Kernel {
    fn new(provider: Provider, layer: Layer) -> Result<Self, Failure> {
        Ok(match provider {
            Provider::Cpu => Self::Cpu(Box::new(cpu::Kernel::new(layer)), PoolSize::default()),
            Provider::Cuda => {
                let kernel = cuda::Kernel::new(layer)?;
                let wanted = std::env::var_os(CLUSTERS).is_some_and(|value| value == "1");
                Self::Cuda(if wanted { kernel.with_clusters()? } else { kernel })
            }
        })
    }
}

/// Makes the kernel of a node, or says which attribute is wrong, or why its provider's device cannot run it.
pub(super) unsafe extern "system" fn create(
    table: *const OrtCustomOp,
    api: *const OrtApi,
    info: *const OrtKernelInfo,
    kernel: *mut *mut c_void,
) -> OrtStatusPtr {
    // SAFETY: ONNX Runtime passes the API of the table's version, the table that it was given, and a node's information
    // that is alive during this call.
    let (api, custom_op, node) = unsafe {
        let api = Api::new(api);
        (api, CustomOp::behind(table), Node::new(api, info))
    };
    api.guard(|| {
        let layer = node.layer(custom_op.operator())?;
        let made = Kernel::new(custom_op.provider(), layer)?;
        let state = Box::new(State { api, element: custom_op.element(), kernel: made });
        // SAFETY: `kernel` is where the caller wants the pointer; `destroy` takes it back.
        unsafe { *kernel = Box::into_raw(state).cast() };
        Ok(())
    })
}

/// Runs a node once. Several threads may be in here with the same kernel.
pub(super) unsafe extern "system" fn compute(
    kernel: *mut c_void,
    context: *mut OrtKernelContext,
) -> OrtStatusPtr {
    // SAFETY: `create` made it, and no call is under way when `destroy` is; it is only ever shared.
    let state = unsafe { &*kernel.cast::<State>() };
    let call = Call { api: state.api, context };
    state.api.guard(|| match state.element {
        ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT => state.run::<f32>(call, ElementType::Float),
        ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE => state.run::<f64>(call, ElementType::Double),
        ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16 => state.run::<f16>(call, ElementType::Float16),
        ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16 => state.run::<bf16>(call, ElementType::BFloat16),
        other => Err(Failure::invalid(format!("no kernel for element type {other:?}"))),
    })
}

/// Frees the kernel of a node.
pub(super) unsafe extern "system" fn destroy(kernel: *mut c_void) {
    if !kernel.is_null() {
        // SAFETY: `create` made it, and ONNX Runtime gives it up with this call.
        let state = unsafe { Box::from_raw(kernel.cast::<State>()) };
        // There is no status to return; a panic must still not reach the caller.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(state)));
    }
}

impl State {
    /// Runs the node on tensors of `T`, whose name on the device is `element`.
    fn run<T: Element>(&self, call: Call, element: ElementType) -> Result<(), Failure> {
        let layer = match &self.kernel {
            Kernel::Cpu(kernel, _) => kernel.layer(),
            Kernel::Cuda(kernel) => kernel.layer(),
        };
        let Some(tensors) = call.tensors(layer, self.element, size_of::<T>())? else { return Ok(()) };
        match &self.kernel {
            Kernel::Cpu(kernel, pool_size) => {
                // SAFETY: the tensors are alive during this call, are distinct, hold elements of this type, and as many
                // as said, from addresses that are aligned to their size. Any bit pattern is a value of these types.
                let (input, output) = unsafe {
                    (
                        slice::from_raw_parts(tensors.input.cast::<T>(), tensors.from),
                        slice::from_raw_parts_mut(tensors.output.cast::<T>(), tensors.to),
                    )
                };
                let threads = Threads { api: call.api, context: call.context, pool_size };
                Ok(kernel.run(input, &tensors.dims, output, &threads)?)
            }
            Kernel::Cuda(kernel) => {
                let (input, output) = (tensors.input.addr() as u64, tensors.output.addr() as u64);
                // SAFETY: the tensors are on the device, as the declared memory types have it, as large as the shapes
                // say, aligned, distinct, and alive on the stream that the provider runs this node on.
                let outcome = unsafe { kernel.run(element, input, &tensors.dims, output, stream(call)?) };
                Ok(outcome?)
            }
        }
    }
}

/// The CUDA stream that a call belongs to.
fn stream(call: Call) -> Result<*mut c_void, Failure> {
    let mut stream = ptr::null_mut();
    // SAFETY: the context is alive during this call, which writes one pointer.
    unsafe {
        let status = call!(call.api, KernelContext_GetGPUComputeStream(call.context, &raw mut stream));
        call.api.check(status)?;
    }
    Ok(stream)
}
