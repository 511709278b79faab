"""Makes `tests/corpus/checkpoints/own`: small checkpoints in every layout and file format, with PyTorch's logits.

    python3 -m venv venv && venv/bin/pip install -r requirements.txt
    venv/bin/python make.py

The weights are random and seeded by the case's name; the batch norms hold the statistics of random images, then shifted,
so that each of their four tensors matters. What is expected is computed in float64 from what the file holds once it is
read again, and must depend on the triangle's order.
"""

import json
import os
import platform
import zlib
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from networks import COLUMN_MAJOR, ROW_MAJOR, Digits, build

TARGET = Path(__file__).parents[2] / "tests" / "corpus" / "checkpoints" / "own"
# Checkpoints of the digit classifier, where they are at hand.
DIGITS = Path(os.environ.get("DIGITS", TARGET.parent / "digits"))
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}


def case(name, architecture, layout, widths, *, sizes, classes, reduction=8, **fields):
    """An entry of `cases.json`; what is not said is as published."""
    entry = {
        "file": name,
        "tensors": name.split(".")[0] + ".npz",
        "architecture": architecture,
        "layout": layout,
        "widths": widths,
        "reduction": reduction,
        "iterations": 5,
        "triangle": ROW_MAJOR,
        "classes": classes,
        "format": "zip",
        "dtype": "float32",
        "prefix": "",
        "sizes": sizes,
    }
    if architecture == "resnet":
        entry |= {"block": "bottleneck", "depths": [1, 1, 1, 1], "stem": widths[0], "last_stride": 1}
    elif architecture == "vgg":
        entry |= {"batch_norm": True, "hidden": 10}
    elif architecture == "alexnet":
        entry |= {"hidden": 10}
    elif architecture == "gsop":
        entry |= {"block": "bottleneck", "stem": widths[0], "last_stride": 1, "attention_blocks": "last"}
        entry |= {"iterations": 3, "triangle": COLUMN_MAJOR}
    return entry | fields


RESNET, NARROW, PLAIN = [4, 6, 8, 10], [4, 4, 6, 8], [5, 8, 12, 16]
FROM_SCRATCH = "trained from scratch by the authors' main.py"
FINETUNED = "fine-tuned by the authors' main.py, --pretrained"
CASES = [
    # The released layout in every file format.
    case("released_basic.pth", "resnet", "released", PLAIN, sizes=[[64, 64], [49, 80]], classes=5, block="basic"),
    case(
        "released_bottleneck_legacy.pth",
        "resnet",
        "released",
        RESNET,
        sizes=[[64, 48], [33, 96]],
        classes=7,
        reduction=12,
        depths=[2, 1, 2, 1],
        format="legacy",
        notes="as the files of 2018: before the zip format",
    ),
    case(
        "released_module.pth.tar",
        "resnet",
        "released",
        RESNET,
        sizes=[[65, 47], [96, 64]],
        classes=6,
        depths=[1, 2, 1, 2],
        prefix="module.",
        checkpoint="optimizer",
        arch="mpncovresnet50",
        notes="the whole model in DataParallel",
    ),
    case(
        "released_cuda_legacy.pth",
        "resnet",
        "released",
        NARROW,
        sizes=[[48, 64], [64, 64]],
        classes=5,
        format="legacy",
        cuda=True,
        notes="saved from a GPU: storages located on cuda:0",
    ),
    case(
        "released_cuda.pth.tar",
        "resnet",
        "released",
        PLAIN,
        sizes=[[64, 64], [50, 66]],
        classes=9,
        block="basic",
        cuda=True,
        checkpoint="plain",
        arch="mpncovresnet18",
        notes="saved from a GPU: storages located on cuda:0",
    ),
    case(
        "released_channels_last.pth",
        "resnet",
        "released",
        NARROW,
        sizes=[[64, 64], [36, 70]],
        classes=5,
        channels_last=True,
        notes="convolution weights stored channels last: strides are not those of the shape",
    ),
    case(
        "released_views.pth",
        "resnet",
        "released",
        NARROW,
        sizes=[[64, 64], [52, 44]],
        classes=5,
        views=True,
        notes="all tensors are views into one storage, each at its own offset",
    ),
    case(
        "released_float16.pth",
        "resnet",
        "released",
        PLAIN,
        sizes=[[64, 64], [40, 72]],
        classes=8,
        block="basic",
        dtype="float16",
    ),
    case(
        "released_bfloat16.pth",
        "resnet",
        "released",
        NARROW,
        sizes=[[64, 64], [72, 56]],
        classes=6,
        dtype="bfloat16",
    ),
    case(
        "released_float64.pth",
        "resnet",
        "released",
        NARROW,
        sizes=[[64, 64], [39, 55]],
        classes=6,
        dtype="float64",
    ),
    case(
        "released.safetensors",
        "resnet",
        "released",
        RESNET,
        sizes=[[64, 64], [57, 41]],
        classes=12,
        reduction=16,
        format="safetensors",
    ),
    case(
        "released_sharded.safetensors.index.json",
        "resnet",
        "released",
        RESNET,
        sizes=[[64, 64], [96, 33]],
        classes=5,
        format="sharded safetensors",
        depths=[1, 1, 2, 1],
        notes="three files; the index names the tensors of each",
    ),
    case(
        "released_half.safetensors",
        "resnet",
        "released",
        PLAIN,
        sizes=[[64, 64], [64, 80]],
        classes=5,
        block="basic",
        format="safetensors",
        dtype="float16",
    ),
    case(
        "released_bfloat16_module.safetensors",
        "resnet",
        "released",
        NARROW,
        sizes=[[64, 64], [80, 48]],
        classes=6,
        format="safetensors",
        dtype="bfloat16",
        prefix="module.",
    ),
    case(
        "released_column_major.pth",
        "resnet",
        "released",
        RESNET,
        sizes=[[64, 64], [45, 61]],
        classes=7,
        triangle=COLUMN_MAJOR,
        notes="the authors' code before December 2018",
    ),
    case(
        "released_three_steps.pth",
        "resnet",
        "released",
        PLAIN,
        sizes=[[64, 64], [88, 56]],
        classes=5,
        block="basic",
        iterations=3,
        notes="the authors' default where nothing is said",
    ),
    case(
        "released_wide_stem.pth",
        "resnet",
        "released",
        [4, 8, 4, 12],
        sizes=[[64, 64], [51, 63]],
        classes=5,
        stem=7,
        depths=[2, 2, 1, 1],
        notes="stem and stages of unlike widths; four are wider, others narrower than the one before",
    ),
    # The training code.
    case(
        "training_bottleneck.pth.tar",
        "resnet",
        "training",
        RESNET,
        sizes=[[64, 64], [96, 50]],
        classes=10,
        reduction=12,
        depths=[1, 2, 2, 1],
        prefix="features.module.",
        checkpoint="optimizer",
        arch="mpncovresnet50",
        notes=FROM_SCRATCH,
    ),
    case(
        "training_basic_stride2.pth.tar",
        "resnet",
        "training",
        PLAIN,
        sizes=[[96, 96], [80, 65]],
        classes=6,
        block="basic",
        depths=[2, 2, 2, 2],
        last_stride=2,
        prefix="features.module.",
        checkpoint="plain",
        arch="resnet18",
        notes=FROM_SCRATCH
        + " with --arch resnet18: that trunk's last stage has stride 2, and nothing but arch says so",
    ),
    case(
        "training_plain.pth",
        "resnet",
        "training",
        PLAIN,
        sizes=[[64, 64], [64, 48]],
        classes=6,
        block="basic",
        notes="the state dictionary alone",
    ),
    case(
        "training_distributed.pth.tar",
        "resnet",
        "training",
        NARROW,
        sizes=[[64, 64], [64, 48]],
        classes=6,
        prefix="module.",
        checkpoint="plain",
        arch="mpncovresnet101",
        notes="the whole model in DistributedDataParallel",
    ),
    case(
        "finetuned_bottleneck.pth.tar",
        "resnet",
        "finetuned",
        RESNET,
        sizes=[[64, 64], [70, 54]],
        classes=11,
        reduction=12,
        depths=[1, 1, 2, 1],
        prefix="features.module.",
        checkpoint="optimizer",
        arch="mpncovresnet50",
        format="legacy",
        notes=FINETUNED + ": the reduction is features.8 and .9, the representation has no tensors",
    ),
    case(
        "finetuned_no_reduction_stride2.pth.tar",
        "resnet",
        "training",
        [4, 5, 6, 8],
        sizes=[[96, 96], [96, 75]],
        classes=6,
        block="basic",
        reduction=None,
        last_stride=2,
        prefix="features.module.",
        checkpoint="plain",
        arch="resnet18",
        notes=FINETUNED + " --arch resnet18: no reduction, the layer reads the trunk; last stage stride 2",
    ),
    # imgclsmob.
    case(
        "imgclsmob_basic.pth",
        "resnet",
        "imgclsmob",
        PLAIN,
        sizes=[[64, 64], [49, 67]],
        classes=5,
        block="basic",
        depths=[2, 1, 1, 1],
        conv1_stride=True,
        notes="a basic block's stride is always its first convolution's",
    ),
    case(
        "imgclsmob_conv1_stride.pth",
        "resnet",
        "imgclsmob",
        RESNET,
        sizes=[[64, 64], [51, 93]],
        classes=6,
        depths=[1, 2, 1, 1],
        conv1_stride=True,
        notes="isqrtcovresnet50, 101: the stride is the first convolution's",
    ),
    case(
        "imgclsmob_conv2_stride.pth",
        "resnet",
        "imgclsmob",
        RESNET,
        sizes=[[64, 64], [53, 37]],
        classes=6,
        depths=[1, 2, 1, 1],
        conv1_stride=False,
        format="legacy",
        notes="isqrtcovresnet50b, 101b: the stride is the second convolution's; the names and shapes are the same",
    ),
    # VGG and AlexNet.
    case(
        "vgg16_bn.pth",
        "vgg",
        "training",
        [4, 6, 8, 8, 10],
        sizes=[[80, 64], [70, 93]],
        classes=5,
        depths=[2, 2, 3, 3, 3],
        notes="mpncovvgg16_bn",
    ),
    case(
        "vgg16_bn_finetuned.pth.tar",
        "vgg",
        "training",
        [4, 6, 8, 8, 10],
        sizes=[[96, 64], [67, 81]],
        classes=9,
        depths=[2, 2, 3, 3, 3],
        hidden=None,
        prefix="features.module.",
        checkpoint="optimizer",
        arch="mpncovvgg16_bn",
        notes=FINETUNED + ": one linear classifier",
    ),
    case(
        "vgg11_bn.pth.tar",
        "vgg",
        "training",
        [4, 6, 8, 8, 10],
        sizes=[[64, 80], [95, 64]],
        classes=6,
        depths=[1, 1, 2, 2, 2],
        prefix="features.module.",
        checkpoint="plain",
        arch="vgg11_bn",
        notes=FROM_SCRATCH,
    ),
    case(
        "vgg16_float16.pth",
        "vgg",
        "training",
        [4, 6, 8, 8, 10],
        sizes=[[64, 80], [80, 65]],
        classes=6,
        depths=[2, 2, 3, 3, 3],
        batch_norm=False,
        dtype="float16",
        notes="without batch norm in the trunk: vgg16",
    ),
    case(
        "alexnet.pth.tar",
        "alexnet",
        "training",
        [6, 8, 12, 10, 10],
        sizes=[[96, 96], [95, 84]],
        classes=7,
        prefix="features.module.",
        checkpoint="optimizer",
        arch="alexnet",
        notes=FROM_SCRATCH,
    ),
    case(
        "alexnet_finetuned.pth",
        "alexnet",
        "training",
        [6, 8, 12, 10, 8],
        sizes=[[96, 96], [83, 96]],
        classes=7,
        reduction=None,
        hidden=None,
        notes=FINETUNED + ": no reduction, one linear classifier",
    ),
    # GSoP-Net2: channel attention in the last block of stages 1 to 3.
    case(
        "gsop.pth.tar",
        "gsop",
        "released",
        RESNET,
        sizes=[[64, 64], [96, 79]],
        classes=6,
        depths=[2, 1, 2, 1],
        attention=8,
        prefix="module.",
        checkpoint="plain",
        arch="resnet50",
        notes="conv_for_DR has stride 2 in the first stage and 1 elsewhere, as in the published widths",
    ),
    case(
        "gsop_narrow.safetensors",
        "gsop",
        "released",
        NARROW,
        sizes=[[64, 64], [65, 87]],
        classes=5,
        depths=[1, 2, 1, 1],
        attention=6,
        format="safetensors",
        notes="attention narrower than the reduction",
    ),
    case(
        "gsop_every_block.pth",
        "gsop",
        "released",
        NARROW,
        sizes=[[64, 64], [72, 49]],
        classes=5,
        depths=[2, 2, 2, 1],
        attention=8,
        attention_blocks="every",
        notes="attention in every block of the first three stages",
    ),
]


def images(count, size, rng):
    """Blurred noise in quarters, which compress well. [N, 3, H, W] float32"""
    coarse = torch.from_numpy(rng.standard_normal((count, 3, 6, 6)))
    x = F.interpolate(coarse, size, mode="bilinear").numpy() + 0.3 * rng.standard_normal((count, 3, *size))
    return (np.round(4 * x) / 4).astype(np.float32)


def seeded(network, rng):
    """Random weights that keep activations near one, and batch norms in which everything matters."""
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
        elif isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, 0.0, 3.0 * part.in_features**-0.5)
        elif isinstance(part, nn.BatchNorm2d):
            # The running statistics become those of the images alone.
            part.momentum = None
            nn.init.uniform_(part.weight, 0.6, 1.4)
            part.weight.data[::5] *= -1
            nn.init.normal_(part.bias, 0.1, 0.2)
        if isinstance(part, nn.Conv2d | nn.Linear) and part.bias is not None:
            nn.init.normal_(part.bias, 0.0, 0.2)
    network.train()
    network(torch.from_numpy(images(8, (96, 96), rng)))
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean += 0.2 * part.running_var.sqrt() * torch.randn_like(part.running_mean)
            part.running_var *= torch.empty_like(part.running_var).uniform_(0.7, 1.4)
    return network.eval()


def momenta(network, rng):
    """The state of SGD after one step, as a training checkpoint holds it. The step itself is too small to see."""
    groups = [network.parameters()]
    if hasattr(network, "classifier"):
        groups = [network.features.parameters(), network.representation.parameters(), network.classifier.parameters()]
    optimizer = torch.optim.SGD([{"params": list(group)} for group in groups], 1e-6, 0.9, weight_decay=1e-4)
    with torch.enable_grad():
        network(torch.from_numpy(images(2, (96, 96), rng))).square().mean().backward()
    optimizer.step()
    return optimizer.state_dict()


def prefixed(state, prefix):
    """`module.` for the whole model; `features.module.` for a model whose features alone are in DataParallel."""
    if prefix == "features.module.":
        return {
            name.replace("features.", prefix, 1) if name.startswith("features.") else name: tensor
            for name, tensor in state.items()
        }
    return {prefix + name: tensor for name, tensor in state.items()}


def plain_names(state, prefix):
    """What `prefixed` undoes."""
    if prefix == "features.module.":
        return {name.replace(prefix, "features.", 1): tensor for name, tensor in state.items()}
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


def as_views(state):
    """The same tensors as slices of one storage for each type, all but the first at an offset."""
    found = {}
    for dtype in {tensor.dtype for tensor in state.values()}:
        names = [name for name in state if state[name].dtype == dtype]
        whole = torch.cat([state[name].flatten() for name in names])
        for name, part in zip(names, whole.split([state[name].numel() for name in names])):
            found[name] = part.view(state[name].shape)
    return {name: found[name] for name in state}


def save(entry, state, optimizer):
    """Writes the file, or the files, of a case."""
    path = TARGET / entry["file"]
    if "safetensors" in entry["format"]:
        state = {name: tensor.contiguous() for name, tensor in state.items()}
        if entry["format"] == "safetensors":
            return save_file(state, path, {"format": "pt"})
        names, stem = list(state), entry["file"].split(".")[0]
        shards = [names[0::3], names[1::3], names[2::3]]
        files = [f"{stem}-{index:05}-of-00003.safetensors" for index in (1, 2, 3)]
        for file, shard in zip(files, shards):
            save_file({name: state[name] for name in shard}, TARGET / file, {"format": "pt"})
        total = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
        weight_map = {name: file for file, shard in zip(files, shards) for name in shard}
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        return path.write_text(json.dumps(index, indent=1) + "\n")
    content = state
    if "checkpoint" in entry:
        content = {"epoch": 7, "arch": entry["arch"], "state_dict": state, "best_prec1": torch.tensor(71.25)}
        if optimizer:
            content["optimizer"] = optimizer
    tag = torch.serialization.location_tag
    if entry.get("cuda"):
        torch.serialization.location_tag = lambda storage: "cuda:0"
    try:
        torch.save(content, path, _use_new_zipfile_serialization=entry["format"] == "zip")
    finally:
        torch.serialization.location_tag = tag


def load(entry):
    """The state dictionary that the file holds, by the layout's names."""
    path = TARGET / entry["file"]
    if entry["format"] == "sharded safetensors":
        files = set(json.loads(path.read_text())["weight_map"].values())
        state = {name: tensor for file in files for name, tensor in load_file(TARGET / file).items()}
    elif entry["format"] == "safetensors":
        state = load_file(path)
    else:
        content = torch.load(path, map_location="cpu", weights_only=True)
        state = content["state_dict"] if "checkpoint" in entry else content
    return plain_names(state, entry["prefix"])


def made(entry):
    """Writes a case's checkpoint and tensors; its line in `cases.json`."""
    name = entry["file"]
    torch.manual_seed(zlib.crc32(name.encode()))
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    network = build(entry)
    optimizer = momenta(network, rng) if entry.get("checkpoint") == "optimizer" else None
    seeded(network, rng)
    if entry.pop("channels_last", False):
        network = network.to(memory_format=torch.channels_last)
    network.to(DTYPES[entry["dtype"]])
    state = prefixed(network.state_dict(), entry["prefix"])
    save(entry, as_views(state) if entry.pop("views", False) else state, optimizer)

    network = build(entry).double()
    network.load_state_dict(load(entry))
    network.eval()
    other = build(entry | {"triangle": ROW_MAJOR if entry["triangle"] == COLUMN_MAJOR else COLUMN_MAJOR}).double()
    other.load_state_dict(load(entry))
    tensors = {}
    for suffix, count, size in zip(("", "_b"), (2, 3), entry.pop("sizes")):
        x = images(count, size, rng)
        y = network(torch.from_numpy(x).double())
        wrong = other.eval()(torch.from_numpy(x).double())
        assert y.abs().max() < 100 and (y - wrong).abs().max() > 0.1 * y.abs().max(), f"{name}: a weak test"
        tensors |= {f"input{suffix}": x, f"expected{suffix}": y.numpy().astype(np.float32)}
    np.savez_compressed(TARGET / entry["tensors"], **tensors)
    print(f"{name:45} {y.abs().max():6.2f} {(TARGET / name).stat().st_size:8}")
    return entry | {"parameters": sum(p.numel() for p in network.parameters())}


def digits_in_float16():
    """PyTorch's float32 logits for the digits, [360, 10], with the weights that were stored in float16."""
    state = {name: tensor.float() for name, tensor in load_file(DIGITS / "digits_isqrt_fp16.safetensors").items()}
    images = torch.from_numpy(np.load(TARGET.parents[1] / "digits" / "test_images.npy"))
    expected = np.load(TARGET.parents[1] / "digits" / "test_logits.npy")
    labels = np.load(TARGET.parents[1] / "digits" / "test_labels.npy")
    network = Digits()
    network.load_state_dict(state)
    logits = network.eval()(images).numpy()
    np.save(TARGET / "digits_fp16_logits.npy", logits)
    print(
        f"digits in float16: {np.abs(logits - expected).max():.3g} of {np.abs(expected).max():.3g} from float32's, "
        f"{(logits.argmax(1) == labels).sum()} of {len(labels)} correct"
    )


def main():
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    TARGET.mkdir(parents=True, exist_ok=True)
    assert len({entry["tensors"] for entry in CASES}) == len(CASES), "two cases would share an archive"
    cases = [made(entry) for entry in CASES]
    if DIGITS.exists():
        digits_in_float16()
    (TARGET / "cases.json").write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
    packages = ("torch", "numpy", "safetensors")
    made_with = {"python": platform.python_version(), **{package: version(package) for package in packages}}
    (TARGET / "made_with.json").write_text(json.dumps(made_with, indent=2) + "\n")


if __name__ == "__main__":
    main()
