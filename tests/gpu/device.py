"""Memory and time on the GPU, by PyTorch; or the host's in its place, to rehearse the scripts on a machine without a GPU."""

import time

import numpy as np
from ml_dtypes import bfloat16

# ONNX's numbers of the element types, and what they are in NumPy.
TYPES = {"float32": (1, np.float32), "float16": (10, np.float16), "bfloat16": (16, bfloat16), "float64": (11, np.float64)}
# Around every output, so that what is written beside it is seen.
GUARD = 256
POISON = 0xFF  # Bytes that make a NaN in every type.


def brief(error: Exception) -> str:
    """An error on one line: what CUDA's say after the first is the same for all of them."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:300]}"


class Buffer:
    """Bytes on the device, between two guards, at an address that is a multiple of 256 or `shift` bytes behind one."""

    def __init__(self, device: "Device", size: int, shift: int = 0):
        self.size = size
        self.memory = device.allocate(size + 3 * GUARD)
        self.begin = -device.address(self.memory) % GUARD + GUARD + shift
        self.device = device

    @property
    def address(self) -> int:
        return self.device.address(self.memory) + self.begin

    def poison(self) -> None:
        self.memory[:] = POISON

    def write(self, array: np.ndarray) -> None:
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self.memory[self.begin : self.begin + self.size] = self.device.upload(data)

    def read(self, dtype, shape) -> np.ndarray:
        return self.device.download(self.memory[self.begin : self.begin + self.size]).view(dtype).reshape(shape)

    def intact(self) -> bool:
        """Whether the guards are as `poison` left them."""
        before, behind = self.memory[: self.begin], self.memory[self.begin + self.size :]
        return bool((before == POISON).all()) and bool((behind == POISON).all())


class Device:
    """The first GPU."""

    kind = "cuda"

    def __init__(self):
        import torch

        self.torch = torch
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.set_grad_enabled(False)
        self.stream = torch.cuda.Stream()
        torch.cuda.set_stream(self.stream)

    def allocate(self, size: int):
        return self.torch.empty(size, dtype=self.torch.uint8, device="cuda")

    def address(self, memory) -> int:
        return memory.data_ptr()

    def upload(self, data: np.ndarray):
        return self.torch.from_numpy(data.copy()).cuda()

    def download(self, memory) -> np.ndarray:
        return memory.cpu().numpy()

    def synchronize(self) -> None:
        self.torch.cuda.synchronize()

    def works(self) -> bool:
        """Whether it still computes: some failures end that for the whole process."""
        try:
            self.torch.ones(1, device="cuda").add_(1)
            self.synchronize()
        except Exception:  # pylint: disable=broad-exception-caught
            return False
        return True

    def seconds(self, work, runs: int) -> float:
        """What one of `runs` calls of `work(i)` takes, one behind the other, by the device's own clock."""
        start, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record(self.stream)
        for i in range(runs):
            work(i)
        end.record(self.stream)
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / runs

    def free_bytes(self) -> int:
        self.torch.cuda.empty_cache()
        return self.torch.cuda.mem_get_info()[0]

    def cache_bytes(self) -> int:
        return getattr(self.torch.cuda.get_device_properties(0), "L2_cache_size", 50 << 20)

    def provider(self, **options) -> tuple[str, dict]:
        """ONNX Runtime's provider, on PyTorch's stream unless `own_stream` is given."""
        given = {"device_id": "0", "arena_extend_strategy": "kSameAsRequested"}
        if not options.pop("own_stream", False):
            given["user_compute_stream"] = str(self.stream.cuda_stream)
        return "CUDAExecutionProvider", {**given, **options}


class Host:
    """The host in a device's place."""

    kind = "cpu"
    torch = None

    def allocate(self, size: int):
        return np.empty(size, np.uint8)

    def address(self, memory) -> int:
        return memory.ctypes.data

    def upload(self, data: np.ndarray):
        return data

    def download(self, memory) -> np.ndarray:
        return memory.copy()

    def synchronize(self) -> None:
        pass

    def works(self) -> bool:
        return True

    def seconds(self, work, runs: int) -> float:
        start = time.perf_counter()
        for i in range(runs):
            work(i)
        return (time.perf_counter() - start) / runs

    def free_bytes(self) -> int:
        return 0

    def cache_bytes(self) -> int:
        return 1 << 20

    def provider(self, **_) -> tuple[str, dict]:
        return "CPUExecutionProvider", {}
