"""Runs every graph of `tests/corpus/own` in onnxruntime and compares it with what `cases.json` says.

pip install numpy onnxruntime && python3 check.py
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

from reference import distance

CORPUS = Path(__file__).parents[2] / "tests" / "corpus" / "own"


def export_error(model, tensors):
    """A serialised graph's distance from PyTorch's output, the worst over the batches."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    # A graph that lost its iteration may have lost its input with it.
    inputs = session.get_inputs()
    worst = 0.0
    for key in [key for key in tensors if key.startswith("input")]:
        x = tensors[key].astype(np.float16 if inputs and inputs[0].type == "tensor(float16)" else np.float32)
        found = session.run(None, {inputs[0].name: x} if inputs else {})
        names = [key.replace("input", name) for name in ("expected", "second")]
        worst = max(worst, *(distance(y, tensors[name]) for y, name in zip(found, names, strict=False)))
    return worst


def main():
    cases, wrong = json.loads((CORPUS / "cases.json").read_text()), 0
    for case in cases:
        error = export_error((CORPUS / case["model"]).read_bytes(), dict(np.load(CORPUS / case["tensors"])))
        # Another release or processor rounds otherwise; a lost iteration is lost everywhere.
        stated = case["export_max_rel_error"]
        right = error > 0.1 if case["expect"] == "lost-iteration" else error < min(5e-2, max(1e-5, 4 * stated))
        if not right:
            wrong += 1
            print(f"error: {case['model']}: {error:.2g} from expected, cases.json says {stated:.2g}", file=sys.stderr)
    print(f"{len(cases) - wrong} of {len(cases)} graphs compute what cases.json says")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
