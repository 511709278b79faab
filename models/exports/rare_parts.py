"""Styles of the layer's parts that one meets less often, and some that nobody should write.

As in `parts`: features [N, C, M], matrices [N, C, C].
"""

import numpy as np
import torch
from torch.nn import functional

from parts import eye_like, indices_of

# Covariance


def cov_by_pooled_mean(x):
    """The mean as global average pooling."""
    x = x - functional.adaptive_avg_pool1d(x, 1)
    return x @ x.transpose(1, 2) / x.shape[2]


def cov_by_column_of_ones(x):
    """The mean as a product with a column of ones."""
    ones = torch.ones(x.shape[2], 1) / x.shape[2]
    x = x - x @ ones
    return torch.matmul(x, x.transpose(-2, -1)).mul(1.0 / x.shape[2])


def cov_by_outer_products(x):
    """Every position's outer product, then their mean: no matrix product at all."""
    x = x - x.mean(-1, keepdim=True)
    return (x.unsqueeze(2) * x.unsqueeze(1)).mean(dim=3)


def cov_in_four_axes(x):
    """[N, 1, C, M], an axis for groups that is always one."""
    x = x.unsqueeze(1)
    x = x - x.mean(3, keepdim=True)
    return torch.matmul(x, x.transpose(2, 3)).div(x.shape[3]).squeeze(1)


def cov_scaled_to_unbiased(x):
    """Divided by M, then made unbiased by M/(M − 1)."""
    m = x.shape[2]
    j = torch.eye(m) / m - torch.full((m, m), 1.0 / m**2)
    return (x @ j @ x.transpose(1, 2)) * (m / (m - 1))


def cov_centred_afterwards(x):
    """E[(x − a)(x − a)ᵀ] about the first position, moved to the mean afterwards."""
    x = x - x[:, :, :1]
    mean = x.mean(2)
    return torch.einsum("ncm,ndm->ncd", x, x) / x.shape[2] - torch.einsum("nc,nd->ncd", mean, mean)


def cov_centred_twice(x):
    """Both factors centred by an idempotent matrix, once too often."""
    m = x.shape[2]
    x = x @ (torch.eye(m) - 1.0 / m)
    return (x @ (torch.eye(m) - 1.0 / m)) @ x.transpose(1, 2) / m


def cov_double_only(x):
    """The covariance alone in float64."""
    x = x.double()
    x = x - x.mean(2, keepdim=True)
    return (x @ x.transpose(1, 2) / x.shape[2]).float()


def scatter(x):
    """Not divided by the number of positions."""
    x = x - x.mean(2, keepdim=True)
    return x @ x.transpose(1, 2)


def cov_correction_two(x):
    """Divided by M − 2."""
    x = x - x.mean(2, keepdim=True)
    return x @ x.transpose(1, 2) / (x.shape[2] - 2)


# Trace, [N, 1, 1]


def trace_by_mask(sigma):
    """All but the diagonal set to zero."""
    eye = torch.eye(sigma.shape[-1])
    return torch.where(eye > 0, sigma, torch.zeros(())).sum((1, 2), keepdim=True)


def trace_by_indices(sigma):
    """Row and column i."""
    index = torch.arange(sigma.shape[-1])
    return sigma[:, index, index].sum(dim=1).view(-1, 1, 1)


def trace_by_product(sigma):
    """⟨Σ, I⟩ as a product of vectors."""
    eye = torch.eye(sigma.shape[-1]).flatten()
    return (sigma.flatten(1) @ eye)[:, None, None]


def trace_by_mean(sigma):
    """C times the mean of the diagonal."""
    return sigma.diagonal(0, 1, 2).mean(1, keepdim=True).unsqueeze(2) * sigma.shape[-1]


def trace_per_sample(sigma):
    """A fixed batch, entry by entry."""
    return torch.stack([sum(matrix[i, i] for i in range(matrix.shape[0])) for matrix in sigma]).view(-1, 1, 1)


def frobenius_by_trace(sigma):
    """‖Σ‖_F = √tr(ΣΣᵀ)."""
    return torch.diagonal(sigma @ sigma.transpose(-2, -1), dim1=1, dim2=2).sum(1).sqrt()[:, None, None]


def frobenius_by_norm(sigma):
    """`torch.norm` of the flattened matrix."""
    return sigma.flatten(1).norm(p=2, dim=1).reshape(-1, 1, 1)


# Iteration


def iterate_half_outside(a, steps):
    """½ applied to the products, the last step ending at once: ½Y(3I − ZY)."""
    three = 3.0 * eye_like(a)
    y, z = a, eye_like(a).expand_as(a)
    for _ in range(steps - 1):
        step = three - z.bmm(y)
        y, z = 0.5 * y.bmm(step), 0.5 * step.bmm(z)
    return 0.5 * y.bmm(three - z.bmm(y))


def iterate_by_sign(a, steps):
    """The sign function of [[0, A], [I, 0]]: S ← ½S(3I − S²) holds Y above and Z below."""
    c = a.shape[-1]
    nothing = torch.zeros_like(a)
    s = torch.cat([torch.cat([nothing, a], 2), torch.cat([eye_like(a).expand_as(a), nothing], 2)], 1)
    eye = torch.eye(2 * c)
    for _ in range(steps):
        s = 0.5 * s @ (3.0 * eye - s @ s)
    return s[:, :c, c:]


def iterate_on_diagonal(a, steps):
    """3/2 added to the diagonal alone."""
    y, z = a, eye_like(a).repeat(a.shape[0], 1, 1)
    for _ in range(steps):
        step = -0.5 * (z @ y)
        diagonal = torch.linspace(0, step[0].numel() - 1, step.shape[-1]).long()
        step = step.flatten(1).index_add(1, diagonal, torch.full((step.shape[0], len(diagonal)), 1.5)).view_as(step)
        y, z = y @ step, step @ z
    return y


def iterate_by_sub_alpha(a, steps):
    """`torch.sub` with a factor, the identity by comparing indices."""
    index = torch.arange(a.shape[-1])
    eye = (index[:, None] == index[None, :]).to(a.dtype)
    y, z = a, eye.expand_as(a)
    for _ in range(steps):
        step = torch.sub(1.5 * eye, torch.matmul(z, y), alpha=0.5)
        y, z = torch.matmul(y, step), torch.matmul(step, z)
    return y


def iterate_keeping_all(a, steps):
    """Every iterate kept in a list, stacked, the last one taken."""
    eye = eye_like(a).repeat(a.shape[0], 1, 1)
    ys, zs = [a], [eye]
    for k in range(steps):
        step = (3.0 * eye - zs[k] @ ys[k]) * 0.5
        ys.append(ys[k] @ step)
        zs.append(step @ zs[k])
    return torch.stack(ys, dim=1)[:, -1]


def iterate_symmetrized(a, steps):
    """Made symmetric after each step, which symmetric matrices do not notice."""
    eye = eye_like(a)
    y, z = a, eye.expand_as(a)
    for _ in range(steps):
        step = 0.5 * (3.0 * eye - z @ y)
        y, z = y @ step, step @ z
        y, z = 0.5 * (y + y.transpose(-2, -1)), 0.5 * (z + z.transpose(-2, -1))
    return y


def iterate_in_four_axes(a, steps):
    """[N, 1, C, C], an axis for groups that is always one."""
    y = a[:, None]
    eye = torch.eye(a.shape[-1])[None, None]
    z = eye
    for _ in range(steps):
        step = (3 * eye - z.matmul(y)) / 2
        y, z = y.matmul(step), step.matmul(z)
    return y[:, 0]


def iterate_recursively(a, steps):
    """(Y, Z) of k steps from those of k − 1, first and last step alike."""

    def after(k):
        if k == 0:
            return a, eye_like(a).expand_as(a)
        y, z = after(k - 1)
        step = torch.baddbmm(1.5 * eye_like(a), z, y, alpha=-0.5)
        return y @ step, step @ z

    return after(steps)[0]


def iterate_double_only(a, steps):
    """The iteration alone in float64."""
    return iterate_half_outside(a.double(), steps).float()


def iterate_by_lists(a, steps):
    """Row times column, summed: no matrix product."""
    eye = eye_like(a)
    y, z = a, eye.expand_as(a)

    def product(left, right):
        return (left.unsqueeze(3) * right.unsqueeze(1)).sum(2)

    for _ in range(steps):
        step = 1.5 * eye - 0.5 * product(z, y)
        y, z = product(y, step), product(step, z)
    return y


def iterate_unnormalized(a, steps):
    """The factors 2 left in and taken out at the end: Y and Z grow by 2 in each step."""
    eye = eye_like(a)
    y, z, power = a, eye.expand_as(a), 1.0
    for _ in range(steps):
        step = 3.0 * power * eye - z @ y / power
        y, z = y @ step / power, step @ z / power
        power *= 2.0
    return y / power


# Vectorization


def upper_by_selection(s):
    """A product with a matrix of zeros and ones."""
    c = s.shape[-1]
    rows, columns = indices_of(np.triu_indices, c)
    selection = torch.zeros(c * c, len(rows))
    selection[rows * c + columns, torch.arange(len(rows))] = 1.0
    return s.flatten(1) @ selection


def upper_by_writing(s):
    """Each row written into its part of a buffer."""
    c = s.shape[-1]
    out = torch.zeros(s.shape[0], c * (c + 1) // 2)
    start = 0
    for i in range(c):
        out[:, start : start + c - i] = s[:, i, i:]
        start += c - i
    return out


def upper_as_column(s):
    """[N, C(C+1)/2, 1] first, as the published layer gives it, then flattened."""
    c = s.shape[-1]
    index = torch.from_numpy(np.triu(np.ones((c, c))).reshape(c * c).nonzero()[0][:, None])
    return s.reshape(-1, c * c)[:, index].flatten(1)


def upper_by_shifted_rows(s):
    """Rows turned around twice, a detour that changes nothing."""
    c = s.shape[-1]
    turned = s.flip(1, 2)
    return torch.cat([turned[:, c - 1 - i, : c - i].flip(1) for i in range(c)], dim=1)


def lower_of_transposed(s):
    """The transposed matrix's upper triangle read column by column: the lower one by rows."""
    rows, columns = indices_of(np.tril_indices, s.shape[-1])
    return s.transpose(-1, -2)[:, columns, rows]


def lower_isometric(s):
    """tril, off-diagonal entries times √2."""
    rows, columns = indices_of(np.tril_indices, s.shape[-1])
    return s[:, rows, columns] * torch.where(rows == columns, 1.0, 2.0**0.5)


def isometric_by_diagonal(s):
    """All times √2, the diagonal divided by it."""
    c = s.shape[-1]
    s = s * 2.0**0.5 * (1.0 - (1.0 - 0.5**0.5) * torch.eye(c))
    return s[:, torch.ones(c, c).triu() > 0]


def isometric_by_sum(s):
    """Diagonal plus √2 times the strict triangle, as matrices, then vectorized."""
    rows, columns = indices_of(np.triu_indices, s.shape[-1])
    both = s * torch.eye(s.shape[-1]) + 2.0**0.5 * torch.triu(s, 1)
    return both[:, rows, columns]


def doubled(s):
    """Off-diagonal entries counted twice, as they stand twice in the matrix."""
    rows, columns = indices_of(np.triu_indices, s.shape[-1])
    return s[:, rows, columns] * (1.0 + (rows != columns).float())


def by_diagonals(s):
    """Diagonal after diagonal."""
    return torch.cat([s.diagonal(k, 1, 2) for k in range(s.shape[-1])], dim=1)


def backwards(s):
    """The upper triangle, last entry first."""
    rows, columns = indices_of(np.triu_indices, s.shape[-1])
    return s[:, rows.flip(0), columns.flip(0)]


def anti_triangle(s):
    """The triangle above the other diagonal."""
    rows, columns = indices_of(np.triu_indices, s.shape[-1])
    return s[:, rows, s.shape[-1] - 1 - columns]


def diagonal_then_rest(s):
    """The diagonal, then √2 times the strict triangle."""
    rows, columns = indices_of(lambda side: np.triu_indices(side, 1), s.shape[-1])
    return torch.cat([s.diagonal(dim1=1, dim2=2), s[:, rows, columns] * 2.0**0.5], dim=1)


def triangular(s):
    """The matrix with zeros below the diagonal."""
    return torch.triu(s)


def zigzag(s):
    """The upper triangle by rows, every other row backwards."""
    c = s.shape[-1]
    return torch.cat([s[:, i, i:] if i % 2 == 0 else s[:, i, i:].flip(1) for i in range(c)], dim=1)
