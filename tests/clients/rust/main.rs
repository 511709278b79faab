//! Runs one model in the ONNX Runtime library that is named at run time, and prints its output as one JSON list.
//!
//! ```text
//! rust-client RUNTIME LIBRARY MODEL INPUT SHAPE
//! ```
//!
//! RUNTIME is ONNX Runtime's shared library, LIBRARY that of the operators, INPUT a file of raw float32 numbers, SHAPE a JSON list.

use std::error::Error;

use ort::session::Session;
use ort::value::Tensor;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [runtime, library, model, input, shape] = &arguments[..] else {
        return Err("usage: rust-client RUNTIME LIBRARY MODEL INPUT SHAPE".into());
    };
    let bytes = std::fs::read(input)?;
    let numbers: Vec<f32> =
        bytes.chunks_exact(4).map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect();
    let shape: Vec<i64> = serde_json::from_str(shape)?;

    let environment = ort::init_from(runtime)?.build()?;
    let mut session =
        Session::builder(&environment)?.with_operator_library(library)?.commit_from_file(model)?;
    let outputs = session.run(ort::inputs![Tensor::from_array((shape, numbers))?])?;
    let (_, output) = outputs[0].try_extract_tensor::<f32>()?;
    println!("{}", serde_json::to_string(output)?);
    Ok(())
}
