"""Which styles are made, in which sizes, and through which exporters.

An export is written `EXPORTERopset BATCH`: `ts` is the TorchScript exporter, `dyn` the dynamo exporter, `raw` the same
without its optimizer; `bN` a fixed batch of N, `n` a dynamic batch, `hw` a dynamic batch, height and width.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

import handmade
import layers as l
import parts as p


@dataclass(frozen=True)
class Style:
    """One way to write the layer, or one near miss."""

    name: str
    note: str
    build: Callable[[], nn.Module]
    exports: tuple[str, ...] = ()
    shape: tuple[int, ...] = (12, 5, 6)
    near_miss: bool = False
    """Not an IsqrtCov for any attributes."""
    lost_in_torchscript: bool = False
    images: bool = False
    """The input is an image rather than a feature map."""
    channels_last: bool = False
    sizes_vary: bool = False
    half: bool = False
    """Computes in float16 somewhere."""
    half_input: bool = False
    least_batch: int = 1
    graph: object = None
    """A function of `handmade`, where no exporter is used."""


def composed(name, note, *exports, shape=(12, 5, 6), sizes_vary=False, least_batch=1, **choice):
    """A style put together from parts."""
    return Style(name, note, lambda: l.Layer(**choice), exports, shape, sizes_vary=sizes_vary, least_batch=least_batch)


def near(kind, note, *exports, shape=(12, 5, 6), vectorization=p.upper_by_indices):
    """A near miss."""
    return Style(
        f"near_{kind}",
        "near miss: " + note,
        lambda: l.NearMiss(kind, vectorization, channels=shape[0]),
        exports,
        shape,
        near_miss=True,
    )


STYLES = [
    # Parts
    composed(
        "plain",
        "the paper's equations as they stand",
        "ts11 n",
        "ts17 b2",
        "dyn18 n",
        "dyn23 b1",
        "raw18 n",
        trace=p.trace_by_identity,
    ),
    composed("diagonal", "the trace by diagonal(), of which TorchScript makes an If", "ts13 n", "ts17 b2", "dyn21 n"),
    composed(
        "centering_matrix",
        "centring matrix, identity trace, no wasted product",
        "ts14 n",
        "dyn20 n",
        shape=(16, 7, 7),
        covariance=p.cov_by_centering_matrix,
        trace=p.trace_by_identity,
        iterate=p.iterate_without_waste,
        vectorization=p.upper_by_flat_index,
    ),
    composed(
        "baddbmm",
        "baddbmm for the covariance and for the step",
        "ts11 b2",
        "ts17 n",
        "dyn21 n",
        covariance=p.cov_by_baddbmm,
        trace=p.trace_by_identity,
        iterate=p.iterate_by_baddbmm,
    ),
    composed(
        "einsum",
        "index notation throughout",
        "ts13 n",
        "ts20 b3",
        "dyn18 n",
        "raw23 b2",
        shape=(10, 4, 6),
        covariance=p.cov_by_einsum,
        trace=p.trace_by_einsum,
        iterate=p.iterate_by_einsum,
    ),
    composed(
        "moments",
        "second moments minus means, distributed iteration",
        "ts17 n",
        "dyn18 b2",
        "dyn22 n",
        covariance=p.cov_by_moments,
        iterate=p.iterate_distributed,
        trace=p.trace_by_stride,
    ),
    composed(
        "unbiased_k3",
        "divided by M − 1, three steps, products commuted, .mT",
        "dyn18 n",
        "dyn20 b2",
        covariance=p.cov_unbiased,
        iterate=p.iterate_commuted,
        steps=3,
    ),
    composed(
        "uncoupled",
        "A P_K with the inverse root's own iteration",
        "ts17 n",
        "dyn18 n",
        shape=(8, 5, 5),
        iterate=p.iterate_uncoupled,
        vectorization=p.whole,
    ),
    composed(
        "iteration_per_sample",
        "the iteration in a Python loop over a fixed batch",
        "ts13 b3",
        "dyn18 b2",
        shape=(8, 5, 5),
        iterate=p.iterate_per_sample,
    ),
    composed(
        "stacked_factors",
        "both factors stacked and multiplied at once, covariance in chunks",
        "ts17 b2",
        "dyn18 n",
        covariance=p.cov_in_chunks,
        iterate=p.iterate_inverse_scaled,
    ),
    composed(
        "torch_cov", "a torch.cov on each sample", "ts17 b2", "dyn18 b3", shape=(9, 4, 5), covariance=p.cov_like_torch
    ),
    composed(
        "vmapped_cov",
        "a torch.cov mapped over the batch (unbiased)",
        "dyn18 n",
        shape=(9, 4, 5),
        covariance=p.cov_vmapped,
        least_batch=2,
    ),
    composed(
        "trace_by_roots",
        "trace as the squared length of the deviations, features scaled by 1/√M",
        "ts13 n",
        "dyn18 n",
        covariance=p.cov_by_scaled_features,
        trace=p.trace_by_square_roots,
    ),
    composed("k1", "one step", "ts17 n", "dyn18 n", steps=1),
    composed("k2", "two steps", "ts13 b2", "dyn18 n", steps=2, iterate=p.iterate_without_waste),
    composed(
        "k7", "seven steps", "ts11 n", "dyn18 b2", steps=7, iterate=p.iterate_distributed, trace=p.trace_by_identity
    ),
    composed("frobenius", "Frobenius norm in place of the trace", "ts17 n", "dyn18 n", trace=p.frobenius),
    composed(
        "frobenius_written_out",
        "Frobenius norm written out, not compensated, flattened",
        "ts13 n",
        "dyn21 b2",
        trace=p.frobenius_by_squares,
        compensated=False,
        vectorization=p.flattened,
    ),
    composed("uncompensated", "no post-compensation", "ts17 n", "dyn18 n", compensated=False),
    composed(
        "bilinear_root",
        "not centred, ε = 1e-3 on the diagonal",
        "ts13 n",
        "dyn18 n",
        covariance=p.second_moment,
        epsilon=1e-3,
    ),
    composed("epsilon", "ε = 1e-2 on the diagonal, centred", "ts17 b2", "dyn18 n", epsilon=1e-2),
    composed(
        "dynamic_sizes",
        "height and width dynamic as well",
        "ts17 hw",
        "dyn18 hw",
        shape=(8, 6, 7),
        sizes_vary=True,
        least_batch=2,
    ),
    composed("few_positions", "M < C", "ts17 n", "dyn18 n", shape=(24, 4, 5), covariance=p.cov_by_centering_matrix),
    composed("sequence", "one spatial axis", "ts17 n", "dyn18 n", shape=(10, 30)),
    composed("volume", "three spatial axes", "ts13 n", "dyn18 n", shape=(8, 3, 4, 4)),
    # Triangles
    composed(
        "flat_mask",
        "a boolean mask over the flattened matrix",
        "ts14 n",
        "ts17 b2",
        "dyn18 n",
        vectorization=p.upper_by_flat_mask,
    ),
    composed("mask", "a boolean mask", "dyn18 b2", "dyn23 n", vectorization=p.upper_by_mask, least_batch=2),
    composed(
        "masked_select",
        "masked_select",
        "ts14 b2",
        "ts17 n",
        vectorization=p.upper_by_masked_select,
        trace=p.trace_by_identity,
        shape=(10, 5, 5),
    ),
    composed("triu_indices", "triu_indices in the graph", "dyn18 n", "raw18 n", vectorization=p.upper_by_triu_indices),
    composed("row_slices", "rows sliced and concatenated", "ts13 b2", "dyn18 n", vectorization=p.upper_by_rows),
    composed("gather", "gather with an index for every sample", "ts17 n", "dyn18 n", vectorization=p.upper_by_gather),
    composed(
        "lower_by_columns",
        "the lower triangle column by column",
        "ts17 n",
        "dyn18 n",
        vectorization=p.upper_by_columns_of_lower,
    ),
    composed(
        "column_major",
        "the upper triangle column by column",
        "ts14 b2",
        "dyn18 n",
        vectorization=p.column_major_by_transposed_mask,
        covariance=p.cov_by_centering_matrix,
    ),
    composed("lower_by_rows", "the lower triangle row by row", "ts17 n", "dyn18 b2", vectorization=p.lower_by_rows),
    composed(
        "lower_by_indices",
        "tril_indices",
        "ts11 n",
        "dyn20 n",
        vectorization=p.lower_by_indices,
        trace=p.trace_by_stride,
    ),
    composed("lower_by_mask", "a boolean mask over tril", "dyn18 b2", "dyn20 n", vectorization=p.lower_by_mask),
    composed("isometric", "off-diagonal entries times √2", "ts17 n", "dyn18 n", vectorization=p.upper_isometric),
    composed(
        "isometric_afterwards",
        "the finished triangle weighed with 1 and √2",
        "ts13 n",
        "dyn18 n",
        vectorization=p.upper_isometric_afterwards,
    ),
    Style(
        "strict_triangle",
        "the triangle without its diagonal after the root",
        lambda: l.StrictTriangle(l.Layer(vectorization=p.whole)),
        ("ts17 n", "dyn18 n"),
    ),
    # Forms of their own
    Style(
        "buffers",
        "buffers for identity, centring matrix, triangle",
        lambda: l.WithBuffers(12, 30),
        ("ts11 n", "ts17 b2", "dyn18 n"),
    ),
    Style(
        "per_sample",
        "everything in a Python loop over a fixed batch",
        lambda: l.PerSample(),
        ("ts14 b2", "ts17 b3", "dyn18 b2"),
        (8, 5, 5),
    ),
    Style("gram", "the iteration on the Gram matrix", lambda: l.Gram(), ("ts17 n", "dyn18 n"), (24, 4, 5)),
    Style(
        "in_place",
        "in-place writes in an autograd function, as published code does",
        lambda: l.InPlace(12),
        ("ts11 n", "ts13 b2", "ts17 n", "ts17 b2", "dyn18 n", "raw18 b2"),
        lost_in_torchscript=True,
    ),
    Style(
        "in_place_k3_column_major",
        "the same with three steps and the column-major triangle",
        lambda: l.InPlace(16, steps=3, column_major=True),
        ("ts17 n", "dyn18 n"),
        (16, 7, 7),
        lost_in_torchscript=True,
    ),
    Style(
        "in_place_triangle",
        "the triangle written in place as well",
        lambda: l.InPlace(10, buffered_triangle=True),
        ("ts13 n", "ts17 b2", "dyn18 n"),
        (10, 5, 5),
        lost_in_torchscript=True,
    ),
    Style(
        "in_place_unwrapped",
        "the same writes outside an autograd function",
        lambda: l.InPlaceUnwrapped(),
        ("ts17 b2", "dyn18 n"),
    ),
    Style(
        "scripted_loop",
        "the iteration scripted with a run-time count: a Loop",
        lambda: l.ScriptedIteration(),
        ("ts13 b2", "ts17 n"),
    ),
    Style("while_loop", "the iteration as a while_loop: a Loop", lambda: l.WhileLoop(), ("dyn18 b2", "dyn18 n")),
    # Precision
    Style(
        "float64_inside",
        "float64 between casts",
        lambda: l.InPrecision(l.Layer(trace=p.trace_by_identity), torch.float64),
        ("ts17 n", "dyn18 n"),
    ),
    Style(
        "float16_inside",
        "float16 between casts",
        lambda: l.InPrecision(l.Layer(p.cov_by_scaled_features, p.trace_by_identity), torch.float16),
        ("ts17 n", "dyn18 n"),
        half=True,
    ),
    Style(
        "float16_network",
        "float16 from input to output",
        lambda: l.InPrecision(l.Layer(p.cov_by_scaled_features, p.trace_by_identity), torch.float16, back=False),
        ("ts17 b2", "dyn18 n"),
        half=True,
        half_input=True,
    ),
    Style(
        "float16_products",
        "products in float16, the rest in float32",
        lambda: l.HalfProducts(),
        ("ts17 n", "dyn18 n"),
        half=True,
    ),
    # Networks
    Style(
        "network",
        "convolution, the layer, a linear classifier",
        lambda: l.Network(l.Layer(p.cov_by_centering_matrix, p.trace_by_identity), 10, 55),
        ("ts11 n", "ts17 n", "dyn18 n", "dyn23 n"),
        (3, 6, 6),
        images=True,
    ),
    Style(
        "network_in_place",
        "the same with the published style of layer",
        lambda: l.Network(l.InPlace(10), 10, 55),
        ("ts17 n", "dyn18 n"),
        (3, 6, 6),
        images=True,
        lost_in_torchscript=True,
    ),
    Style(
        "normalised",
        "signed square root and L2 normalisation after the layer",
        lambda: l.Normalised(l.Layer(iterate=p.iterate_without_waste)),
        ("ts13 n", "dyn18 n"),
    ),
    Style(
        "halves",
        "two layers, one on each half of the channels",
        lambda: l.Halves(l.Layer(trace=p.trace_by_identity), l.Layer(trace=p.trace_by_stride, steps=3)),
        ("ts17 n", "dyn18 n"),
        (16, 5, 6),
    ),
    Style(
        "halves_unlike",
        "a layer on one half, a plain covariance on the other",
        lambda: l.Halves(l.Layer(vectorization=p.upper_by_rows), l.Covariance(vectorization=p.upper_by_indices)),
        ("ts13 b2", "dyn18 n"),
        (16, 5, 6),
    ),
    Style(
        "second_order_attention",
        "channel attention on the whole root",
        lambda: l.SecondOrderAttention(
            l.Layer(p.cov_by_centering_matrix, p.trace_by_identity, vectorization=p.whole), 12
        ),
        ("ts11 n", "ts17 b2", "dyn18 n"),
    ),
    Style(
        "second_order_attention_baddbmm",
        "the same with a root by baddbmm",
        lambda: l.SecondOrderAttention(l.Layer(vectorization=p.whole, iterate=p.iterate_by_baddbmm), 12),
        ("ts17 n", "dyn21 n"),
    ),
    Style(
        "covariance_attention",
        "channel attention on the plain covariance",
        lambda: l.CovarianceAttention(l.Covariance(), 16, 8),
        ("ts13 n", "dyn18 n"),
        (16, 5, 5),
    ),
    Style(
        "covariance_attention_centering_matrix",
        "the same, centred by a matrix",
        lambda: l.CovarianceAttention(l.Covariance(p.cov_by_centering_matrix), 16, 8),
        ("ts17 b2", "dyn18 n"),
        (16, 5, 5),
    ),
    Style(
        "bilinear",
        "bilinear pooling: the second moment, flattened",
        lambda: l.Covariance(p.second_moment, p.flattened),
        ("ts17 n", "dyn18 n"),
    ),
    Style(
        "smoothed",
        "the map smoothed by average pooling, then the layer",
        lambda: nn.Sequential(nn.AvgPool2d(3, stride=1, padding=1), l.Layer()),
        ("ts17 n", "dyn18 n"),
    ),
    Style("with_mean", "first-order features beside the layer", lambda: l.WithMean(l.Layer()), ("ts17 n", "dyn18 n")),
    Style("shared_trace", "the trace is read outside the layer, too", lambda: l.SharedTrace(), ("ts17 n", "dyn18 n")),
    Style(
        "tokens",
        "tokens [N, M, C]",
        lambda: l.Layer(tokens=True),
        ("ts17 n", "dyn18 n"),
        (30, 12),
        channels_last=True,
    ),
    Style(
        "class_token",
        "tokens with the class token set aside",
        lambda: l.ClassToken(l.Layer(tokens=True, iterate=p.iterate_commuted)),
        ("ts13 n", "dyn18 n"),
        (26, 10),
        channels_last=True,
    ),
    Style(
        "channels_last_maps",
        "maps [N, H, W, C]",
        lambda: l.Layer(tokens=True, vectorization=p.lower_by_rows),
        ("ts17 n", "dyn18 n"),
        (5, 6, 12),
        channels_last=True,
    ),
    Style(
        "choice",
        "the layer in one branch of a condition",
        lambda: l.Choice(l.Layer(), 78),
        ("dyn18 b2", "dyn18 n"),
    ),
    # Near misses
    near("wrong_coefficient", "½(2.9I − ZY)", "ts17 n", "dyn18 n"),
    near("nearly_right_coefficient", "½(2.997I − ZY)", "ts13 n", "dyn18 n"),
    near("damped", "0.45(3I − ZY)", "dyn18 n"),
    near("inverse_root", "Z_K/√t", "ts17 n", "dyn18 n", vectorization=p.whole),
    near("root_and_inverse", "√t Y_K + Z_K/√t", "dyn18 n"),
    near("square", "t Y_K²", "ts17 n"),
    near("other_trace", "the trace of the uncentred second moment", "ts17 n", "dyn18 n"),
    near("largest_entry", "divided by the largest entry", "ts13 n", "dyn18 n"),
    near("compensated_by_trace", "t in place of √t", "ts17 n", "dyn18 n"),
    near("compensated_by_frobenius", "√‖Σ‖_F after division by the trace", "dyn18 n"),
    near("learned_scale", "a learned factor before the iteration", "ts17 n", "dyn18 n"),
    near("learned_diagonal", "learned channel weights before the iteration", "ts17 b2", "dyn18 n"),
    near("softmax", "softmax of the covariance's rows", "ts13 n", "dyn18 n"),
    near("correlation", "correlation in place of covariance", "ts17 n", "dyn18 n"),
    near("relative_epsilon", "ε relative to the trace", "dyn18 n"),
    near("epsilon_after_normalisation", "ε added to A instead of Σ", "ts17 n"),
    near("updated_too_early", "Z ← TZ with the next T", "ts17 n", "dyn18 n"),
    near("rectified", "negative entries of Y cut off at each step", "dyn18 n"),
    near("across_batch", "one covariance for the batch: the layer for a batch of one only", "ts17 n", "dyn18 n"),
    near("weighted_positions", "positions weighed by a softmax", "ts17 n"),
    near("rows_centred", "centred over the channels (of the centred map, an IsqrtCov that is not centred)", "dyn18 n"),
    near("centred_by_half_maximum", "half of each row's maximum taken out (as rows_centred)", "ts17 n"),
    near("across_halves", "one half of the positions against the other", "dyn18 n"),
]


def written(name, note, graph, near_miss=False, shape=None, channels_last=False, **choice):
    """A graph of `handmade` and the module that says what it computes."""
    shape = shape or (handmade.CHANNELS, handmade.HEIGHT, handmade.WIDTH)
    return Style(name, note, lambda: l.Layer(**choice), (), shape, near_miss, channels_last=channels_last, graph=graph)


HANDMADE = [
    written(
        "handmade_nhwc",
        "channels last, as TensorFlow writes it; three steps",
        handmade.nhwc,
        shape=(handmade.HEIGHT, handmade.WIDTH, handmade.CHANNELS),
        channels_last=True,
        tokens=True,
        steps=3,
    ),
    written("handmade_loop", "the iteration a Loop", handmade.loop),
    written("handmade_functions", "each step a call of a model function", handmade.functions),
    written(
        "near_loop_until_settled",
        "near miss: as many steps as the data need",
        handmade.loop_until_settled,
        near_miss=True,
    ),
]

REWRITES = {
    "plain_ts17_b2": ("function", "inif", "onnxsim", "onnxslim", "ortbasic", "ortextended"),
    "plain_dyn23_b1": ("inloop",),
    "plain_dyn18_n": ("function", "onnxsim", "onnxslim", "ortbasic", "ortextended"),
    "centering_matrix_ts14_n": ("onnxsim", "ortbasic"),
    "baddbmm_ts17_n": ("onnxslim", "ortbasic"),
    "network_ts17_n": ("onnxsim", "onnxslim", "ortbasic", "ortextended"),
    "network_dyn18_n": ("inif", "onnxsim", "ortbasic"),
    "in_place_dyn18_n": ("onnxsim", "ortbasic"),
    "in_place_ts17_n": ("onnxsim", "onnxslim", "ortbasic"),
    "in_place_unwrapped_ts17_b2": ("onnxsim", "onnxslim", "ortbasic"),
    "halves_ts17_n": ("onnxslim", "inif"),
    "second_order_attention_ts17_b2": ("onnxsim", "ortextended"),
    "near_inverse_root_dyn18_n": ("onnxsim", "ortbasic"),
    "near_wrong_coefficient_ts17_n": ("onnxslim",),
}
