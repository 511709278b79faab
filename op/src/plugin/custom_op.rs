//! The `OrtCustomOp` tables, one for each operator, element type and execution provider, made from the declaration.

use std::ffi::{CStr, CString, c_char, c_int};
use std::mem::MaybeUninit;

use ort_sys::ONNXTensorElementDataType::{
    self, ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16, ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
};
use ort_sys::OrtCustomOpInputOutputCharacteristic::{self, INPUT_OUTPUT_REQUIRED};
use ort_sys::{OrtCustomOp, OrtMemType};

use super::api::{API_VERSION, Api, c_string};
use super::{kernel, shape};
use crate::declaration::{ELEMENT_TYPES, OPERATORS, Operator, VERSION};

/// One operator for one element type on one execution provider, as ONNX Runtime sees it.
///
/// The table is the first field, so that a pointer to it, which is what every callback gets, is one to the whole.
#[repr(C)]
pub(super) struct CustomOp {
    table: OrtCustomOp,
    api: Api,
    operator: &'static Operator,
    element: ONNXTensorElementDataType,
    provider: Provider,
    name: CString,
}

/// Where a kernel runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Provider {
    Cpu,
    Cuda,
}

impl Provider {
    /// Those that there are kernels for. A runtime without one of them leaves its tables alone.
    const ALL: [Self; 2] = [Self::Cpu, Self::Cuda];

    /// ONNX Runtime's name for it.
    fn name(self) -> &'static CStr {
        match self {
            Self::Cpu => c"CPUExecutionProvider",
            Self::Cuda => c"CUDAExecutionProvider",
        }
    }
}

/// Every table, for the runtime behind `api`. Its domain keeps pointers to them, so they are never freed.
pub(super) fn tables(api: Api) -> &'static [CustomOp] {
    let mut all = Vec::new();
    for operator in &OPERATORS {
        for element in ELEMENT_TYPES.map(element_type) {
            all.extend(Provider::ALL.map(|provider| CustomOp::new(api, operator, element, provider)));
        }
    }
    all.leak()
}

/// ONNX Runtime's number for an element type of the declaration.
fn element_type(name: &str) -> ONNXTensorElementDataType {
    match name {
        "float" => ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        "double" => ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        "float16" => ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        "bfloat16" => ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        _ => unreachable!("element type `{name}` is declared but has no kernel"),
    }
}

impl CustomOp {
    fn new(
        api: Api,
        operator: &'static Operator,
        element: ONNXTensorElementDataType,
        provider: Provider,
    ) -> Self {
        // SAFETY: a number and optional function pointers, for all of which zero is a value. Zero is also what fields of
        // a later API must be, which `ort_sys` may have here though the version below keeps them unread.
        let mut table: OrtCustomOp = unsafe { MaybeUninit::zeroed().assume_init() };
        table.version = API_VERSION;
        table.GetName = Some(name);
        table.GetExecutionProviderType = Some(provider_name);
        table.GetInputTypeCount = Some(one);
        table.GetInputType = Some(element_at);
        table.GetInputCharacteristic = Some(required);
        table.GetInputMemoryType = Some(default_memory);
        table.GetOutputTypeCount = Some(one);
        table.GetOutputType = Some(element_at);
        table.GetOutputCharacteristic = Some(required);
        table.GetVariadicInputMinArity = Some(no_variadic);
        table.GetVariadicInputHomogeneity = Some(no_variadic);
        table.GetVariadicOutputMinArity = Some(no_variadic);
        table.GetVariadicOutputHomogeneity = Some(no_variadic);
        table.GetStartVersion = Some(version);
        table.GetEndVersion = Some(version);
        table.InferOutputShapeFn = Some(shape::infer);
        table.CreateKernelV2 = Some(kernel::create);
        table.KernelComputeV2 = Some(kernel::compute);
        table.KernelDestroy = Some(kernel::destroy);
        Self { table, api, operator, element, provider, name: c_string(operator.name) }
    }

    /// What the domain takes.
    pub(super) fn table(&'static self) -> *const OrtCustomOp {
        (&raw const *self).cast()
    }

    /// The whole behind the table that a callback gets.
    ///
    /// # Safety
    /// `table` comes from [`Self::table`].
    pub(super) unsafe fn behind(table: *const OrtCustomOp) -> &'static Self {
        // SAFETY: the table is the first field of a `repr(C)` struct that is never freed.
        unsafe { &*table.cast::<Self>() }
    }

    /// The runtime that the table was made for.
    pub(super) fn api(&self) -> Api {
        self.api
    }

    /// The operator's declaration.
    pub(super) fn operator(&self) -> &'static Operator {
        self.operator
    }

    /// The element type of its input and output.
    pub(super) fn element(&self) -> ONNXTensorElementDataType {
        self.element
    }

    /// Where its kernels run.
    pub(super) fn provider(&self) -> Provider {
        self.provider
    }
}

// The callbacks below read constants; none of them can panic.

unsafe extern "system" fn name(table: *const OrtCustomOp) -> *const c_char {
    // SAFETY: ONNX Runtime passes the table that it was given.
    unsafe { CustomOp::behind(table) }.name.as_ptr()
}

unsafe extern "system" fn provider_name(table: *const OrtCustomOp) -> *const c_char {
    // SAFETY: ONNX Runtime passes the table that it was given.
    unsafe { CustomOp::behind(table) }.provider.name().as_ptr()
}

unsafe extern "system" fn element_at(table: *const OrtCustomOp, _: usize) -> ONNXTensorElementDataType {
    // SAFETY: ONNX Runtime passes the table that it was given.
    unsafe { CustomOp::behind(table) }.element
}

extern "system" fn one(_: *const OrtCustomOp) -> usize {
    1
}

extern "system" fn required(_: *const OrtCustomOp, _: usize) -> OrtCustomOpInputOutputCharacteristic {
    INPUT_OUTPUT_REQUIRED
}

// The provider's own memory: the device's where the provider is CUDA.
extern "system" fn default_memory(_: *const OrtCustomOp, _: usize) -> OrtMemType {
    OrtMemType::OrtMemTypeDefault
}

extern "system" fn no_variadic(_: *const OrtCustomOp) -> c_int {
    0
}

extern "system" fn version(_: *const OrtCustomOp) -> c_int {
    VERSION as c_int
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tables of a runtime whose functions are never called.
    fn all() -> &'static [CustomOp] {
        // SAFETY: nothing below calls through the table.
        tables(unsafe { Api::new(std::ptr::null()) })
    }

    #[test]
    fn every_operator_is_there_for_every_type_and_provider() {
        let found: Vec<_> = all().iter().map(|op| (op.operator.name, op.element, op.provider)).collect();
        assert_eq!(found.len(), 24);
        for operator in &OPERATORS {
            for element in ELEMENT_TYPES.map(element_type) {
                for provider in Provider::ALL {
                    assert!(found.contains(&(operator.name, element, provider)));
                }
            }
        }
    }

    #[test]
    fn providers_go_by_the_names_that_the_runtime_knows() {
        for op in all() {
            // SAFETY: the table is `op`'s, and the name a constant.
            let name = unsafe { CStr::from_ptr(provider_name(op.table())) };
            assert_eq!(name == c"CUDAExecutionProvider", op.provider == Provider::Cuda);
            assert_eq!(name == c"CPUExecutionProvider", op.provider == Provider::Cpu);
        }
    }

    #[test]
    fn the_table_leads_back_to_the_whole() {
        let op = &all()[7];
        // SAFETY: the table is `op`'s.
        let behind = unsafe { CustomOp::behind(op.table()) };
        assert!(std::ptr::eq(op, behind));
        // SAFETY: as above.
        assert_eq!(unsafe { CStr::from_ptr(name(op.table())) }.to_str(), Ok(op.operator.name));
    }
}
