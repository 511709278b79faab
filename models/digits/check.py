"""Verifies the committed files against `manifest.json` with onnxruntime and numpy alone.

pip install numpy onnxruntime && python check.py
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

HERE = Path(__file__).parent


def accuracy(logits, labels):
    """How many images' largest logit is their label's."""
    return {"correct": int((logits.argmax(axis=1) == labels).sum()), "images": len(labels)}


def run_graph(path, images):
    """The graph's logits, computed on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"input": images})[0]


def failures():
    """What differs from the manifest, one line each."""
    manifest = json.loads((HERE / "manifest.json").read_text())
    for name, digest in manifest["sha256"].items():
        if hashlib.sha256((HERE / name).read_bytes()).hexdigest() != digest:
            yield f"{name}: not the file that manifest.json was written for; run train.py again"
    tensors = np.load(HERE / "test.npz")
    images, labels, expected = tensors["input"], tensors["labels"], tensors["expected"]
    largest = np.abs(expected).max()
    if accuracy(expected, labels) != manifest["pytorch"]["accuracy"]:
        yield f"test.npz: {accuracy(expected, labels)}, manifest.json says {manifest['pytorch']['accuracy']}"
    for name, graph in manifest["graphs"].items():
        logits = run_graph(HERE / name, images)
        found = accuracy(logits, labels)
        error = np.abs(logits - expected).max()
        print(f"{name}: {found['correct']} of {found['images']} correct, max |logit - PyTorch's| = {error:.2g}")
        if found != graph["accuracy"]:
            yield f"{name}: {found['correct']} correct, manifest.json says {graph['accuracy']['correct']}"
        # The TorchScript export is kept because it is wrong: one that suddenly agreed would be another file.
        if (error <= 1e-5 * largest) == (name == "digits.torchscript.onnx"):
            yield f"{name}: max |logit - PyTorch's| = {error:.2g}, which is not what this graph is kept for"
    # Dynamic batch: one image alone must give what it gives among the others.
    alone = run_graph(HERE / "digits.onnx", images[:1])
    if np.abs(alone - expected[:1]).max() > 1e-5 * largest:
        yield "digits.onnx: a batch of one differs from the same image in the batch of all"


if __name__ == "__main__":
    found = list(failures())
    for line in found:
        print(f"error: {line}", file=sys.stderr)
    sys.exit(1 if found else 0)
