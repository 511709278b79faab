"""Sessions of ONNX Runtime on the device, with inputs and outputs that stay there."""

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from device import TYPES, Buffer, Device

HERE = Path(__file__).parent
LIBRARY = HERE / "libisqrt_cov_op.so"
DOMAIN = "ai.isqrtcov"

# Each session would warn that the provider is not a plugin.
onnxruntime.set_default_logger_severity(3)


def node_model(operator: str, element: str, rank: int, attributes: dict) -> bytes:
    """A model of one node, with every dimension open."""
    kind = TYPES[element][0]
    whole = attributes.get("vectorization", "upper" if operator == "IsqrtCov" else "none") == "none"
    node = helper.make_node(operator, ["x"], ["y"], domain=DOMAIN, name="layer", **attributes)
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", kind, [f"d{i}" for i in range(rank)])],
        [helper.make_tensor_value_info("y", kind, ["n", "c", "c"] if whole else ["n", "e"])],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def session(device: Device, model: bytes, only_device: bool = True, options=None, clusters=None, **provider) -> onnxruntime.InferenceSession:
    """A session of `model`, surely on the device; with `only_device`, every node of it. `clusters`: whether the operator may use them, if not as the
    environment says."""
    if clusters is not None:
        os.environ["ISQRT_COV_CLUSTERS"] = str(int(clusters))
    options = options or onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.register_custom_ops_library(str(LIBRARY))
    name, given = device.provider(**provider)
    if only_device and device.kind == "cuda":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    made = onnxruntime.InferenceSession(model, options, providers=[(name, given)])
    assert made.get_providers()[0] == name, f"{made.get_providers()} instead of {name}"
    return made


class Run:
    """A session with buffers for one input and one output."""

    def __init__(self, device: Device, made: onnxruntime.InferenceSession, element: str, shape, output_shape, shift: int = 0):
        self.device, self.session = device, made
        kind, self.dtype = TYPES[element]
        self.output_shape = output_shape
        size = np.dtype(self.dtype).itemsize
        self.input = Buffer(device, int(np.prod(shape)) * size, shift * size)
        self.output = Buffer(device, int(np.prod(output_shape)) * size, shift * size)
        self.binding = made.io_binding()
        self.binding.bind_input(made.get_inputs()[0].name, device.kind, 0, kind, list(shape), self.input.address)
        self.binding.bind_output(made.get_outputs()[0].name, device.kind, 0, kind, list(output_shape), self.output.address)
        self.options = onnxruntime.RunOptions()

    def unsynchronized(self, graph: int | None = None) -> "Run":
        """Lets runs return before the device has done them; `graph` is the number of the graph that is captured for these buffers."""
        self.options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        # -1 captures nothing. Where it is not said, ONNX Runtime 1.32 throws and catches an exception in every run, which takes tens of microseconds.
        self.options.add_run_config_entry("gpu_graph_id", str(-1 if graph is None else graph))
        return self

    def __call__(self) -> None:
        self.session.run_with_iobinding(self.binding, self.options)

    def result(self, x: np.ndarray) -> np.ndarray:
        """The output for `x`, whose buffer was poisoned. What it leaves unwritten stays NaN, and nothing beside it may change."""
        self.input.write(x)
        self.output.poison()
        self.device.synchronize()
        self()
        self.device.synchronize()
        assert self.output.intact(), "something beside the output was written"
        return self.output.read(self.dtype, self.output_shape)


def placement(device: Device, model: bytes, element: str, x: np.ndarray, output_shape, **provider) -> dict[str, str]:
    """The nodes that ONNX Runtime runs, and with which provider, by its own profile; and the copies between host and device."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = f"{folder}/profile"
        options.optimized_model_filepath = f"{folder}/optimized.onnx"
        made = session(device, model, only_device=False, options=options, **provider)
        Run(device, made, element, x.shape, output_shape).result(x)
        events = json.loads(Path(made.end_profiling()).read_text(encoding="utf-8"))
        found = {
            event["name"].removesuffix("_kernel_time"): event["args"].get("provider", "")
            for event in events
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
        }
        for node in onnx.load(f"{folder}/optimized.onnx", load_external_data=False).graph.node:
            if node.op_type.startswith("Memcpy"):
                found[node.name] = node.op_type
    return found
