//! ONNX Runtime, loaded at run time from wherever the user has it.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use isqrt_cov_proto::Model;
use isqrt_cov_proto::onnx::ModelProto;
use ndarray::ArrayD;
use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::builder::SessionBuilder;
use ort::session::{Session as OrtSession, SessionInputValue};
use ort::value::{DynValue, PrimitiveTensorElementType, Tensor as OrtTensor, TensorElementType, ValueType};
use prost::Message;

use super::version::runtime_version;
use super::{Runtime, Session, processor};
use crate::tensor::Tensor;

/// The variable that names ONNX Runtime's library where no option does.
pub const RUNTIME_VARIABLE: &str = "ORT_DYLIB_PATH";
/// The variable that names the operator library where no option does.
pub const OPERATORS_VARIABLE: &str = "ISQRT_COV_OP_LIBRARY";
/// Messages above this size do not go through memory: protobuf's limit, less what wraps the message.
const LARGEST_MESSAGE: usize = (1 << 31) - (1 << 16);

/// ONNX Runtime, perhaps with the operator library registered.
#[derive(Debug)]
pub struct Ort {
    environment: Environment,
    library: PathBuf,
    version: String,
    operators: Option<PathBuf>,
    threads: Option<usize>,
}

/// The one environment that a process may have, with the library that it came from.
static ENVIRONMENT: Mutex<Option<(PathBuf, Environment)>> = Mutex::new(None);

impl Ort {
    /// Loads ONNX Runtime from `library`. Sessions register `operators`, if given, and run on `threads` threads, or
    /// as many as ONNX Runtime likes.
    ///
    /// # Errors
    /// A library that cannot be loaded, is not ONNX Runtime, or is older than 1.17; another one is loaded already.
    pub fn load(library: &Path, operators: Option<&Path>, threads: Option<usize>) -> Result<Self> {
        // A relative path would be looked for beside this program first.
        let library = std::path::absolute(library)?;
        ensure!(
            library.is_file(),
            "{}: no such file; expected ONNX Runtime's shared library",
            library.display()
        );
        let version = runtime_version(&library)?;
        let mut loaded = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
        let environment = if let Some((path, environment)) = &*loaded {
            ensure!(*path == library, "{}: cannot be loaded beside {}", library.display(), path.display());
            environment.clone()
        } else {
            let builder = ort::init_from(&library)
                .with_context(|| format!("{}: cannot be used as ONNX Runtime", library.display()))?;
            let environment = builder.with_name("isqrt-cov").with_telemetry(false).build()?;
            // Errors come back as such; logged, they would be told twice.
            environment.set_log_level(LogLevel::Fatal);
            *loaded = Some((library.clone(), environment.clone()));
            environment
        };
        drop(loaded);
        let operators = operators.map(std::path::absolute).transpose()?;
        if let Some(operators) = &operators {
            ensure!(
                operators.is_file(),
                "{}: no such file; expected the operator library",
                operators.display()
            );
            processor::check(operators)?;
        }
        let runtime = Self { environment, library, version, operators, threads };
        // A library that does not register should fail here, by name, and not with the first model.
        runtime.builder()?;
        Ok(runtime)
    }

    /// ONNX Runtime's library.
    #[must_use]
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// ONNX Runtime's version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Options for a session, with the operator library registered.
    ///
    /// # Errors
    /// An operator library that ONNX Runtime does not accept.
    pub fn builder(&self) -> Result<SessionBuilder> {
        let mut builder = OrtSession::builder(&self.environment)?;
        builder = builder.with_log_level(LogLevel::Fatal).map_err(plain)?;
        if let Some(threads) = self.threads {
            builder = builder.with_intra_threads(threads).map_err(plain)?;
        }
        if let Some(operators) = &self.operators {
            builder = builder.with_operator_library(operators).map_err(plain).with_context(|| {
                format!("{}: cannot be registered as operator library", operators.display())
            })?;
        }
        Ok(builder)
    }

    /// A session for `model`, whose tensors are all inline.
    ///
    /// # Errors
    /// A model that ONNX Runtime refuses.
    pub fn session(&self, builder: &mut SessionBuilder, model: &ModelProto) -> Result<OrtSession> {
        let session = if model.encoded_len() <= LARGEST_MESSAGE {
            builder.commit_from_memory(&model.encode_to_vec())
        } else {
            let folder = tempfile::tempdir()?;
            let file = folder.path().join("model.onnx");
            Model::new(model.clone(), &file).save(&file)?;
            builder.commit_from_file(&file)
        };
        session.map_err(|error| {
            let unknown = error.message().contains("ai.isqrtcov") && self.operators.is_none();
            let error = anyhow::Error::new(error).context("ONNX Runtime does not load the model");
            if unknown {
                error.context(format!(
                    "the model holds operators of ai.isqrtcov without a function body; name the operator library with \
                     --op-library or {OPERATORS_VARIABLE}"
                ))
            } else {
                error
            }
        })
    }
}

impl Runtime for Ort {
    fn name(&self) -> String {
        let operators = if self.operators.is_some() { " with the operator library" } else { "" };
        format!("ONNX Runtime {}{operators}", self.version)
    }

    fn prepare(&self, model: &Arc<ModelProto>, shapes: &[Vec<usize>]) -> Result<Box<dyn Session>> {
        let session = self.session(&mut self.builder()?, model)?;
        let names: Vec<_> = session.inputs().iter().map(ort::value::Outlet::name).collect();
        ensure!(
            names.len() == shapes.len(),
            "the model has the inputs `{}`; {} shapes were given",
            names.join("`, `"),
            shapes.len()
        );
        Ok(Box::new(Prepared { session: RefCell::new(session) }))
    }
}

struct Prepared {
    session: RefCell<OrtSession>,
}

impl Session for Prepared {
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        run(&mut self.session.borrow_mut(), inputs)
    }
}

/// Runs a session once.
///
/// # Errors
/// What ONNX Runtime reports.
pub fn run(session: &mut OrtSession, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
    let inputs: Vec<SessionInputValue> = inputs.iter().map(to_ort).collect::<Result<_>>()?;
    let outputs = session.run(&*inputs).context("ONNX Runtime does not run the model")?;
    outputs.values().map(|value| from_ort(&value)).collect()
}

fn to_ort(tensor: &Tensor) -> Result<SessionInputValue<'static>> {
    fn value<T: PrimitiveTensorElementType + Clone + std::fmt::Debug + 'static>(
        array: &ArrayD<T>,
    ) -> Result<DynValue> {
        let elements: Vec<T> = array.iter().cloned().collect();
        Ok(OrtTensor::from_array((array.shape(), elements))?.into_dyn())
    }
    let value = crate::with_array!(tensor, array => value(array))?;
    Ok(value.into())
}

fn from_ort(value: &DynValue) -> Result<Tensor> {
    fn array<T: PrimitiveTensorElementType + Clone>(value: &DynValue) -> Result<ArrayD<T>> {
        let (shape, elements) = value.try_extract_tensor::<T>()?;
        let dims: Vec<usize> = shape.iter().map(|&dim| usize::try_from(dim)).collect::<Result<_, _>>()?;
        Ok(ArrayD::from_shape_vec(dims, elements.to_vec())?)
    }
    let ValueType::Tensor { ty, .. } = value.dtype() else {
        bail!("an output is {}; expected a tensor", value.dtype());
    };
    Ok(match ty {
        TensorElementType::Float32 => Tensor::F32(array(value)?),
        TensorElementType::Float64 => Tensor::F64(array(value)?),
        TensorElementType::Float16 => Tensor::F16(array(value)?),
        TensorElementType::Bfloat16 => Tensor::BF16(array(value)?),
        TensorElementType::Int64 => Tensor::I64(array(value)?),
        TensorElementType::Int32 => Tensor::I32(array(value)?),
        TensorElementType::Uint32 => Tensor::U32(array(value)?),
        TensorElementType::Int16 => Tensor::I16(array(value)?),
        TensorElementType::Uint16 => Tensor::U16(array(value)?),
        TensorElementType::Uint8 => Tensor::U8(array(value)?),
        TensorElementType::Int8 => Tensor::I8(array(value)?),
        TensorElementType::Bool => Tensor::Bool(array(value)?),
        other => bail!("an output of type {other} cannot be compared"),
    })
}

/// An error without the builder that it would hand back.
fn plain(error: ort::Error<SessionBuilder>) -> ort::Error {
    error.into()
}

/// Finds ONNX Runtime's library: the path given, or the one that `ORT_DYLIB_PATH` holds. A folder stands for the
/// library in it.
///
/// # Errors
/// No path at all, or a folder without the library.
pub fn find_runtime(given: Option<&Path>) -> Result<PathBuf> {
    let path = named_runtime(given).with_context(|| {
        format!(
            "no ONNX Runtime given; name its shared library with --onnxruntime or {RUNTIME_VARIABLE} (in a Python \
             installation it lies in onnxruntime/capi)"
        )
    })?;
    if !path.is_dir() {
        return Ok(path);
    }
    library_in(&path).with_context(|| {
        let names = "libonnxruntime.so, libonnxruntime.dylib or onnxruntime.dll";
        format!(
            "{}: the folder does not hold ONNX Runtime ({names}); Python packages before 1.19 have no such library: take that \
             of the same version from https://github.com/microsoft/onnxruntime/releases, or install a later package",
            path.display()
        )
    })
}

/// The path that says where ONNX Runtime is: the one given, or the one that `ORT_DYLIB_PATH` holds.
#[must_use]
pub fn named_runtime(given: Option<&Path>) -> Option<PathBuf> {
    given.map(Path::to_owned).or_else(|| variable(RUNTIME_VARIABLE))
}

/// Finds the operator library: the path given, the one that `ISQRT_COV_OP_LIBRARY` holds, or the one beside this
/// program.
#[must_use]
pub fn find_operators(given: Option<&Path>) -> Option<PathBuf> {
    let beside = || {
        let name = format!("{}isqrt_cov_op{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
        let library = std::env::current_exe().ok()?.parent()?.join(name);
        library.is_file().then_some(library)
    };
    given.map(Path::to_owned).or_else(|| variable(OPERATORS_VARIABLE)).or_else(beside)
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The library in a folder, or in the `capi` folder of a Python package; its file name may end in a version.
fn library_in(folder: &Path) -> Option<PathBuf> {
    let is_library = |name: &str| {
        name.starts_with("libonnxruntime.so") || name == "libonnxruntime.dylib" || name == "onnxruntime.dll"
    };
    [folder.to_owned(), folder.join("capi"), folder.join("lib")].into_iter().find_map(|folder| {
        let files = std::fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
        files.filter(|file| file.file_name().and_then(|name| name.to_str()).is_some_and(is_library)).min()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_stands_for_the_library_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let capi = folder.path().join("capi");
        std::fs::create_dir(&capi).unwrap();
        assert!(
            find_runtime(Some(folder.path()))
                .unwrap_err()
                .to_string()
                .contains("Python packages before 1.19 have no")
        );
        std::fs::write(capi.join("libonnxruntime_providers_shared.so"), b"").unwrap();
        let library = capi.join("libonnxruntime.so.1.32.0");
        std::fs::write(&library, b"").unwrap();
        assert_eq!(find_runtime(Some(folder.path())).unwrap(), library);
        assert_eq!(find_runtime(Some(&capi)).unwrap(), library);
    }

    #[test]
    fn a_file_that_is_no_library_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = format!("{:#}", Ort::load(file.path(), None, None).unwrap_err());
        assert!(error.contains(&file.path().display().to_string()), "{error}");
        let error =
            format!("{:#}", Ort::load(Path::new("/nowhere/libonnxruntime.so"), None, None).unwrap_err());
        assert!(error.contains("no such file"), "{error}");
    }
}
