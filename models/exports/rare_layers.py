"""Networks around the layer and near misses that one meets less often. As in `layers`, each module says what it computes.

`known` names layers that are no module of their own, `alternatives` other sets of operators that are as right.
"""

import numpy as np
import torch
from torch import nn

import layers as l
import parts as p
import rare_parts as q


def said(layer, **attributes):
    """The layer, with attributes that its parts do not tell."""
    layer.attributes.update(attributes)
    return layer


def isqrt(**attributes):
    """What `cases.json` says of an IsqrtCov."""
    return {"operator": "IsqrtCov", "attributes": {"iterations": 5, **attributes}}


class Then(nn.Module):
    """A function before the layer, another after it."""

    def __init__(self, layer, before=lambda x: x, after=lambda y: y):
        super().__init__()
        self.layer, self.before, self.after = layer, before, after

    def forward(self, x):
        return self.after(self.layer(self.before(x)))


class Several(nn.Module):
    """Layers on the same map, their outputs side by side, flattened."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        return torch.cat([layer(x).flatten(1) for layer in self.layers], dim=1)


class Depths(nn.Module):
    """A layer after each stage of a trunk, the three outputs classified together."""

    def __init__(self):
        super().__init__()

        def stage(inputs, outputs, stride):
            convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
            return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())

        self.stages = nn.ModuleList([stage(3, 6, 1), stage(6, 8, 1), stage(8, 10, 2)])
        self.layers = nn.ModuleList(
            [
                l.Layer(steps=3, trace=p.trace_by_identity),
                l.Layer(p.cov_by_centering_matrix, p.trace_by_identity, p.iterate_without_waste),
                l.Layer(p.cov_by_baddbmm, p.trace_by_identity, p.iterate_by_baddbmm, steps=4),
            ]
        )
        self.classifier = nn.Linear(21 + 36 + 55, 5)

    def forward(self, x):
        found = []
        for stage, layer in zip(self.stages, self.layers, strict=True):
            x = stage(x)
            found.append(layer(x))
        return self.classifier(torch.cat(found, dim=1))


class Residual(nn.Module):
    """A bottleneck with its shortcut before the layer, dropout and two linear layers after it."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.first, self.second = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.norm = nn.BatchNorm2d(8)
        self.layer = l.Layer(p.cov_by_centering_matrix, p.trace_by_identity, q.iterate_half_outside, q.upper_as_column)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(36, 9), nn.LayerNorm(9), nn.GELU(), nn.Linear(9, 4))

    def forward(self, x):
        x = self.stem(x)
        x = torch.relu(x + self.second(torch.relu(self.norm(self.first(x)))))
        return self.head(self.layer(x))


class TwoHeads(nn.Module):
    """One covariance, two roots of it."""

    def __init__(self):
        super().__init__()
        self.known = [isqrt(iterations=3), isqrt(vectorization="none")]
        covariance = {"operator": "CovariancePooling", "attributes": {"vectorization": "none"}}
        matrices = [
            {"operator": "MatrixSqrt", "attributes": {"iterations": 3, "vectorization": "upper"}},
            {"operator": "MatrixSqrt", "attributes": {"iterations": 5, "vectorization": "none"}},
        ]
        self.alternatives = [[covariance, *matrices]]

    def forward(self, x):
        sigma = p.cov_by_mean(x.flatten(2))
        t = p.trace_by_identity(sigma)
        few = p.upper_by_indices(p.iterate_plainly(sigma / t, 3) * t.sqrt())
        many = p.iterate_without_waste(sigma / t, 5) * t.sqrt()
        return torch.cat([few, many.mean(1)], dim=1)


class AlsoCovariance(nn.Module):
    """The root's triangle, and the covariance as a second output of the graph."""

    def __init__(self):
        super().__init__()
        self.known = [isqrt(), {"operator": "CovariancePooling", "attributes": {"vectorization": "none"}}]
        covariance = {"operator": "CovariancePooling", "attributes": {"vectorization": "none"}}
        self.alternatives = [
            [covariance, {"operator": "MatrixSqrt", "attributes": {"iterations": 5, "vectorization": "upper"}}]
        ]

    def forward(self, x):
        sigma = p.cov_by_mean(x.flatten(2))
        t = p.trace_by_identity(sigma)
        return p.upper_by_indices(p.iterate_plainly(sigma / t, 5) * t.sqrt()), sigma


class AlsoMatrix(nn.Module):
    """The triangle and the whole root, both outputs of the graph."""

    def __init__(self):
        super().__init__()
        self.layer = l.Layer(vectorization=p.whole, trace=p.trace_by_identity)
        self.alternatives = [[isqrt(), isqrt(vectorization="none")]]

    def forward(self, x):
        root = self.layer(x)
        return p.upper_by_flat_index(root), root


class Auxiliary(nn.Module):
    """A classifier on the layer's output, and the output itself for a loss during training."""

    def __init__(self):
        super().__init__()
        self.layer = l.Layer(trace=p.trace_by_identity, iterate=p.iterate_without_waste)
        self.classifier = nn.Linear(78, 6)

    def forward(self, x):
        y = self.layer(x)
        return self.classifier(nn.functional.normalize(y)), y


class TwoMaps(nn.Module):
    """Two branches' maps concatenated, permuted, and pooled."""

    def __init__(self, layer):
        super().__init__()
        self.left, self.right, self.layer = nn.Conv2d(3, 5, 1), nn.Conv2d(3, 5, 3, padding=1), layer

    def forward(self, x):
        maps = torch.cat([torch.relu(self.left(x)), torch.tanh(self.right(x))], dim=1)
        return self.layer(maps.permute(0, 2, 3, 1).reshape(x.shape[0], -1, 10).permute(0, 2, 1))


class Homogeneous(nn.Module):
    """A row of ones below the features: mean and second moments in one matrix, its root taken."""

    def __init__(self):
        super().__init__()
        self.layer = l.Layer(p.second_moment, p.trace_by_identity, q.iterate_half_outside)

    def forward(self, x):
        x = x.flatten(2)
        return self.layer(torch.cat([x, torch.ones_like(x[:, :1])], dim=1))


class Cropped(nn.Module):
    """Second-order attention as published: a large map is cropped to its center before it is pooled."""

    def __init__(self, channels, side):
        super().__init__()
        self.side = side
        self.layer = l.Layer(p.cov_by_centering_matrix, p.trace_by_identity, q.iterate_half_outside, p.whole)
        self.weigh = nn.Sequential(
            nn.Conv2d(channels, channels // 4, 1), nn.ReLU(), nn.Conv2d(channels // 4, channels, 1), nn.Sigmoid()
        )

    def forward(self, x):
        top, left = (x.shape[2] - self.side) // 2, (x.shape[3] - self.side) // 2
        root = self.layer(x[:, :, top : top + self.side, left : left + self.side])
        return self.weigh(root.mean(1).view(x.shape[0], -1, 1, 1)) * x


class PositionAttention(nn.Module):
    """GSoP's other half: positions are the variables, channels the observations."""

    def __init__(self, channels):
        super().__init__()
        self.reduce = nn.Conv2d(channels, 6, 1)
        self.known = [{"operator": "CovariancePooling", "attributes": {"layout": "channels_last"}}]
        self.rows = nn.Conv2d(16, 16, (1, 16), groups=16)

    def forward(self, x):
        small = nn.functional.avg_pool2d(self.reduce(x), 2).flatten(2).transpose(1, 2)
        small = small - small.mean(2, keepdim=True)
        sigma = small @ small.transpose(1, 2) / small.shape[2]
        weight = torch.sigmoid(self.rows(sigma.unsqueeze(2))).view(-1, 1, 4, 4)
        return x * nn.functional.interpolate(weight, scale_factor=2.0, mode="nearest")


class Bilinear(nn.Module):
    """BCNN: the second moment of one network's map, signed square root, normalized, classified."""

    def __init__(self, inputs, channels, other=False):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(inputs, channels, 3, padding=1), nn.ReLU())
        self.other = nn.Conv2d(inputs, channels, 1) if other else None
        self.classifier = nn.Linear(channels**2, 5)
        if not other:
            self.known = [{"operator": "CovariancePooling", "attributes": {"centered": 0}}]

    def forward(self, x):
        left = self.trunk(x).flatten(2)
        right = self.other(x).flatten(2) if self.other else left
        y = (torch.bmm(left, right.transpose(1, 2)) / left.shape[2]).view(x.shape[0], -1)
        y = torch.sign(y) * torch.sqrt(y.abs() + 1e-10)
        return self.classifier(nn.functional.normalize(y))


class Heads(nn.Module):
    """Tokens [N, heads, M, C], the heads part of the batch while they are pooled."""

    def __init__(self, heads, features):
        super().__init__()
        self.layer, self.heads, self.features = l.Layer(tokens=True, trace=p.trace_by_identity), heads, features

    def forward(self, x):
        return self.layer(x.flatten(0, 1)).view(-1, self.heads * self.features)


class HeadsApart(nn.Module):
    """Tokens [N, M, heads·C], a layer with five axes: no operator takes such batches, a Reshape in front could."""

    debatable = True

    def __init__(self, heads):
        super().__init__()
        self.heads = heads

    def forward(self, x):
        n, m, width = x.shape
        x = x.view(n, m, self.heads, width // self.heads).permute(0, 2, 3, 1)
        x = x - x.mean(-1, keepdim=True)
        sigma = x @ x.transpose(-1, -2) / m
        t = sigma.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
        root = p.iterate_without_waste(sigma / t, 5) * t.sqrt()
        rows, columns = p.indices_of(np.triu_indices, root.shape[-1])
        return root[:, :, rows, columns].flatten(1)


class TransformerPool(nn.Module):
    """A block of self-attention, then the tokens' covariance root: the softmax is none of it."""

    def __init__(self, width):
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.layer = l.Layer(tokens=True, vectorization=p.lower_by_rows, trace=p.trace_by_identity)

    def forward(self, x):
        query, key, value = self.qkv(self.norm(x)).chunk(3, dim=-1)
        weight = torch.softmax(query @ key.transpose(1, 2) * query.shape[-1] ** -0.5, dim=-1)
        return self.layer(x + self.out(weight @ value))


class NonLocal(nn.Module):
    """A non-local block: xᵀx through a softmax. Nothing here is a covariance that anyone pools."""

    debatable = True

    def forward(self, x):
        flat = x.flatten(2)
        affinity = torch.softmax(flat.transpose(1, 2) @ flat / flat.shape[1] ** 0.5, dim=-1)
        return x + (flat @ affinity.transpose(1, 2)).view(x.shape)


class Bfloat16Around(nn.Module):
    """The features rounded to bfloat16, the layer in float32, its output rounded again."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.dtype = torch.bfloat16

    def forward(self, x):
        return self.layer(x.to(self.dtype).float()).to(self.dtype).float()


class Buffered(nn.Module):
    """Constants kept as buffers in the wrong shapes: identity [1, C, C], M as a tensor, ½ and 3 as tensors."""

    operator = "IsqrtCov"

    def __init__(self, channels, positions, steps=5):
        super().__init__()
        self.attributes = {"iterations": steps, "epsilon": 1e-4, "correction": 1}
        self.steps = steps
        self.register_buffer("eye", torch.eye(channels)[None])
        self.register_buffer("divisor", torch.tensor([float(positions - 1)]))
        self.register_buffer("one_half", torch.tensor(0.5))
        self.register_buffer("three", torch.full((1, 1, 1), 3.0))
        self.epsilon = nn.Parameter(torch.tensor(1e-4))
        self.register_buffer("mask", torch.ones(channels, channels).triu().bool().flatten())

    def forward(self, x):
        x = x.flatten(2)
        x = x - x.mean(2, keepdim=True)
        sigma = x.bmm(x.transpose(-2, -1)) / self.divisor + self.epsilon * self.eye
        t = (sigma * self.eye).sum([1, 2], keepdim=True)
        y, z = sigma / t, self.eye.expand_as(sigma)
        for _ in range(self.steps):
            step = self.one_half * (self.three * self.eye - z.bmm(y))
            y, z = y.bmm(step), step.bmm(z)
        return (y * t.sqrt()).flatten(1)[:, self.mask]


class SmallRoot(nn.Module):
    """For M < C: root of the M×M Gram matrix taken apart from the features, which are multiplied to it twice."""

    operator = "IsqrtCov"

    def __init__(self, steps=3):
        super().__init__()
        self.steps = steps
        self.attributes = {"iterations": steps, "centered": 0, "vectorization": "none"}

    def forward(self, x):
        x = x.flatten(2) / x.flatten(2).shape[2] ** 0.5
        gram = x.transpose(1, 2) @ x
        t = p.trace_by_identity(gram)
        eye = p.eye_like(gram)
        y, z = gram / t, eye.expand_as(gram)
        for _ in range(self.steps):
            step = 1.5 * eye - 0.5 * z @ y
            y, z = y @ step, step @ z
        return x @ z @ x.transpose(1, 2) / t.sqrt()


class Near(nn.Module):
    """The layer with one thing different, as `layers.NearMiss`. `kind` names it."""

    operator = None

    def __init__(self, kind, channels=12):
        super().__init__()
        self.kind = kind
        if kind == "running_mean":
            self.register_buffer("mean", torch.linspace(0.2, 0.6, channels)[:, None])
        if kind == "learned_projection":
            self.weight = nn.Parameter(torch.eye(channels) + 0.1 * torch.randn(channels, channels))
        self.debatable = kind in ("scatter", "tiny_clamp", "divided_with_care", "shrunk", "relu_root", "projected")

    def covariance(self, x):
        kind, m = self.kind, x.shape[2]
        if kind == "scatter":
            return q.scatter(x)
        if kind == "correction_two":
            return q.cov_correction_two(x)
        if kind == "running_mean":
            x = x - self.mean
            return x @ x.transpose(-2, -1) / m
        if kind == "batch_mean":
            x = x - x.mean((0, 2), keepdim=True)
            return x @ x.transpose(-2, -1) / m
        if kind == "normalized_features":
            x = nn.functional.normalize(x - x.mean(2, keepdim=True), dim=1)
            return x @ x.transpose(-2, -1) / m
        if kind == "kernel":
            square = x.pow(2).sum(2, keepdim=True)
            return torch.exp(-(square + square.transpose(-2, -1) - 2 * x @ x.transpose(-2, -1)) / (20 * m))
        if kind == "median_position":
            x = x - x[:, :, m // 2 : m // 2 + 1]
            return x @ x.transpose(-2, -1) / m
        if kind == "lagged":
            x = x - x.mean(2, keepdim=True)
            lag = x[:, :, 1:] @ x[:, :, :-1].transpose(-2, -1)
            return 0.5 * (lag + lag.transpose(-2, -1)) / m + x @ x.transpose(-2, -1) / m
        return p.cov_by_mean(x)

    def root(self, a):
        kind = self.kind
        eye = p.eye_like(a)
        y, z = a, eye.expand_as(a)
        if kind == "half_start":
            z = 0.5 * z
        if kind == "nearly_identity_start":
            z = z + 1e-2
        if kind == "taylor":
            # The binomial series of (I − (I − A))^½ to the sixth power.
            rest, power, total, factor = eye - a, eye.expand_as(a), eye.expand_as(a), 1.0
            for k in range(1, 7):
                power, factor = power @ rest, factor * (k - 1.5) / k
                total = total + factor * power
            return total
        for k in range(5):
            zy = z @ y
            if kind == "quintic":
                step = (15.0 * eye - 10.0 * zy + 3.0 * zy @ zy) / 8.0
            elif kind == "tuned_quintic":
                step = 3.4445 * eye - 4.775 * zy + 2.0315 * zy @ zy
            elif kind == "annealed":
                step = (1.5 + 0.02 * k) * eye - 0.5 * zy
            elif kind == "newton":
                # Newton's own step with two iterates averaged, the inverse by one Schulz step.
                step = 0.5 * (eye + 2.0 * eye - zy) + 0.01 * zy
            else:
                step = 0.5 * (3.0 * eye - zy)
            if kind == "y_twice":
                y, z = y @ step @ step, step @ z
            elif kind == "averaged" and k == 4:
                y = 0.5 * (y + y @ step)
            elif kind == "clipped":
                y, z = (y @ step).clamp(-0.2, 0.2), step @ z
            else:
                y, z = y @ step, step @ z
        return z @ a @ a if kind == "three_halves" else z @ z @ a if kind == "whitened" else y

    def forward(self, x):
        kind = self.kind
        sigma = self.covariance(x.flatten(2))
        c = sigma.shape[-1]
        eye = torch.eye(c)
        if kind == "relu_root":
            sigma = torch.relu(sigma)
        if kind in ("shrunk", "shrunk_before_output"):
            sigma = 0.9 * sigma + 0.1 * p.trace_by_identity(sigma) / c * eye
        if kind == "learned_projection":
            sigma = self.weight @ sigma @ self.weight.transpose(-2, -1)
        if kind == "banded":
            sigma = torch.triu(torch.tril(sigma, 3), -3)
        t = p.trace_by_identity(sigma)
        norm = t
        if kind == "trace_of_batch":
            norm = t.mean(0, keepdim=True)
            t = norm
        if kind == "spectral_bound":
            norm = sigma.abs().sum(2).amax(1)[:, None, None]
            t = norm
        if kind == "mean_variance":
            norm = t / c
            return p.upper_by_indices(self.root(sigma / (4.0 * norm)) * t.sqrt())
        if kind == "tiny_clamp":
            norm = t.clamp(min=1e-12)
        if kind == "divided_with_care":
            norm = t + 1e-10
        if kind == "compensated_with_epsilon":
            return p.upper_by_indices(self.root(sigma / t) * (t.sqrt() + 2e-2))
        if kind == "odd_power":
            return p.upper_by_indices(self.root(sigma / t) * t.pow(0.47))
        if kind == "signed_root_before":
            sigma = torch.sign(sigma) * sigma.abs().sqrt()
            t = norm = p.trace_by_identity(sigma)
        return p.upper_by_indices(self.root(sigma / norm) * t.sqrt())


class ChannelsLast(nn.Module):
    """A convolution with given weights on maps [N, H, W, C], rectified, then the layer."""

    def __init__(self, layer, kernel, bias):
        super().__init__()
        self.layer = layer
        self.register_buffer("kernel", torch.from_numpy(kernel).float())
        self.register_buffer("bias", torch.from_numpy(bias).float())

    def forward(self, x):
        return self.layer(torch.relu(nn.functional.conv2d(x.permute(0, 3, 1, 2), self.kernel, self.bias)))


class Either(nn.Module):
    """The module itself, and layers in branches that the data never take."""

    def __init__(self, layer, *others):
        super().__init__()
        self.layer, self.known = layer, list(others)

    def forward(self, x):
        return self.layer(x)
