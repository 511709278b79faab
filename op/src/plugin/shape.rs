//! Shape inference: the batch axis keeps its size or its name, and so do the channels where they are axes; the rest follows from these.
//!
//! ONNX Runtime drops an error from here without freeing it, and shows an unknown rank as rank 0. So this only ever adds
//! knowledge; the kernel checks attributes and shape.

use std::ffi::{CString, c_void};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use ort_sys::{
    ONNXTensorElementDataType, OrtCustomOp, OrtOpAttrType, OrtShapeInferContext, OrtStatusPtr,
    OrtTensorTypeAndShapeInfo,
};

use super::api::{Api, Failure, c_string, call, text};
use super::custom_op::CustomOp;
use crate::Layer;
use crate::declaration::{Domain, Operator};
use crate::layer::{Layout, Value};

/// A size, or the name that stands for it.
#[derive(Debug, Clone, PartialEq)]
enum Dim {
    Known(usize),
    Named(CString),
}

impl Dim {
    /// A size of which nothing is known. It gets a name of its own: ONNX Runtime takes equal names, and equal sizes of
    /// -1, for equal sizes and would share buffers on the strength of it.
    fn unknown() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        Self::Named(c_string(&format!("isqrtcov_unknown_{}", COUNT.fetch_add(1, Ordering::Relaxed))))
    }
}

/// Tells ONNX Runtime the shape of an output.
pub(super) unsafe extern "system" fn infer(
    table: *const OrtCustomOp,
    context: *mut OrtShapeInferContext,
) -> OrtStatusPtr {
    // SAFETY: ONNX Runtime passes the table that it was given.
    let custom_op = unsafe { CustomOp::behind(table) };
    let node = Node { api: custom_op.api(), context };
    custom_op.api().guard(|| {
        // A shape or an attribute that is wrong: see above.
        let _ = node.infer(custom_op.operator());
        Ok(())
    })
}

/// The output's shape for an input of `dims`.
fn output(layer: &Layer, dims: &[Option<Dim>]) -> Result<Vec<Dim>, Failure> {
    let sizes: Vec<_> = dims
        .iter()
        .map(|dim| match dim {
            Some(Dim::Known(size)) => Some(*size),
            _ => None,
        })
        .collect();
    let tail = layer.output_tail(&sizes)?;
    let batch = dims[0].clone().unwrap_or_else(Dim::unknown);
    // Both axes of a matrix have the name that the channels have, or share one of their own.
    let channels = if layer.layout == Layout::ChannelsLast { dims.len() - 1 } else { 1 };
    let named = dims[channels].clone().filter(|_| tail.len() == 2);
    let side = named.unwrap_or_else(Dim::unknown);
    Ok(std::iter::once(batch)
        .chain(tail.into_iter().map(|size| size.map_or(side.clone(), Dim::Known)))
        .collect())
}

/// The node whose output's shape is asked for.
struct Node {
    api: Api,
    context: *mut OrtShapeInferContext,
}

impl Node {
    fn infer(&self, operator: &'static Operator) -> Result<(), Failure> {
        let (element, dims) = self.input()?;
        if dims.is_empty() {
            return Ok(());
        }
        let layer = self.layer(operator)?;
        self.set_output(element, &output(&layer, &dims)?)
    }

    /// The input's element type and shape; the latter empty where nothing is known of it.
    fn input(&self) -> Result<(ONNXTensorElementDataType, Vec<Option<Dim>>), Failure> {
        let api = self.api;
        let (mut info, mut rank) = (ptr::null_mut(), 0);
        let mut element = ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
        // SAFETY: the context is alive during this call, and `info`, which is not ours to release, as long as it. Each
        // call writes as many entries as it is told there is room for; the names belong to `info`.
        unsafe {
            api.check(call!(api, ShapeInferContext_GetInputTypeShape(self.context, 0, &raw mut info)))?;
            api.check(call!(api, GetTensorElementType(info, &raw mut element)))?;
            api.check(call!(api, GetDimensionsCount(info, &raw mut rank)))?;
            let (mut sizes, mut names) = (vec![0_i64; rank], vec![ptr::null(); rank]);
            api.check(call!(api, GetDimensions(info, sizes.as_mut_ptr(), rank)))?;
            api.check(call!(api, GetSymbolicDimensions(info, names.as_mut_ptr(), rank)))?;
            let dim = |(&size, &name): (&i64, _)| match usize::try_from(size) {
                Ok(size) => Some(Dim::Known(size)),
                Err(_) => text(name).filter(|name| !name.is_empty()).map(|name| Dim::Named(name.to_owned())),
            };
            Ok((element, sizes.iter().zip(&names).map(dim).collect()))
        }
    }

    /// Sets the output's shape and element type. Releases after 1.17 take the type from here, and would take it for
    /// float32 if nothing were said.
    fn set_output(&self, element: ONNXTensorElementDataType, dims: &[Dim]) -> Result<(), Failure> {
        let api = self.api;
        let sizes: Vec<i64> = dims
            .iter()
            .map(|dim| match dim {
                Dim::Known(size) => *size as i64,
                Dim::Named(_) => -1,
            })
            .collect();
        let mut names: Vec<_> = dims
            .iter()
            .map(|dim| match dim {
                Dim::Known(_) => c"".as_ptr(),
                Dim::Named(name) => name.as_ptr(),
            })
            .collect();
        let mut info: *mut OrtTensorTypeAndShapeInfo = ptr::null_mut();
        // SAFETY: sizes and names are copied by the calls; `info` is ours until it is released at the end.
        unsafe {
            api.check(call!(api, CreateTensorTypeAndShapeInfo(&raw mut info)))?;
            let set = api
                .check(call!(api, SetTensorElementType(info, element)))
                .and_then(|()| api.check(call!(api, SetDimensions(info, sizes.as_ptr(), sizes.len()))))
                .and_then(|()| {
                    api.check(call!(api, SetSymbolicDimensions(info, names.as_mut_ptr(), names.len())))
                })
                .and_then(|()| {
                    api.check(call!(api, ShapeInferContext_SetOutputTypeShape(self.context, 0, info)))
                });
            call!(api, ReleaseTensorTypeAndShapeInfo(info));
            set
        }
    }

    /// The layer that the node's attributes describe.
    fn layer(&self, operator: &'static Operator) -> Result<Layer, Failure> {
        let mut given = Vec::new();
        for attribute in operator.attributes {
            if let Some(value) = self.value(attribute.name, attribute.domain)? {
                given.push((attribute.name, value));
            }
        }
        Ok(Layer::from_attributes(operator.name, given)?)
    }

    fn value(&self, name: &str, domain: Domain) -> Result<Option<Value>, Failure> {
        let api = self.api;
        let name = c_string(name);
        let mut attribute = ptr::null();
        // SAFETY: the context is alive during this call.
        let found = unsafe {
            api.check(call!(
                api,
                ShapeInferContext_GetAttribute(self.context, name.as_ptr(), &raw mut attribute)
            ))
        };
        if found.is_err() {
            return Ok(None);
        }
        let read = |kind, data: *mut c_void, room| {
            let mut size = 0;
            // SAFETY: the attribute belongs to the context; the call writes no more than `room` bytes, and says in `size`
            // how many there are.
            unsafe { (api.check(call!(api, ReadOpAttr(attribute, kind, data, room, &raw mut size))), size) }
        };
        let value = match domain {
            Domain::Integer { .. } => {
                let mut value = 0_i64;
                read(OrtOpAttrType::ORT_OP_ATTR_INT, (&raw mut value).cast(), size_of::<i64>()).0?;
                Value::Integer(value)
            }
            Domain::Float { .. } => {
                let mut value = 0_f32;
                read(OrtOpAttrType::ORT_OP_ATTR_FLOAT, (&raw mut value).cast(), size_of::<f32>()).0?;
                Value::Float(value)
            }
            Domain::Word(_) => {
                // The first call only asks for the size, by offering no room.
                let mut none = 0_u8;
                let size = read(OrtOpAttrType::ORT_OP_ATTR_STRING, (&raw mut none).cast(), 0).1;
                let mut bytes = vec![0_u8; size];
                read(OrtOpAttrType::ORT_OP_ATTR_STRING, bytes.as_mut_ptr().cast(), size).0?;
                Value::Word(String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(&bytes)).into_owned())
            }
        };
        Ok(Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::OperatorKind;
    use crate::vectorization::Vectorization;

    fn named(name: &str) -> Dim {
        Dim::Named(c_string(name))
    }

    #[test]
    fn the_batch_and_the_channels_keep_their_names() {
        let mut layer = Layer::new(OperatorKind::IsqrtCov);
        let input = [Some(named("batch")), Some(Dim::Known(16)), Some(named("h")), None];
        assert_eq!(output(&layer, &input).unwrap(), [named("batch"), Dim::Known(136)]);
        layer.vectorization = Vectorization::None;
        let [first, last] = [[Some("c"), None, Some("w")], [Some("h"), None, Some("c")]]
            .map(|names| [None].into_iter().chain(names).map(|name| name.map(named)).collect::<Vec<_>>());
        assert_eq!(output(&layer, &first).unwrap()[1..], [named("c"), named("c")]);
        layer.layout = Layout::ChannelsLast;
        assert_eq!(output(&layer, &last).unwrap()[1..], [named("c"), named("c")]);
        let inferred = output(&layer, &[Some(Dim::Known(3)), None, None]).unwrap();
        assert_eq!(inferred[0], Dim::Known(3));
        assert_eq!(inferred[1], inferred[2]);
        // A triangle has another size.
        layer.vectorization = Vectorization::Upper;
        assert_ne!(output(&layer, &last).unwrap()[1], named("c"));
    }

    #[test]
    fn two_unknown_sizes_are_not_taken_for_equal() {
        let layer = Layer::new(OperatorKind::IsqrtCov);
        let input = [None, None, None];
        let (first, second) = (output(&layer, &input).unwrap(), output(&layer, &input).unwrap());
        assert!(first[0] != first[1] && first[0] != second[0] && first[1] != second[1]);
        assert!(output(&layer, &input[..2]).is_err());
    }
}
