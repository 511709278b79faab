//! Words in a function: where it chooses by them among layers, as `body/choice.rs` writes it, what it finds is put in their place, since the
//! evaluator knows numbers only.

use std::collections::HashMap;

use isqrt_cov_proto::onnx::{AttributeProto, FunctionProto, NodeProto, TensorProto};

/// Puts numbers in the place of all that is found out of words when a node with these attributes calls `function`.
pub(super) fn settle(function: &mut FunctionProto, given: &[AttributeProto]) {
    let defaults = function.attribute_proto.clone();
    let word_of = |name: &str| {
        let attribute = given.iter().chain(&defaults).find(|attribute| attribute.name() == name)?;
        Some(attribute.s().to_vec())
    };
    in_nodes(&mut function.node, &mut HashMap::new(), &word_of);
}

/// `words` are the values that hold one.
fn in_nodes(
    nodes: &mut Vec<NodeProto>,
    words: &mut HashMap<String, Vec<u8>>,
    word_of: &dyn Fn(&str) -> Option<Vec<u8>>,
) {
    nodes.retain_mut(|node| {
        let read = node.input.first().and_then(|name| words.get(name)).cloned();
        let word = match (node.op_type(), read) {
            ("Constant", _) => {
                node.find("value_string").and_then(|attribute| match attribute.ref_attr_name() {
                    "" => Some(attribute.s().to_vec()),
                    name => word_of(name),
                })
            }
            ("Reshape", read) => read,
            ("TfIdfVectorizer", Some(word)) => {
                // Counts one word, as it is written there.
                let pool = node.find("pool_strings").map_or(&[][..], |attribute| &attribute.strings);
                let count = f32::from(u8::from(pool.iter().any(|counted| *counted == word)));
                *node = NodeProto { output: node.output.clone(), ..NodeProto::new("Constant", &[], &[]) }
                    .with(AttributeProto::tensor("value", TensorProto::from_values("", &[1], &[count])));
                None
            }
            _ => None,
        };
        for graph in node.attribute.iter_mut().filter_map(|attribute| attribute.g.as_mut()) {
            in_nodes(&mut graph.node, words, word_of);
        }
        let is_word = word.is_some();
        words.extend(word.and_then(|word| Some((node.output.first()?.clone(), word))));
        !is_word
    });
}
