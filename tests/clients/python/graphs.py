"""The layer as ONNX graphs: in standard operators, as PyTorch exports it when all goes well, and as the operator.

The equations are those of `reference.py`, in the order of the authors' code: 3K − 3 products after the covariance, for K ≥ 2
steps. Constants are folded, nothing is written in place, and the batch axis stays open: a real export has more nodes.
"""

import math

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

# How the covariance is centered: by the authors' matrix (I − 11ᵀ/M)/M between two products, or by subtracting the mean.
CENTERINGS = ("matrix", "mean")

DOMAIN = "ai.isqrtcov"
VERSIONS = {"": 18, DOMAIN: 1}


class Graph:
    """Nodes and constants in the making. Every name begins with `prefix`."""

    def __init__(self, prefix: str = ""):
        self.prefix = prefix
        self.nodes = []
        self.constants = []

    def constant(self, array) -> str:
        """Adds a constant and returns its name."""
        name = f"{self.prefix}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes) -> str:
        """Adds a node and returns the name of its output."""
        name = f"{self.prefix}{operator}_{len(self.nodes)}"
        output = output or f"{name}_output"
        self.nodes.append(helper.make_node(operator, inputs, [output], name=name, **attributes))
        return output

    def model(self, input_shape: list, output_shape: list) -> ModelProto:
        """The model from `x` to `y`."""
        graph = helper.make_graph(
            self.nodes,
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, input_shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, output_shape)],
            self.constants,
        )
        domains = sorted({node.domain for node in self.nodes})
        opsets = [helper.make_opsetid(domain, VERSIONS[domain]) for domain in domains]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def layer_model(channels: int, positions: int, centering: str, iterations: int = 5) -> ModelProto:
    """The layer alone: [batch, C, height, width] → [batch, C(C+1)/2], where height and width are those of `extent`."""
    graph = Graph()
    layer(graph, "x", channels, positions, centering, iterations, output="y")
    return graph.model(["batch", channels, *extent(positions)], ["batch", channels * (channels + 1) // 2])


def operator_model(channels: int, positions: int) -> ModelProto:
    """The layer as the operator's node, with no body beside it: from and to the shapes of `layer_model`."""
    graph = Graph()
    graph.add("IsqrtCov", "x", output="y", domain=DOMAIN)
    return graph.model(["batch", channels, *extent(positions)], ["batch", channels * (channels + 1) // 2])


def extent(positions: int) -> tuple[int, int]:
    """Height and width of a feature map of M positions, as near to a square as M allows."""
    height = next(side for side in range(math.isqrt(positions), 0, -1) if positions % side == 0)
    return height, positions // height


def layer(
    graph: Graph, x: str, channels: int, positions: int, centering: str, iterations: int = 5, output: str | None = None
) -> str:
    """Adds the layer on a feature map of C channels and M positions, and returns the name of its output."""
    x = graph.add("Reshape", x, graph.constant(np.array([0, channels, positions])))
    sigma = covariance(graph, x, positions, centering)
    three_eye = graph.constant(3 * np.eye(channels, dtype=np.float32)[None])
    # tr Σ as the authors take it: a third of the sum of Σ ∘ 3I.
    summed = graph.add("ReduceSum", graph.add("Mul", sigma, three_eye), graph.constant(np.array([1, 2])), keepdims=1)
    trace = graph.add("Mul", summed, graph.constant(np.float32(1 / 3)))
    root = square_root(graph, graph.add("Div", sigma, trace), three_eye, iterations)
    root = graph.add("Mul", root, graph.add("Sqrt", trace))
    flat = graph.add("Reshape", root, graph.constant(np.array([-1, channels * channels])))
    rows, columns = np.triu_indices(channels)
    return graph.add("Gather", flat, graph.constant(rows * channels + columns), axis=1, output=output)


def covariance(graph: Graph, x: str, positions: int, centering: str) -> str:
    if centering == "matrix":
        matrix = np.eye(positions) / positions - 1 / positions**2
        centered = graph.add("MatMul", x, graph.constant(matrix.astype(np.float32)))
        return graph.add("MatMul", centered, graph.add("Transpose", x, perm=[0, 2, 1]))
    mean = graph.add("ReduceMean", x, graph.constant(np.array([2])), keepdims=1)
    centered = graph.add("Sub", x, mean)
    product = graph.add("MatMul", centered, graph.add("Transpose", centered, perm=[0, 2, 1]))
    return graph.add("Mul", product, graph.constant(np.float32(1 / positions)))


def square_root(graph: Graph, a: str, three_eye: str, iterations: int) -> str:
    """Y_K from Y₀ = A, Z₀ = I. The first step's products with I and the last Z are left out, as in the authors' code."""
    half = graph.constant(np.float32(0.5))

    def step(product: str) -> str:
        return graph.add("Mul", graph.add("Sub", three_eye, product), half)

    z = step(a)
    y = graph.add("MatMul", a, z)
    for k in range(1, iterations):
        t = step(graph.add("MatMul", z, y))
        y = graph.add("MatMul", y, t)
        if k < iterations - 1:
            z = graph.add("MatMul", t, z)
    return y
