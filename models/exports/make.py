"""Makes `tests/corpus/own`: the layer in many styles, and near misses, through every exporter at hand.

    python3 -m venv venv && venv/bin/pip install -r requirements.txt
    venv/bin/python make.py            everything, a few minutes
    venv/bin/python make.py NAME…      only these styles; the others' files and lines stay

What each graph is marked with is not taken on trust. What a style says that it computes is held against the float64
reference; what a near miss computes is compared with every IsqrtCov in a grid; and each graph is run in onnxruntime and
compared with PyTorch before it is marked.
"""

import hashlib
import io
import json
import logging
import platform
import sys
import tempfile
import warnings
import zlib
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

import cases
import rare_cases
import rewrites
from check import export_error
from reference import distance, evaluate, nearest

TARGET = Path(__file__).parents[2] / "tests" / "corpus" / "own"
DYNAMIC = (2, 1, 3)
STYLES = [*cases.STYLES, *cases.HANDMADE, *rare_cases.STYLES, *rare_cases.HANDMADE]
REWRITES = {**cases.REWRITES, **rare_cases.REWRITES}


def seed(name):
    """A seed that depends on nothing but the style's name."""
    return zlib.crc32(name.encode())


def held_out(style):
    """Whether a style is kept out of development: whole styles, or a held-out graph would have a twin that is not."""
    return hashlib.sha256(style.encode()).digest()[0] % 3 == 0


def features(style, batch, shape, rng):
    """Correlated, rectified features, as a trunk gives them; for images, plain noise."""
    if style.images:
        return rng.standard_normal((batch, *shape)).astype(np.float32)
    channels, positions = (shape[-1], shape[:-1]) if style.channels_last else (shape[0], shape[1:])
    mixing = rng.standard_normal((channels, channels)) * np.geomspace(1.0, 0.1, channels)
    x = np.einsum("cd,nd...->nc...", mixing, rng.standard_normal((batch, channels, *positions))) + 0.4
    x = np.maximum(x, 0.05 * x).astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)) if style.channels_last else x


def in_float32(module):
    """Layers in half precision set to float32, so that the expected output is the layer's and not the rounding's."""
    for part in module.modules():
        if getattr(part, "dtype", None) in (torch.float16, torch.bfloat16):
            part.dtype = torch.float32
    return module


def built(style):
    """The style's module with its seeded weights, batch norm away from its initial state."""
    torch.manual_seed(seed(style.name))
    module = style.build().eval()
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(0.0, 0.2)
            part.running_var.uniform_(0.5, 1.5)
    return module


def known_layers(style, module, x):
    """The layers that the module says it holds, each checked on what reached it."""
    seen = []

    def check(part, inputs, output):
        error = distance(output.numpy(), evaluate(part.operator, part.attributes, inputs[0].numpy()))
        assert error < 1e-4, f"{style.name}: {part.operator} {part.attributes} is off by {error:.2g}"
        seen.append({"operator": part.operator, "attributes": part.attributes})

    parts = [part for part in module.modules() if getattr(part, "operator", None)]
    hooks = [part.register_forward_hook(check) for part in parts]
    output = module(torch.from_numpy(x))
    for hook in hooks:
        hook.remove()
    known = getattr(module, "known", [])
    if getattr(module, "is_layer", False):
        error = distance(output.numpy(), evaluate(known[0]["operator"], known[0]["attributes"], x))
        assert error < 1e-4, f"{style.name}: {known[0]} is off by {error:.2g}"
    return seen + known


def tensors_of(style, module, batches, rng):
    """Inputs and expected outputs under the names that `cases.json` promises."""
    found = {}
    for index, batch in enumerate(batches):
        shape = list(style.shape)
        if style.sizes_vary and index:
            shape[-2:] = [shape[-2] + index, shape[-1] - index]
        suffix = f"_b{batch}" if index else ""
        x = features(style, batch, shape, rng)
        found["input" + suffix] = x
        outputs = module(torch.from_numpy(x))
        for name, output in zip(("expected", "second"), outputs if isinstance(outputs, tuple) else (outputs,)):
            found[name + suffix] = output.float().numpy()
    return found


def exported(style, module, spec, path):
    """One export, as `cases.json` describes it."""
    exporter, batch = spec.split()
    opset = int(exporter[-2:])
    dynamic = batch in ("n", "hw")
    size = DYNAMIC[0] if dynamic else int(batch[1:])
    x = torch.from_numpy(features(style, size, style.shape, np.random.default_rng(0)))
    if style.half_input:
        x = x.half()
    outputs = ["output", "second"] if isinstance(module(x), tuple) else ["output"]
    names = {"input_names": ["input"], "output_names": outputs, "opset_version": opset}
    if getattr(module, "scripted", False):
        module = torch.jit.script(module.module)
    axes = {0: "batch", **({2: "height", 3: "width"} if batch == "hw" else {})} if dynamic else {}
    if exporter.startswith("ts"):
        torch.onnx.export(module, (x,), path, dynamo=False, dynamic_axes={"input": axes} if axes else None, **names)
        return "torchscript"
    optimize = not exporter.startswith("raw")
    shapes = {axis: torch.export.Dim(name, min=style.least_batch if axis == 0 else 2) for axis, name in axes.items()}
    torch.onnx.export(
        module,
        (x,),
        path,
        dynamo=True,
        optimize=optimize,
        external_data=False,
        verbose=False,
        dynamic_shapes=(shapes,) if dynamic else None,
        **names,
    )
    return f"dynamo(optimize={optimize})"


def graphs_of(model):
    """The main graph, its subgraphs and the functions' bodies."""
    pending = [model.graph, *model.functions]
    while pending:
        graph = pending.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    pending.append(attribute.g)


def forget_paths(model):
    """Drops what exporters note about the machine they ran on, and the bulkiest of their notes."""
    for graph in graphs_of(model):
        for node in graph.node:
            node.doc_string = ""
            kept = [e for e in node.metadata_props if not e.key.endswith(("stack_trace", "fx_node", "class_hierarchy"))]
            del node.metadata_props[:]
            node.metadata_props.extend(kept)
    return model


def entry(style, name, model, tensors_name, tensors, layers, alternatives, exporter, opset):
    """A graph's line in `cases.json`, once it has shown that it is what the line says."""
    error = export_error(model.SerializeToString(), tensors)
    lost = exporter.startswith("torchscript") and style.lost_in_torchscript
    if lost:
        assert error > 0.1, f"{name}: should have lost its iteration, but is only {error:.2g} away"
    else:
        limit = 5e-2 if style.half or "float16" in exporter else 1e-4
        assert error < limit, f"{name}: {error:.2g} away from PyTorch"
    expect = "lost-iteration" if lost else "fuse" if layers else "leave"
    onnx.checker.check_model(model, full_check=not exporter.endswith(("extended", "all")))
    (TARGET / f"{name}.onnx").write_bytes(model.SerializeToString())
    nodes = [node for graph in graphs_of(model) for node in graph.node]
    return {
        "model": f"{name}.onnx",
        "tensors": tensors_name,
        "expect": expect,
        "layers": 0 if lost else len(layers),
        "operators": layers,
        **({"alternatives": alternatives} if alternatives else {}),
        "held_out": held_out(style.name),
        "style": style.name,
        "source": style.note,
        "exporter": exporter,
        "opset": opset,
        "nodes": len(nodes),
        "matmuls": sum(node.op_type in ("MatMul", "Gemm", "Einsum", "FusedMatMul") for node in nodes),
        "inputs": {value.name: dims(value) for value in model.graph.input},
        "outputs": {value.name: dims(value) for value in model.graph.output},
        "export_max_rel_error": error,
    }


def dims(value):
    """A value's shape, symbols by their names."""
    return [d.dim_param or (d.dim_value if d.HasField("dim_value") else "?") for d in value.type.tensor_type.shape.dim]


def made(style, scratch):
    """Every graph of a style."""
    module, reference = built(style), in_float32(built(style))
    rng = np.random.default_rng(seed(style.name))
    layers = known_layers(style, reference, features(style, 2, style.shape, rng))
    alternatives = getattr(module, "alternatives", None)
    if style.near_miss and not getattr(module, "debatable", False):
        x = features(style, 2, style.shape, rng)
        error, closest = nearest(x, reference(torch.from_numpy(x)).numpy())
        assert error > 1e-3, f"{style.name}: only {error:.2g} away from {closest}"
    saved = {}
    for spec in style.exports:
        exporter, batch = spec.split()
        batches = DYNAMIC if batch in ("n", "hw") else (int(batch[1:]),)
        tensors_name = f"{style.name}{'' if len(batches) > 1 else '_' + batch}.npz"
        if tensors_name not in saved:
            saved[tensors_name] = tensors_of(style, reference, batches, rng)
            np.savez_compressed(TARGET / tensors_name, **saved[tensors_name])
        tensors = saved[tensors_name]
        name = f"{style.name}_{exporter}_{batch}"
        path = scratch / f"{name}.onnx"
        with redirect_stdout(io.StringIO()):
            described = exported(style, module, spec, path)
        model = forget_paths(onnx.load(path))
        opset = next(o.version for o in model.opset_import if o.domain == "")
        yield entry(style, name, model, tensors_name, tensors, layers, alternatives, described, opset)
        for rewrite in REWRITES.get(name, ()):
            rewritten = f"{name}_{rewrite}"
            label, function = rewriter(rewrite, scratch / f"{rewritten}.onnx")
            source = onnx.ModelProto()
            source.CopyFrom(model)
            with redirect_stdout(io.StringIO()):
                result = function(source)
            used, used_name = tensors, tensors_name
            if rewrite.endswith("inloop"):
                used_name, used = f"{style.name}.npz", saved.get(f"{style.name}.npz")
            opset = next(o.version for o in result.opset_import if o.domain in ("", "ai.onnx"))
            yield entry(
                style, rewritten, result, used_name, used, layers, alternatives, f"{described} + {label}", opset
            )


def rewriter(name, path):
    """A rewrite by its name, with the words for it."""
    level = onnxruntime.GraphOptimizationLevel
    return {
        "fp16": ("float16 by onnxruntime, inputs too", rewrites.by_half(keep_io=False)),
        "fp16inside": ("float16 by onnxruntime, but for inputs and outputs", rewrites.by_half(keep_io=True)),
        "functioninif": (
            "moved into a model function, called in a branch of If",
            lambda model: rewrites.inside_if(rewrites.as_function(model)),
        ),
        "ifinloop": (
            "moved into a branch of If in the body of a Loop over the batch",
            lambda model: rewrites.inside_loop(rewrites.inside_if(model)),
        ),
        "ortall": (
            f"onnxruntime {version('onnxruntime')} offline, all",
            rewrites.by_runtime(level.ORT_ENABLE_ALL, path),
        ),
        "function": ("moved into a model function", rewrites.as_function),
        "inif": ("moved into a branch of If", rewrites.inside_if),
        "inloop": ("moved into the body of a Loop over the batch", rewrites.inside_loop),
        "onnxsim": (f"onnxsim {version('onnxsim')}", rewrites.by_onnxsim),
        "onnxslim": (f"onnxslim {version('onnxslim')}", rewrites.by_onnxslim),
        "ortbasic": (
            f"onnxruntime {version('onnxruntime')} offline, basic",
            rewrites.by_runtime(level.ORT_ENABLE_BASIC, path),
        ),
        "ortextended": (
            f"onnxruntime {version('onnxruntime')} offline, extended",
            rewrites.by_runtime(level.ORT_ENABLE_EXTENDED, path),
        ),
    }[name]


def handmade(style):
    """A graph written with onnxscript, or as text."""
    module = built(style)
    rng = np.random.default_rng(seed(style.name))
    layers = [] if style.near_miss else known_layers(style, module, features(style, 2, style.shape, rng))
    script = hasattr(style.graph, "to_model_proto")
    model = style.graph.to_model_proto() if script else style.graph()
    for value, name in ((model.graph.input[0], "input"), (model.graph.output[0], "output")):
        for node in model.graph.node:
            node.input[:] = [name if n == value.name else n for n in node.input]
            node.output[:] = [name if n == value.name else n for n in node.output]
        value.name = name
    model.producer_name = "onnxscript" if script else "text"
    tensors = tensors_of(style, module, DYNAMIC, rng)
    if style.near_miss:
        # PyTorch has no such module: the graph is its own truth, and must only not be an IsqrtCov.
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        for key in [key for key in tensors if key.startswith("input")]:
            tensors[key.replace("input", "expected")] = session.run(None, {"input": tensors[key]})[0]
    np.savez_compressed(TARGET / f"{style.name}.npz", **tensors)
    writer = f"onnxscript {version('onnxscript')}" if script else f"text, onnx {version('onnx')}"
    opset = next(o.version for o in model.opset_import if o.domain == "")
    yield entry(style, style.name, model, f"{style.name}.npz", tensors, layers, None, writer, opset)


def main(wanted):
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    styles = {style.name: style for style in STYLES}
    if unknown := set(wanted) - set(styles):
        sys.exit(f"no such style: {', '.join(sorted(unknown))}")
    chosen = [styles[name] for name in wanted] or list(styles.values())
    TARGET.mkdir(parents=True, exist_ok=True)
    listed = TARGET / "cases.json"
    old = json.loads(listed.read_text()) if listed.exists() else []
    for case in old:
        if case["style"] not in styles or styles[case["style"]] in chosen:
            (TARGET / case["model"]).unlink(missing_ok=True)
            (TARGET / case["tensors"]).unlink(missing_ok=True)
    cases, failed = [case for case in old if (TARGET / case["model"]).exists()], []
    with tempfile.TemporaryDirectory() as scratch:
        for style in chosen:
            try:
                for case in handmade(style) if style.graph else made(style, Path(scratch)):
                    cases.append(case)
                    error = f"{case['export_max_rel_error']:.1e}"
                    print(f"{case['model']:58} {case['expect']:15} {case['nodes']:4} nodes  {error}")
            except Exception as error:  # noqa: BLE001  every style's failure is wanted in one run
                failed.append(style.name)
                print(f"FAILED {style.name}: {type(error).__name__}: {str(error)[:300]}", file=sys.stderr)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")
    order = list(styles)
    cases.sort(key=lambda case: order.index(case["style"]))
    listed.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
    packages = ("torch", "numpy", "onnx", "onnxscript", "onnx-ir", "onnxruntime", "onnxsim", "onnxslim")
    made_with = {"python": platform.python_version(), **{package: version(package) for package in packages}}
    (TARGET / "made_with.json").write_text(json.dumps(made_with, indent=2) + "\n")
    kinds = {kind: sum(case["expect"] == kind for case in cases) for kind in ("fuse", "leave", "lost-iteration")}
    print(f"{len(cases)} graphs {kinds}, {sum(case['held_out'] for case in cases)} held out")


if __name__ == "__main__":
    main(sys.argv[1:])
