"""The layer's parts, each in the styles in which people write it. A style of the layer is one choice of each.

All take and give batches: features [N, C, M], matrices [N, C, C]. Σ = X(I − 11ᵀ/M)Xᵀ/M unless a function says
otherwise.
"""

import numpy as np
import torch


def indices_of(triangle, side):
    """Rows and columns of `np.triu_indices` or `np.tril_indices` as constants."""
    return (torch.from_numpy(index) for index in triangle(int(side)))


def eye_like(matrix):
    """The identity [C, C] of the matrix's size and type."""
    return torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)


# Covariance


def cov_by_centering_matrix(x):
    """X J Xᵀ with J = I/M − 11ᵀ/M²."""
    m = x.shape[-1]
    j = torch.eye(m, dtype=x.dtype) / m - torch.ones(m, m, dtype=x.dtype) / (m * m)
    return x.matmul(j).matmul(x.transpose(1, 2))


def cov_by_mean(x):
    """The mean taken out of each row, then one product."""
    x = x - x.mean(dim=2, keepdim=True)
    return torch.bmm(x, x.transpose(1, 2)) / x.shape[2]


def cov_unbiased(x):
    """As `cov_by_mean`, divided by M − 1."""
    x = x - x.mean(dim=-1, keepdim=True)
    return (x @ x.mT) / (x.size(-1) - 1)


def cov_by_moments(x):
    """E[xxᵀ] − E[x]E[x]ᵀ."""
    mean = x.mean(-1, keepdim=True)
    return x @ x.transpose(1, 2) / x.shape[-1] - mean @ mean.transpose(1, 2)


def cov_by_baddbmm(x):
    """As `cov_by_moments`, in one fused call."""
    mean = x.sum(2, keepdim=True) / x.shape[2]
    return torch.baddbmm(mean @ mean.transpose(1, 2), x, x.transpose(1, 2), beta=-1.0, alpha=1.0 / x.shape[2])


def cov_by_einsum(x):
    """Index notation throughout."""
    x = x - torch.einsum("ncm->nc", x).unsqueeze(2) / x.shape[2]
    return torch.einsum("nim,njm->nij", x, x) / x.shape[2]


def cov_by_scaled_features(x):
    """1/√M goes to each factor, so that the product stays small in low precision."""
    x = (x - torch.mean(x, 2, True)) * (x.shape[2] ** -0.5)
    return x.bmm(x.permute(0, 2, 1))


def cov_in_chunks(x):
    """The positions in two parts, their products added up."""
    x = x - x.mean(2, keepdim=True)
    half = x.shape[2] // 2
    first, second = x[:, :, :half], x[:, :, half:]
    return (first @ first.transpose(1, 2) + second @ second.transpose(1, 2)).div(x.shape[2])


def covariance_of_rows(observations, correction=1):
    """What `torch.cov` computes, which no exporter knows: rows are variables, columns observations."""
    centred = observations - observations.mean(dim=1, keepdim=True)
    return (centred.matmul(centred.t()) / max(observations.shape[1] - correction, 0)).squeeze()


def cov_like_torch(x):
    """A `torch.cov` on each sample of a fixed batch."""
    return torch.stack([covariance_of_rows(sample, correction=0) for sample in x.unbind(0)])


def cov_vmapped(x):
    """A `torch.cov` mapped over the batch; it divides by M − 1."""
    return torch.vmap(covariance_of_rows)(x)


def second_moment(x):
    """Not centred: bilinear pooling."""
    return torch.bmm(x, torch.transpose(x, 1, 2)) / x.shape[-1]


# Trace, [N, 1, 1]


def trace_by_identity(sigma):
    """Σ ∘ I summed."""
    return (sigma * eye_like(sigma)).sum(dim=(1, 2), keepdim=True)


def trace_by_diagonal(sigma):
    """The diagonal summed."""
    return torch.diagonal(sigma, dim1=-2, dim2=-1).sum(-1).view(-1, 1, 1)


def trace_by_einsum(sigma):
    """Index notation."""
    return torch.einsum("nii->n", sigma)[:, None, None]


def trace_by_stride(sigma):
    """Every (C+1)-th entry of the flattened matrix."""
    return sigma.flatten(1)[:, :: sigma.shape[-1] + 1].sum(1).reshape(-1, 1, 1)


def trace_by_square_roots(sigma):
    """Of a covariance, tr Σ = Σᵢ (√Σᵢᵢ)²: the squared length of the deviations."""
    deviations = sigma.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
    return deviations.pow(2).sum(1)[..., None, None]


def frobenius(sigma):
    """‖Σ‖_F in place of the trace."""
    return torch.linalg.matrix_norm(sigma, keepdim=True)


def frobenius_by_squares(sigma):
    """‖Σ‖_F written out."""
    return sigma.pow(2).sum(dim=(1, 2), keepdim=True).sqrt()


# Iteration: A, K → Y_K


def iterate_plainly(a, steps):
    """The paper's equations as they stand."""
    eye = eye_like(a).expand_as(a)
    y, z = a, eye
    for _ in range(steps):
        t = 0.5 * (3.0 * eye - z.bmm(y))
        y, z = y.bmm(t), t.bmm(z)
    return y


def iterate_without_waste(a, steps):
    """No product with Z₀ = I, none for a Z that nobody reads."""
    three = 3.0 * eye_like(a)
    t = 0.5 * (three - a)
    y, z = a @ t, t
    for k in range(1, steps):
        t = 0.5 * (three - z @ y)
        y = y @ t
        if k + 1 < steps:
            z = t @ z
    return y


def iterate_by_baddbmm(a, steps):
    """½(3I − ZY) as one fused call."""
    eye = eye_like(a).unsqueeze(0).repeat(a.shape[0], 1, 1)
    y, z = a, eye
    for _ in range(steps):
        t = torch.baddbmm(eye, z, y, beta=1.5, alpha=-0.5)
        y, z = torch.bmm(y, t), torch.bmm(t, z)
    return y


def iterate_by_einsum(a, steps):
    """Index notation, the identity broadcast."""
    eye = eye_like(a)
    y, z = a, eye.expand_as(a)
    for _ in range(steps):
        t = 1.5 * eye - 0.5 * torch.einsum("nij,njk->nik", z, y)
        y = torch.einsum("nij,njk->nik", y, t)
        z = torch.einsum("nij,njk->nik", t, z)
    return y


def iterate_distributed(a, steps):
    """Y ← 1.5Y − ½YZY: no identity after the start."""
    y, z = a, eye_like(a).expand_as(a)
    for _ in range(steps):
        zy = z @ y
        y, z = 1.5 * y - 0.5 * (y @ zy), 1.5 * z - 0.5 * (zy @ z)
    return y


def iterate_commuted(a, steps):
    """Everything commutes, so some write YZ, and T on the other side, and a transpose where none is needed."""
    eye = eye_like(a)
    y, z = a, eye.expand_as(a)
    for _ in range(steps):
        t = (3.0 * eye - y @ z).mul(0.5)
        y, z = t.transpose(1, 2) @ y, z @ t
    return y


def iterate_uncoupled(a, steps):
    """P ← 1.5P − ½P³A converges to A^(−½); Y_K = A P_K."""
    p = eye_like(a).expand_as(a)
    for _ in range(steps):
        p = 1.5 * p - 0.5 * (p @ p @ p @ a)
    return a @ p


def iterate_per_sample(a, steps):
    """A Python loop over a fixed batch, matrix by matrix."""
    roots = []
    for i in range(a.shape[0]):
        y, z = a[i], eye_like(a)
        for _ in range(steps):
            t = (3.0 * eye_like(a) - z.mm(y)) / 2
            y, z = y.mm(t), t.mm(z)
        roots.append(y)
    return torch.stack(roots, dim=0)


def iterate_inverse_scaled(a, steps):
    """M = ZY, its square left in T: T = 1.5I − ½M; both factors stacked and multiplied in one call."""
    eye = eye_like(a).expand_as(a)
    y, z = a, eye
    for _ in range(steps):
        t = 1.5 * eye - 0.5 * (z @ y)
        both = torch.cat([y, z.transpose(1, 2)], dim=1) @ t
        y, z = both.chunk(2, dim=1)
        z = z.transpose(1, 2)
    return y


# Vectorization: S → [N, …]


def upper_by_indices(s):
    """Constant rows and columns and advanced indexing."""
    rows, columns = indices_of(np.triu_indices, s.shape[-1])
    return s[:, rows, columns]


def upper_by_triu_indices(s):
    """`triu_indices`, which TorchScript's exporter does not know."""
    rows, columns = torch.triu_indices(s.shape[-1], s.shape[-1])
    return s[:, rows, columns]


def upper_by_flat_index(s):
    """A flat index into the flattened matrix."""
    c = s.shape[-1]
    index = torch.ones(c, c).triu().flatten().nonzero().squeeze(1)
    return s.reshape(s.shape[0], -1).index_select(1, index)


def upper_by_mask(s):
    """A boolean mask."""
    return s[:, torch.ones(s.shape[-1], s.shape[-1]).triu().bool()]


def upper_by_flat_mask(s):
    """A boolean mask over the flattened matrix; of a two-dimensional one TorchScript makes a broken graph."""
    mask = torch.ones(s.shape[-1], s.shape[-1]).triu().flatten() == 1
    return s.flatten(1)[:, mask]


def upper_by_masked_select(s):
    """`masked_select`, which forgets the shape."""
    c = s.shape[-1]
    mask = torch.ones(c, c, dtype=torch.bool).triu()
    return torch.masked_select(s, mask).view(-1, c * (c + 1) // 2)


def upper_by_rows(s):
    """Row by row, sliced and concatenated."""
    return torch.cat([s[:, i, i:] for i in range(s.shape[-1])], dim=1)


def upper_by_gather(s):
    """`gather` with an index for every sample."""
    rows, columns = indices_of(np.triu_indices, s.shape[-1])
    index = (rows * s.shape[-1] + columns).unsqueeze(0).expand(s.shape[0], -1)
    return s.flatten(1).gather(1, index)


def upper_by_columns_of_lower(s):
    """The lower triangle column by column: for a symmetric matrix, the upper one row by row."""
    columns, rows = indices_of(np.triu_indices, s.shape[-1])
    return s[:, rows, columns]


def column_major_by_transposed_mask(s):
    """The triangle column by column, as before December 2018."""
    c = s.shape[-1]
    index = torch.ones(c, c).triu().t().reshape(c * c).nonzero().flatten()
    return s.transpose(1, 2).reshape(-1, c * c)[:, index]


def lower_by_rows(s):
    """The lower triangle row by row."""
    return torch.cat([s[:, i, : i + 1] for i in range(s.shape[-1])], dim=-1)


def lower_by_indices(s):
    """Constant rows and columns of the lower triangle."""
    rows, columns = indices_of(np.tril_indices, s.shape[-1])
    return s[:, rows, columns]


def lower_by_mask(s):
    """A boolean mask over `tril`."""
    return s[:, torch.tril(torch.ones(s.shape[-1], s.shape[-1])) > 0]


def whole(s):
    """The matrix itself."""
    return s


def flattened(s):
    """The matrix as one row."""
    return s.flatten(1)


def upper_isometric(s):
    """Off-diagonal entries times √2, so that the triangle is as long as the matrix."""
    c = s.shape[-1]
    weight = torch.full((c, c), 2.0**0.5) - (2.0**0.5 - 1.0) * torch.eye(c)
    return upper_by_indices(s * weight)


def upper_isometric_afterwards(s):
    """As `upper_isometric`, the factor applied to the finished triangle."""
    rows, columns = indices_of(np.triu_indices, s.shape[-1])
    weight = torch.where(rows == columns, 1.0, 2.0**0.5)
    return s[:, rows, columns] * weight
