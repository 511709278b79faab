//! The tensors of one run of a node: checked against the layer, whatever memory they are in.

use std::ptr;

use ort_sys::ONNXTensorElementDataType::{self, ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED};
use ort_sys::{OrtKernelContext, OrtValue};

use super::api::{Api, Failure, call};
use crate::Layer;

/// One run of a node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) api: Api,
    pub(super) context: *mut OrtKernelContext,
}

/// The input and the output of a run, neither empty, in the memory of the kernel's provider.
#[derive(Debug)]
pub(super) struct Tensors {
    pub(super) dims: Vec<usize>,
    pub(super) input: *const u8,
    /// The input's elements.
    pub(super) from: usize,
    pub(super) output: *mut u8,
    /// The output's elements.
    pub(super) to: usize,
}

impl Call {
    /// The tensors of a call of `layer` on elements of type `element`, each of which takes `bytes`; the output is made as large as the
    /// layer's. Both addresses are multiples of `bytes`. Nothing where the output has no elements.
    pub(super) fn tensors(
        self,
        layer: &Layer,
        element: ONNXTensorElementDataType,
        bytes: usize,
    ) -> Result<Option<Tensors>, Failure> {
        let input = self.input()?;
        let (found, dims) = self.type_and_shape(input)?;
        if found != element {
            let found = format!("{}: input has type {found:?}; expected {element:?}", layer.name());
            return Err(Failure::invalid(found));
        }
        // Shape inference may have seen nothing of this shape, and its errors are dropped by ONNX Runtime.
        let output_dims = layer.output_dims(&dims)?;
        let output = self.output(&output_dims)?;
        let (from, to) = (elements(&dims)?, elements(&output_dims)?);
        if to == 0 {
            return Ok(None);
        }
        let (input, output) = (self.data(input.cast_mut(), bytes)?, self.data(output, bytes)?);
        Ok(Some(Tensors { dims, input, from, output, to }))
    }

    fn input(self) -> Result<*const OrtValue, Failure> {
        let mut value = ptr::null();
        // SAFETY: the context is alive during this call.
        unsafe {
            let status = call!(self.api, KernelContext_GetInput(self.context, 0, &raw mut value));
            self.api.check(status)?;
        }
        if value.is_null() { Err(Failure::invalid("the input is missing")) } else { Ok(value) }
    }

    fn output(self, dims: &[usize]) -> Result<*mut OrtValue, Failure> {
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
        self,
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

    /// Where a tensor's data is: a multiple of `alignment`, and not null.
    fn data(self, value: *mut OrtValue, alignment: usize) -> Result<*mut u8, Failure> {
        let mut data = ptr::null_mut();
        // SAFETY: the value is a tensor of this call.
        unsafe { self.api.check(call!(self.api, GetTensorMutableData(value, &raw mut data)))? };
        if data.is_null() || !data.addr().is_multiple_of(alignment) {
            return Err(Failure::invalid(format!(
                "a tensor's data is at {data:p}; expected an address that is a multiple of {alignment}"
            )));
        }
        Ok(data.cast())
    }
}

fn elements(dims: &[usize]) -> Result<usize, Failure> {
    let product = dims.iter().try_fold(1_usize, |product, &dim| product.checked_mul(dim));
    product.ok_or_else(|| Failure::invalid(format!("shape {dims:?} has more elements than memory has bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::fake;

    #[test]
    fn addresses_are_multiples_of_an_element() {
        let call = Call { api: fake::api(), context: ptr::null_mut() };
        let at = |address| call.data(ptr::without_provenance_mut(address), 4).map(<*mut u8>::addr);
        assert_eq!(at(64).unwrap(), 64);
        let message = at(66).unwrap_err().message;
        assert_eq!(message, "a tensor's data is at 0x42; expected an address that is a multiple of 4");
        assert!(at(0).is_err());
    }

    #[test]
    fn sizes_that_no_memory_holds_are_an_error() {
        assert_eq!(elements(&[2, 3, 4]).unwrap(), 24);
        assert!(elements(&[usize::MAX, 2]).is_err());
    }
}
