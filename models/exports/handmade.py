"""Graphs that no PyTorch exporter writes: another framework's layout, a Loop kept as a Loop, a step as a model function.

Written with onnxscript, whose `for` becomes a Loop and whose called functions become model functions.
"""

import numpy as np
import onnx
from onnxscript import FLOAT, opset17 as op, script
from onnxscript.values import Opset

CHANNELS, HEIGHT, WIDTH, STEPS = 12, 5, 6, 5
POSITIONS = HEIGHT * WIDTH
LOCAL = Opset("com.example.pooling", 1)

ROWS, COLUMNS = np.triu_indices(CHANNELS)
EYE = onnx.numpy_helper.from_array(np.eye(CHANNELS, dtype=np.float32), "eye")
TRIANGLE = onnx.numpy_helper.from_array((ROWS * CHANNELS + COLUMNS).astype(np.int64), "triangle")
TOKENS = onnx.numpy_helper.from_array(np.array([-1, POSITIONS, CHANNELS], dtype=np.int64), "tokens")
MAPS = onnx.numpy_helper.from_array(np.array([-1, CHANNELS, POSITIONS], dtype=np.int64), "maps")
ROW = onnx.numpy_helper.from_array(np.array([-1, CHANNELS * CHANNELS], dtype=np.int64), "row")
ONES = onnx.numpy_helper.from_array(np.array([-1, 1, 1], dtype=np.int64), "ones")


@script()
def nhwc(image: FLOAT["batch", HEIGHT, WIDTH, CHANNELS]) -> FLOAT["batch", len(ROWS)]:
    """Channels last, as TensorFlow keeps them; the trace through Einsum, the triangle through Gather."""
    x = op.Reshape(image, op.Constant(value=TOKENS))
    x = x - op.ReduceMean(x, axes=[1], keepdims=1)
    sigma = op.MatMul(op.Transpose(x, perm=[0, 2, 1]), x) / op.Constant(value_float=30.0)
    trace = op.Reshape(op.Einsum(sigma, equation="nii->n"), op.Constant(value=ONES))
    eye = op.Constant(value=EYE)
    y = sigma / trace
    t = op.Constant(value_float=0.5) * (op.Constant(value_float=3.0) * eye - y)
    y = op.MatMul(y, t)
    z = t
    t = op.Constant(value_float=0.5) * (op.Constant(value_float=3.0) * eye - op.MatMul(z, y))
    y = op.MatMul(y, t)
    z = op.MatMul(t, z)
    t = op.Constant(value_float=0.5) * (op.Constant(value_float=3.0) * eye - op.MatMul(z, y))
    y = op.MatMul(y, t)
    root = op.Reshape(y * op.Sqrt(trace), op.Constant(value=ROW))
    return op.Gather(root, op.Constant(value=TRIANGLE), axis=1)


@script()
def loop(image: FLOAT["batch", CHANNELS, HEIGHT, WIDTH]) -> FLOAT["batch", len(ROWS)]:
    """The iteration as a Loop over a constant count."""
    x = op.Reshape(image, op.Constant(value=MAPS))
    x = x - op.ReduceMean(x, axes=[2], keepdims=1)
    sigma = op.MatMul(x, op.Transpose(x, perm=[0, 2, 1])) / op.Constant(value_float=30.0)
    eye = op.Constant(value=EYE)
    trace = op.ReduceSum(sigma * eye, op.Constant(value_ints=[1, 2]), keepdims=1)
    y = sigma / trace
    z = op.Expand(eye, op.Shape(sigma))
    for _ in range(5):
        t = op.Constant(value_float=1.5) * eye - op.Constant(value_float=0.5) * op.MatMul(z, y)
        y = op.MatMul(y, t)
        z = op.MatMul(t, z)
    root = op.Reshape(y * op.Sqrt(trace), op.Constant(value=ROW))
    return op.Gather(root, op.Constant(value=TRIANGLE), axis=1)


@script(LOCAL)
def half_step(y, z):
    """T = ½(3I − ZY)."""
    eye = op.Constant(value=EYE)
    return op.Constant(value_float=0.5) * (op.Constant(value_float=3.0) * eye - op.MatMul(z, y))


@script(LOCAL)
def step(y, z):
    """One coupled step."""
    t = half_step(y, z)
    return op.MatMul(y, t), op.MatMul(t, z)


@script()
def functions(image: FLOAT["batch", CHANNELS, HEIGHT, WIDTH]) -> FLOAT["batch", len(ROWS)]:
    """Each step a call of a model function, which calls another."""
    x = op.Reshape(image, op.Constant(value=MAPS))
    x = x - op.ReduceMean(x, axes=[2], keepdims=1)
    sigma = op.MatMul(x, op.Transpose(x, perm=[0, 2, 1])) / op.Constant(value_float=30.0)
    eye = op.Constant(value=EYE)
    trace = op.ReduceSum(sigma * eye, op.Constant(value_ints=[1, 2]), keepdims=1)
    y = sigma / trace
    z = op.Expand(eye, op.Shape(sigma))
    y, z = step(y, z)
    y, z = step(y, z)
    y, z = step(y, z)
    y, z = step(y, z)
    y, z = step(y, z)
    root = op.Reshape(y * op.Sqrt(trace), op.Constant(value=ROW))
    return op.Gather(root, op.Constant(value=TRIANGLE), axis=1)


@script()
def loop_until_settled(image: FLOAT["batch", CHANNELS, HEIGHT, WIDTH]) -> FLOAT["batch", len(ROWS)]:
    """A near miss: as many steps as the data need, so no fixed K computes it."""
    x = op.Reshape(image, op.Constant(value=MAPS))
    x = x - op.ReduceMean(x, axes=[2], keepdims=1)
    sigma = op.MatMul(x, op.Transpose(x, perm=[0, 2, 1])) / op.Constant(value_float=30.0)
    eye = op.Constant(value=EYE)
    trace = op.ReduceSum(sigma * eye, op.Constant(value_ints=[1, 2]), keepdims=1)
    y = sigma / trace
    z = op.Expand(eye, op.Shape(sigma))
    settled = op.Constant(value_int=0) > op.Constant(value_int=1)
    unsettled = op.Not(settled)
    while unsettled:
        t = op.Constant(value_float=1.5) * eye - op.Constant(value_float=0.5) * op.MatMul(z, y)
        y = op.MatMul(y, t)
        z = op.MatMul(t, z)
        change = op.ReduceMax(op.Abs(t - eye), keepdims=0)
        unsettled = change > op.Constant(value_float=0.45)
    root = op.Reshape(y * op.Sqrt(trace), op.Constant(value=ROW))
    return op.Gather(root, op.Constant(value=TRIANGLE), axis=1)
