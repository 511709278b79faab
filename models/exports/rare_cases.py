"""Styles that one meets less often, their sizes and exports, as in `cases`."""

import torch
from torch import nn

import layers as l
import parts as p
import rare_layers as m
import rare_parts as q
import scripted as s
import written as w
from cases import Style, composed


def style(name, note, build, *exports, shape=(12, 5, 6), **choice):
    """A style with a module of its own."""
    return Style(name, note, build, exports, shape, **choice)


def near(kind, note, *exports):
    """A near miss of `rare_layers`."""
    return Style(f"near_{kind}", "near miss: " + note, lambda: m.Near(kind), exports, near_miss=True)


def layer(**choice):
    """A layer whose trace exports well everywhere."""
    return l.Layer(**{"trace": p.trace_by_identity, **choice})


STYLES = [
    # Parts
    composed(
        "pooled_mean",
        "centred by global average pooling",
        "dyn18 n",
        covariance=q.cov_by_pooled_mean,
        trace=q.trace_by_mask,
    ),
    composed(
        "column_of_ones",
        "the mean as a product, the trace too",
        "dyn22 b2",
        covariance=q.cov_by_column_of_ones,
        trace=q.trace_by_product,
    ),
    composed(
        "outer_products",
        "outer products averaged, no matrix product",
        "ts17 b2",
        "dyn18 n",
        shape=(6, 4, 4),
        covariance=q.cov_by_outer_products,
        trace=q.trace_by_indices,
    ),
    composed(
        "four_axes",
        "[N, 1, C, M] and [N, 1, C, C] throughout",
        "ts14 n",
        "dyn18 n",
        covariance=q.cov_in_four_axes,
        iterate=q.iterate_in_four_axes,
        trace=p.trace_by_identity,
    ),
    style(
        "scaled_to_unbiased",
        "divided by M, times M/(M − 1)",
        lambda: m.said(layer(covariance=q.cov_scaled_to_unbiased), correction=1),
        "ts13 b2",
        "dyn18 n",
    ),
    composed(
        "centred_afterwards",
        "moments about the first position, moved to the mean",
        "ts17 n",
        covariance=q.cov_centred_afterwards,
        trace=q.trace_by_product,
    ),
    composed(
        "centred_twice",
        "both factors centred, one of them twice",
        "ts11 n",
        "dyn18 b2",
        covariance=q.cov_centred_twice,
        trace=p.trace_by_identity,
    ),
    composed(
        "double_covariance",
        "the covariance alone in float64",
        "ts17 n",
        "dyn18 n",
        covariance=q.cov_double_only,
        trace=p.trace_by_identity,
    ),
    composed(
        "double_iteration",
        "the iteration alone in float64",
        "ts13 n",
        "dyn23 n",
        iterate=q.iterate_double_only,
        trace=p.trace_by_identity,
    ),
    composed("mean_of_diagonal", "C times the diagonal's mean", "dyn18 n", trace=q.trace_by_mean),
    composed(
        "trace_entry_by_entry",
        "the trace added up entry by entry, sample by sample",
        "ts13 b2",
        "dyn18 b2",
        shape=(6, 4, 5),
        trace=q.trace_per_sample,
    ),
    style(
        "frobenius_by_trace",
        "√tr ΣΣᵀ",
        lambda: m.said(l.Layer(trace=q.frobenius_by_trace), normalization="frobenius"),
        "dyn18 n",
    ),
    style(
        "frobenius_by_norm",
        "torch.norm of the flattened matrix, K = 8",
        lambda: m.said(l.Layer(trace=q.frobenius_by_norm, steps=8), normalization="frobenius"),
        "ts13 n",
        "dyn18 n",
    ),
    composed(
        "half_outside",
        "½Y(3I − ZY) at the end, K = 4",
        "ts11 n",
        "dyn18 n",
        iterate=q.iterate_half_outside,
        trace=p.trace_by_identity,
        steps=4,
    ),
    composed(
        "sign_function",
        "the sign function of a block matrix",
        "ts17 n",
        "dyn18 n",
        shape=(8, 5, 5),
        iterate=q.iterate_by_sign,
        trace=p.trace_by_identity,
    ),
    composed(
        "on_diagonal",
        "3/2 added to the diagonal alone",
        "dyn18 b2",
        "dyn18 n",
        shape=(8, 5, 5),
        iterate=q.iterate_on_diagonal,
        trace=p.trace_by_identity,
    ),
    composed(
        "sub_alpha",
        "sub with a factor, identity by comparison",
        "dyn19 n",
        iterate=q.iterate_by_sub_alpha,
        trace=p.trace_by_identity,
    ),
    composed(
        "keeping_all",
        "every iterate kept, stacked, the last one taken",
        "dyn18 n",
        iterate=q.iterate_keeping_all,
        trace=p.trace_by_identity,
    ),
    composed(
        "symmetrized",
        "made symmetric after each step",
        "ts17 n",
        "dyn18 n",
        iterate=q.iterate_symmetrized,
        trace=p.trace_by_identity,
    ),
    composed(
        "recursive",
        "recursion, baddbmm",
        "ts16 n",
        iterate=q.iterate_recursively,
        trace=p.trace_by_identity,
    ),
    composed(
        "row_times_column",
        "products by broadcasting and summing",
        "dyn18 n",
        shape=(6, 4, 4),
        iterate=q.iterate_by_lists,
        trace=p.trace_by_identity,
        steps=3,
    ),
    composed(
        "powers_of_two",
        "factors of two taken out at the end",
        "ts17 n",
        iterate=q.iterate_unnormalized,
        trace=p.trace_by_identity,
    ),
    composed(
        "k6_uncoupled",
        "six steps of the inverse root's iteration",
        "dyn18 n",
        shape=(8, 5, 5),
        iterate=p.iterate_uncoupled,
        trace=p.trace_by_identity,
        steps=6,
    ),
    composed("k9", "nine steps", "ts17 n", shape=(10, 5, 5), trace=p.trace_by_identity, steps=9),
    composed(
        "k12",
        "twelve steps",
        "ts13 n",
        "dyn18 b2",
        shape=(10, 5, 5),
        iterate=p.iterate_without_waste,
        trace=p.trace_by_identity,
        steps=12,
    ),
    composed("epsilon_3e4", "ε = 3e-4", "ts17 n", "dyn18 n", trace=p.trace_by_identity, epsilon=3e-4),
    composed(
        "epsilon_7e6",
        "ε = 7e-6, not centred, few positions",
        "ts13 n",
        "dyn18 n",
        shape=(12, 3, 3),
        covariance=p.second_moment,
        trace=p.trace_by_identity,
        epsilon=7e-6,
    ),
    composed("epsilon_half", "ε = 0.5", "ts17 b2", "dyn18 n", trace=q.trace_by_indices, epsilon=0.5),
    composed(
        "all_at_once",
        "not centred, ε, Frobenius norm, K = 2, √2, not compensated",
        "dyn18 n",
        covariance=p.second_moment,
        trace=p.frobenius_by_squares,
        steps=2,
        epsilon=2e-2,
        vectorization=p.upper_isometric,
        compensated=False,
    ),
    style(
        "unbiased_frobenius_lower",
        "M − 1, Frobenius norm, lower triangle with √2, K = 3",
        lambda: m.said(
            l.Layer(p.cov_unbiased, p.frobenius, q.iterate_half_outside, q.lower_isometric, steps=3),
            vectorization="upper_column_major",
            off_diagonal_scale=2.0**0.5,
        ),
        "dyn18 n",
    ),
    style(
        "scatter_uncompensated",
        "not divided by M, which the normalisation hides",
        lambda: layer(covariance=q.scatter, compensated=False),
        "dyn18 n",
    ),
    # Sizes
    style(
        "large_map",
        "C = 256, a fixed batch, a share of the triangle",
        lambda: m.Then(layer(iterate=p.iterate_without_waste, vectorization=p.whole), after=lambda y: y.mean(1)),
        "ts17 b1",
        "dyn18 b1",
        shape=(256, 3, 4),
    ),
    style(
        "large_tokens",
        "C = 200, [N, C, M], the batch dynamic, column means",
        lambda: m.Then(
            layer(covariance=p.cov_by_baddbmm, iterate=p.iterate_by_baddbmm, vectorization=p.whole),
            after=lambda y: y.mean(2),
        ),
        "ts17 n",
        "dyn18 n",
        shape=(200, 10),
    ),
    style(
        "large_triangle",
        "C = 128, the batch dynamic, every 97th entry of the triangle",
        lambda: m.Then(
            l.Layer(iterate=q.iterate_half_outside, vectorization=p.upper_by_triu_indices), after=lambda y: y[:, ::97]
        ),
        "raw18 n",
        shape=(128, 3, 4),
    ),
    composed(
        "one_position_more",
        "M = C + 1, K = 3",
        "ts17 n",
        shape=(10, 11),
        covariance=p.cov_by_centering_matrix,
        trace=p.trace_by_identity,
        steps=3,
    ),
    style(
        "small_root",
        "M < C, not centred: the Gram matrix's inverse root between the features",
        lambda: m.SmallRoot(),
        "ts17 n",
        "dyn18 n",
        shape=(20, 3, 3),
    ),
    composed("two_channels", "C = 2", "ts17 n", shape=(2, 4, 4), trace=p.trace_by_identity),
    # Triangles
    composed(
        "selection_matrix",
        "the triangle by a product with zeros and ones",
        "ts17 n",
        shape=(7, 4, 5),
        trace=p.trace_by_identity,
        vectorization=q.upper_by_selection,
    ),
    composed(
        "rows_written",
        "each row written into a buffer",
        "dyn18 n",
        shape=(7, 4, 5),
        trace=p.trace_by_identity,
        vectorization=q.upper_by_writing,
    ),
    composed(
        "as_column",
        "[N, C(C+1)/2, 1], flattened",
        "ts11 n",
        "dyn18 n",
        covariance=p.cov_by_centering_matrix,
        trace=p.trace_by_identity,
        vectorization=q.upper_as_column,
    ),
    composed(
        "turned_rows",
        "rows turned around twice",
        "ts17 n",
        shape=(7, 4, 5),
        trace=p.trace_by_identity,
        vectorization=q.upper_by_shifted_rows,
    ),
    style(
        "lower_of_transposed",
        "tril of the transposed matrix",
        lambda: m.said(layer(vectorization=q.lower_of_transposed), vectorization="upper_column_major"),
        "ts17 n",
        "dyn18 n",
    ),
    style(
        "isometric_lower",
        "tril with √2",
        lambda: m.said(
            layer(vectorization=q.lower_isometric), vectorization="upper_column_major", off_diagonal_scale=2.0**0.5
        ),
        "dyn18 n",
    ),
    style(
        "isometric_by_diagonal",
        "all times √2, the diagonal divided by it, a mask",
        lambda: m.said(layer(vectorization=q.isometric_by_diagonal), off_diagonal_scale=2.0**0.5),
        "dyn18 n",
        least_batch=2,
    ),
    style(
        "isometric_by_sum",
        "diagonal plus √2 times the strict triangle",
        lambda: m.said(layer(vectorization=q.isometric_by_sum), off_diagonal_scale=2.0**0.5),
        "ts17 n",
        "dyn18 n",
    ),
    style(
        "doubled",
        "off-diagonal entries counted twice",
        lambda: m.said(layer(vectorization=q.doubled), off_diagonal_scale=2.0),
        "ts17 n",
    ),
    style(
        "by_diagonals",
        "diagonal after diagonal: the root can be replaced",
        lambda: m.Then(layer(vectorization=p.whole), after=q.by_diagonals),
        "dyn18 n",
        shape=(8, 4, 5),
    ),
    style(
        "backwards",
        "the triangle backwards",
        lambda: m.Then(layer(vectorization=p.whole), after=q.backwards),
        "ts17 n",
    ),
    style(
        "anti_triangle",
        "the triangle above the other diagonal",
        lambda: m.Then(layer(vectorization=p.whole), after=q.anti_triangle),
        "dyn18 n",
    ),
    style(
        "diagonal_then_rest",
        "diagonal first, then √2 times the strict triangle",
        lambda: m.Then(layer(vectorization=p.whole), after=q.diagonal_then_rest),
        "dyn18 n",
    ),
    style(
        "zeros_below",
        "zeros below the diagonal, still a matrix",
        lambda: m.Then(layer(vectorization=p.whole), after=q.triangular),
        "ts17 n",
    ),
    style(
        "zigzag",
        "every other row backwards",
        lambda: m.Then(layer(vectorization=p.whole), after=q.zigzag),
        "ts17 n",
        shape=(7, 4, 5),
    ),
    # Around the layer
    style(
        "unsqueezed",
        "features transposed before, [N, 1, …, 1] after",
        lambda: m.Then(
            layer(), lambda x: x.permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1), lambda y: y[:, None, :, None]
        ),
        "dyn18 n",
    ),
    style(
        "rectified_before",
        "relu6 and a scale before, flatten after",
        lambda: m.Then(
            layer(iterate=q.iterate_half_outside), lambda x: nn.functional.relu6(x * 0.7 + 0.1), lambda y: y.flatten(1)
        ),
        "ts13 n",
    ),
    style(
        "signed_root_after",
        "sign · √|·| and the L2 norm written out",
        lambda: m.Then(
            layer(),
            after=lambda y: (lambda v: v / v.pow(2).sum(1, keepdim=True).sqrt().clamp(min=1e-12))(
                y.sign() * y.abs().sqrt()
            ),
        ),
        "ts17 n",
    ),
    style(
        "isometric_normalised",
        "√2, signed square root, normalize",
        lambda: l.Normalised(l.Layer(trace=p.trace_by_identity, vectorization=p.upper_isometric)),
        "dyn18 n",
    ),
    style(
        "depths",
        "three layers at three depths, convolutions between",
        lambda: m.Depths(),
        "ts17 n",
        "dyn18 n",
        "dyn18 b1",
        shape=(3, 8, 8),
        images=True,
    ),
    style(
        "residual",
        "a bottleneck before, two linear layers after",
        lambda: m.Residual(),
        "ts11 n",
        "ts17 b1",
        "dyn18 n",
        "dyn23 b1",
        shape=(3, 6, 6),
        images=True,
    ),
    style("two_heads", "one covariance, two roots", lambda: m.TwoHeads(), "ts17 n", "dyn18 n"),
    style(
        "several",
        "three settings on the same map",
        lambda: m.Several(
            layer(), layer(covariance=p.second_moment, steps=3), layer(vectorization=p.whole, compensated=False)
        ),
        "ts17 n",
        "dyn18 n",
    ),
    style("also_covariance", "the covariance a second output", lambda: m.AlsoCovariance(), "ts17 n", "dyn18 n"),
    style("also_matrix", "triangle and whole root both outputs", lambda: m.AlsoMatrix(), "ts17 n", "dyn18 n"),
    style("auxiliary", "the layer's output classified and given out", lambda: m.Auxiliary(), "dyn18 n"),
    style(
        "two_maps",
        "two maps concatenated and permuted",
        lambda: m.TwoMaps(layer(iterate=p.iterate_commuted)),
        "ts17 n",
        shape=(3, 6, 6),
        images=True,
    ),
    style(
        "homogeneous", "a row of ones below the features", lambda: m.Homogeneous(), "ts17 n", "dyn18 n", shape=(7, 5, 5)
    ),
    style(
        "layer_of_layer",
        "the layer's whole root pooled by another layer",
        lambda: nn.Sequential(layer(vectorization=p.whole), layer(steps=3)),
        "ts17 n",
        shape=(8, 5, 5),
    ),
    style(
        "cropped_attention",
        "second-order attention, cropped to the center",
        lambda: m.Cropped(12, 5),
        "ts13 n",
        "ts17 b2",
        "dyn18 n",
        shape=(12, 7, 8),
    ),
    style(
        "position_attention",
        "GSoP over positions",
        lambda: m.PositionAttention(8),
        "ts17 n",
        "dyn18 n",
        shape=(8, 8, 8),
    ),
    style(
        "covariance_attention_4d",
        "GSoP with [N, 1, C, M]",
        lambda: l.CovarianceAttention(l.Covariance(q.cov_in_four_axes), 16, 8),
        "ts17 n",
        shape=(16, 5, 5),
    ),
    style(
        "bilinear_network",
        "BCNN with signed square root",
        lambda: m.Bilinear(3, 8),
        "ts17 n",
        "dyn18 n",
        shape=(3, 6, 6),
        images=True,
    ),
    style(
        "heads",
        "tokens [N, heads, M, C], heads moved into the batch",
        lambda: m.Heads(2, 45),
        "ts17 n",
        "dyn18 n",
        shape=(2, 20, 9),
        channels_last=True,
    ),
    style(
        "heads_apart",
        "tokens by heads with five axes (debatable: may be left)",
        lambda: m.HeadsApart(2),
        "ts17 n",
        "dyn18 n",
        shape=(20, 12),
        channels_last=True,
    ),
    style(
        "transformer",
        "self-attention, then the tokens' root",
        lambda: m.TransformerPool(10),
        "ts17 n",
        "dyn18 n",
        shape=(18, 10),
        channels_last=True,
    ),
    style("buffered_scalars", "½, 3, M − 1 and ε as tensors of the model", lambda: m.Buffered(12, 30), "dyn18 n"),
    style(
        "bfloat16_around",
        "rounded to bfloat16 before and after",
        lambda: m.Bfloat16Around(layer()),
        "dyn18 n",
        half=True,
    ),
    # Control flow
    style(
        "wholly_scripted",
        "all in TorchScript, K = 4",
        lambda: s.Scripted(s.WhollyScripted(4), m.isqrt(iterations=4)),
        "ts14 n",
        "ts17 b2",
    ),
    style("scripted_while", "a while on a counter", lambda: s.Scripted(s.CountedByData(5), m.isqrt()), "ts17 n"),
    style(
        "scripted_samples",
        "a loop over the batch that collects matrices in a sequence",
        lambda: s.Scripted(s.EachSample(), m.isqrt()),
        "ts14 n",
        "ts17 b2",
        shape=(8, 4, 5),
    ),
    style(
        "scripted_batches_of_one",
        "the same, every sample a batch of one, K = 3",
        lambda: s.Scripted(s.EachSampleBatched(), m.isqrt(iterations=3)),
        "ts17 n",
        shape=(8, 4, 5),
    ),
    style(
        "scripted_by_shape",
        "an If on the shape, which decides it (the branch never taken may be left)",
        lambda: s.Scripted(s.ByShape(), m.isqrt(), alternatives=[[m.isqrt(), m.isqrt(iterations=2)]]),
        "ts17 b2",
        "ts17 n",
    ),
    style(
        "scripted_by_data",
        "two layers, chosen by the data",
        lambda: s.Scripted(s.ByData(), m.isqrt(), m.isqrt(iterations=3)),
        "ts17 n",
        "ts14 b2",
    ),
    style(
        "scripted_flag", "behind a flag that the model sets", lambda: s.Scripted(s.OnlyIfWanted(), m.isqrt()), "ts17 n"
    ),
    style("branches", "cond with a layer in each branch", lambda: s.Branches(), "dyn18 n", "dyn18 b2"),
    style("branches_nested", "a cond in a branch of a cond", lambda: s.Branches(nested=True), "dyn18 n"),
    style("pooled_in_while", "while_loop with the layer in its body", lambda: s.While(), "dyn18 b2"),
    style("scanned", "scan over the batch", lambda: s.Scanned(), "dyn18 n", "dyn18 b3", shape=(8, 4, 5)),
    # Near misses
    near("correction_two", "divided by M − 2", "ts17 n"),
    near("scatter", "not divided by M (debatable: √M times the layer)", "ts17 n", "dyn18 n"),
    near("running_mean", "centred by a learned mean", "dyn18 n"),
    near("batch_mean", "centred by the batch's mean: the layer for a batch of one only", "ts17 n", "dyn18 n"),
    near("normalized_features", "positions normalised after centring", "ts17 n"),
    near("kernel", "a Gaussian kernel in place of the covariance", "dyn18 n"),
    near("median_position", "centred by the middle position", "ts17 n"),
    near("lagged", "a lagged covariance added", "dyn18 n"),
    near("half_start", "Z starts at ½I", "ts17 n"),
    near("nearly_identity_start", "Z starts at I + 0.01", "dyn18 n"),
    near("taylor", "the binomial series of the root", "ts17 n"),
    near("quintic", "a step of fifth order", "ts17 n", "dyn18 n"),
    near("tuned_quintic", "Muon's step", "ts17 n"),
    near("annealed", "a factor that grows from step to step", "dyn18 n"),
    near("newton", "½(3I − ZY) with a bit of ZY added", "ts17 n"),
    near("y_twice", "Y multiplied twice", "ts17 n"),
    near("averaged", "the last two iterates averaged", "dyn18 n"),
    near("clipped", "entries of Y clipped", "dyn18 n"),
    near("three_halves", "A to the power 3/2", "ts17 n"),
    near("whitened", "A^(−½)² A", "dyn18 n"),
    near("relu_root", "the root of the rectified covariance (debatable: a MatrixSqrt)", "ts17 n", "dyn18 n"),
    near("shrunk", "shrunk towards the identity by the trace (debatable: a MatrixSqrt)", "dyn18 n"),
    near("learned_projection", "WΣWᵀ with learned W", "ts17 n"),
    near("banded", "entries far from the diagonal cut off", "ts17 n"),
    near("trace_of_batch", "divided by the batch's mean trace: the layer for a batch of one only", "ts17 n"),
    near("spectral_bound", "divided by the largest row sum", "ts17 n"),
    near("mean_variance", "divided by four times the mean variance", "dyn18 n"),
    near("tiny_clamp", "trace clamped at 1e-12 (debatable: the layer for all but zeros)", "ts17 n", "dyn18 n"),
    near("divided_with_care", "divided by t + 1e-10 (debatable: as good as the layer)", "ts17 n", "dyn18 n"),
    near("compensated_with_epsilon", "√t + 0.02", "ts17 n"),
    near("odd_power", "t^0.47 in place of √t", "dyn18 n"),
    near("signed_root_before", "signed square root of the covariance first", "ts17 n"),
    style(
        "two_networks_bilinear",
        "near miss: bilinear pooling of two different maps",
        lambda: m.Bilinear(3, 8, other=True),
        "dyn18 n",
        shape=(3, 6, 6),
        images=True,
        near_miss=True,
    ),
    style("non_local", "near miss: a non-local block", lambda: m.NonLocal(), "ts17 n", near_miss=True),
]

SMALL = (w.CHANNELS, w.HEIGHT, w.WIDTH)
LAST = (w.HEIGHT, w.WIDTH, w.CHANNELS)


def text(name, note, graph, shape=SMALL, module=None, channels_last=False, near_miss=False, images=False, **choice):
    """A graph of `written` and the module that says what it computes."""
    build = module or (lambda: l.Layer(tokens=channels_last, **choice))
    return Style(
        name,
        note,
        build,
        (),
        shape,
        near_miss,
        channels_last=channels_last,
        images=images,
        graph=lambda: w.model(graph),
    )


def pooled_halves():
    """A layer on three channels, another with ε on five."""
    layers = l.Layer(steps=3, vectorization=p.flattened), l.Layer(steps=3, vectorization=p.flattened, epsilon=0.01)

    class Parts(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = layers

        def forward(self, x):
            return torch.cat([self.first(x[:, :3]), self.second(x[:, 3:])], dim=1)

    return Parts()


HANDMADE = [
    text("text_loop_count", "a Loop over a constant count, K = 4", w.COUNT_CONSTANT, steps=4),
    text("text_loop_condition", "a Loop that ends by the condition in its body", w.CONDITION_IN_BODY),
    text("text_loop_kept", "a Loop that gives every iterate; the last is taken", w.ALL_ITERATES),
    text("text_loop_samples", "a Loop over samples, in it a Loop over steps", w.SAMPLES_THEN_STEPS),
    text("text_scan", "a Scan over samples, K = 2", w.SCAN, steps=2),
    text(
        "text_function_twice",
        "a function called twice: other ε, other channels; its steps take an attribute",
        w.FUNCTION_CALLED_TWICE,
        module=pooled_halves,
    ),
    text(
        "text_function_in_if",
        "a function called in each branch of an If, with other ε",
        w.FUNCTION_IN_BRANCH,
        module=lambda: m.Either(
            l.Layer(steps=3, vectorization=p.flattened), m.isqrt(iterations=3, vectorization="none", epsilon=0.5)
        ),
    ),
    text(
        "text_if_in_loop",
        "the layer in an If in a Loop, K = 2",
        w.IF_IN_LOOP,
        module=lambda: m.Then(l.Layer(steps=2), after=lambda y: 3.0 * y),
    ),
    text(
        "text_tensorflow",
        "channels last, cast shapes, GatherND for trace and triangle, K = 3",
        w.TENSORFLOW,
        LAST,
        channels_last=True,
        steps=3,
    ),
    text(
        "text_tensorflow_network",
        "a convolution between transposes, Einsum, a band's mask, Frobenius norm, K = 2",
        w.TENSORFLOW_NETWORK,
        (4, 5, 3),
        module=lambda: m.ChannelsLast(l.Layer(p.second_moment, p.frobenius, steps=2), w.KERNEL, w.BIAS),
        images=True,
    ),
    text(
        "text_tensorflow_while",
        "tf.while_loop: counter and limit carried along",
        w.TENSORFLOW_WHILE,
        LAST,
        channels_last=True,
    ),
    text("near_text_batch_steps", "near miss: as many steps as samples", w.AS_LONG_AS_BATCH, near_miss=True),
]

REWRITES = {
    "half_outside_ts11_n": ("onnxsim", "onnxslim", "ortall"),
    "half_outside_dyn18_n": ("fp16", "fp16inside"),
    "depths_ts17_n": ("onnxsim", "ortall"),
    "depths_dyn18_n": ("onnxslim", "ortbasic"),
    "depths_dyn18_b1": ("inloop", "ortall", "onnxsim"),
    "residual_ts11_n": ("onnxsim", "function"),
    "residual_ts17_b1": ("ortall", "onnxslim", "inif", "fp16"),
    "residual_dyn18_n": ("ortextended", "fp16inside", "functioninif"),
    "residual_dyn23_b1": ("inloop", "ifinloop", "ortextended"),
    "as_column_ts11_n": ("onnxsim", "ortextended", "ortall"),
    "as_column_dyn18_n": ("onnxslim", "ortall"),
    "cropped_attention_ts17_b2": ("onnxsim", "onnxslim", "ortall"),
    "cropped_attention_dyn18_n": ("ortbasic", "function"),
    "several_ts17_n": ("onnxsim", "ortextended"),
    "several_dyn18_n": ("onnxslim", "inif"),
    "large_tokens_ts17_n": ("ortextended",),
    "wholly_scripted_ts14_n": ("onnxsim", "ortall"),
    "two_heads_ts17_n": ("onnxslim", "ortbasic"),
    "position_attention_ts17_n": ("onnxsim", "ortall"),
    "bilinear_network_ts17_n": ("onnxslim", "ortextended"),
    "transformer_ts17_n": ("onnxsim", "ortall"),
    "transformer_dyn18_n": ("onnxslim",),
    "on_diagonal_dyn18_n": ("onnxsim", "ortbasic"),
    "isometric_by_sum_ts17_n": ("ortextended", "onnxslim"),
    "epsilon_3e4_ts17_n": ("onnxsim", "ortbasic"),
    "sign_function_ts17_n": ("onnxslim",),
    "near_quintic_ts17_n": ("onnxsim", "ortextended"),
    "near_batch_mean_dyn18_n": ("onnxslim", "ortbasic"),
    "near_annealed_dyn18_n": ("ortall",),
}
