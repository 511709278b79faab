"""What is measured: the built library, and models converted by the built exporter."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
RELEASE = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release"
CACHE = ROOT / "tests/.cache/benchmark"
EXPORTER = RELEASE / ("isqrt-cov.exe" if sys.platform == "win32" else "isqrt-cov")
LIBRARY = RELEASE / {"win32": "isqrt_cov_op.dll", "darwin": "libisqrt_cov_op.dylib"}.get(
    sys.platform, "libisqrt_cov_op.so"
)


def converted(model: Path) -> Path:
    """The model as the exporter converts and proves it by default, in tract.

    A conversion that is newer than both the model and the exporter is not made again.
    """
    output = model.with_suffix(".fused.onnx")
    if not output.exists() or output.stat().st_mtime <= max(model.stat().st_mtime, EXPORTER.stat().st_mtime):
        subprocess.run([EXPORTER, "convert", model, "-o", output], check=True, stdout=subprocess.DEVNULL)
    return output
