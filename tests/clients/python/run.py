"""Runs models in this interpreter's ONNX Runtime and prints what happened.

Each line of standard input is a JSON list of the arguments below; each answer is a line with one JSON object. An error of
the runtime is an answer, not a failure of this script: `stage` says how far it came (register, session, run or done),
`error` what the runtime said.
"""

import argparse
import json
import os
import sys
import tempfile
import threading

import numpy as np
import onnxruntime

import reference

TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
}


def argument_parser():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--plugin", action="append", default=[], help="register this library, once for each mention")
    parser.add_argument("--layer", help="JSON list of [operator, attributes]: what the model computes, in float64")
    parser.add_argument("--batch", type=int, action="append", default=[], help="run with a batch of this size")
    parser.add_argument("--shape", help="JSON: the shape to run with, whatever the model says")
    parser.add_argument("--threads", type=int, default=1, help="threads that run the session at the same time")
    parser.add_argument("--images", help="classify these instead of random numbers")
    parser.add_argument("--labels")
    return parser


def main():
    parser = argument_parser()
    for line in sys.stdin:
        answer = {"version": onnxruntime.__version__, "stage": "register"}
        try:
            use(parser.parse_args(json.loads(line)), answer)
            answer["stage"] = "done"
        except Exception as error:  # pylint: disable=broad-except
            answer["error"] = str(error)
        print(json.dumps(answer), flush=True)


def use(args, answer):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    for library in args.plugin:
        options.register_custom_ops_library(library)
    answer["stage"] = "session"
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = os.path.join(folder, "profile")
        session = onnxruntime.InferenceSession(args.model, options, providers=["CPUExecutionProvider"])
        answer["input_shape"] = session.get_inputs()[0].shape
        answer["output_shape"] = session.get_outputs()[0].shape
        answer["stage"] = "run"
        try:
            run(args, session, answer)
        finally:
            answer["kernels"] = kernels(session.end_profiling())


def kernels(profile):
    """How often each operator's kernel ran."""
    with open(profile, encoding="utf-8") as file:
        events = json.load(file)
    counts = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["args"]["op_name"]
            counts[name] = counts.get(name, 0) + 1
    return counts


def run(args, session, answer):
    port = session.get_inputs()[0]

    def call(x):
        return session.run(None, {port.name: x})[0]

    if args.images:
        images = np.load(args.images)
        batch = port.shape[0] if isinstance(port.shape[0], int) else len(images)
        batches = np.split(images, range(batch, len(images), batch))
        logits = np.concatenate([call(images) for images in batches])
        answer["correct"] = int((logits.argmax(axis=1) == np.load(args.labels)).sum())
        answer["samples"] = len(logits)
        return
    answer["runs"] = []
    shapes = [[batch, *port.shape[1:]] for batch in args.batch]
    if args.shape:
        shapes.append(json.loads(args.shape))
    for shape in shapes:
        x = np.random.default_rng(sum(shape)).standard_normal(shape).astype(TYPES[port.type])
        answer["runs"].append(compared(args, call, x))


def compared(args, call, x):
    """Runs in several threads; the worst deviation of any from float64, relative to the greatest entry."""
    outputs = [None] * args.threads

    def work(index):
        for _ in range(8 if args.threads > 1 else 1):
            outputs[index] = call(x)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(args.threads - 1)]
    for thread in threads:
        thread.start()
    work(-1)
    for thread in threads:
        thread.join()
    result = {"shape": list(outputs[-1].shape)}
    if args.layer and len(x):
        expected = x
        for operator, attributes in json.loads(args.layer):
            expected = reference.evaluate(operator, expected, **attributes)
        # An exported layer may end in an axis of 1.
        outputs = [np.asarray(y, np.float64).reshape(expected.shape) for y in outputs]
        deviations = [np.abs(y - expected).max() for y in outputs]
        result["error"] = float(max(deviations) / np.abs(expected).max())
    return result


if __name__ == "__main__":
    main()
