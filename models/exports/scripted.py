"""Layers with control flow that stays in the graph: TorchScript's loops and conditions, `while_loop`, `cond`, `scan`."""

import torch
from torch import nn

import parts as p
from rare_layers import isqrt


def root_of(a: torch.Tensor, steps: int) -> torch.Tensor:
    """K steps on one matrix [C, C] or a batch of them."""
    eye = torch.eye(a.size(-1), dtype=a.dtype)
    y = a
    z = eye.expand_as(a)
    for _ in range(steps):
        t = 0.5 * (3.0 * eye - torch.matmul(z, y))
        y = torch.matmul(y, t)
        z = torch.matmul(t, z)
    return y


def upper_of(s: torch.Tensor) -> torch.Tensor:
    """The upper triangle of [N, C, C] by a flat mask."""
    c = s.size(-1)
    index = torch.ones(c, c).triu().flatten().nonzero().squeeze(1)
    return s.flatten(1).index_select(1, index)


def layer_of(x: torch.Tensor, steps: int) -> torch.Tensor:
    """The layer on [N, C, M]."""
    x = x - x.mean(2, keepdim=True)
    sigma = torch.bmm(x, x.transpose(1, 2)) / x.size(2)
    t = (sigma * torch.eye(x.size(1))).sum([1, 2], keepdim=True)
    return upper_of(root_of(sigma / t, steps) * t.sqrt())


class WhollyScripted(nn.Module):
    """All of the layer in TorchScript, a fixed number of steps."""

    def __init__(self, steps: int):
        super().__init__()
        self.steps = steps

    def forward(self, x):
        return layer_of(x.flatten(2), self.steps)


class CountedByData(nn.Module):
    """The number of steps comes with the model as an integer tensor, the loop carries on a condition, too."""

    def __init__(self, steps: int):
        super().__init__()
        self.register_buffer("steps", torch.tensor(steps))

    def forward(self, x):
        x = x.flatten(2)
        x = x - x.mean(2, keepdim=True)
        sigma = torch.bmm(x, x.transpose(1, 2)) / x.size(2)
        eye = torch.eye(x.size(1))
        t = (sigma * eye).sum([1, 2], keepdim=True)
        y = sigma / t
        z = eye.expand_as(y)
        k = torch.zeros([], dtype=torch.int64)
        while bool(k < self.steps):
            step = 1.5 * eye - 0.5 * torch.bmm(z, y)
            y = torch.bmm(y, step)
            z = torch.bmm(step, z)
            k = k + 1
        return upper_of(y * t.sqrt())


class EachSample(nn.Module):
    """A loop over a batch of any size, matrix by matrix, collected in a list: a sequence in ONNX."""

    def forward(self, x):
        found: list[torch.Tensor] = []
        eye = torch.eye(x.size(1))
        index = torch.ones(x.size(1), x.size(1)).triu().flatten().nonzero().squeeze(1)
        for n in range(x.size(0)):
            one = x[n].flatten(1)
            one = one - one.mean(1, keepdim=True)
            sigma = torch.mm(one, one.t()) / one.size(1)
            t = (sigma * eye).sum()
            y = sigma / t
            z = eye
            for _ in range(5):
                step = 0.5 * (3.0 * eye - torch.mm(z, y))
                y = torch.mm(y, step)
                z = torch.mm(step, z)
            found.append((y * t.sqrt()).flatten().index_select(0, index))
        return torch.stack(found)


class EachSampleBatched(nn.Module):
    """The same with every sample a batch of one, concatenated."""

    def forward(self, x):
        found: list[torch.Tensor] = []
        for n in range(x.size(0)):
            found.append(layer_of(x[n : n + 1].flatten(2), 3))
        return torch.cat(found, dim=0)


class ByShape(nn.Module):
    """More steps where there are more positions: an If on the shape."""

    def forward(self, x):
        x = x.flatten(2)
        if x.size(2) > 20:
            y = layer_of(x, 5)
        else:
            y = layer_of(x, 2)
        return y


class ByData(nn.Module):
    """One of two layers, as the data say."""

    def forward(self, x):
        x = x.flatten(2)
        if bool(x.mean() > -100.0):
            y = layer_of(x, 5)
        else:
            y = layer_of(x.relu(), 3)
        return y


class OnlyIfWanted(nn.Module):
    """The layer behind a flag that is a constant of the model."""

    def __init__(self):
        super().__init__()
        self.register_buffer("wanted", torch.tensor(True))

    def forward(self, x):
        x = x.flatten(2)
        if bool(self.wanted):
            y = layer_of(x, 5)
        else:
            y = upper_of(torch.bmm(x, x.transpose(1, 2)))
        return y


class Scripted(nn.Module):
    """A scripted module with what it computes; run eagerly, it is the module itself."""

    scripted = True
    is_layer = True

    def __init__(self, module, *known, alternatives=None):
        super().__init__()
        self.module, self.known, self.alternatives = module, list(known), alternatives

    def forward(self, x):
        return self.module(x)


class Branches(nn.Module):
    """`cond` with a layer in each branch; nested, one of them is a choice again."""

    is_layer = True

    def __init__(self, nested=False):
        super().__init__()
        self.nested = nested
        self.known = [isqrt(), isqrt(iterations=3, centered=0)] + ([isqrt(iterations=2)] if nested else [])

    def forward(self, x):
        x = x.flatten(2)

        def layer(covariance, steps):
            def branch(x):
                sigma = covariance(x)
                t = p.trace_by_diagonal(sigma)
                return p.upper_by_indices(p.iterate_without_waste(sigma / t, steps) * t.sqrt())

            return branch

        first, second, third = layer(p.cov_by_mean, 5), layer(p.second_moment, 3), layer(p.cov_by_mean, 2)
        if not torch.compiler.is_exporting():
            other = third if self.nested and x.min() > 1e6 else second
            return first(x) if x.max() > -1e6 else other(x)
        inner = (lambda x: torch.cond(x.min() > 1e6, third, second, (x,))) if self.nested else second
        return torch.cond(x.max() > -1e6, first, inner, (x,))


class While(nn.Module):
    """`while_loop` with the layer wholly in its body: the map is damped and pooled again, three times."""

    def __init__(self):
        super().__init__()
        self.known = [isqrt()]

    def forward(self, x):
        from torch._higher_order_ops.while_loop import while_loop

        x = x.flatten(2)

        def layer(x):
            sigma = p.cov_by_mean(x)
            t = p.trace_by_diagonal(sigma)
            return p.upper_by_indices(p.iterate_without_waste(sigma / t, 5) * t.sqrt())

        def body(k, x, total):
            return k + 1, torch.relu(x - 0.1), total + layer(x)

        start = (torch.tensor(0), x, layer(x) * 0.0)
        if not torch.compiler.is_exporting():
            k, x, total = start
            while k < 3:
                k, x, total = body(k, x, total)
            return total
        start = (torch.tensor(0), x.clone(), torch.zeros(x.shape[0], x.shape[1] * (x.shape[1] + 1) // 2))
        return while_loop(lambda k, x, total: k < 3, body, start)[2]


class Scanned(nn.Module):
    """`scan` over the batch: ONNX's Scan, a sample at a time."""

    is_layer = True

    def __init__(self):
        super().__init__()
        self.known = [isqrt()]

    def forward(self, x):
        from torch._higher_order_ops.scan import scan

        def layer(x):
            sigma = p.cov_by_mean(x)
            t = p.trace_by_diagonal(sigma)
            return p.upper_by_indices(p.iterate_without_waste(sigma / t, 5) * t.sqrt())

        x = x.flatten(2)
        if not torch.compiler.is_exporting():
            return layer(x)

        def combine(count, sample):
            return count + 1, layer(sample[None])[0]

        return scan(combine, torch.zeros(()), x, dim=0)[1]
