"""Exported graphs put into other shapes: a model function, a branch of If, the body of a Loop; simplifiers."""

import onnx
import onnxruntime
from onnx import TensorProto, helper


def constants_as_nodes(graph):
    """The graph's nodes with its initializers turned into Constant nodes before them."""
    constants = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in graph.initializer]
    return [*constants, *graph.node]


def as_function(model):
    """The whole graph moved into a model function, called once."""
    graph = model.graph
    inputs, outputs = [v.name for v in graph.input], [v.name for v in graph.output]
    function = helper.make_function(
        "com.example.vision", "SecondOrderPooling", inputs, outputs, constants_as_nodes(graph), list(model.opset_import)
    )
    call = helper.make_node("SecondOrderPooling", inputs, outputs, domain="com.example.vision")
    return rebuilt(model, [call], functions=[function], opsets=[helper.make_opsetid("com.example.vision", 1)])


def inside_if(model):
    """The graph in the `then` branch of an If on the data; the `else` branch gives zeros."""
    graph = model.graph
    (source,), (target,) = graph.input, graph.output
    width = target.type.tensor_type.shape.dim[1].dim_value
    silence = [
        helper.make_node("Shape", [source.name], ["extent"], start=0, end=1),
        helper.make_node("Constant", [], ["width"], value=helper.make_tensor("", TensorProto.INT64, [1], [width])),
        helper.make_node("Concat", ["extent", "width"], ["zeros_shape"], axis=0),
        helper.make_node("ConstantOfShape", ["zeros_shape"], ["silenced"]),
    ]
    condition = [
        helper.make_node("ReduceMax", [source.name], ["peak"], keepdims=0),
        helper.make_node("Constant", [], ["floor"], value=helper.make_tensor("", TensorProto.FLOAT, [], [-1e30])),
        helper.make_node("Greater", ["peak", "floor"], ["any"]),
    ]
    branches = {
        "then_branch": helper.make_graph(constants_as_nodes(graph), "then", [], [target]),
        "else_branch": helper.make_graph(silence, "else", [], [clone(target, "silenced")]),
    }
    model = rebuilt(model, [*condition, helper.make_node("If", ["any"], ["result"], **branches)])
    return output_renamed(model, target.name, "result")


def inside_loop(model):
    """A Loop over the batch; its body holds the graph for one sample and stacks what it gives."""
    (whole,) = model.graph.input
    graph = reading(model.graph, whole.name, "one_sample")
    (target,) = graph.output
    nodes = [
        helper.make_node("Constant", [], ["axis0"], value=helper.make_tensor("", TensorProto.INT64, [1], [0])),
        helper.make_node("Gather", [whole.name, "sample_number"], ["sample"], axis=0),
        helper.make_node("Unsqueeze", ["sample", "axis0"], ["one_sample"]),
        *constants_as_nodes(graph),
        helper.make_node("Squeeze", [target.name, "axis0"], ["row"]),
        helper.make_node("Identity", ["go_on"], ["still_on"]),
    ]
    row = helper.make_tensor_value_info(
        "row", TensorProto.FLOAT, [d.dim_value for d in target.type.tensor_type.shape.dim[1:]]
    )
    body = helper.make_graph(
        nodes,
        "sample",
        [
            helper.make_tensor_value_info("sample_number", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("still_on", TensorProto.BOOL, []), row],
    )
    outer = [
        helper.make_node("Shape", [whole.name], ["shape"]),
        helper.make_node("Constant", [], ["first"], value=helper.make_tensor("", TensorProto.INT64, [], [0])),
        helper.make_node("Gather", ["shape", "first"], ["count"], axis=0),
        helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("", TensorProto.BOOL, [], [True])),
        helper.make_node("Loop", ["count", "yes"], ["result"], body=body),
    ]
    looped = rebuilt(model, outer)
    looped = output_renamed(looped, target.name, "result")
    for value in (looped.graph.input[0], looped.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return looped


def reading(graph, old, new):
    """The graph with every node, in subgraphs too, reading `new` where it read `old`."""
    copy = onnx.GraphProto()
    copy.CopyFrom(graph)
    pending = [copy]
    while pending:
        for node in pending.pop().node:
            node.input[:] = [new if name == old else name for name in node.input]
            pending.extend(attribute.g for attribute in node.attribute if attribute.HasField("g"))
    return copy


def clone(value, name):
    """A value's type under another name."""
    copy = onnx.ValueInfoProto()
    copy.CopyFrom(value)
    copy.name = name
    return copy


def rebuilt(model, nodes, functions=(), opsets=()):
    """The model with these nodes in place of its own, without initializers."""
    new = onnx.ModelProto()
    new.CopyFrom(model)
    del new.graph.node[:], new.graph.initializer[:], new.graph.value_info[:]
    new.graph.node.extend(nodes)
    new.functions.extend(functions)
    new.opset_import.extend(opsets)
    return new


def output_renamed(model, old, new):
    """The model with its output `old` called `new`."""
    for value in model.graph.output:
        if value.name == old:
            value.name = new
    return model


def by_onnxsim(model):
    """onnxsim."""
    import onnxsim

    simplified, ok = onnxsim.simplify(model)
    assert ok
    return simplified


def by_onnxslim(model):
    """onnxslim."""
    import onnxslim

    return onnxslim.slim(model)


def by_runtime(level, path):
    """A rewrite that saves what ONNX Runtime's offline optimizer makes of a model at `level`."""

    def rewrite(model):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 3
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(path)

    return rewrite


def by_half(keep_io):
    """A rewrite by ONNX Runtime's converter to float16."""

    def rewrite(model):
        from onnxruntime.transformers.float16 import convert_float_to_float16
        from onnxruntime.transformers.onnx_model import OnnxModel

        # The converter appends its casts at the end.
        converted = OnnxModel(convert_float_to_float16(model, keep_io_types=keep_io))
        converted.topological_sort()
        return converted.model

    return rewrite
