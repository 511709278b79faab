"""Modules that hold the layer. Each says in `operator` and `attributes` what it computes; `make.py` checks it."""

import numpy as np
import torch
from torch import nn

import parts


def attributes_of(covariance, normalization, vectorization, steps):
    """The IsqrtCov attributes of a choice of parts, those at their defaults left out."""
    found = {"iterations": steps}
    if covariance is parts.second_moment:
        found["centered"] = 0
    if covariance in (parts.cov_unbiased, parts.cov_vmapped):
        found["correction"] = 1
    if normalization in (parts.frobenius, parts.frobenius_by_squares):
        found["normalization"] = "frobenius"
    if vectorization in (parts.whole, parts.flattened):
        found["vectorization"] = "none"
    if vectorization in (
        parts.column_major_by_transposed_mask,
        parts.lower_by_rows,
        parts.lower_by_indices,
        parts.lower_by_mask,
    ):
        found["vectorization"] = "upper_column_major"
    if vectorization in (parts.upper_isometric, parts.upper_isometric_afterwards):
        found["off_diagonal_scale"] = 2.0**0.5
    return found


class Layer(nn.Module):
    """The layer put together from parts. [N, C, …] → what the vectorization gives."""

    operator = "IsqrtCov"

    def __init__(
        self,
        covariance=parts.cov_by_mean,
        trace=parts.trace_by_diagonal,
        iterate=parts.iterate_plainly,
        vectorization=parts.upper_by_indices,
        steps=5,
        epsilon=0.0,
        compensated=True,
        tokens=False,
    ):
        super().__init__()
        self.covariance, self.trace, self.iterate, self.vectorization = covariance, trace, iterate, vectorization
        self.steps, self.epsilon, self.compensated, self.tokens = steps, epsilon, compensated, tokens
        self.attributes = attributes_of(covariance, trace, vectorization, steps)
        if epsilon:
            self.attributes["epsilon"] = epsilon
        if not compensated:
            self.attributes["compensated"] = 0
        if tokens:
            self.attributes["layout"] = "channels_last"

    def forward(self, x):
        if self.tokens:
            x = x.flatten(1, -2).transpose(1, 2)
        sigma = self.covariance(x.flatten(2))
        if self.epsilon:
            sigma = sigma + self.epsilon * parts.eye_like(sigma)
        t = self.trace(sigma)
        root = self.iterate(sigma / t, self.steps)
        if self.compensated:
            root = root * t.sqrt()
        return self.vectorization(root)


class Covariance(nn.Module):
    """The covariance alone."""

    operator = "CovariancePooling"

    def __init__(self, covariance=parts.cov_by_mean, vectorization=parts.whole):
        super().__init__()
        self.covariance, self.vectorization = covariance, vectorization
        # CovariancePooling's own default is the whole matrix.
        self.attributes = {"vectorization": "upper", **attributes_of(covariance, None, vectorization, 5)}
        del self.attributes["iterations"]

    def forward(self, x):
        return self.vectorization(self.covariance(x.flatten(2)))


class WithBuffers(nn.Module):
    """Identity, centring matrix and triangle kept as buffers of a fixed size."""

    operator = "IsqrtCov"

    def __init__(self, channels, positions, steps=5):
        super().__init__()
        self.steps = steps
        self.attributes = {"iterations": steps}
        self.register_buffer("three_eye", 3.0 * torch.eye(channels)[None])
        centering = torch.eye(positions) - torch.full((positions, positions), 1.0 / positions)
        self.register_buffer("centering", centering / positions)
        rows, columns = torch.triu_indices(channels, channels)
        self.register_buffer("triangle", rows * channels + columns)

    def forward(self, x):
        x = x.flatten(2)
        sigma = torch.matmul(torch.matmul(x, self.centering), x.transpose(1, 2))
        trace = (sigma * (self.three_eye / 3.0)).sum((1, 2), keepdim=True)
        y, z = sigma / trace, self.three_eye / 3.0
        for _ in range(self.steps):
            t = 0.5 * (self.three_eye - torch.matmul(z, y))
            y, z = torch.matmul(y, t), torch.matmul(t, z)
        return torch.index_select((y * torch.sqrt(trace)).flatten(1), 1, self.triangle)


class InPlaceRoot(torch.autograd.Function):
    """The root written into buffers made beforehand: the style whose iteration TorchScript's exporter loses."""

    @staticmethod
    def forward(ctx, sigma, steps):
        n, c = sigma.shape[0], sigma.shape[1]
        eye = torch.eye(c, dtype=sigma.dtype)
        trace = (sigma * eye).sum(2).sum(1).view(n, 1, 1)
        ys = torch.zeros(n, steps + 1, c, c, dtype=sigma.dtype)
        zs = torch.zeros(n, steps + 1, c, c, dtype=sigma.dtype)
        ys[:, 0, :, :] = sigma / trace
        zs[:, 0, :, :] = eye
        for k in range(steps):
            t = 0.5 * (3.0 * eye - zs[:, k, :, :].bmm(ys[:, k, :, :]))
            ys[:, k + 1, :, :] = ys[:, k, :, :].bmm(t)
            zs[:, k + 1, :, :] = t.bmm(zs[:, k, :, :])
        return ys[:, steps, :, :] * torch.sqrt(trace)

    @staticmethod
    def backward(ctx, grad):
        raise NotImplementedError("these layers are never trained")


class InPlaceTriangle(torch.autograd.Function):
    """The triangle, too, written into a buffer."""

    @staticmethod
    def forward(ctx, root, index):
        flat = root.reshape(root.shape[0], -1)
        out = torch.zeros(root.shape[0], index.numel(), dtype=root.dtype)
        out[:, :] = flat[:, index]
        return out

    @staticmethod
    def backward(ctx, grad):
        raise NotImplementedError("these layers are never trained")


class InPlace(nn.Module):
    """The published style: autograd functions with in-place writes."""

    operator = "IsqrtCov"

    def __init__(self, channels, steps=5, column_major=False, buffered_triangle=False):
        super().__init__()
        self.steps, self.buffered_triangle = steps, buffered_triangle
        order = "upper_column_major" if column_major else "upper"
        self.attributes = {"iterations": steps, "vectorization": order}
        rows, columns = (
            torch.tril_indices(channels, channels).flip(0) if column_major else torch.triu_indices(channels, channels)
        )
        self.register_buffer("triangle", rows * channels + columns, persistent=False)

    def forward(self, x):
        root = InPlaceRoot.apply(parts.cov_by_centering_matrix(x.flatten(2)), self.steps)
        if self.buffered_triangle:
            return InPlaceTriangle.apply(root, self.triangle)
        return root.reshape(root.shape[0], -1)[:, self.triangle]


class InPlaceUnwrapped(nn.Module):
    """The same writes outside an autograd function: both exporters follow them."""

    operator = "IsqrtCov"

    def __init__(self, steps=5):
        super().__init__()
        self.steps = steps
        self.attributes = {"iterations": steps}

    def forward(self, x):
        sigma = parts.cov_by_centering_matrix(x.flatten(2))
        return parts.upper_by_flat_index(InPlaceRoot.forward(None, sigma, self.steps))


class PerSample(nn.Module):
    """Everything in a Python loop over a fixed batch."""

    operator = "IsqrtCov"

    def __init__(self, steps=5):
        super().__init__()
        self.steps = steps
        self.attributes = {"iterations": steps}

    def forward(self, batch):
        out = []
        for x in batch.flatten(2):
            c, m = x.shape
            x = x - x.mean(1, keepdim=True)
            sigma = x.mm(x.t()) / m
            eye = torch.eye(c)
            trace = (sigma * eye).sum()
            y, z = sigma / trace, eye
            for _ in range(self.steps):
                t = 0.5 * (3 * eye - z.mm(y))
                y, z = y.mm(t), t.mm(z)
            y = y * trace.sqrt()
            out.append(y[torch.triu(torch.ones(c, c)) == 1])
        return torch.stack(out)


class Gram(nn.Module):
    """For M < C: the iteration on the M×M Gram matrix. Y_K = A q(A) with a polynomial q, so S = X̄ q(G) X̄ᵀ √t/(M t)."""

    operator = "IsqrtCov"

    def __init__(self, steps=5):
        super().__init__()
        self.steps = steps
        self.attributes = {"iterations": steps}

    def forward(self, x):
        x = x.flatten(2)
        m = x.shape[2]
        x = x - x.mean(2, keepdim=True)
        t = x.pow(2).sum((1, 2), keepdim=True) / m
        gram = x.transpose(1, 2) @ x / (m * t)
        # q(G) is the uncoupled iterate that tends to G^(−½).
        q = torch.eye(m).expand_as(gram)
        for _ in range(self.steps):
            q = 1.5 * q - 0.5 * (q @ q @ q @ gram)
        return parts.upper_by_indices(x @ q @ x.transpose(1, 2) / (m * t.sqrt()))


class InPrecision(nn.Module):
    """A layer between casts. `dtype` can be set to float32 to know what the graph should give."""

    def __init__(self, layer, dtype, back=True):
        super().__init__()
        self.layer, self.dtype, self.back = layer, dtype, back

    def forward(self, x):
        y = self.layer(x.to(self.dtype))
        return y.float() if self.back else y


class HalfProducts(nn.Module):
    """As automatic mixed precision does it: products in float16, everything else in float32."""

    operator = "IsqrtCov"

    def __init__(self, steps=5):
        super().__init__()
        self.steps, self.dtype = steps, torch.float16
        self.attributes = {"iterations": steps}

    def product(self, left, right):
        return torch.bmm(left.to(self.dtype), right.to(self.dtype)).float()

    def forward(self, x):
        x = x.flatten(2)
        x = (x - x.mean(2, keepdim=True)) / x.shape[2] ** 0.5
        sigma = self.product(x, x.transpose(1, 2))
        t = parts.trace_by_diagonal(sigma)
        eye = torch.eye(x.shape[1]).expand_as(sigma)
        y, z = sigma / t, eye
        for _ in range(self.steps):
            step = 0.5 * (3.0 * eye - self.product(z, y))
            y, z = self.product(y, step), self.product(step, z)
        return parts.upper_by_indices(y * t.sqrt())


class ScriptedIteration(nn.Module):
    """The iteration in TorchScript with its number of steps a run-time value: exported as an ONNX Loop."""

    operator = "IsqrtCov"

    def __init__(self, steps=5):
        super().__init__()
        self.attributes = {"iterations": steps}
        self.iterate = torch.jit.script(iterate_in_script)
        self.register_buffer("steps", torch.tensor(steps))

    def forward(self, x):
        sigma = parts.cov_by_mean(x.flatten(2))
        t = parts.trace_by_identity(sigma)
        return parts.upper_by_indices(self.iterate(sigma / t, self.steps) * t.sqrt())


def iterate_in_script(a: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """The plain iteration, typed for TorchScript."""
    eye = torch.eye(a.size(1), dtype=a.dtype)
    y, z = a, eye.expand_as(a)
    for _ in range(int(steps)):
        t = 0.5 * (3.0 * eye - z.bmm(y))
        y, z = y.bmm(t), t.bmm(z)
    return y


class WhileLoop(nn.Module):
    """The iteration as a `while_loop`: the dynamo exporter keeps it a Loop."""

    operator = "IsqrtCov"

    def __init__(self, steps=5):
        super().__init__()
        self.steps = steps
        self.attributes = {"iterations": steps}

    def forward(self, x):
        from torch._higher_order_ops.while_loop import while_loop

        sigma = parts.cov_by_mean(x.flatten(2))
        t = parts.trace_by_diagonal(sigma)
        eye = torch.eye(sigma.shape[-1])

        def body(k, y, z):
            step = 1.5 * torch.eye(y.shape[-1]) - 0.5 * (z @ y)
            return k + 1, y @ step, step @ z

        start = (torch.tensor(0), sigma / t, eye.expand_as(sigma).clone())
        _, y, _ = while_loop(lambda k, y, z: k < self.steps, body, start)
        return parts.upper_by_indices(y * t.sqrt())


# Networks around the layer


class Halves(nn.Module):
    """Two layers, each on one half of the channels, side by side."""

    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x):
        low, high = x.chunk(2, dim=1)
        return torch.cat([self.first(low), self.second(high)], dim=1)


class Network(nn.Module):
    """Convolution, batch norm, the layer, linear classifier."""

    def __init__(self, layer, channels, features, inputs=3):
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(inputs, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
        )
        self.layer = layer
        self.classifier = nn.Linear(features, 7)

    def forward(self, x):
        return self.classifier(self.layer(self.trunk(x)))


class Normalised(nn.Module):
    """Signed square root and L2 normalisation after the layer."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        y = self.layer(x).flatten(1)
        y = torch.sign(y) * torch.sqrt(torch.abs(y) + 1e-12)
        return nn.functional.normalize(y, dim=1)


class StrictTriangle(nn.Module):
    """The triangle without its diagonal: the root can be replaced, the selection stays."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        s = self.layer(x)
        rows, columns = parts.indices_of(lambda side: np.triu_indices(side, 1), s.shape[-1])
        return s[:, rows, columns]


class SecondOrderAttention(nn.Module):
    """Channel attention in the manner of SAN: the root's mean row weighs the channels."""

    def __init__(self, layer, channels):
        super().__init__()
        self.layer = layer
        self.squeeze = nn.Conv2d(channels, channels // 4, 1)
        self.excite = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x):
        weight = self.layer(x).mean(dim=1)[:, :, None, None]
        weight = torch.sigmoid(self.excite(torch.relu(self.squeeze(weight))))
        return x * weight


class CovarianceAttention(nn.Module):
    """Channel attention in the manner of GSoP: a grouped convolution reads each channel's row of the covariance."""

    def __init__(self, layer, inputs, channels):
        super().__init__()
        self.reduce = nn.Sequential(nn.Conv2d(inputs, channels, 1), nn.BatchNorm2d(channels), nn.ReLU())
        self.layer = layer
        self.rows = nn.Conv2d(channels, 2 * channels, (1, channels), groups=channels)
        self.weigh = nn.Conv2d(2 * channels, inputs, 1)

    def forward(self, x):
        sigma = self.layer(self.reduce(x))
        weight = self.rows(sigma.unsqueeze(2))
        return x * torch.sigmoid(self.weigh(torch.nn.functional.leaky_relu(weight, 0.1)))


class WithMean(nn.Module):
    """First-order features beside the second-order ones, from the same map."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return torch.cat([self.layer(x), x.mean(dim=(2, 3))], dim=1)


class SharedTrace(nn.Module):
    """The trace, part of the layer, is read once more outside it."""

    operator = None

    def __init__(self, steps=5):
        super().__init__()
        self.steps = steps
        self.known = [{"operator": "IsqrtCov", "attributes": {"iterations": steps}}]

    def forward(self, x):
        sigma = parts.cov_by_mean(x.flatten(2))
        t = parts.trace_by_diagonal(sigma)
        root = parts.iterate_without_waste(sigma / t, self.steps) * t.sqrt()
        return torch.cat([parts.upper_by_indices(root), torch.log1p(t).flatten(1)], dim=1)


class ClassToken(nn.Module):
    """Tokens of a transformer: the class token is set aside, the layer pools the others."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, tokens):
        return torch.cat([tokens[:, 0], self.layer(tokens[:, 1:])], dim=1)


class Choice(nn.Module):
    """The layer in one branch of a condition on the data; the other pools the mean."""

    def __init__(self, layer, features):
        super().__init__()
        self.layer, self.features = layer, features

    def forward(self, x):
        def plain(x):
            mean = x.mean(dim=(2, 3))
            return mean.repeat(1, self.features // mean.shape[1] + 1)[:, : self.features].clone()

        if torch.compiler.is_exporting():
            return torch.cond(x.sum() > 0, self.layer, plain, (x,))
        return self.layer(x) if x.sum() > 0 else plain(x)


# Near misses: nothing here is an IsqrtCov


class NearMiss(nn.Module):
    """The layer with one thing different. `kind` names it."""

    operator = None

    def __init__(self, kind, vectorization=parts.upper_by_indices, steps=5, channels=None):
        super().__init__()
        self.kind, self.vectorization, self.steps = kind, vectorization, steps
        if kind == "learned_scale":
            self.scale = nn.Parameter(torch.tensor(0.83))
        if kind == "learned_diagonal":
            self.scale = nn.Parameter(torch.linspace(0.7, 1.2, channels))

    def forward(self, x):
        x = x.flatten(2)
        n, c, m = x.shape
        kind = self.kind
        if kind == "across_batch":
            # One covariance for the whole batch: the same as the layer for a batch of one only.
            joint = x.transpose(0, 1).flatten(1)
            joint = joint - joint.mean(1, keepdim=True)
            sigma = (joint @ joint.t() / joint.shape[1]).expand(n, c, c)
        elif kind == "weighted_positions":
            weight = torch.softmax(x.sum(1, keepdim=True), dim=2)
            centred = x - (x * weight).sum(2, keepdim=True)
            sigma = (centred * weight) @ centred.transpose(1, 2)
        elif kind == "across_halves":
            # Features of one half of the positions against the other's, made symmetric.
            first, second = x[:, :, : m // 2], x[:, :, m // 2 : 2 * (m // 2)]
            cross = first @ second.transpose(1, 2) / (m // 2)
            sigma = cross + cross.transpose(1, 2)
        elif kind == "centred_by_half_maximum":
            x = x - x.amax(2, keepdim=True) / 2
            sigma = x @ x.transpose(1, 2) / m
        elif kind == "rows_centred":
            # Each position's mean over the channels taken out, in place of each channel's over the positions.
            x = x - x.mean(1, keepdim=True)
            sigma = x @ x.transpose(1, 2) / m
        else:
            sigma = parts.cov_by_mean(x)
        if kind == "correlation":
            deviation = sigma.diagonal(dim1=1, dim2=2).sqrt()
            sigma = sigma / (deviation.unsqueeze(1) * deviation.unsqueeze(2))
        t = parts.trace_by_diagonal(sigma)
        if kind == "softmax":
            return torch.softmax(sigma, dim=-1)
        if kind == "relative_epsilon":
            sigma = sigma + 0.1 * t / c * torch.eye(c)
            t = parts.trace_by_diagonal(sigma)
        if kind == "other_trace":
            # The trace of the uncentred second moment.
            t = x.pow(2).sum((1, 2), keepdim=True) / m
        if kind == "largest_entry":
            t = sigma.amax((1, 2), keepdim=True)
        a = sigma / t
        if kind == "learned_scale":
            a = a * self.scale
        if kind == "learned_diagonal":
            a = a * self.scale[:, None] * self.scale[None, :]
        if kind == "epsilon_after_normalisation":
            a = a + 1e-2 * torch.eye(c)
        eye = torch.eye(c).expand_as(a)
        three, half = {
            "wrong_coefficient": (2.9, 0.5),
            "nearly_right_coefficient": (2.997, 0.5),
            "damped": (3.0, 0.45),
        }.get(kind, (3.0, 0.5))
        y, z = a, eye
        for _ in range(self.steps):
            step = half * (three * eye - z @ y)
            y = y @ step
            if kind == "updated_too_early":
                # Z sees the new Y's step.
                step = half * (three * eye - z @ y)
            z = step @ z
            if kind == "rectified":
                y = torch.relu(y)
        if kind == "inverse_root":
            return self.vectorization(z / t.sqrt())
        if kind == "square":
            return self.vectorization(y @ y * t)
        if kind == "compensated_by_trace":
            return self.vectorization(y * t)
        if kind == "compensated_by_frobenius":
            return self.vectorization(y * parts.frobenius(sigma).sqrt())
        if kind == "root_and_inverse":
            return self.vectorization(y * t.sqrt() + z / t.sqrt())
        return self.vectorization(y * t.sqrt())
