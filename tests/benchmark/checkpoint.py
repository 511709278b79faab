"""What a checkpoint costs the exporter: time and memory of `inspect` and `convert`, beside those of reading the file.

The checkpoint is a full-size network with random weights, under the names and shapes that PyTorch gives it, in safetensors. Its
converted model is proven as always; how the time divides is the exporter's own account.
"""

import argparse
import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import artefacts
import large
import machine

SHAPES = Path(__file__).parents[1] / "corpus" / "checkpoints" / "shapes.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests/benchmark/run checkpoint", description=__doc__)
    parser.add_argument("--network", action="append", metavar="NAME", help="of shapes.json [default: resnet50]")
    parser.add_argument("--exporter", type=Path, default=artefacts.EXPORTER, metavar="FILE", help="another build of the exporter")
    parser.add_argument("--limit", type=float, default=600.0, metavar="S", help="seconds for each run [default: 600]")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="write checkpoint.json there")
    args = parser.parse_args()
    networks = json.loads(SHAPES.read_text())
    results = {"machine": machine.description(), "quiet": machine.is_quiet(), "measurements": []}
    for name in args.network or ["resnet50"]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.safetensors"
            write(networks[name]["tensors"], path)
            size = path.stat().st_size
            model = str(path.with_suffix(".onnx"))
            convert = [str(args.exporter), "convert", str(path), "-o", model, "--triangle", "upper", "--json"]
            found = {"network": name, "bytes": size}
            # The first run finds what the second measures: everything in the page cache.
            for command, line in {
                "read": [sys.executable, "-S", "-E", "-c", "import sys; open(sys.argv[1], 'rb').read()", str(path)],
                "inspect": [str(args.exporter), "inspect", str(path), "--json"],
                "convert": convert,
            }.items():
                found[command] = large.measured(line, args.limit)
                peak = 1024 * found[command]["peak_kib"]
                print(f"{name:12} {size / 1e6:6.1f} MB  {command:8} {found[command]['seconds']:7.2f} s {peak / 1e6:6.0f} MB {peak / size:5.2f}×")
            answer = json.loads(subprocess.run(convert, stdout=subprocess.PIPE).stdout)
            found["seconds"] = answer["checkpoint"]["seconds"]
            print(" " * 12, ", ".join(f"{what} {time:.2f} s" for what, time in found["seconds"].items()))
            results["measurements"].append(found)
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        (args.output / "checkpoint.json").write_text(json.dumps(results, indent=1) + "\n")


def write(shapes: dict, path: Path) -> None:
    """Random weights of each tensor's own scale: activations neither vanish nor explode."""
    random = np.random.default_rng(0)
    header, offset = {}, 0
    shapes = {name: shape for name, shape in shapes.items() if not name.endswith("num_batches_tracked")}
    for name, shape in shapes.items():
        end = offset + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            if len(shape) > 1:
                values = random.standard_normal(shape, np.float32) * np.float32((2 / np.prod(shape[1:])) ** 0.5)
            elif name.endswith(("running_var", "weight")):
                # The last normalization of a block is small, or the sums of many blocks would grow without end.
                is_last = ".bn3." in name or (".bn2." in name and name.replace("bn2", "bn3") not in shapes)
                values = random.uniform(0.5, 1.5, shape) * (0.2 if is_last and name.endswith("weight") else 1.0)
            else:
                values = 0.1 * random.standard_normal(shape)
            file.write(values.astype(np.float32).tobytes())


if __name__ == "__main__":
    main()
