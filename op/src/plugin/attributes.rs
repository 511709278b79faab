//! A node's attributes, read when its kernel is made and checked against the declaration.

use std::ffi::CStr;
use std::ptr;

use ort_sys::OrtKernelInfo;

use super::api::{Api, Failure, c_string, call};
use crate::declaration::{Domain, OPERATORS, Operator};
use crate::layer::Value;
use crate::{Error, Layer};

/// A name that no node can be expected to give an attribute.
const ABSENT: &CStr = c"ai.isqrtcov.absent";

/// What is known of the node for which a kernel is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    api: Api,
    info: *const OrtKernelInfo,
}

impl Node {
    /// # Safety
    /// `info` is what ONNX Runtime passed to the callback that makes a kernel, and the value does not outlive that call.
    pub(super) unsafe fn new(api: Api, info: *const OrtKernelInfo) -> Self {
        Self { api, info }
    }

    /// The layer that the node's attributes describe.
    ///
    /// ONNX Runtime does not compare a custom operator's attributes with anything, and offers no list of them. So every
    /// name that any operator of the domain declares is asked for: an attribute that belongs to a sibling is found out,
    /// a misspelt one is not.
    pub(super) fn layer(&self, operator: &'static Operator) -> Result<Layer, Failure> {
        let names = OPERATORS.iter().flat_map(|declared| declared.attributes);
        let mut given: Vec<(&str, Value)> = Vec::new();
        for attribute in names {
            if given.iter().all(|(name, _)| *name != attribute.name)
                && let Some(value) = self.value(operator, attribute.name, attribute.domain)?
            {
                given.push((attribute.name, value));
            }
        }
        Layer::from_attributes(operator.name, given).map_err(|error| self.located(&error))
    }

    /// The value of an attribute, or nothing where the node does not give it.
    fn value(
        &self,
        operator: &'static Operator,
        name: &str,
        domain: Domain,
    ) -> Result<Option<Value>, Failure> {
        let attribute = c_string(name);
        let read = match domain {
            Domain::Integer { .. } => self.integer(&attribute),
            Domain::Float { .. } => self.float(&attribute),
            Domain::Word(_) => self.word(&attribute),
        };
        let Err(refusal) = read else { return read.map(Some) };
        if refusal.message == self.absent(name)? {
            return Ok(None);
        }
        let others = [Self::integer, Self::float, Self::word];
        if let Some(value) = others.into_iter().find_map(|read| read(self, &attribute).ok()) {
            // `Layer::from_attributes` says what is wrong with a value of another type.
            return Ok(Some(value));
        }
        let Some(declared) = operator.attribute(name) else {
            let expected = operator.attributes.iter().map(|a| a.name).collect::<Vec<_>>().join(", ");
            let attribute = name.to_owned();
            return Err(self.located(&Error::UnknownAttribute {
                operator: operator.name,
                attribute,
                expected,
            }));
        };
        Err(self.located(&Error::Attribute {
            operator: operator.name,
            attribute: declared.name,
            found: "a list, a tensor or a graph".to_owned(),
            expected: domain.to_string(),
        }))
    }

    /// What the runtime says of an attribute that the node does not give. Its releases word this differently, so the
    /// wording is learnt from a name that is certainly absent.
    fn absent(&self, name: &str) -> Result<String, Failure> {
        match self.integer(ABSENT) {
            Err(refusal) => Ok(refusal.message.replace(&*ABSENT.to_string_lossy(), name)),
            Ok(_) => Err(Failure::invalid(format!("attribute `{}` is reserved", ABSENT.to_string_lossy()))),
        }
    }

    fn integer(&self, name: &CStr) -> Result<Value, Failure> {
        let mut value = 0;
        // SAFETY: the call writes one int64.
        unsafe {
            let status =
                call!(self.api, KernelInfoGetAttribute_int64(self.info, name.as_ptr(), &raw mut value));
            self.api.check(status)?;
        }
        Ok(Value::Integer(value))
    }

    fn float(&self, name: &CStr) -> Result<Value, Failure> {
        let mut value = 0.0;
        // SAFETY: the call writes one float.
        unsafe {
            let status =
                call!(self.api, KernelInfoGetAttribute_float(self.info, name.as_ptr(), &raw mut value));
            self.api.check(status)?;
        }
        Ok(Value::Float(value))
    }

    fn word(&self, name: &CStr) -> Result<Value, Failure> {
        let mut size = 0;
        // SAFETY: without a buffer the call says the size, the NUL included; with one it writes that many bytes.
        let bytes = unsafe {
            let ask = |buffer, size| {
                let status =
                    call!(self.api, KernelInfoGetAttribute_string(self.info, name.as_ptr(), buffer, size));
                self.api.check(status)
            };
            ask(ptr::null_mut(), &raw mut size)?;
            let mut bytes = vec![0_u8; size];
            ask(bytes.as_mut_ptr().cast(), &raw mut size)?;
            bytes
        };
        let text = bytes.strip_suffix(&[0]).unwrap_or(&bytes);
        Ok(Value::Word(String::from_utf8_lossy(text).into_owned()))
    }

    /// `error` with the name of the node, which ONNX Runtime does not add by itself while it makes a session.
    fn located(&self, error: &Error) -> Failure {
        Failure::invalid(match self.name() {
            Some(name) if !name.is_empty() => format!("node \"{name}\": {error}"),
            _ => error.to_string(),
        })
    }

    fn name(&self) -> Option<String> {
        let mut size = 0;
        // SAFETY: as for `word`.
        let bytes = unsafe {
            let ask = |buffer, size| {
                let status = call!(self.api, KernelInfo_GetNodeName(self.info, buffer, size));
                self.api.check(status)
            };
            ask(ptr::null_mut(), &raw mut size).ok()?;
            let mut bytes = vec![0_u8; size];
            ask(bytes.as_mut_ptr().cast(), &raw mut size).ok()?;
            bytes
        };
        let text = bytes.strip_suffix(&[0]).unwrap_or(&bytes);
        Some(String::from_utf8_lossy(text).into_owned())
    }
}
