"""How long the layer takes on the device, in turns: decomposed and converted in ONNX Runtime, and in PyTorch."""

import gc
import time
import traceback

import numpy as np
from onnx import TensorProto, helper
from onnxruntime import InferenceSession

import graphs
import reference
import sizes
from device import brief
from runtime import HERE, Run, session

# How long a turn of a subject lasts, in seconds, and the runs in it.
TURN = 0.01
RUNS = 200
ROUNDS = 5
# Runs in a turn, at most, that are waited for one by one, to see how long a caller waits.
WAITED = 6
# From this time on a run is slow, and there are only so many rounds.
SLOW = 0.05
SLOW_ROUNDS = 2
# Inputs go round, so that what is read does not lie in the cache already, where they are too large to lie there together.
SETS = 8
# Channels up to which the operator may use clusters.
CLUSTERS = 512
# Channels from which sessions are made anew for every batch, to save memory.
LARGE = 1024


class Subject:
    """Something that computes the layer: `work(i)` for the i-th set of buffers, unwaited."""

    def __init__(self, work, read):
        self.work, self.read = work, read
        self.times, self.waits = [], []

    def turn(self, device) -> None:
        runs = min(max(1, round(TURN / self.estimate)), RUNS)
        self.times.append(device.seconds(self.work, runs))
        if self.estimate > SLOW:
            self.waits.append(self.times[-1])
            return
        for i in range(min(runs, WAITED)):
            start = time.perf_counter()
            self.work(i)
            device.synchronize()
            self.waits.append(time.perf_counter() - start)

    def warm_up(self, device, count: int) -> "Subject":
        self.work(0)
        device.synchronize()
        self.estimate = min(device.seconds(self.work, 1) for _ in range(2))
        if self.estimate < SLOW:
            # A captured graph's first runs are not replays yet.
            for i in range(3 * count):
                self.work(i)
            device.synchronize()
            self.estimate = device.seconds(self.work, count)
        return self

    def found(self) -> dict:
        return {
            "median_us": 1e6 * float(np.median(self.times)),
            "min_us": 1e6 * min(self.times),
            "waited_us": 1e6 * float(np.median(self.waits)),
            "rounds": len(self.times),
        }


class Case:
    """One size with one batch."""

    def __init__(self, device, channels: int, positions: int, batch: int, random):
        self.device, self.channels, self.positions, self.batch = device, channels, positions, batch
        self.shape = (batch, channels, *graphs.extent(positions))
        self.output_shape = (batch, channels * (channels + 1) // 2)
        total = batch * sizes.traffic(channels, positions)
        self.sets = int(np.clip(np.ceil(2 * device.cache_bytes() / total), 1, SETS))
        # What a network's last ReLU gives.
        self.x = [np.maximum(random.standard_normal(self.shape, np.float32), 0) for _ in range(self.sets)]

    def in_session(self, made: InferenceSession, graphs_captured: bool = False) -> Subject:
        """Buffers for every set; where graphs are captured, each set has its own."""
        runs = []
        for number, x in enumerate(self.x):
            run = Run(self.device, made, "float32", self.shape, self.output_shape)
            run.unsynchronized(number if graphs_captured else None)
            run.input.write(x)
            run.output.poison()
            runs.append(run)
        self.device.synchronize()
        return Subject(lambda i: runs[i % self.sets](), lambda: runs[0].output.read(np.float32, self.output_shape))

    def replayed(self, make) -> Subject:
        """ONNX Runtime's own CUDA graphs, on PyTorch's stream if it lets them, else on its own, where every run is waited for."""
        try:
            return self.in_session(make(), True).warm_up(self.device, self.sets)
        except Exception as error:  # pylint: disable=broad-exception-caught
            print(f"    not captured on PyTorch's stream: {brief(error)}", flush=True)
        run = Run(self.device, make(own_stream=True), "float32", self.shape, self.output_shape)
        run.result(self.x[0])
        return Subject(lambda _: run(), lambda: run.output.read(np.float32, self.output_shape))

    def in_torch(self, layer, graphs_captured: bool) -> Subject:
        import torch
        import torch_layer

        xs = [torch.from_numpy(x.reshape(self.batch, self.channels, -1)).cuda() for x in self.x]
        ys = [torch.full(self.output_shape, float("nan"), device="cuda") for _ in xs]
        if graphs_captured:
            made = [torch_layer.captured(layer, x, y, self.device.stream) for x, y in zip(xs, ys)]
            # A graph keeps nothing alive that it reads and did not allocate: the inputs, and the layer's constants.
            return Subject(lambda i, _=(xs, ys, layer): made[i % self.sets].replay(), lambda: ys[0].cpu().numpy())

        def work(i: int) -> None:
            ys[i % self.sets] = layer(xs[i % self.sets])

        return Subject(work, lambda: ys[0].cpu().numpy())

    def subjects(self, models: dict) -> dict[str, Subject]:
        """Everything that can be made; what cannot is said and left out."""
        batch, channels, positions = self.batch, self.channels, self.positions

        def lean(name: str, captures: bool) -> Subject:
            import torch_layer

            return self.in_torch(getattr(torch_layer, name)(batch, channels, positions), captures)

        makers = {name: lambda make=make: self.in_session(make()) for name, make in models.items() if "captured" not in name}
        for name in models.keys() - makers.keys():
            makers[name] = lambda make=models[name]: self.replayed(make)
        if self.device.torch:
            makers["eager"] = lambda: lean("Published", False)
            makers["cuBLAS captured"] = lambda: lean("Lean", True)
        found = {}
        for name, maker in makers.items():
            try:
                found[name] = maker().warm_up(self.device, self.sets)
            except Exception as error:  # pylint: disable=broad-exception-caught
                what = f"{channels}/{positions} batch {batch}, {name}"
                print(f"    {what}: {brief(error)}", flush=True)
                if not self.device.works():
                    raise
        return found

    def measure(self, models: dict) -> dict:
        subjects = self.subjects(models)
        samples = 1 if self.channels >= LARGE else min(2, self.batch)
        expected = reference.evaluate("IsqrtCov", self.x[0][:samples])
        first = {} if self.channels >= LARGE else {name: subject.read() for name, subject in subjects.items()}
        for number in range(ROUNDS):
            order = [subject for subject in subjects.values() if number < SLOW_ROUNDS or subject.estimate <= SLOW]
            for subject in order if number % 2 == 0 else reversed(order):
                subject.turn(self.device)
        found = {
            "channels": self.channels,
            "positions": self.positions,
            "batch": self.batch,
            "input_sets": self.sets,
            "operations": self.batch * sizes.operations(self.channels, self.positions),
            "bytes": self.batch * sizes.traffic(self.channels, self.positions),
            "subjects": {},
        }
        for name, subject in subjects.items():
            y = subject.read()
            error = np.abs(y[:samples] - expected).max() / np.abs(expected).max()
            found["subjects"][name] = {**subject.found(), "error": float(error), "complete": bool(np.isfinite(y).all())}
            # Whether nothing has changed in hundreds of runs beside the others; not looked at where that takes long.
            found["subjects"][name]["same_bits"] = bool(np.array_equal(y, first[name], equal_nan=True)) if name in first else None
        return found


class Models:
    """The sessions of one size, made when they are asked for."""

    def __init__(self, device, channels: int, positions: int):
        self.device, self.channels, self.large = device, channels, channels >= LARGE
        self.models = {name: graphs.layer_model(channels, positions, name).SerializeToString() for name in graphs.CENTERINGS}
        converted = HERE / "converted" / f"{channels}-{positions}.onnx"
        self.by_exporter = converted.exists()
        node = converted.read_bytes() if self.by_exporter else graphs.operator_model(channels, positions).SerializeToString()
        self.models["converted"] = node
        self.made = {}

    def makers(self, batch: int) -> dict:
        """The ways to a session for `batch` samples. A session captures the graphs of one batch only; the others are kept."""
        # As it comes, ONNX Runtime lets cuBLAS round float32 to TF32.
        made = {name: self.kept(name) for name in self.models}
        made["mean fp32"] = self.kept("mean", use_tf32="0")
        made["converted captured"] = self.maker("converted", enable_cuda_graph="1")
        if self.channels <= CLUSTERS:
            made["clusters"] = self.kept("converted", clusters=True)
            made["clusters captured"] = self.maker("converted", enable_cuda_graph="1", clusters=True)
        if not self.large:
            made["mean captured"] = self.maker("mean", enable_cuda_graph="1", use_tf32="0")
            # What the node has to be held against: the graph as it comes, without the time that it takes to start its kernels.
            for name in graphs.CENTERINGS:
                made[f"{name} captured TF32"] = self.maker(name, enable_cuda_graph="1")
        elif batch > 8:
            # The memory is not enough for all of them.
            del made["matrix"]
        return made

    def maker(self, model: str, **options):
        def make(**more) -> InferenceSession:
            given = {"clusters": False, **options, **more}
            return session(self.device, self.models[model], only_device=model == "converted", **given)

        return make

    def kept(self, model: str, **options):
        key, make = (model, *options), self.maker(model, **options)

        def get() -> InferenceSession:
            if self.large:
                return make()
            if key not in self.made:
                self.made[key] = make()
            return self.made[key]

        return get


def ceilings(device, seconds: float) -> dict:
    """What the device reaches: bytes copied, read and written, and products of 8192×8192 matrices in float32 and in TF32."""
    torch = device.torch
    if not torch:
        return {"copy_bytes_per_s": 1e10, "fp32_flops": 1e11, "tf32_flops": 1e11}
    end = time.monotonic() + seconds
    n, found = 8192, {}
    a, b = torch.randn(n, n, device="cuda"), torch.randn(n, n, device="cuda")
    out, source = torch.empty_like(a), torch.randn(1 << 28, device="cuda")
    target = torch.empty_like(source)
    work = {
        "copy_bytes_per_s": (lambda _: target.copy_(source), 2 * source.numel() * 4, False),
        "fp32_flops": (lambda _: torch.mm(a, b, out=out), 2 * n**3, False),
        "tf32_flops": (lambda _: torch.mm(a, b, out=out), 2 * n**3, True),
    }
    for name, (one, amount, tf32) in work.items():
        torch.backends.cuda.matmul.allow_tf32 = tf32
        device.seconds(one, 2)
        times = [device.seconds(one, 3)]
        while len(times) < 7 and time.monotonic() < end:
            times.append(device.seconds(one, 3))
        found[name] = amount / float(np.median(times))
    torch.backends.cuda.matmul.allow_tf32 = False
    return found


def least_run(device) -> dict:
    """What a run takes that has nearly nothing to do, in seconds: ONNX Runtime's own part of every other time."""
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()
    found = {}
    for name, options in {"run_s": {}, "captured_run_s": {"enable_cuda_graph": "1"}}.items():
        try:
            run = Run(device, session(device, model, **options), "float32", (1,), (1,))
            run.unsynchronized(0 if options else None)
            device.seconds(lambda _, run=run: run(), 5)
            found[name] = float(np.median([device.seconds(lambda _, run=run: run(), RUNS) for _ in range(7)]))
        except Exception as error:  # pylint: disable=broad-exception-caught
            print(f"    one node, {name}: {brief(error)}", flush=True)
    return found


def run(device, seconds: float, seed: int, wanted: list, found: dict, save) -> bool:
    """Measures what is `wanted`, the most important first, into `found`, until the time is over. What is there already is not measured again.
    False where the device has failed for good, and another process is to go on."""
    end = time.monotonic() + seconds
    random = np.random.default_rng(seed)
    found["no_time"] = []
    if "ceilings" not in found:
        found["ceilings"] = ceilings(device, min(4, seconds / 8)) | least_run(device)
        print({name: f"{rate:.4g}" for name, rate in found["ceilings"].items()}, flush=True)
    kept: tuple = (None, None)
    for (channels, positions), batch in wanted:
        label, start = f"{channels}/{positions} batch {batch}", time.monotonic()
        if label in found["begun"]:
            continue
        if start > end - expected_seconds(channels, batch):
            found["no_time"].append(label)
            continue
        # Before it is measured: where the process ends in it, the next one leaves it out.
        found["begun"].append(label)
        save()
        try:
            if kept[0] != (channels, positions):
                device.synchronize()
                kept = None, None
                gc.collect()
                device.free_bytes()
                kept = (channels, positions), Models(device, channels, positions)
            case = Case(device, channels, positions, batch, random).measure(kept[1].makers(batch))
            case["by_exporter"] = kept[1].by_exporter
            found["measurements"].append(case)
            said = ", ".join(f"{name} {subject['median_us']:.1f}" for name, subject in case["subjects"].items())
            print(f"{label}: {said} us; {time.monotonic() - start:.1f} s", flush=True)
            for name, subject in case["subjects"].items():
                if not subject["complete"] or subject["same_bits"] is False:
                    print(f"    {name}: {'other bits at the end' if subject['complete'] else 'NaN'}", flush=True)
        except Exception as error:  # pylint: disable=broad-exception-caught
            print(f"{label}: {brief(error)}\n{''.join(traceback.format_tb(error.__traceback__))}", flush=True)
            save()
            if not device.works():
                return False
        save()
    return True


def expected_seconds(channels: int, batch: int) -> float:
    """About how long a case takes: the decomposed graphs of many channels are what is slow."""
    return 2 + batch * (channels / 2048) ** 3 * 0.2
