//! Node's onnxruntime-node, which loads no operator library.

use std::path::Path;
use std::process::Command;

use crate::{RUN_FIRST, folder};

/// onnxruntime-node in the version of `clients/node/package-lock.json`.
#[derive(Debug, Clone, Copy)]
pub struct Node;

impl Node {
    /// The output of `model` for the raw float32 numbers in the file `input`.
    ///
    /// # Panics
    /// If the package is not installed, or the model does not run.
    #[must_use]
    pub fn run(self, model: &Path, input: &Path, shape: &[usize]) -> Vec<f32> {
        let packages = folder().join(".cache/node/node_modules");
        assert!(packages.exists(), "onnxruntime-node is missing; {RUN_FIRST}");
        let output = Command::new("node")
            .arg(folder().join("clients/node/run.cjs"))
            .args([model, input])
            .arg(format!("{shape:?}"))
            .env("NODE_PATH", packages)
            .output()
            .expect("Node starts");
        assert!(output.status.success(), "onnxruntime-node: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("the output is a JSON list")
    }
}
