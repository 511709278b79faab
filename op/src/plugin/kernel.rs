//! The kernel of one node: made with the session, called by any of its threads, destroyed with it.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::slice;

use half::{bf16, f16};
use ort_sys::ONNXTensorElementDataType::{
    self, ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16, ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED,
};
use ort_sys::{OrtApi, OrtCustomOp, OrtKernelContext, OrtKernelInfo, OrtStatusPtr, OrtValue};

use super::api::{Api, Failure, call};
use super::attributes::Node;
use super::custom_op::CustomOp;
use super::threads::{PoolSize, Threads};
use crate::Layer;
use crate::cpu::{Element, Kernel};

/// What ONNX Runtime keeps for a node.
struct State {
    api: Api,
    element: ONNXTensorElementDataType,
    kernel: Kernel,
    pool_size: PoolSize,
}

/// Makes the kernel of a node, or says which attribute is wrong.
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
        let state = Box::new(State {
            api,
            element: custom_op.element(),
            kernel: Kernel::new(layer),
            pool_size: PoolSize::default(),
        });
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
        ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT => call.run::<f32>(state),
        ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE => call.run::<f64>(state),
        ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16 => call.run::<f16>(state),
        ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16 => call.run::<bf16>(state),
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

/// One run of a node.
struct Call {
    api: Api,
    context: *mut OrtKernelContext,
}

impl Call {
    fn run<T: Element>(&self, state: &State) -> Result<(), Failure> {
        let layer = state.kernel.layer();
        let input = self.input()?;
        let (element, dims) = self.type_and_shape(input)?;
        if element != state.element {
            let found = format!("{}: input has type {element:?}; expected {:?}", layer.name(), state.element);
            return Err(Failure::invalid(found));
        }
        // Shape inference may have seen nothing of this shape, and its errors are dropped by ONNX Runtime.
        let output_dims = output_dims(layer, &dims)?;
        let output = self.output(&output_dims)?;
        let (input_elements, output_elements) = (elements(&dims)?, elements(&output_dims)?);
        if output_elements == 0 {
            return Ok(());
        }
        // SAFETY: the tensors are alive during this call, are distinct, hold elements of this type, and as many as their
        // shapes say; `data` checks the pointers. Any bit pattern is a value of these types.
        let (from, to) = unsafe {
            (
                slice::from_raw_parts(self.data::<T>(input.cast_mut())?, input_elements),
                slice::from_raw_parts_mut(self.data::<T>(output)?, output_elements),
            )
        };
        let threads = Threads { api: self.api, context: self.context, pool_size: &state.pool_size };
        Ok(state.kernel.run(from, &dims, to, &threads)?)
    }

    fn input(&self) -> Result<*const OrtValue, Failure> {
        let mut value = ptr::null();
        // SAFETY: the context is alive during this call.
        unsafe {
            let status = call!(self.api, KernelContext_GetInput(self.context, 0, &raw mut value));
            self.api.check(status)?;
        }
        if value.is_null() { Err(Failure::invalid("the input is missing")) } else { Ok(value) }
    }

    fn output(&self, dims: &[usize]) -> Result<*mut OrtValue, Failure> {
        let dims: Vec<i64> = dims.iter().map(|&dim| dim as i64).collect();
        let mut value = ptr::null_mut();
        // SAFETY: the dims are read during the call.
        unsafe {
            let status = call!(
                self.api,
                KernelContext_GetOutput(self.context, 0, dims.as_ptr(), dims.len(), &raw mut value)
            );
            self.api.check(status)?;
        }
        if value.is_null() { Err(Failure::invalid("the output is missing")) } else { Ok(value) }
    }

    fn type_and_shape(
        &self,
        value: *const OrtValue,
    ) -> Result<(ONNXTensorElementDataType, Vec<usize>), Failure> {
        let api = self.api;
        let mut info = ptr::null_mut();
        // SAFETY: the value is a tensor of this call.
        unsafe { api.check(call!(api, GetTensorTypeAndShape(value, &raw mut info)))? };
        let mut element = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
        let mut dims = Vec::new();
        // SAFETY: `info` is alive until it is released at the end; each call writes what its pointer has room for.
        let read = unsafe {
            let mut rank = 0;
            let read = api
                .check(call!(api, GetTensorElementType(info, &raw mut element)))
                .and_then(|()| api.check(call!(api, GetDimensionsCount(info, &raw mut rank))))
                .and_then(|()| {
                    dims.resize(rank, 0_i64);
                    api.check(call!(api, GetDimensions(info, dims.as_mut_ptr(), rank)))
                });
            call!(api, ReleaseTensorTypeAndShapeInfo(info));
            read
        };
        read?;
        let dims = dims.into_iter().map(usize::try_from).collect::<Result<_, _>>();
        Ok((element, dims.map_err(|_| Failure::invalid("the input has a negative size"))?))
    }

    fn data<T>(&self, value: *mut OrtValue) -> Result<*mut T, Failure> {
        let mut data = ptr::null_mut();
        // SAFETY: the value is a tensor of this call.
        unsafe { self.api.check(call!(self.api, GetTensorMutableData(value, &raw mut data)))? };
        let data = data.cast::<T>();
        if data.is_null() || !data.is_aligned() {
            return Err(Failure::invalid(format!(
                "a tensor's data is at {data:p}; expected an address that is a multiple of {}",
                align_of::<T>()
            )));
        }
        Ok(data)
    }
}

fn output_dims(layer: &Layer, dims: &[usize]) -> Result<Vec<usize>, Failure> {
    layer.extent(dims)?;
    let known: Vec<_> = dims.iter().copied().map(Some).collect();
    let tail = layer.output_tail(&known)?;
    Ok(dims.iter().take(1).copied().chain(tail.into_iter().flatten()).collect())
}

fn elements(dims: &[usize]) -> Result<usize, Failure> {
    let product = dims.iter().try_fold(1_usize, |product, &dim| product.checked_mul(dim));
    product.ok_or_else(|| Failure::invalid(format!("shape {dims:?} has more elements than memory has bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_no_memory_holds_are_an_error() {
        assert_eq!(elements(&[2, 3, 4]).unwrap(), 24);
        assert!(elements(&[usize::MAX, 2]).is_err());
    }
}
