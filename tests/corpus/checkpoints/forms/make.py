"""Small checkpoints in the forms that PyTorch and safetensors write, and what is in them.

    python make.py        # PyTorch 2.15, safetensors 0.8 and NumPy 2 made the files here

`expected.json` has, for each file, its format, the facts beside the state dict, and each tensor's name, type, shape and
values as PyTorch has them. The two `old_*` files are put together by hand, as PyTorch 0.3 and Python 2 wrote theirs.
"""

import argparse
import collections
import io
import json
import pickle
import struct
import zipfile
from pathlib import Path

import numpy
import safetensors.torch
import torch

HERE = Path(__file__).parent
EXPECTED = {}


def values(tensor):
    if tensor.dtype is torch.bool or not tensor.dtype.is_floating_point:
        return [int(value) for value in tensor.detach().reshape(-1)]
    return [float(value) for value in tensor.detach().double().reshape(-1)]


def expect(name, form, tensors, facts=()):
    EXPECTED[name] = {
        "format": form,
        "facts": [list(fact) for fact in facts],
        "tensors": [
            {
                "name": key,
                "type": str(tensor.dtype).removeprefix("torch."),
                "dims": list(tensor.shape),
                "values": values(tensor),
            }
            for key, tensor in tensors.items()
        ],
    }


def save(name, content, tensors, facts=(), **options):
    torch.save(content, HERE / name, **options)
    legacy = options.get("_use_new_zipfile_serialization") is False
    expect(name, "legacy torch file" if legacy else "torch archive", tensors, facts)


def network():
    torch.manual_seed(0)
    layers = [("conv1", torch.nn.Conv2d(1, 2, 3, bias=False)), ("bn1", torch.nn.BatchNorm2d(2))]
    layers.append(("fc", torch.nn.Linear(2, 3)))
    return torch.nn.Sequential(collections.OrderedDict(layers))


def trained(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    loss = sum(parameter.sum() for parameter in model.parameters())
    loss.backward()
    optimizer.step()
    return optimizer


def strided():
    base = torch.arange(24, dtype=torch.float32)
    matrix = base.reshape(4, 6)
    return {
        "whole": matrix,
        "transposed": matrix.t(),
        "offset": matrix[1:3],
        "columns": matrix[:, 1:5:2],
        "permuted": base.reshape(2, 3, 4).permute(2, 0, 1),
        "channels_last": base.reshape(1, 2, 3, 4).contiguous(memory_format=torch.channels_last),
        "expanded": torch.tensor([[1.0], [2.0]]).expand(2, 3),
        "tied": matrix,
        "scalar": torch.tensor(0.5),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(matrix[0]),
    }


def types():
    names = ["float16", "bfloat16", "float32", "float64", "int64", "int32", "int16", "int8", "uint8", "bool"]
    return {name: torch.tensor([[0, 1], [2, 3]]).to(getattr(torch, name)) for name in names}


def make_torch():
    model = network()
    optimizer = trained(model)
    state = model.state_dict()
    assert "_metadata" in state.__dict__
    checkpoint = {
        "epoch": 7,
        "arch": "resnet50",
        "state_dict": state,
        "best_prec1": numpy.float64(71.25),
        "best_prec5": torch.tensor(90.1),
        "steps": numpy.int64(-3),
        "amp": False,
        "args": argparse.Namespace(lr=0.1, tags={"a"}, size=torch.Size([3, 4]), device=torch.device("cpu")),
        "optimizer": optimizer.state_dict(),
    }
    facts = [
        ("epoch", "7"),
        ("arch", "resnet50"),
        ("best_prec1", "71.25"),
        ("best_prec5", "90.1"),
        ("steps", "-3"),
        ("amp", "false"),
    ]
    legacy = {"_use_new_zipfile_serialization": False}
    save("state_dict.pth", state, state)
    save("training.pth.tar", checkpoint, state, facts)
    save("protocol4.pth", checkpoint, state, facts, pickle_protocol=4)
    save("protocol5.pth", checkpoint, state, facts, pickle_protocol=5)
    save("legacy.pth", state, state, **legacy)
    save("legacy_training.pth.tar", checkpoint, state, facts, **legacy)
    save("strided.pth", strided(), strided())
    save("legacy_strided.pth", strided(), strided(), **legacy)
    save("types.pth", types(), types())
    save("half.pth", network().half().state_dict(), network().half().state_dict())
    torch.serialization.set_crc32_options(False)
    save("no_checksums.pth", state, state)
    torch.serialization.set_crc32_options(True)
    nested = {"model": dict(strided()), "ema_state_dict": types(), "other": 1}
    save("under_model.pt", nested, strided(), [("other", "1")])
    # Beside the state dict, types that weights do not have are nobody's concern.
    odd = {"state_dict": {"a": torch.ones(2)}, "spectrum": torch.ones(2, dtype=torch.complex64)}
    odd["quantized"] = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    odd["wide"] = torch.ones(2, dtype=torch.uint16)
    save("beside.pth", odd, odd["state_dict"])


def make_large():
    """The state dict with sizes and places of 64 bits, as archives beyond 4 GB have them."""
    with zipfile.ZipFile(HERE / "state_dict.pth") as small:
        entries = [(entry.filename, small.read(entry)) for entry in small.infolist()]
    limits = zipfile.ZIP64_LIMIT, zipfile.ZIP_FILECOUNT_LIMIT
    zipfile.ZIP64_LIMIT = zipfile.ZIP_FILECOUNT_LIMIT = -1
    with zipfile.ZipFile(HERE / "zip64.pth", "w") as large:
        for name, data in entries:
            large.writestr(zipfile.ZipInfo(name), data)
    zipfile.ZIP64_LIMIT, zipfile.ZIP_FILECOUNT_LIMIT = limits
    state = torch.load(HERE / "zip64.pth", weights_only=True)
    expect("zip64.pth", "torch archive", state)


def make_safetensors():
    metadata = {"format": "pt", "arch": "resnet50"}
    facts = [("arch", "resnet50"), ("format", "pt")]
    # The library orders tensors by type, then name; the values decide nothing of it.
    tensors = {name: tensor.contiguous() for name, tensor in types().items()}
    tensors["scalar"], tensors["empty"] = torch.tensor(2.5), torch.zeros(2, 0)
    safetensors.torch.save_file(tensors, HERE / "types.safetensors", metadata)
    with safetensors.safe_open(HERE / "types.safetensors", "pt") as opened:
        order = opened.offset_keys()
    expect("types.safetensors", "safetensors", {name: tensors[name] for name in order}, facts)
    folder = HERE / "sharded"
    folder.mkdir(exist_ok=True)
    state = {name: tensor.clone() for name, tensor in network().state_dict().items()}
    shards = {}
    for place, (name, tensor) in enumerate(state.items()):
        shards.setdefault(f"model-{place % 3 + 1:05}-of-00003.safetensors", {})[name] = tensor
    for shard, part in shards.items():
        safetensors.torch.save_file(part, folder / shard, {"format": "pt"})
    home = {name: shard for shard, part in shards.items() for name in part}
    index = {"metadata": {"total_size": 1}, "weight_map": {name: home[name] for name in state}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    expect("sharded/model.safetensors.index.json", "safetensors, 3 shards", state, [("format", "pt")])
    shard = "model-00002-of-00003.safetensors"
    with safetensors.safe_open(folder / shard, "pt") as opened:
        order = opened.offset_keys()
    expect(f"sharded/{shard}", "safetensors", {name: state[name] for name in order}, [("format", "pt")])


class Old(pickle._Pickler):
    """Pickles as Python 2 did: its texts were bytes."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_str(self, text):
        encoded = text.encode()
        self.write(pickle.SHORT_BINSTRING + struct.pack("B", len(encoded)) + encoded)
        self.memoize(text)

    dispatch[str] = save_str

    def persistent_id(self, value):
        return value.id if isinstance(value, Storage) else None


class Storage:
    def __init__(self, *parts):
        self.id = ("storage", *parts)


class Rebuilt:
    """A tensor as `torch._utils` rebuilds it."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def make_old():
    numbers = torch.arange(6, dtype=torch.float32)
    # The persistent ids of PyTorch 0.3: a view of a storage has a name of its own, a beginning and a length.
    whole = Storage(torch.FloatStorage, "94", "cpu", 6, None)
    part = Storage(torch.FloatStorage, "94", "cpu", 6, ("95", 2, 4))
    state = collections.OrderedDict()
    state["whole"] = Rebuilt(torch._utils._rebuild_tensor, whole, 0, (2, 3), (3, 1))
    state["part"] = Rebuilt(torch._utils._rebuild_tensor, part, 1, (3,), (1,))
    expected = {"whole": numbers.reshape(2, 3), "part": numbers[3:]}
    for name, old, facts in (
        ("old_state_dict.pth", state, ()),
        (
            "old_training.pth.tar",
            {"epoch": 90, "arch": "resnet50", "state_dict": state},
            [("epoch", "90"), ("arch", "resnet50")],
        ),
    ):
        file = io.BytesIO()
        system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
        for value in (0x1950A86A20F9469CFC6C, 1001, system, old, ["94"]):
            Old(file, 2).dump(value)
        file.write(struct.pack("<q", 6) + numbers.numpy().tobytes())
        (HERE / name).write_bytes(file.getvalue())
        expect(name, "legacy torch file", expected, facts)


make_torch()
make_large()
make_safetensors()
make_old()
(HERE / "expected.json").write_text(json.dumps(EXPECTED, indent=1) + "\n")
