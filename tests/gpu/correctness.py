"""Whether the operators compute on the device what they should: against the equations in float64, for fresh inputs, with poisoned
outputs; and whether the same sample gives the same bits, whatever runs beside it."""

import threading
import time
import traceback

import numpy as np

import graphs
import reference
from device import TYPES, brief
from runtime import HERE, Run, node_model, placement, session

# The greatest difference from float64 that is let pass, relative to the greatest entry of the sample.
LIMITS = {"float32": 3e-6, "float16": 8e-4, "bfloat16": 6e-3, "float64": 1e-12}

# Samples, channels and positions: around the kernels' tiles, both forms of the iteration, one position, one channel.
SMALL = [
    (1, 1, 1), (2, 1, 5), (3, 2, 1), (2, 3, 4), (1, 5, 3), (4, 7, 9), (1, 12, 40), (2, 16, 16), (3, 17, 15), (2, 31, 33), (2, 32, 32),
    (1, 33, 31), (5, 48, 20), (2, 63, 65), (3, 64, 64), (2, 65, 63), (1, 96, 97), (2, 100, 30), (1, 127, 129), (2, 128, 128),
    (1, 129, 127), (1, 130, 300), (2, 160, 49),
]  # fmt: skip
LARGE = [(3, 256, 196), (33, 256, 49), (2, 128, 196), (5, 64, 784), (2, 512, 196), (1, 64, 3136), (1, 300, 299), (1, 1024, 49)]
HUGE = [(1, 2048, 49), (1, 1000, 1030)]
ATTRIBUTES = {
    "IsqrtCov": [
        {"iterations": 1}, {"iterations": 2}, {"iterations": 3}, {"iterations": 4}, {"iterations": 7}, {"iterations": 12},
        {"centered": 0}, {"correction": 1}, {"epsilon": 1e-3}, {"normalization": "frobenius"}, {"compensated": 0},
        {"vectorization": "upper_column_major"}, {"vectorization": "none"}, {"off_diagonal_scale": 1.4142135},
        {"layout": "channels_last"},
        {"iterations": 1, "normalization": "frobenius"},
        {"iterations": 3, "normalization": "frobenius", "vectorization": "none", "layout": "channels_last", "centered": 0},
        {"epsilon": 1e-2, "correction": 1, "compensated": 0, "vectorization": "upper_column_major", "off_diagonal_scale": 2.0},
    ],
    "CovariancePooling": [
        {}, {"vectorization": "upper"}, {"centered": 0, "epsilon": 1e-3}, {"layout": "channels_last", "correction": 1},
        {"vectorization": "upper_column_major", "off_diagonal_scale": 0.5},
    ],
    "MatrixSqrt": [
        {}, {"iterations": 9}, {"normalization": "frobenius"}, {"compensated": 0}, {"epsilon": 1e-2},
    ],
}  # fmt: skip
ATTRIBUTE_SIZES = [(2, 7, 12), (3, 40, 30), (2, 66, 130), (2, 144, 49)]


# What is printed of failures: the first of a group, and the first few tracebacks.
SHOWN = 6
TRACEBACKS = 3


class Checks:
    """Counts what holds, prints what does not, and lets nothing end the others."""

    def __init__(self, seconds: float):
        self.end = time.monotonic() + seconds
        self.count, self.shown, self.broken = 0, 0, 0
        self.failed, self.skipped, self.groups = [], [], {}

    def group(self, name: str, work) -> None:
        if time.monotonic() > self.end:
            self.skipped.append(name)
            return
        start, before, failed = time.monotonic(), self.count, len(self.failed)
        self.shown, said = 0, None
        try:
            said = work()
        except Exception as error:  # pylint: disable=broad-exception-caught
            self.failed.append(f"{name}: {brief(error)}")
            print(self.failed[-1], flush=True)
            self.broken += 1
            if self.broken <= TRACEBACKS:
                print("".join(traceback.format_tb(error.__traceback__)), flush=True)
        bad = len(self.failed) - failed
        line = f"{self.count - before} checks, {bad} failed{f', {said}' if said else ''}, {time.monotonic() - start:.1f} s"
        self.groups[name] = line
        print(f"{'FAILED' if bad else 'ok'}  {name}: {line}", flush=True)

    def check(self, holds: bool, what: str) -> None:
        self.count += 1
        if not holds:
            self.failed.append(what)
            self.shown += 1
            if self.shown <= SHOWN:
                print(f"    failed: {what}", flush=True)

    def summary(self) -> dict:
        return {"checks": self.count, "failed": self.failed, "not_run": self.skipped, "groups": self.groups}


class Subject:
    """An operator with attributes for one element type, in one session, at any size."""

    def __init__(self, device, operator: str, element: str, rank: int = 3, own_stream: bool = False, **attributes):
        self.device, self.operator, self.element, self.attributes = device, operator, element, attributes
        self.model = node_model(operator, element, rank, attributes)
        self.session = session(device, self.model, own_stream=own_stream)

    def output_shape(self, shape) -> list[int]:
        channels = shape[-1] if self.attributes.get("layout") == "channels_last" else shape[1]
        default = "upper" if self.operator == "IsqrtCov" else "none"
        if self.attributes.get("vectorization", default) == "none":
            return [shape[0], channels, channels]
        return [shape[0], channels * (channels + 1) // 2]

    def bind(self, shape, shift: int = 0) -> Run:
        return Run(self.device, self.session, self.element, shape, self.output_shape(shape), shift)

    def run(self, x: np.ndarray, shift: int = 0) -> np.ndarray:
        return self.bind(x.shape, shift).result(x)

    def error(self, x: np.ndarray, y: np.ndarray) -> float:
        """The greatest difference from float64, relative to the sample's greatest entry; infinite where one is NaN."""
        # ONNX has attributes in float32.
        given = {name: float(np.float32(value)) if isinstance(value, float) else value for name, value in self.attributes.items()}
        expected = reference.evaluate(self.operator, x.astype(np.float64), **given)
        difference = np.abs(y.astype(np.float64) - expected).reshape(len(x), -1).max(1)
        error = float((difference / np.abs(expected).reshape(len(x), -1).max(1)).max())
        return error if np.isfinite(error) else float("inf")


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.tobytes() == b.tobytes()


def shape_of(subject: Subject, samples: int, channels: int, positions: int) -> tuple[int, ...]:
    if subject.operator == "MatrixSqrt":
        return samples, channels, channels
    return (samples, positions, channels) if subject.attributes.get("layout") == "channels_last" else (samples, channels, positions)


def inputs(random: np.random.Generator, subject: Subject, shape, kind: str = "normal") -> np.ndarray:
    """Fresh numbers in the subject's type."""
    if subject.operator == "MatrixSqrt":
        factor = random.standard_normal((*shape[:2], shape[1] + 8))
        x = factor @ factor.transpose(0, 2, 1) / shape[1]
    else:
        x = random.standard_normal(shape)
    if kind == "relu":
        x = np.maximum(x, 0)
    if kind == "offset":
        x = x + 30
    if kind == "graded":  # Channels of very different size: the iteration converges slowly.
        x = x * np.logspace(0, -3, shape[1]).reshape(1, -1, 1)
    if kind == "tiny":
        x = x * 1e-12
    if kind == "great":
        x = x * 1e12
    return x.astype(TYPES[subject.element][1])


def accuracy(checks: Checks, random, subject: Subject, sizes, kinds=("normal",)) -> str:
    worst = 0.0, ""
    for size in sizes:
        if subject.attributes.get("correction") and size[2] < 2:
            continue
        for kind in kinds:
            if time.monotonic() > checks.end:
                checks.skipped.append(f"{subject.operator}{subject.attributes or ''} {subject.element} {size} {kind}")
                continue
            shape = shape_of(subject, *size)
            x = inputs(random, subject, shape, kind)
            what = f"{subject.operator}{subject.attributes or ''} {subject.element} {list(shape)} {kind}"
            if size[2] == 1 and subject.attributes.get("centered", 1) and subject.operator == "IsqrtCov":
                # A single position is its own mean.
                y = subject.run(x)
                checks.check(not y.astype(np.float64).any(), f"{what}: a constant map gives zeros")
                continue
            error = subject.error(x, subject.run(x))
            checks.check(error <= LIMITS[subject.element], f"{what}: error {error:.2e}")
            worst = max(worst, (error, f"{list(shape)} {kind}"))
    return f"greatest error {worst[0]:.2e} at {worst[1]}"


def edge_cases(checks: Checks, random, device, element: str) -> None:
    subject = Subject(device, "IsqrtCov", element)
    for channels, positions in [(20, 12), (12, 20), (130, 40)]:
        x = inputs(random, subject, (4, channels, positions))
        clean = subject.run(x)
        x[1] = 3
        x[2, channels // 2, positions // 3] = np.nan
        y = subject.run(x)
        what = f"{element} {channels}/{positions}"
        checks.check(not y[1].astype(np.float64).any(), f"{what}: a constant map gives zeros")
        checks.check(bool(np.isnan(y[2].astype(np.float64)).any()), f"{what}: a NaN is not lost")
        checks.check(same(y[[0, 3]], clean[[0, 3]]), f"{what}: a NaN stays in its sample")
        x[2, channels // 2, positions // 3] = np.inf
        y = subject.run(x)
        checks.check(not np.isfinite(y[2].astype(np.float64)).all(), f"{what}: an infinity is not lost")
        checks.check(same(y[[0, 3]], clean[[0, 3]]), f"{what}: an infinity stays in its sample")
    subject = Subject(device, "IsqrtCov", element, rank=5)
    x = inputs(random, subject, (2, 6, 2, 3, 4))
    error = subject.error(x, subject.run(x))
    checks.check(error <= LIMITS[element], f"{element}, rank 5: error {error:.2e}")
    # The guards see that nothing is written where there is nothing.
    checks.check(subject.run(x[:0]).size == 0, f"{element}, an empty batch")


def unaligned(checks: Checks, random, device, element: str) -> None:
    """Tensors at addresses that are multiples of one element only."""
    for operator in ATTRIBUTES:
        subject = Subject(device, operator, element)
        for size in [(2, 31, 33), (2, 64, 48), (2, 64, 100)]:
            x = inputs(random, subject, shape_of(subject, *size))
            for shift in (1, 3):
                agree = same(subject.run(x, shift), subject.run(x))
                checks.check(agree, f"{operator} {element} {size}: {shift} elements behind an aligned address, same bits")


def same_bits(checks: Checks, random, device, element: str, sizes) -> None:
    """Alone, in a batch, in another order, again and again."""
    subject = Subject(device, "IsqrtCov", element)
    for samples, channels, positions in sizes:
        x = inputs(random, subject, (samples, channels, positions), "relu")
        whole = subject.run(x)
        what = f"{element} {channels}/{positions}"
        for sample in sorted({0, samples // 2, samples - 1}):
            checks.check(same(subject.run(x[sample : sample + 1])[0], whole[sample]), f"{what}: sample {sample} of {samples} alone")
        order = random.permutation(samples)
        checks.check(same(subject.run(x[order]), whole[order]), f"{what}: in another order")
        checks.check(same(subject.run(x[: samples // 2]), whole[: samples // 2]), f"{what}: half of the batch")
        run = subject.bind(x.shape)
        checks.check(all(same(run.result(x), whole) for _ in range(10)), f"{what}: again and again")


def layout_bits(checks: Checks, random, device) -> None:
    """The triangle is that of the whole matrix, bit for bit; by columns it may be rounded otherwise."""
    runs = {v: Subject(device, "IsqrtCov", "float32", vectorization=v) for v in ("none", "upper", "upper_column_major")}
    for size in [(2, 40, 30), (2, 70, 200), (2, 256, 49)]:
        x = inputs(random, runs["none"], size)
        whole = runs["none"].run(x)
        upper = np.triu_indices(size[1])
        checks.check(same(whole, whole.transpose(0, 2, 1)), f"{size}: symmetric")
        checks.check(same(runs["upper"].run(x), whole[:, upper[0], upper[1]]), f"{size}: the upper triangle")
        lower = np.tril_indices(size[1])
        difference = np.abs(runs["upper_column_major"].run(x) - whole[:, lower[0], lower[1]]).max()
        checks.check(difference <= 1e-6 * np.abs(whole).max(), f"{size}: by columns, {difference:.1e} off")


def placed(checks: Checks, random, device) -> str:
    """The node runs on the device, and nothing is copied to the host around it."""
    said = {}
    for element in TYPES:
        model = node_model("IsqrtCov", element, 3, {})
        x = random.standard_normal((2, 20, 30)).astype(TYPES[element][1])
        nodes = placement(device, model, element, x, [2, 210])
        said[element] = nodes
        wanted = device.provider()[0]
        checks.check(bool(nodes) and set(nodes.values()) == {wanted}, f"{element}: on {nodes} instead of {wanted} alone")
    # What the exporter writes has the layer's function beside the node.
    for file in sorted((HERE / "converted").glob("*.onnx")):
        channels, positions = map(int, file.stem.split("-"))
        x = random.standard_normal((2, channels, *graphs.extent(positions)), np.float32)
        nodes = placement(device, file.read_bytes(), "float32", x, [2, channels * (channels + 1) // 2])
        checks.check(bool(nodes) and set(nodes.values()) == {wanted}, f"{file.name}: on {nodes} instead of {wanted} alone")
        said[file.stem] = nodes
        checks.check(len(nodes) <= 2, f"{file.name}: {len(nodes)} nodes instead of the layer's")
    return "; ".join(f"{name}: {', '.join(nodes)}" for name, nodes in said.items())[:300]


def concurrent(checks: Checks, random, device, shared: bool) -> None:
    """Several threads at once: each with a session and a stream of its own, or all in one session."""
    sizes = [(4, 64, 49), (2, 128, 196), (8, 48, 100), (1, 256, 49)]
    one = Subject(device, "IsqrtCov", "float32", own_stream=True) if shared else None
    jobs = []
    for size in sizes:
        subject = one or Subject(device, "IsqrtCov", "float32", own_stream=True)
        x = inputs(random, subject, size)
        jobs.append((subject.bind(size), x, subject.run(x)))
    wrong, errors = [0] * len(jobs), []
    barrier = threading.Barrier(len(jobs))

    def work(index: int) -> None:
        try:
            run, x, expected = jobs[index]
            run.input.write(x)
            device.synchronize()
            barrier.wait(60)
            for _ in range(40):
                run.output.poison()
                device.synchronize()
                run()
                device.synchronize()
                wrong[index] += not same(run.output.read(run.dtype, run.output_shape), expected)
        except Exception as error:  # pylint: disable=broad-exception-caught
            barrier.abort()
            errors.append(brief(error))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    checks.check(not errors, f"threads ended with {errors}")
    for size, count in zip(sizes, wrong):
        checks.check(count == 0, f"{size}, beside others: {count} of 40 runs gave other bits")


def captured(checks: Checks, random, device, own_stream: bool) -> None:
    """ONNX Runtime's CUDA graphs: the first runs capture, the others replay, with other inputs at the same addresses."""
    for element in TYPES:
        subject = Subject(device, "IsqrtCov", element)
        for size in [(3, 40, 30), (32, 64, 49), (2, 64, 130)]:
            made = session(device, subject.model, enable_cuda_graph="1", own_stream=own_stream)
            run = Run(device, made, element, size, subject.output_shape(size))
            for turn in range(5):
                x = inputs(random, subject, size)
                checks.check(same(run.result(x), subject.run(x)), f"{element} {size}: run {turn} of a captured graph")


def growth(checks: Checks, random, device) -> str:
    """Memory does not grow with runs, nor with sessions that come and go."""
    shape = (8, 128, 196)
    subject = Subject(device, "IsqrtCov", "float32")
    run = subject.bind(shape)
    run.result(inputs(random, subject, shape))
    before = device.free_bytes()
    for _ in range(300):
        run()
    device.synchronize()
    grown = before - device.free_bytes()
    checks.check(grown < 8 << 20, f"{grown} bytes more after 300 runs")
    Subject(device, "IsqrtCov", "float32").bind(shape)()
    before = device.free_bytes()
    for _ in range(10):
        Subject(device, "IsqrtCov", "float32").bind(shape)()
    device.synchronize()
    sessions = before - device.free_bytes()
    checks.check(sessions < 32 << 20, f"{sessions} bytes more after 10 sessions")
    return f"{grown >> 10} KiB in 300 runs, {sessions >> 10} KiB in 10 sessions"


def run(device, seconds: float, seed: int) -> dict:
    checks, random = Checks(seconds), np.random.default_rng(seed)
    print(f"correctness: fresh inputs of seed {seed}, {seconds:.0f} s at most", flush=True)

    def accurate(name: str, sizes, kinds=("normal",), **subject) -> None:
        checks.group(name, lambda: accuracy(checks, random, Subject(device, **subject), sizes, kinds))

    checks.group("placement", lambda: placed(checks, random, device))
    for element in TYPES:
        accurate(f"{element}, small sizes", SMALL, operator="IsqrtCov", element=element)
    for element in TYPES:
        checks.group(f"{element}, edge cases", lambda e=element: edge_cases(checks, random, device, e))
    checks.group("CUDA graphs", lambda: captured(checks, random, device, own_stream=True))
    checks.group("CUDA graphs, on PyTorch's stream", lambda: captured(checks, random, device, own_stream=False))
    checks.group("same bits", lambda: same_bits(checks, random, device, "float32", [(5, 30, 20), (37, 64, 49), (9, 48, 100)]))
    accurate("float32, large sizes", LARGE, ("normal", "relu"), operator="IsqrtCov", element="float32")
    for element in ("float16", "bfloat16", "float64"):
        accurate(f"{element}, large sizes", LARGE[:5], ("relu",), operator="IsqrtCov", element=element)
    for operator, lists in ATTRIBUTES.items():
        for element in TYPES:

            def each(operator=operator, element=element, lists=lists) -> str:
                said = [
                    accuracy(checks, random, Subject(device, operator, element, **attributes), ATTRIBUTE_SIZES)
                    for attributes in lists
                ]
                return max(said, key=lambda text: float(text.split()[2]))

            checks.group(f"{operator} {element}, attributes", each)
    kinds = ("relu", "offset", "graded", "tiny", "great")
    accurate("float32, unusual numbers", ATTRIBUTE_SIZES + [(2, 256, 196)], kinds, operator="IsqrtCov", element="float32")
    checks.group("threads, a session each", lambda: concurrent(checks, random, device, shared=False))
    checks.group("threads, one session", lambda: concurrent(checks, random, device, shared=True))
    checks.group("orders of the triangle", lambda: layout_bits(checks, random, device))
    for element in TYPES:
        checks.group(f"{element}, addresses", lambda e=element: unaligned(checks, random, device, e))
    for element in ("float16", "bfloat16", "float64"):
        checks.group(f"same bits, {element}", lambda e=element: same_bits(checks, random, device, e, [(9, 64, 49), (5, 48, 100)]))
    checks.group("same bits, large", lambda: same_bits(checks, random, device, "float32", [(33, 256, 196), (3, 512, 196)]))
    # In clusters, where those are wanted: one product has 20 tiles, and a cluster the output's 15 blocks, of which some have two in turn.
    for element in ("float32", "float16", "bfloat16"):
        checks.group(f"same bits, {element}, tiles in turn", lambda e=element: same_bits(checks, random, device, e, [(3, 260, 193)]))
    accurate("float32, tiles in turn", [(3, 260, 193)], ("normal", "relu"), operator="IsqrtCov", element="float32")
    # More samples than there is room for in clusters, and in two of the batches more than an H100 has multiprocessors.
    crowded = [(140, 256, 49), (60, 256, 196), (300, 176, 20)]
    for element in ("float32", "float16", "bfloat16"):
        checks.group(f"same bits, {element}, large batches", lambda e=element: same_bits(checks, random, device, e, crowded))
    checks.group("memory", lambda: growth(checks, random, device))
    for operator in ("CovariancePooling", "MatrixSqrt"):
        accurate(f"{operator} float32, large sizes", LARGE[:5], operator=operator, element="float32")
    accurate("float32, huge sizes", HUGE, ("relu",), operator="IsqrtCov", element="float32")
    found = checks.summary()
    print(f"correctness: {found['checks']} checks, {len(found['failed'])} failed, not run: {found['not_run'] or 'none'}", flush=True)
    return found
