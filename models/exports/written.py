"""Graphs as text, for what no PyTorch exporter writes: TensorFlow's habits, Loops of every kind, functions with attributes.

[batch, 8, 4, 5] or [batch, 4, 5, 8] unless it says otherwise. `{…}` in a text is filled in from the pieces below.
"""

import numpy as np
import onnx
import onnx.parser

CHANNELS, HEIGHT, WIDTH = 8, 4, 5


KERNEL = np.round(np.random.default_rng(5).standard_normal((CHANNELS, 3, 1, 1)), 3)
BIAS = np.round(np.linspace(-0.1, 0.3, CHANNELS), 3)


def tensor(kind, name, array):
    """An initializer in ONNX's text format."""
    array = np.asarray(array)
    shape = ",".join(map(str, array.shape))
    entries = ", ".join(str(entry) for entry in array.flatten().tolist())
    return f"{kind}[{shape}] {name} = {{{entries}}}" if array.shape else f"{kind} {name} = {{{entries}}}"


ROWS, COLUMNS = np.triu_indices(CHANNELS)
EYE = tensor("float", "eye", np.eye(CHANNELS))
FLAT = tensor("int64", "flat_index", ROWS * CHANNELS + COLUMNS)
PAIRS = tensor("int64", "pairs", np.stack([ROWS, COLUMNS], axis=1))
NUMBERS = ", ".join(
    [
        tensor("float", "half", 0.5),
        tensor("float", "three", 3.0),
        tensor("float", "positions", 20.0),
        tensor("int64", "axes", [1, 2]),
        tensor("int64", "axis2", [2]),
        tensor("int64", "map_shape", [0, CHANNELS, -1]),
        tensor("int64", "row_shape", [0, CHANNELS * CHANNELS]),
    ]
)

FIRST = """
    x = Reshape (input, map_shape)
    mean = ReduceMean <axes = [2], keepdims = 1> (x)
    centred = Sub (x, mean)
    turned = Transpose <perm = [0, 2, 1]> (centred)
    product = MatMul (centred, turned)
    sigma = Div (product, positions)
    marked = Mul (sigma, eye)
    trace = ReduceSum <keepdims = 1> (marked, axes)
    a = Div (sigma, trace)
    sizes = Shape (a)
    z0 = Expand (eye, sizes)
"""
LAST = """
    length = Sqrt (trace)
    root = Mul (y, length)
    row = Reshape (root, row_shape)
    output = Gather <axis = 1> (row, flat_index)
"""


def graph(
    body, constants=(), functions="", opset=17, source="float[batch,8,4,5] input", target="float[batch,36] output"
):
    """The model around a body."""
    listed = ",\n    ".join([EYE, FLAT, NUMBERS, *constants])
    text = f'<ir_version: 8, opset_import: ["": {opset}, "own.pooling": 1]>\n'
    return text + f"model ({source}) => ({target})\n<{listed}>\n{{{body}}}\n{functions}"


STEP = """
        zy = MatMul (z_in, y_in)
        three_eye = Mul (eye, three)
        difference = Sub (three_eye, zy)
        t = Mul (difference, half)
        y_out = MatMul (y_in, t)
        z_out = MatMul (t, z_in)
"""

COUNT_CONSTANT = graph(
    FIRST
    + f"""
    y, z = Loop <body = steps (int64 k, bool on, float[n,8,8] y_in, float[n,8,8] z_in)
        => (bool still, float[n,8,8] y_out, float[n,8,8] z_out) {{
        still = Identity (on){STEP}
    }}> (count, yes, a, z0)
"""
    + LAST,
    [tensor("int64", "count", 4), "bool yes = {1}"],
)

CONDITION_IN_BODY = graph(
    FIRST
    + f"""
    k_end, y, z = Loop <body = steps (int64 i, bool on, int64 k_in, float[n,8,8] y_in, float[n,8,8] z_in)
        => (bool still, int64 k_out, float[n,8,8] y_out, float[n,8,8] z_out) {{{STEP}
        k_out = Add (k_in, one)
        still = Less (k_out, count)
    }}> (, yes, zero, a, z0)
"""
    + LAST,
    [tensor("int64", "count", 5), tensor("int64", "zero", 0), tensor("int64", "one", 1), "bool yes = {1}"],
)

ALL_ITERATES = graph(
    FIRST
    + f"""
    y_end, z_end, ys = Loop <body = steps (int64 k, bool on, float[n,8,8] y_in, float[n,8,8] z_in)
        => (bool still, float[n,8,8] y_out, float[n,8,8] z_out, float[n,8,8] kept) {{
        still = Identity (on){STEP}
        kept = Identity (y_out)
    }}> (count, yes, a, z0)
    y = Gather <axis = 0> (ys, last)
"""
    + LAST,
    [tensor("int64", "count", 5), tensor("int64", "last", -1), "bool yes = {1}"],
)

AS_LONG_AS_BATCH = graph(
    FIRST
    + f"""
    counted = Shape <start = 0, end = 1> (input)
    count = Squeeze (counted)
    y, z = Loop <body = steps (int64 k, bool on, float[n,8,8] y_in, float[n,8,8] z_in)
        => (bool still, float[n,8,8] y_out, float[n,8,8] z_out) {{
        still = Identity (on){STEP}
    }}> (count, yes, a, z0)
"""
    + LAST,
    ["bool yes = {1}"],
)

SAMPLES_THEN_STEPS = graph(
    """
    x = Reshape (input, map_shape)
    counted = Shape <start = 0, end = 1> (input)
    samples_count = Squeeze (counted)
    total = Loop <body = samples (int64 n, bool on) => (bool still, float[36] one) {
        still = Identity (on)
        sample = Gather <axis = 0> (x, n)
        mean = ReduceMean <axes = [1], keepdims = 1> (sample)
        centred = Sub (sample, mean)
        turned = Transpose <perm = [1, 0]> (centred)
        product = MatMul (centred, turned)
        sigma = Div (product, positions)
        marked = Mul (sigma, eye)
        trace = ReduceSum <keepdims = 0> (marked)
        a = Div (sigma, trace)
        ended, y, z = Loop <body = steps (int64 k, bool go, bool go_in, float[8,8] y_in, float[8,8] z_in)
            => (bool going, bool go_out, float[8,8] y_out, float[8,8] z_out) {
            going = Identity (go)
            go_out = Identity (go_in)
            zy = MatMul (z_in, y_in)
            three_eye = Mul (eye, three)
            difference = Sub (three_eye, zy)
            t = Mul (difference, half)
            y_out = MatMul (y_in, t)
            z_out = MatMul (t, z_in)
        }> (count, yes, yes, a, eye)
        length = Sqrt (trace)
        root = Mul (y, length)
        row = Reshape (root, minus_one)
        one = Gather <axis = 0> (row, flat_index)
    }> (samples_count, yes)
    output = Identity (total)
""",
    [tensor("int64", "count", 5), tensor("int64", "minus_one", [-1]), "bool yes = {1}"],
)

SCAN = graph(
    """
    x = Reshape (input, map_shape)
    output = Scan <num_scan_inputs = 1, body = sample (float[8,20] one) => (float[36] found) {
        mean = ReduceMean <axes = [1], keepdims = 1> (one)
        centred = Sub (one, mean)
        turned = Transpose <perm = [1, 0]> (centred)
        product = MatMul (centred, turned)
        sigma = Div (product, positions)
        marked = Mul (sigma, eye)
        trace = ReduceSum <keepdims = 0> (marked)
        y_in = Div (sigma, trace)
        three_eye = Mul (eye, three)
        first = Sub (three_eye, y_in)
        z1 = Mul (first, half)
        y1 = MatMul (y_in, z1)
        zy = MatMul (z1, y1)
        second = Sub (three_eye, zy)
        t = Mul (second, half)
        y2 = MatMul (y1, t)
        length = Sqrt (trace)
        root = Mul (y2, length)
        row = Reshape (root, minus_one)
        found = Gather <axis = 0> (row, flat_index)
    }> (x)
""",
    [tensor("int64", "minus_one", [-1])],
)

POOL_FUNCTIONS = """
<domain: "own.pooling", opset_import: ["": 17, "own.pooling": 1]>
Step <three> (y_in, z_in, eye) => (y_out, z_out)
{
    factor = Constant <value_float : float = @three> ()
    half = Constant <value_float = 0.5> ()
    zy = MatMul (z_in, y_in)
    three_eye = Mul (eye, factor)
    difference = Sub (three_eye, zy)
    t = Mul (difference, half)
    y_out = MatMul (y_in, t)
    z_out = MatMul (t, z_in)
}
<domain: "own.pooling", opset_import: ["": 17, "own.pooling": 1]>
Pool <epsilon, flattened> (features) => (row)
{
    map_shape = Constant <value_ints = [0, 0, -1]> ()
    x = Reshape (features, map_shape)
    positions_shape = Shape <start = 2, end = 3> (x)
    positions = CastLike (positions_shape, x)
    axes2 = Constant <value_ints = [2]> ()
    axes = Constant <value_ints = [1, 2]> ()
    total = ReduceSum <keepdims = 1> (x, axes2)
    mean = Div (total, positions)
    centred = Sub (x, mean)
    turned = Transpose <perm = [0, 2, 1]> (centred)
    product = MatMul (centred, turned)
    moments = Div (product, positions)
    side = Shape <start = 1, end = 2> (x)
    square = Concat <axis = 0> (side, side)
    nothing = ConstantOfShape (square)
    eye = EyeLike (nothing)
    ridge = Constant <value_float : float = @epsilon> ()
    diagonal = Mul (eye, ridge)
    sigma = Add (moments, diagonal)
    marked = Mul (sigma, eye)
    trace = ReduceSum <keepdims = 1> (marked, axes)
    a = Div (sigma, trace)
    y1, z1 = own.pooling.Step <three = 3.0> (a, eye, eye)
    y2, z2 = own.pooling.Step <three = 3.0> (y1, z1, eye)
    y3, z3 = own.pooling.Step <three = 3.0> (y2, z2, eye)
    length = Sqrt (trace)
    root = Mul (y3, length)
    row = Flatten <axis : int = @flattened> (root)
}
"""

FUNCTION_CALLED_TWICE = graph(
    """
    low, high = Split <axis = 1> (input, parts)
    first = own.pooling.Pool <epsilon = 0.0, flattened = 1> (low)
    second = own.pooling.Pool <epsilon = 0.01, flattened = 1> (high)
    output = Concat <axis = 1> (first, second)
""",
    [tensor("int64", "parts", [3, 5])],
    POOL_FUNCTIONS,
    target="float[batch,34] output",
)

FUNCTION_IN_BRANCH = graph(
    """
    peak = ReduceMax <keepdims = 0> (input)
    floor = Constant <value = float {-1000000.0}> ()
    usual = Greater (peak, floor)
    output = If <
        then_branch = then () => (float[batch,64] pooled) {
            pooled = own.pooling.Pool <epsilon = 0.0, flattened = 1> (input)
        },
        else_branch = otherwise () => (float[batch,64] moments) {
            moments = own.pooling.Pool <epsilon = 0.5, flattened = 1> (input)
        }
    > (usual)
""",
    (),
    POOL_FUNCTIONS,
    target="float[batch,64] output",
)

IF_IN_LOOP = graph(
    """
    x = Reshape (input, map_shape)
    nothing = Constant <value = float {0.0}> ()
    rows = Shape <start = 0, end = 1> (input)
    width = Constant <value_ints = [36]> ()
    start_shape = Concat <axis = 0> (rows, width)
    start = ConstantOfShape (start_shape)
    output = Loop <body = rounds (int64 k, bool on, float[n,36] total) => (bool still, float[n,36] more) {
        still = Identity (on)
        early = Less (k, two)
        part = If <
            then_branch = then () => (float[n,36] pooled) {
                mean = ReduceMean <axes = [2], keepdims = 1> (x)
                centred = Sub (x, mean)
                turned = Transpose <perm = [0, 2, 1]> (centred)
                product = MatMul (centred, turned)
                sigma = Div (product, positions)
                marked = Mul (sigma, eye)
                trace = ReduceSum <keepdims = 1> (marked, axes)
                y0 = Div (sigma, trace)
                three_eye = Mul (eye, three)
                d1 = Sub (three_eye, y0)
                t1 = Mul (d1, half)
                y1 = MatMul (y0, t1)
                zy = MatMul (t1, y1)
                d2 = Sub (three_eye, zy)
                t2 = Mul (d2, half)
                y2 = MatMul (y1, t2)
                length = Sqrt (trace)
                root = Mul (y2, length)
                row = Reshape (root, row_shape)
                pooled = Gather <axis = 1> (row, flat_index)
            },
            else_branch = otherwise () => (float[n,36] same) {
                same = Mul (total, half)
            }
        > (early)
        more = Add (total, part)
    }> (rounds_count, yes, start)
""",
    [tensor("int64", "rounds_count", 3), tensor("int64", "two", 2), "bool yes = {1}"],
)

# What TensorFlow graphs look like once converted: channels last, shapes computed and cast, names forgotten here.
TENSORFLOW = graph(
    """
    raw = Shape (input)
    raw_int = Cast <to = 6> (raw)
    raw_long = Cast <to = 7> (raw_int)
    batch_size = Slice (raw_long, zero1, one1, zero1)
    batch_int = Cast <to = 6> (batch_size)
    batch_long = Cast <to = 7> (batch_int)
    tokens = Concat <axis = 0> (batch_long, minus_one, channels)
    x = Reshape (input, tokens)
    mean = ReduceMean <axes = [1], keepdims = 1> (x)
    centred = Sub (x, mean)
    turned = Transpose <perm = [0, 2, 1]> (centred)
    product = MatMul (turned, centred)
    sigma = Mul (product, share)
    sigma_last = Transpose <perm = [1, 2, 0]> (sigma)
    picked = GatherND <batch_dims = 0> (sigma_last, places)
    summed = ReduceSum <keepdims = 0> (picked, zero1)
    traces = Reshape (summed, column)
    y0 = Div (sigma, traces)
    rows = Shape (y0)
    eyes = Expand (eye, rows)
    three_eyes = Mul (eyes, three)
    d1 = Sub (three_eyes, y0)
    z1 = Mul (d1, half)
    y1 = MatMul (y0, z1)
    p2 = MatMul (z1, y1)
    d2 = Sub (three_eyes, p2)
    t2 = Mul (d2, half)
    y2 = MatMul (y1, t2)
    z2 = MatMul (t2, z1)
    p3 = MatMul (z2, y2)
    d3 = Sub (three_eyes, p3)
    t3 = Mul (d3, half)
    y3 = MatMul (y2, t3)
    length = Sqrt (traces)
    root = Mul (y3, length)
    to_front = Transpose <perm = [1, 2, 0]> (root)
    entries = GatherND (to_front, pairs)
    output = Transpose <perm = [1, 0]> (entries)
""",
    [
        PAIRS,
        tensor("int64", "zero1", [0]),
        tensor("int64", "one1", [1]),
        tensor("int64", "minus_one", [-1]),
        tensor("int64", "channels", [CHANNELS]),
        tensor("int64", "column", [-1, 1, 1]),
        tensor("float", "share", 1 / 20),
        tensor("int64", "places", [[i, i] for i in range(CHANNELS)]),
    ],
    opset=15,
    source="float[unk__6,4,5,8] input",
    target="float[unk__6,36] output",
)

# tf.linalg.band_part and boolean_mask, tf.norm, tf.eye by its shape; the convolution between the usual transposes.
TENSORFLOW_NETWORK = graph(
    """
    to_maps = Transpose <perm = [0, 3, 1, 2]> (input)
    convolved = Conv <kernel_shape = [1, 1], strides = [1, 1]> (to_maps, kernel, bias)
    rectified = Relu (convolved)
    back = Transpose <perm = [0, 2, 3, 1]> (rectified)
    sigma = Einsum <equation = "bijk,bijl->bkl"> (back, back)
    moments = Div (sigma, positions)
    squares = Mul (moments, moments)
    summed = ReduceSum <keepdims = 1> (squares, axes)
    norm = Sqrt (summed)
    y0 = Div (moments, norm)
    nothing = ConstantOfShape (square)
    own_eye = EyeLike <dtype = 1> (nothing)
    three_eye = Mul (own_eye, three)
    d1 = Sub (three_eye, y0)
    z1 = Mul (d1, half)
    y1 = Einsum <equation = "bij,bjk->bik"> (y0, z1)
    p2 = Einsum <equation = "bij,bjk->bik"> (z1, y1)
    d2 = Sub (three_eye, p2)
    t2 = Mul (d2, half)
    y2 = Einsum <equation = "bij,bjk->bik"> (y1, t2)
    length = Sqrt (norm)
    root = Mul (y2, length)
    ones = ConstantOfShape <value = float[1] {1.0}> (square)
    band = Trilu <upper = 1> (ones)
    mask = Cast <to = 9> (band)
    mask_row = Reshape (mask, minus_one)
    found = NonZero (mask_row)
    places = Squeeze (found, zero1)
    row = Reshape (root, row_shape)
    output = Gather <axis = 1> (row, places)
""",
    [
        tensor("int64", "zero1", [0]),
        tensor("int64", "minus_one", [-1]),
        tensor("int64", "square", [CHANNELS, CHANNELS]),
        tensor("float", "kernel", KERNEL),
        tensor("float", "bias", BIAS),
    ],
    source="float[unk__9,4,5,3] input",
    target="float[unk__9,36] output",
)

TENSORFLOW_WHILE = graph(
    """
    x = Reshape (input, tokens)
    mean = ReduceMean <axes = [1], keepdims = 1> (x)
    centred = Sub (x, mean)
    sigma0 = Einsum <equation = "bmi,bmj->bij"> (centred, centred)
    sigma = Div (sigma0, positions)
    traces = Einsum <equation = "bii->b"> (sigma)
    trace = Reshape (traces, column)
    a = Div (sigma, trace)
    sizes = Shape (a)
    z0 = Expand (eye, sizes)
    enter = Less (zero, limit)
    counter, limit_out, y, z = Loop <body = while_body (int64 i, bool on, int32 k_in, int32 limit_in, float[n,8,8] y_in, float[n,8,8] z_in)
        => (bool still, int32 k_out, int32 limit_same, float[n,8,8] y_out, float[n,8,8] z_out) {
        k_out = Add (k_in, one)
        limit_same = Identity (limit_in)
        zy = MatMul (z_in, y_in)
        three_eye = Mul (eye, three)
        difference = Sub (three_eye, zy)
        t = Mul (difference, half)
        y_out = MatMul (y_in, t)
        z_out = MatMul (t, z_in)
        still = Less (k_out, limit_same)
    }> (most, enter, zero, limit, a, z0)
"""
    + LAST,
    [
        tensor("int64", "tokens", [-1, 20, CHANNELS]),
        tensor("int64", "column", [-1, 1, 1]),
        tensor("int32", "zero", 0),
        tensor("int32", "one", 1),
        tensor("int32", "limit", 5),
        tensor("int64", "most", 9223372036854775807),
    ],
    source="float[unk__3,4,5,8] input",
    target="float[unk__3,36] output",
)


def model(text):
    """The model that a text describes, without the constants that it makes no use of."""
    model = onnx.parser.parse_model(text)
    bodies, used = [model.graph], set()
    while bodies:
        for node in bodies.pop().node:
            used.update(node.input)
            bodies.extend(attribute.g for attribute in node.attribute if attribute.HasField("g"))
    kept = [constant for constant in model.graph.initializer if constant.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model
