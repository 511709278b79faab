"""Full-size networks with random weights, as training checkpoints, and a comparison of what is converted from them.

    venv/bin/python full_size.py resnet50 --output DIR        DIR/resnet50.pth.tar and DIR/resnet50.npz
    venv/bin/python full_size.py shapes --output FILE.json    every network's names and shapes, for tests without weights
    venv/bin/python full_size.py compare MODEL.onnx DIR/resnet50.npz [--op-library LIBRARY]

The numbers of trainable parameters must be the published ones. The trunks of the ResNets are computed a second time by
torchvision, whose last stage has stride 2: it is set to 1.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
import torchvision

from make import images, prefixed, seeded
from networks import COLUMN_MAJOR, ROW_MAJOR, build

RESNET = {
    "architecture": "resnet",
    "layout": "released",
    "block": "bottleneck",
    "depths": [3, 4, 6, 3],
    "widths": [64, 128, 256, 512],
    "stem": 64,
    "last_stride": 1,
    "reduction": 256,
    "iterations": 5,
    "triangle": ROW_MAJOR,
    "classes": 1000,
}
VGG = {
    "architecture": "vgg",
    "layout": "training",
    "depths": [2, 2, 3, 3, 3],
    "widths": [64, 128, 256, 512, 512],
    "batch_norm": True,
    "hidden": 4096,
    "reduction": 256,
    "iterations": 5,
    "triangle": ROW_MAJOR,
    "classes": 1000,
}
GSOP = RESNET | {"architecture": "gsop", "attention": 128, "iterations": 3, "triangle": COLUMN_MAJOR}
NETWORKS = {
    "resnet18": RESNET | {"arch": "mpncovresnet18", "block": "basic", "depths": [2, 2, 2, 2]},
    "resnet34": RESNET | {"arch": "mpncovresnet34", "block": "basic"},
    "resnet50": RESNET | {"arch": "mpncovresnet50"},
    "resnet101": RESNET | {"arch": "mpncovresnet101", "depths": [3, 4, 23, 3]},
    "resnet152": RESNET | {"arch": "mpncovresnet152", "depths": [3, 8, 36, 3]},
    "resnet50_training": RESNET | {"arch": "mpncovresnet50", "layout": "training"},
    "resnet50_finetuned": RESNET | {"arch": "mpncovresnet50", "layout": "finetuned", "classes": 200},
    "resnet50_imgclsmob": RESNET | {"arch": "isqrtcovresnet50", "layout": "imgclsmob", "conv1_stride": True},
    "resnet50b_imgclsmob": RESNET | {"arch": "isqrtcovresnet50b", "layout": "imgclsmob", "conv1_stride": False},
    "vgg16_bn": VGG | {"arch": "mpncovvgg16_bn"},
    "gsop50": GSOP | {"arch": "resnet50", "attention_blocks": "last"},
    "gsop50_every_block": GSOP | {"arch": "resnet50", "attention_blocks": "every"},
}
# As their authors, or imgclsmob, give them.
PARAMETERS = {
    "resnet18": 44_205_096,
    "resnet34": 54_313_256,
    "resnet50": 56_929_832,
    "resnet50_training": 56_929_832,
    "resnet50_imgclsmob": 56_929_832,
    "resnet50b_imgclsmob": 56_929_832,
    "resnet101": 75_921_960,
    "vgg16_bn": 170_479_144,
    # The authors' main.py puts the attention into the last block of a stage; the other number is that of every block.
    "gsop50": 58_278_568,
    "gsop50_every_block": 63_540_136,
}


def relative(found, expected):
    """max|Δ| / max|expected|."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def trunk_by_torchvision(name, state):
    """torchvision's ResNet of that name with the trunk of a released checkpoint, the last stage's stride set to 1."""
    network = getattr(torchvision.models, name)()
    network.load_state_dict(
        {key: state[key] for key in network.state_dict() if not key.startswith("fc.")}, strict=False
    )
    first = network.layer4[0]
    for part in (first.conv2 if hasattr(first, "conv3") else first.conv1, first.downsample[0]):
        part.stride = (1, 1)
    stem = network.conv1, network.bn1, network.relu, network.maxpool
    return torch.nn.Sequential(*stem, network.layer1, network.layer2, network.layer3, network.layer4).eval()


def check_against_torchvision(name, network, x):
    """Both trunks' features, and the logits from both, agree to the rounding of float32."""
    trunk = trunk_by_torchvision(name, network.state_dict())
    theirs, ours = trunk(x), x
    for part in network.trunk:
        ours = getattr(network, part)(ours)
    reduced = network.layer_reduce_relu(network.layer_reduce_bn(network.layer_reduce(theirs)))
    logits = relative(network.fc(network.representation(reduced)).numpy(), network(x).numpy())
    features = relative(theirs.numpy(), ours.numpy())
    assert features < 1e-5 and logits < 1e-5, f"{name}: {features:.2g}, {logits:.2g} away from torchvision"
    print(f"{name}: features {features:.1e}, logits {logits:.1e} away from torchvision's trunk")


def make(name, output, seed):
    """Writes the checkpoint, and an archive with inputs of two sizes and their logits computed in float64."""
    case = NETWORKS[name]
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = seeded(build(case), rng)
    parameters = sum(p.numel() for p in network.parameters())
    print(f"{name}: {parameters:,} parameters")
    assert parameters == PARAMETERS.get(name, parameters), f"{name}: {PARAMETERS[name]:,} are published"
    tensors = {"input": images(2, (224, 224), rng), "input_b": images(1, (192, 256), rng)}
    if case["architecture"] == "resnet" and case["layout"] == "released":
        check_against_torchvision(name, network, torch.from_numpy(tensors["input"]))

    output.mkdir(parents=True, exist_ok=True)
    prefix = {"released": "module.", "imgclsmob": ""}.get(case["layout"], "features.module.")
    state = prefixed(network.state_dict(), prefix)
    checkpoint = {"epoch": 100, "arch": case["arch"], "state_dict": state, "best_prec1": torch.tensor(77.5)}
    torch.save(checkpoint, output / f"{name}.pth.tar")
    single = {key: network(torch.from_numpy(tensors[key])).numpy() for key in ("input", "input_b")}
    network.double()
    for key in ("input", "input_b"):
        logits = network(torch.from_numpy(tensors[key]).double()).numpy().astype(np.float32)
        tensors[key.replace("input", "expected")] = logits
        print(f"{key} {list(tensors[key].shape)}: float32 is {relative(single[key], logits):.1e} away from float64")
    np.savez_compressed(output / f"{name}.npz", **tensors)


def shapes(output):
    """Writes, for each network, the names and shapes of its state dictionary and its number of trainable parameters."""
    networks = {}
    for name, case in NETWORKS.items():
        with torch.device("meta"):
            network = build(case)
        networks[name] = {
            "parameters": sum(p.numel() for p in network.parameters()),
            "tensors": {key: list(tensor.shape) for key, tensor in network.state_dict().items()},
        }
    output.write_text(json.dumps(networks).replace('}, "', '},\n"') + "\n")


def compare(model, data, library):
    """Runs a converted model on an archive's inputs; prints how far it is from what is expected."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if library:
        options.register_custom_ops_library(str(library))
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    with np.load(data) as tensors:
        for key in sorted(key for key in tensors if key.startswith("input")):
            expected = tensors[key.replace("input", "expected")]
            found = session.run(None, {name: tensors[key]})[0]
            best = (found.argmax(1) == expected.argmax(1)).sum()
            print(
                f"{key} {list(tensors[key].shape)}: max|Δ|/max|logit| {relative(found, expected):.2e}, "
                f"{best} of {len(expected)} with the same best class"
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*NETWORKS, "compare", "shapes"])
    parser.add_argument("files", nargs="*", type=Path, help="for compare: the model and the archive")
    parser.add_argument("--output", type=Path, help="the folder, or for shapes the file, to write to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--op-library", type=Path, help="for compare: the plugin; without it the function in the file runs"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    if arguments.what == "compare":
        if len(arguments.files) != 2:
            sys.exit("compare MODEL.onnx DATA.npz")
        return compare(*arguments.files, arguments.op_library)
    if arguments.output is None:
        sys.exit("--output is missing")
    if arguments.what == "shapes":
        return shapes(arguments.output)
    make(arguments.what, arguments.output, arguments.seed)


if __name__ == "__main__":
    main()
