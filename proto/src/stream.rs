//! Writing a message without holding all of its encoding: large weights go out as they lie in memory.

use std::io::{self, Write};

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, message};

use crate::onnx::{GraphProto, ModelProto, TensorProto};

/// The fields of the messages that are taken apart, as `onnx-ml.proto` numbers them.
const GRAPH: u32 = 7;
const NODE: u32 = 1;
const INITIALIZER: u32 = 5;
const RAW_DATA: u32 = 9;

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
        to.write_all(&head(GRAPH, graph.encoded_len()))?;
        write_graph(graph, to)?;
    }
    to.write_all(&behind.encode_to_vec())
}

fn write_graph(mut graph: GraphProto, to: &mut impl Write) -> io::Result<()> {
    let nodes = std::mem::take(&mut graph.node);
    let initializers = std::mem::take(&mut graph.initializer);
    let name = GraphProto { name: graph.name.take(), ..GraphProto::default() };
    let mut gathered = Vec::new();
    for node in nodes {
        message::encode(NODE, &node, &mut gathered);
        if gathered.len() >= GATHERED {
            to.write_all(&gathered)?;
            gathered.clear();
        }
    }
    to.write_all(&gathered)?;
    to.write_all(&name.encode_to_vec())?;
    for tensor in initializers {
        to.write_all(&head(INITIALIZER, tensor.encoded_len()))?;
        write_tensor(tensor, to)?;
    }
    to.write_all(&graph.encode_to_vec())
}

fn write_tensor(mut tensor: TensorProto, to: &mut impl Write) -> io::Result<()> {
    let behind = TensorProto {
        double_data: std::mem::take(&mut tensor.double_data),
        uint64_data: std::mem::take(&mut tensor.uint64_data),
        doc_string: tensor.doc_string.take(),
        external_data: std::mem::take(&mut tensor.external_data),
        data_location: tensor.data_location.take(),
        metadata_props: std::mem::take(&mut tensor.metadata_props),
        ..TensorProto::default()
    };
    let raw = tensor.raw_data.take();
    to.write_all(&tensor.encode_to_vec())?;
    if let Some(raw) = raw {
        to.write_all(&head(RAW_DATA, raw.len()))?;
        to.write_all(&raw)?;
    }
    to.write_all(&behind.encode_to_vec())
}

/// What stands before a field of so many bytes.
fn head(field: u32, bytes: usize) -> Vec<u8> {
    let mut head = Vec::new();
    encode_key(field, WireType::LengthDelimited, &mut head);
    encode_varint(bytes as u64, &mut head);
    head
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::tensor_proto::Segment;
    use crate::onnx::{FunctionProto, NodeProto, StringStringEntryProto};

    #[test]
    fn messages_are_written_as_they_are_encoded_at_once() {
        let entries =
            || vec![StringStringEntryProto { key: Some("key".into()), value: Some("value".into()) }];
        let full = TensorProto {
            segment: Some(Segment { begin: Some(0), end: Some(3) }),
            float_data: vec![1.0],
            int32_data: vec![2],
            string_data: vec!["three".into()],
            int64_data: vec![4],
            double_data: vec![5.0],
            uint64_data: vec![6],
            doc_string: Some("seven".into()),
            external_data: entries(),
            data_location: Some(1),
            metadata_props: entries(),
            ..TensorProto::from_values("full", &[2], &[1.0_f32, 2.0])
        };
        let graph = GraphProto {
            node: vec![NodeProto::new("Add", &["x", "full"], &["y"]); 3],
            name: Some("graph".to_owned()),
            initializer: vec![full, TensorProto::default()],
            doc_string: Some("behind the initializers".to_owned()),
            metadata_props: entries(),
            ..GraphProto::default()
        };
        let model = ModelProto {
            producer_name: Some("producer".to_owned()),
            metadata_props: entries(),
            functions: vec![FunctionProto { name: Some("function".to_owned()), ..FunctionProto::default() }],
            ..ModelProto::new(graph, 17)
        };
        let mut written = Vec::new();
        write(model.clone(), &mut written).unwrap();
        assert_eq!(written, model.encode_to_vec());
    }
}
