//! The Python names that a checkpoint may mention, and what each means here.
//!
//! Nothing of Python runs, whatever the name: each stands for a constructor of this reader, or for a value that is
//! only carried along. A name that is not listed is refused.

use super::element::Element;

/// A listed name.
#[derive(Debug, Clone, Copy)]
pub(super) enum Global {
    /// `collections.OrderedDict`.
    OrderedDict,
    /// `collections.defaultdict`, as old optimizers have.
    DefaultDict,
    /// `collections.Counter`, as schedules have.
    Counter,
    /// `torch._utils._rebuild_tensor`.
    RebuildTensor,
    /// `torch._utils._rebuild_tensor_v2`.
    RebuildTensorV2,
    /// `torch._utils._rebuild_tensor_v3`, for types without a storage class.
    RebuildTensorV3,
    /// `torch._utils._rebuild_parameter`, also the one that keeps Python attributes.
    RebuildParameter,
    /// `torch._tensor._rebuild_from_type_v2`, for tensors with Python attributes.
    RebuildFromType,
    /// A class of tensors, which says what a rebuilt one is.
    TensorClass,
    /// A class of storages.
    Storage(&'static Element),
    /// A `dtype`.
    Dtype(&'static Element),
    /// `torch.Size`.
    Size,
    /// `numpy.core.multiarray.scalar`.
    NumpyScalar,
    /// `numpy.dtype`.
    NumpyDtype,
    /// `_codecs.encode`, with which protocol 2 writes bytes.
    Encode,
    /// What is carried along as an object without a meaning, under the name it has in messages.
    Inert(&'static str),
}

/// What `module.name` means; none if it is not listed.
pub(super) fn find(module: &str, name: &str) -> Option<Global> {
    Some(match (module, name) {
        ("collections", "OrderedDict") => Global::OrderedDict,
        ("collections", "defaultdict") => Global::DefaultDict,
        ("collections", "Counter") => Global::Counter,
        ("torch._utils", "_rebuild_tensor") => Global::RebuildTensor,
        ("torch._utils", "_rebuild_tensor_v2") => Global::RebuildTensorV2,
        ("torch._utils", "_rebuild_tensor_v3") => Global::RebuildTensorV3,
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Global::RebuildParameter,
        ("torch._utils", "_rebuild_qtensor") => Global::Inert("a quantized tensor"),
        ("torch._utils", "_rebuild_sparse_tensor") => Global::Inert("a sparse tensor"),
        ("torch._utils", "_rebuild_meta_tensor_no_storage") => Global::Inert("a meta tensor without data"),
        ("torch._tensor", "_rebuild_from_type_v2") => Global::RebuildFromType,
        ("torch", "Tensor") | ("torch.nn.parameter", "Parameter") => Global::TensorClass,
        ("torch.torch_version", "TorchVersion") => Global::Inert("a version"),
        ("torch.serialization", "_get_layout") => Global::Inert("a layout"),
        ("torch", "Size") => Global::Size,
        ("torch", "device") => Global::Inert("a device"),
        (
            "torch",
            "per_tensor_affine"
            | "per_tensor_symmetric"
            | "per_channel_affine"
            | "per_channel_symmetric"
            | "per_channel_affine_float_qparams",
        ) => Global::Inert("a quantization scheme"),
        ("torch.storage" | "torch", "UntypedStorage") => Global::Storage(Element::of_dtype("uint8")?),
        ("torch.storage", "TypedStorage") => Global::Inert("a storage"),
        ("torch", _) => {
            let storage = Element::of_storage(name).map(Global::Storage);
            return storage.or_else(|| Element::of_dtype(name).map(Global::Dtype));
        }
        ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Global::NumpyScalar,
        ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct")
        | ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer")
        | ("numpy", "ndarray") => Global::Inert("a NumPy array"),
        ("numpy", "dtype") => Global::NumpyDtype,
        ("_codecs", "encode") => Global::Encode,
        ("argparse", "Namespace") => Global::Inert("an argparse.Namespace"),
        ("types", "SimpleNamespace") => Global::Inert("a namespace"),
        ("collections", "deque") => Global::Inert("a deque"),
        (
            "pathlib" | "pathlib._local",
            "Path" | "PosixPath" | "WindowsPath" | "PurePath" | "PurePosixPath" | "PureWindowsPath",
        ) => Global::Inert("a path"),
        ("datetime", "datetime" | "date" | "time" | "timedelta" | "timezone") => Global::Inert("a time"),
        ("builtins" | "__builtin__", class) => Global::Inert(match class {
            "set" => "a set",
            "frozenset" => "a frozenset",
            "complex" => "a complex number",
            "bytearray" => "a bytearray",
            // What a `defaultdict` makes its entries with.
            "dict" => "a dict",
            "list" => "a list",
            "int" | "long" => "an int",
            "range" | "xrange" => "a range",
            "slice" => "a slice",
            "float" => "a float",
            _ => return None,
        }),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_run_code_are_not_listed() {
        for (module, name) in [
            ("os", "system"),
            ("posix", "system"),
            ("builtins", "eval"),
            ("builtins", "getattr"),
            ("__builtin__", "exec"),
            ("torch.storage", "_load_from_bytes"),
            ("torch", "load"),
            ("torch", ""),
            ("torch.hub", "load"),
            ("collections", "OrderedDict.fromkeys"),
            ("models.resnet", "ResNet"),
            ("functools", "partial"),
            ("pathlib", "Path.home"),
            ("types", "FunctionType"),
            ("torch", "tensor"),
        ] {
            assert!(find(module, name).is_none(), "{module}.{name}");
        }
    }

    #[test]
    fn what_is_saved_beside_weights_is_carried_along() {
        for (module, name) in [
            ("__builtin__", "long"),
            ("builtins", "range"),
            ("builtins", "slice"),
            ("torch.torch_version", "TorchVersion"),
            ("pathlib", "PosixPath"),
            ("pathlib._local", "PureWindowsPath"),
            ("datetime", "datetime"),
            ("datetime", "timezone"),
            ("collections", "deque"),
            ("types", "SimpleNamespace"),
            ("numpy._core.numeric", "_frombuffer"),
            ("torch._utils", "_rebuild_meta_tensor_no_storage"),
        ] {
            assert!(matches!(find(module, name), Some(Global::Inert(_))), "{module}.{name}");
        }
        assert!(find("torch._tensor", "_rebuild_from_type_v2").is_some());
        assert!(find("torch", "Tensor").is_some() && find("torch.nn.parameter", "Parameter").is_some());
    }

    #[test]
    fn storages_and_types_of_torch_are_found() {
        assert!(matches!(find("torch", "HalfStorage"), Some(Global::Storage(e)) if e.dtype == "float16"));
        assert!(matches!(find("torch", "bfloat16"), Some(Global::Dtype(e)) if e.bytes == 2));
    }
}
