//! Writing a message without holding all of its encoding: weights go out a tensor at a time.

use std::io::{self, Write};

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, message};

use crate::onnx::{GraphProto, ModelProto};

/// The fields of the messages that are taken apart, as `onnx-ml.proto` numbers them.
const GRAPH: u32 = 7;
const NODE: u32 = 1;
const INITIALIZER: u32 = 5;

/// Bytes that are gathered before they are written.
const GATHERED: usize = 1 << 20;

/// Writes `model`, byte for byte as `encode_to_vec` encodes it: fields in the order of their numbers.
pub(crate) fn write(mut model: ModelProto, to: &mut impl Write) -> io::Result<()> {
    let behind = ModelProto {
        opset_import: std::mem::take(&mut model.opset_import),
        metadata_props: std::mem::take(&mut model.metadata_props),
        training_info: std::mem::take(&mut model.training_info),
        functions: std::mem::take(&mut model.functions),
        configuration: std::mem::take(&mut model.configuration),
        ..ModelProto::default()
    };
    let graph = model.graph.take();
    to.write_all(&model.encode_to_vec())?;
    if let Some(graph) = graph {
        let mut head = Vec::new();
        encode_key(GRAPH, WireType::LengthDelimited, &mut head);
        encode_varint(graph.encoded_len() as u64, &mut head);
        to.write_all(&head)?;
        write_graph(graph, to)?;
    }
    to.write_all(&behind.encode_to_vec())
}

fn write_graph(mut graph: GraphProto, to: &mut impl Write) -> io::Result<()> {
    let nodes = std::mem::take(&mut graph.node);
    let initializers = std::mem::take(&mut graph.initializer);
    let name = GraphProto { name: graph.name.take(), ..GraphProto::default() };
    each(NODE, nodes, to)?;
    to.write_all(&name.encode_to_vec())?;
    each(INITIALIZER, initializers, to)?;
    to.write_all(&graph.encode_to_vec())
}

/// Writes a repeated field.
fn each<M: Message + Default>(field: u32, messages: Vec<M>, to: &mut impl Write) -> io::Result<()> {
    let mut gathered = Vec::new();
    for one in messages {
        message::encode(field, &one, &mut gathered);
        if gathered.len() >= GATHERED {
            to.write_all(&gathered)?;
            gathered.clear();
        }
    }
    to.write_all(&gathered)
}
