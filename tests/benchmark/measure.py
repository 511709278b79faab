"""Times models of ONNX Runtime in turns.

A machine is never quiet: what disturbs one model must disturb the others too, so each round gives every model its turn.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime

# How long a turn of a model lasts at least and at most, in seconds: between them, a quarter of the slowest model's run, or the
# fast ones would have no more runs than that has.
TURN = (0.05, 1.0)
# ONNX Runtime's threads go on spinning after a run, on cores that the next model needs: 30 to 45 ms were seen.
SPINNING = 0.1
# Rounds measured at least, however long they take.
ROUNDS = 3


@dataclass
class Subject:
    """A model ready to run on one input, with the times of its runs in seconds."""

    session: onnxruntime.InferenceSession
    binding: onnxruntime.IOBinding
    output: onnxruntime.OrtValue
    times: list[float] = field(default_factory=list)

    @classmethod
    def load(cls, model: Path, x: np.ndarray, options: onnxruntime.SessionOptions) -> "Subject":
        """Loads a model of one input and one output. Both are bound, so that a run is the runtime's work alone."""
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        name = session.get_outputs()[0].name
        shape = session.run([name], {session.get_inputs()[0].name: x})[0].shape
        binding = session.io_binding()
        output = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.float32)
        binding.bind_ortvalue_input(session.get_inputs()[0].name, onnxruntime.OrtValue.ortvalue_from_numpy(x))
        binding.bind_ortvalue_output(name, output)
        return cls(session, binding, output)

    def run(self) -> float:
        """Runs once and returns the seconds that it took."""
        start = time.perf_counter()
        self.session.run_with_iobinding(self.binding)
        return time.perf_counter() - start

    def turn(self, seconds: float) -> None:
        """Runs for a while. The first run finds the caches as another model left them: it counts only where it is long."""
        first = self.run()
        if first > seconds:
            self.times.append(first)
            return
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            self.times.append(self.run())


def session_options(threads: int, library: Path | None = None) -> onnxruntime.SessionOptions:
    """Threads within an operator, none across operators; all else as ONNX Runtime has it by itself, spinning too."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if library:
        options.register_custom_ops_library(str(library))
    return options


def interleave(subjects: list[Subject], threads: int, budget: float) -> None:
    """Gives the models turns until `budget` seconds are over. The order alternates: nobody is always the next of another."""
    end = time.perf_counter() + budget
    rounds, turn = 0, TURN[0]
    while rounds < ROUNDS or time.perf_counter() < end:
        for subject in subjects if rounds % 2 == 0 else reversed(subjects):
            if threads > 1:
                time.sleep(SPINNING)
            subject.turn(turn)
        slowest = max(max(subject.times) for subject in subjects)
        turn = min(max(TURN[0], slowest / 4), TURN[1])
        rounds += 1
