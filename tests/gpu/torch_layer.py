"""The layer in PyTorch, float32 with TF32 off: as the authors wrote it, and as lean as cuBLAS lets it be."""

import torch


class Published:
    """The authors' code, operation by operation, but for its constants, which they make anew in every run. Five steps or more than one."""

    def __init__(self, batch: int, channels: int, positions: int, iterations: int = 5):
        self.iterations = iterations
        eye = torch.eye(positions, device="cuda")
        self.centering = (eye / positions - 1 / positions**2)[None].repeat(batch, 1, 1)
        self.three_eye = 3 * torch.eye(channels, device="cuda")[None].repeat(batch, 1, 1)
        self.index = torch.ones(channels, channels, device="cuda").triu().reshape(-1).nonzero()[:, 0]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        batch, channels, _ = x.shape
        sigma = x.bmm(self.centering).bmm(x.transpose(1, 2))
        trace = (1 / 3) * sigma.mul(self.three_eye).sum(dim=1).sum(dim=1)
        a = sigma.div(trace.view(batch, 1, 1).expand_as(sigma))
        zy = 0.5 * (self.three_eye - a)
        y, z = a.bmm(zy), zy
        for _ in range(1, self.iterations - 1):
            zy = 0.5 * (self.three_eye - z.bmm(y))
            y, z = y.bmm(zy), zy.bmm(z)
        y = 0.5 * y.bmm(self.three_eye - z.bmm(y))
        y = y * torch.sqrt(trace).view(batch, 1, 1).expand_as(y)
        return y.reshape(batch, channels * channels)[:, self.index]


class Lean:
    """The same with what goes with a product inside it, by baddbmm, and the trace taken from the samples."""

    def __init__(self, batch: int, channels: int, positions: int, iterations: int = 5):
        self.iterations, self.positions = iterations, positions
        self.eye = 1.5 * torch.eye(channels, device="cuda")[None].expand(batch, channels, channels)
        rows, columns = torch.triu_indices(channels, channels, device="cuda")
        self.index = rows * channels + columns

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        batch, channels, _ = x.shape
        x = x - x.mean(2, keepdim=True)
        trace = x.square().sum((1, 2), keepdim=True) / self.positions
        x = x / torch.sqrt(trace * self.positions)
        a = x.bmm(x.transpose(1, 2))
        z = torch.sub(self.eye, a, alpha=0.5)
        y = a.bmm(z)
        for step in range(1, self.iterations):
            t = torch.baddbmm(self.eye, z, y, alpha=-0.5)
            y = y.bmm(t)
            if step < self.iterations - 1:
                z = t.bmm(z)
        return (y * torch.sqrt(trace)).reshape(batch, channels * channels).index_select(1, self.index)


def captured(layer, x: torch.Tensor, y: torch.Tensor, stream: torch.cuda.Stream) -> torch.cuda.CUDAGraph:
    """A graph that puts the layer of what `x` holds into `y`."""
    for _ in range(2):
        y.copy_(layer(x))
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        y.copy_(layer(x))
    return graph
