"""Writes the small graphs beside this file: each operator with its types and attributes, and graphs that are wrong.

They hold an operator and no body, so they run only where the library is loaded. Run by hand, with `pip install
onnx==1.23.2`; what it writes is committed.
"""

import pathlib

import onnx
from onnx import TensorProto, helper

DOMAIN = "ai.isqrtcov"
FOLDER = pathlib.Path(__file__).parent
FEATURES = ["batch", 16, 7, 7]
UNKNOWN = None


def node(operator, input_name="x", output_name="y", name="pool", **attributes):
    return helper.make_node(operator, [input_name], [output_name], domain=DOMAIN, name=name, **attributes)


def save(name, nodes, shape=FEATURES, element=TensorProto.FLOAT):
    write(name, nodes, {"x": (element, shape)}, {"y": element})


def write(name, nodes, inputs, outputs):
    """`inputs` says each one's element type and shape, `outputs` each one's element type: their shapes are left to be inferred."""
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(port, element, shape) for port, (element, shape) in inputs.items()],
        [helper.make_tensor_value_info(port, element, None) for port, element in outputs.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), FOLDER / f"{name}.onnx")


save("float", [node("IsqrtCov")])
save("double", [node("IsqrtCov")], element=TensorProto.DOUBLE)
save("float16", [node("IsqrtCov")], element=TensorProto.FLOAT16)
save(
    "bfloat16",
    [
        helper.make_node("Cast", ["x"], ["narrow"], to=TensorProto.BFLOAT16),
        node("IsqrtCov", "narrow", "pooled"),
        helper.make_node("Cast", ["pooled"], ["y"], to=TensorProto.FLOAT),
    ],
)
save(
    "every_attribute",
    [
        node(
            "IsqrtCov",
            iterations=3,
            centered=0,
            correction=1,
            epsilon=0.25,
            normalization="frobenius",
            compensated=0,
            vectorization="upper_column_major",
            off_diagonal_scale=1.5,
            layout="channels_last",
        )
    ],
    ["batch", 5, 3, 8],
)
save("two_operators", [node("CovariancePooling", "x", "c"), node("MatrixSqrt", "c", "y", "root", iterations=7)])
save("gram", [node("IsqrtCov")], ["batch", 24, 9])
save("unknown_rank", [node("IsqrtCov")], UNKNOWN)
save("unbiased", [node("IsqrtCov", correction=1)], UNKNOWN)
save("unnamed_axes", [node("IsqrtCov", vectorization="none")], shape=[None, None, None])

save("wrong_rank", [node("IsqrtCov")], shape=["batch", 16])
save("wrong_type", [node("IsqrtCov")], element=TensorProto.INT64)
save("unknown_word", [node("IsqrtCov", vectorization="lower")])
save("iterations_of_zero", [node("IsqrtCov", iterations=0)])
save("iterations_as_float", [node("IsqrtCov", iterations=5.0)])
save("iterations_as_list", [node("IsqrtCov", iterations=[5, 5])])
save("negative_epsilon", [node("IsqrtCov", epsilon=-1.0)])
save("attribute_of_another", [node("MatrixSqrt", centered=1)], ["batch", 4, 4])

# For the tests of extreme numbers: every operator, and a layer that reads the same numbers with channels and positions in
# each other's place, so that one of the two has fewer positions than channels.
ANY = [None, None, None]
TYPES = {
    "float": TensorProto.FLOAT,
    "double": TensorProto.DOUBLE,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
}
for name, element in TYPES.items():
    write(
        f"numbers_{name}",
        [
            node("IsqrtCov", "x", "layer", "layer"),
            node("IsqrtCov", "x", "turned", "turned", layout="channels_last", normalization="frobenius"),
            node("CovariancePooling", "x", "covariance", "covariance"),
            node("MatrixSqrt", "a", "root", "root"),
        ],
        {"x": (element, ANY), "a": (element, ANY)},
        {output: element for output in ("layer", "turned", "covariance", "root")},
    )

# For the tests under load: every operator and type in one session.
write(
    "mixed",
    [
        node("IsqrtCov", "float", "float_y", "float"),
        node("CovariancePooling", "double", "double_c", "double_c", layout="channels_last", correction=1),
        node("MatrixSqrt", "double_c", "double_y", "double_y", iterations=7),
        node("IsqrtCov", "float16", "float16_y", "float16", vectorization="none", normalization="frobenius"),
        node(
            "IsqrtCov",
            "bfloat16",
            "bfloat16_y",
            "bfloat16",
            iterations=3,
            epsilon=0.001,
            compensated=0,
            vectorization="upper_column_major",
            off_diagonal_scale=1.5,
        ),
    ],
    {name: (element, ANY) for name, element in TYPES.items()},
    {f"{name}_y": element for name, element in TYPES.items()},
)

# A run that takes long enough to be stopped between two nodes.
LINKS = 64
save(
    "chain",
    [node("MatrixSqrt", f"x{i}" if i else "x", f"x{i + 1}" if i < LINKS - 1 else "y", f"root{i}") for i in range(LINKS)],
    ANY,
)
