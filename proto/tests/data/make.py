"""Writes every.onnx: a model with a part of every kind that readers of ONNX tend to lose.

Made with onnx 1.23.2 and ml_dtypes 0.6.0. The tensors `*_typed` hold 1, 2, 3 in the field of their type instead of
`raw_data`.
"""

from pathlib import Path

from onnx import AttributeProto, ModelProto, TensorProto, helper, save

T = TensorProto
typed = [
    helper.make_tensor(f"{T.DataType.Name(t).lower()}_typed", t, [3], [1, 2, 3])
    for t in (T.FLOAT, T.DOUBLE, T.FLOAT16, T.BFLOAT16, T.INT8, T.INT16, T.INT32, T.INT64)
    + (T.UINT8, T.UINT16, T.UINT32, T.UINT64, T.INT4, T.UINT4)
] + [helper.make_tensor("bool_typed", T.BOOL, [3], [True, False, True])]
strings = helper.make_tensor("strings", T.STRING, [2], [b"a", b"\xff\x00"])
negative = helper.make_tensor("negative", T.INT8, [2], [-1, -128])
sparse = helper.make_sparse_tensor(
    helper.make_tensor("sparse", T.FLOAT, [1], [2.0]), helper.make_tensor("", T.INT64, [1], [4]), [3, 3]
)
branch = helper.make_graph(
    [helper.make_node("Identity", ["float_typed"], ["b"])], "branch", [], [helper.make_tensor_value_info("b", T.FLOAT, [3])]
)
nodes = [
    helper.make_node("If", ["c"], ["y"], name="if", then_branch=branch, else_branch=branch),
    helper.make_node("F", ["y"], ["z"], domain="d", overload="o", a=2.0),
    helper.make_node("Constant", [], ["k"], value=helper.make_tensor("", T.DOUBLE, [], [0.5])),
]
nodes[0].metadata_props.add(key="node", value="metadata")
function = helper.make_function(
    "d", "F", ["x"], ["y"],
    [helper.make_node("LeakyRelu", ["x"], ["y"])],
    [helper.make_opsetid("", 20)], attributes=[], attribute_protos=[helper.make_attribute("a", 1.0)], overload="o",
)
reference = AttributeProto(name="alpha", ref_attr_name="a", type=AttributeProto.FLOAT)
function.node[0].attribute.append(reference)
graph = helper.make_graph(
    nodes, "graph",
    [helper.make_tensor_value_info("c", T.BOOL, [])],
    [helper.make_tensor_value_info("z", T.FLOAT, ["n"])],
    initializer=[*typed, negative, strings], sparse_initializer=[sparse], doc_string="ünï",
)
graph.metadata_props.add(key="graph", value="metadata")
model = helper.make_model(
    graph, functions=[function], producer_name="make.py", ir_version=13,
    opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("d", 1)],
)
model.metadata_props.add(key="model", value="metadata")
model.training_info.add().algorithm.name = "training"
model.configuration.add(name="two devices", num_devices=2)
save(model, Path(__file__).with_name("every.onnx"))
