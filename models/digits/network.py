"""The digit classifier: a small convolutional trunk, the iSQRT-COV layer, a linear classifier.

The layer follows Li, Xie, Wang, Gao, "Towards Faster Training of Global Covariance Pooling Networks by Iterative Matrix
Square Root Normalization", CVPR 2018. It is written the way people write it for training, with an explicit backward
pass and in-place writes into buffers made beforehand, because that is what TorchScript's exporter cannot follow: this
model shows what happens to a real one.
"""

import torch
from torch import nn


class NewtonSchulzRoot(torch.autograd.Function):
    """S = √t · Y_K for symmetric positive semi-definite Σ [N, C, C], with t = tr Σ and K ≥ 2 coupled steps.

    Y₀ = Σ/t, Z₀ = I;  T = ½(3I − ZY);  Y ← YT;  Z ← TZ.  (Section 3.2 of the paper, equations 4 to 6.)
    """

    @staticmethod
    def forward(ctx, sigma, steps):
        n, c = sigma.shape[0], sigma.shape[1]
        eye = torch.eye(c, dtype=sigma.dtype, device=sigma.device)
        trace = (sigma * eye).sum(dim=(1, 2)).view(n, 1, 1)
        y = torch.zeros(n, steps, c, c, dtype=sigma.dtype, device=sigma.device)
        z = torch.zeros(n, steps, c, c, dtype=sigma.dtype, device=sigma.device)
        y[:, 0] = sigma / trace
        z[:, 0] = eye
        for k in range(1, steps):
            # Z₀ = I spares the first step's product.
            zy = z[:, k - 1].bmm(y[:, k - 1]) if k > 1 else y[:, 0]
            t = 1.5 * eye - 0.5 * zy
            y[:, k] = y[:, k - 1].bmm(t)
            z[:, k] = t.bmm(z[:, k - 1]) if k > 1 else t
        # The last step needs no Z.
        last = y[:, steps - 1].bmm(1.5 * eye - 0.5 * z[:, steps - 1].bmm(y[:, steps - 1]))
        root = last * trace.sqrt()
        ctx.save_for_backward(y, z, trace, root)
        return root

    @staticmethod
    def backward(ctx, grad):
        y, z, trace, root = ctx.saved_tensors
        eye = torch.eye(y.shape[-1], dtype=y.dtype, device=y.device)
        grad_trace = (grad * root).sum(dim=(1, 2), keepdim=True) / (2 * trace)
        grad_y, grad_z = grad * trace.sqrt(), torch.zeros_like(grad)
        for k in reversed(range(y.shape[1])):
            y_k, z_k = y[:, k], z[:, k]
            t = 1.5 * eye - 0.5 * z_k.bmm(y_k)
            grad_t = y_k.mT.bmm(grad_y) + grad_z.bmm(z_k.mT)
            grad_y, grad_z = (
                grad_y.bmm(t.mT) - 0.5 * z_k.mT.bmm(grad_t),
                t.mT.bmm(grad_z) - 0.5 * grad_t.bmm(y_k.mT),
            )
        grad_trace = grad_trace - (grad_y * y[:, 0]).sum(dim=(1, 2), keepdim=True) / trace
        return grad_y / trace + grad_trace * eye, None


class CovariancePooling(nn.Module):
    """[N, C, H, W] → [N, C(C+1)/2]: covariance, K-step root, upper triangle row by row."""

    def __init__(self, channels, steps=5):
        super().__init__()
        self.steps = steps
        rows, columns = torch.triu_indices(channels, channels)
        self.register_buffer("triangle", rows * channels + columns, persistent=False)

    def forward(self, features):
        n, c, h, w = features.shape
        m = h * w
        x = features.reshape(n, c, m)
        centering = torch.eye(m, device=x.device) / m - torch.full((m, m), 1.0 / (m * m), device=x.device)
        sigma = x.matmul(centering).bmm(x.transpose(1, 2))
        root = NewtonSchulzRoot.apply(sigma, self.steps)
        return root.reshape(n, c * c)[:, self.triangle]


class DigitNet(nn.Module):
    """[N, 1, 8, 8] images → [N, 10] logits."""

    def __init__(self, width=48, channels=24, steps=5):
        super().__init__()
        self.conv1 = nn.Conv2d(1, width // 2, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.reduce = nn.Conv2d(width, channels, 1, bias=False)
        self.reduce_bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.pool = CovariancePooling(channels, steps)
        self.classifier = nn.Linear(channels * (channels + 1) // 2, 10)

    def forward(self, image):
        x = self.relu(self.bn1(self.conv1(image)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = x + self.relu(self.bn3(self.conv3(x)))
        x = self.relu(self.reduce_bn(self.reduce(x)))
        return self.classifier(self.pool(x))
