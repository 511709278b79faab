//! ONNX Runtime in this process, and sessions that several threads run at once.
//!
//! `ort` lends a session to one thread at a time; ONNX Runtime does not ask for that, and servers do not do it.
#![allow(unsafe_code)]

use std::error::Error;
use std::ffi::{CString, NulError};
use std::path::Path;
use std::ptr::{self, NonNull};

use ort::AsPointer;
use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::{NoSelectedOutputs, RunOptions, Session};
use ort::value::{DynTensorValueType, DynValue, Outlet};

use crate::Tensor;

/// What went wrong, in words.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// ONNX Runtime, loaded from a shared library.
#[derive(Debug)]
pub struct Runtime(Environment);

impl Runtime {
    /// Loads `library`. A process can have one runtime.
    ///
    /// # Errors
    /// A file that is not ONNX Runtime; another one is loaded.
    pub fn load(library: &Path) -> Outcome<Self> {
        let environment = ort::init_from(library)?.with_telemetry(false).build()?;
        // Errors come back as such.
        environment.set_log_level(LogLevel::Fatal);
        Ok(Self(environment))
    }

    /// A session of `model` with the operators of each of `libraries`, in which a run has `threads` threads.
    ///
    /// # Errors
    /// What ONNX Runtime says against it.
    pub fn session(&self, model: &Path, libraries: &[&Path], threads: usize) -> Outcome<SharedSession> {
        let mut builder =
            Session::builder(&self.0)?.with_intra_threads(threads).map_err(ort::Error::<()>::from)?;
        builder = builder.with_log_level(LogLevel::Fatal).map_err(ort::Error::<()>::from)?;
        // Idle threads that spin would take the processors from threads that have something to do.
        builder = builder.with_intra_op_spinning(false).map_err(ort::Error::<()>::from)?;
        for library in libraries {
            builder = builder.with_operator_library(library).map_err(ort::Error::<()>::from)?;
        }
        let session = builder.commit_from_file(model)?;
        let names = |ports: &[Outlet]| -> Result<_, NulError> {
            ports.iter().map(|port| CString::new(port.name())).collect()
        };
        let inputs = names(session.inputs())?;
        let outputs = names(session.outputs())?;
        Ok(SharedSession { session, inputs, outputs })
    }
}

/// A session that any thread may run.
#[derive(Debug)]
pub struct SharedSession {
    session: Session,
    inputs: Vec<CString>,
    outputs: Vec<CString>,
}

impl SharedSession {
    /// Runs the model once on `inputs`, in the model's order, and returns its outputs.
    ///
    /// # Errors
    /// What ONNX Runtime says against it.
    pub fn run(&self, inputs: &[Tensor]) -> Outcome<Vec<Tensor>> {
        self.run_with(inputs, &RunOptions::new()?)
    }

    /// As [`Self::run`], under options by which another thread may end the run.
    ///
    /// # Errors
    /// What ONNX Runtime says against it; that it was ended.
    ///
    /// # Panics
    /// If there are not as many inputs as the model has, or an output is not a tensor of the operators' types.
    pub fn run_with(
        &self,
        inputs: &[Tensor],
        options: &RunOptions<NoSelectedOutputs>,
    ) -> Outcome<Vec<Tensor>> {
        assert_eq!(inputs.len(), self.inputs.len(), "as many inputs as the model has");
        let views = inputs.iter().map(Tensor::view).collect::<ort::Result<Vec<_>>>()?;
        let views: Vec<_> = views.iter().map(|view| view.ptr()).collect();
        let names = |names: &[CString]| names.iter().map(|name| name.as_ptr()).collect::<Vec<_>>();
        let (input_names, output_names) = (names(&self.inputs), names(&self.outputs));
        let mut outputs = vec![ptr::null_mut(); output_names.len()];
        // SAFETY: session, options, names and inputs are alive during the call, which only reads them and may be made by
        // several threads at once; there is room for as many outputs as there are names. The status is not used again.
        unsafe {
            let status = (ort::api().Run)(
                self.session.ptr().cast_mut(),
                options.ptr(),
                input_names.as_ptr(),
                views.as_ptr(),
                views.len(),
                output_names.as_ptr(),
                output_names.len(),
                outputs.as_mut_ptr(),
            );
            ort::Error::result_from_status(status)?;
        }
        let taken = outputs.into_iter().map(|output| {
            let output = NonNull::new(output).expect("a run that succeeds makes every output");
            // SAFETY: the run made the value, of memory of the session's own allocator, and gave it away.
            let value: DynValue = unsafe { DynValue::from_ptr(output, Some(self.session.allocator())) };
            let tensor = value.downcast::<DynTensorValueType>()?;
            Ok(Tensor::of(&tensor).expect("the operators' types"))
        });
        taken.collect()
    }
}
