"""Trains the digit classifier, exports it through both of PyTorch's exporters and writes everything beside this file.

    python -m venv venv && venv/bin/pip install -r requirements.txt
    venv/bin/python train.py

One thread and fixed seeds: two runs with the same versions on the same kind of processor write the same bytes.
`check.py` verifies what is committed without PyTorch.
"""

import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn import functional as F

from check import accuracy, run_graph
from network import DigitNet, NewtonSchulzRoot

HERE = Path(__file__).parent
SPLIT_SEED = 0
WEIGHT_SEED = 5
TEST_IMAGES = 360
EPOCHS = 120
BATCH = 64
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 2e-2
TORCHSCRIPT_OPSET = 17
DYNAMO_OPSET = 18


def data():
    """Images [·, 1, 8, 8] scaled to [0, 1], then standardised with the training images' mean and deviation."""
    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)[:, None]
    labels = digits.target.astype(np.int64)
    split = train_test_split(images, labels, test_size=TEST_IMAGES, random_state=SPLIT_SEED, stratify=labels)
    mean, deviation = float(split[0].mean()), float(split[0].std())
    train, test = ((part - np.float32(mean)) / np.float32(deviation) for part in split[:2])
    return torch.from_numpy(train), torch.from_numpy(split[2]), test, split[3], mean, deviation


def jittered(images, background):
    """Each image turned by up to 12°, scaled by up to 10 % and moved by up to 0.8 pixel."""
    n = len(images)
    angle = (torch.rand(n) * 2 - 1) * 0.21
    scale = 1 + (torch.rand(n) * 2 - 1) * 0.1
    shift = (torch.rand(n, 2) * 2 - 1) * 0.2
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1).view(n, 2, 2)
    theta = torch.cat([turn * scale.view(n, 1, 1), shift.view(n, 2, 1)], dim=2)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    # Padding is zero, and zero here is not the background's value.
    return F.grid_sample(images - background, grid, align_corners=False) + background


def train(images, labels, background):
    """The trained network, after a fixed number of epochs: the test images choose nothing."""
    torch.manual_seed(WEIGHT_SEED)
    model = DigitNet()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = EPOCHS * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for epoch in range(EPOCHS):
        model.train()
        total = 0.0
        # The last, smaller batch is left out so that every step's batch statistics are alike.
        for chosen in torch.randperm(len(images)).split(BATCH)[: len(images) // BATCH]:
            loss = F.cross_entropy(model(jittered(images[chosen], background)), labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item()
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1:3}  loss {total / (len(images) // BATCH):.4f}", flush=True)
    return model.eval()


def export(model, example):
    """Both exports, each with a dynamic batch, each one file."""
    names = {"input_names": ["input"], "output_names": ["logits"]}
    torch.onnx.export(
        model,
        (example,),
        HERE / "digits.torchscript.onnx",
        dynamo=False,
        opset_version=TORCHSCRIPT_OPSET,
        dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}},
        **names,
    )
    torch.onnx.export(
        model,
        (example,),
        HERE / "digits.onnx",
        dynamo=True,
        opset_version=DYNAMO_OPSET,
        dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
        external_data=False,
        **names,
    )
    forget_paths(HERE / "digits.onnx")


def forget_paths(path):
    """Drops the stack traces that the exporter notes on every node: they hold the paths of the machine it ran on."""
    graph = onnx.load(path)
    for function in [graph.graph, *graph.functions]:
        for node in function.node:
            kept = [entry for entry in node.metadata_props if not entry.key.endswith("stack_trace")]
            del node.metadata_props[:]
            node.metadata_props.extend(kept)
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, path)


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    matrix = torch.randn(2, 4, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    sigma = matrix.bmm(matrix.mT).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: NewtonSchulzRoot.apply(s, 5), sigma), "the layer's backward pass is wrong"

    images, labels, test_images, test_labels, mean, deviation = data()
    model = train(images, labels, background=-mean / deviation)
    with torch.no_grad():
        expected = model(torch.from_numpy(test_images)).numpy()
    trained = accuracy(expected, test_labels)
    torch.save(
        {
            "epoch": EPOCHS,
            "arch": "DigitNet",
            "state_dict": model.state_dict(),
            "best_prec1": 100.0 * trained["correct"] / trained["images"],
        },
        HERE / "digits.pth",
    )
    np.savez_compressed(HERE / "test.npz", input=test_images, labels=test_labels, expected=expected)
    export(model, torch.from_numpy(test_images[:2]))

    graphs = {}
    for name in ["digits.onnx", "digits.torchscript.onnx"]:
        logits = run_graph(HERE / name, test_images)
        nodes = onnx.load(HERE / name).graph.node
        graphs[name] = {
            "exporter": f"torch.onnx.export(dynamo={name == 'digits.onnx'})",
            "opset": DYNAMO_OPSET if name == "digits.onnx" else TORCHSCRIPT_OPSET,
            "nodes": len(nodes),
            "matmuls": sum(node.op_type in ("MatMul", "Gemm", "Einsum") for node in nodes),
            "accuracy": accuracy(logits, test_labels),
            "max_abs_error": float(np.abs(logits - expected).max()),
        }
    manifest = {
        "made_with": {
            "python": platform.python_version(),
            **{
                package: version(package)
                for package in ["torch", "numpy", "scikit-learn", "onnx", "onnxscript", "onnx-ir", "onnxruntime"]
            },
        },
        "seeds": {"split": SPLIT_SEED, "weights_and_batches": WEIGHT_SEED},
        "threads": 1,
        "training": {
            "images": len(images),
            "epochs": EPOCHS,
            "batch": BATCH,
            "learning_rate": LEARNING_RATE,
            "weight_decay": WEIGHT_DECAY,
        },
        "input": {"shape": ["batch", 1, 8, 8], "scale": 1 / 16, "mean": mean, "deviation": deviation},
        "layer": {"channels": 24, "positions": 64, "iterations": 5, "vectorization": "upper"},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "pytorch": {"accuracy": trained, "max_abs_logit": float(np.abs(expected).max())},
        "graphs": graphs,
        "sha256": {
            name: hashlib.sha256((HERE / name).read_bytes()).hexdigest()
            for name in ["digits.pth", "digits.onnx", "digits.torchscript.onnx", "test.npz"]
        },
    }
    (HERE / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    print(json.dumps({"pytorch": trained, **{name: graph["accuracy"] for name, graph in graphs.items()}}, indent=2))


if __name__ == "__main__":
    main()
