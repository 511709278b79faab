"""Networks with the iSQRT-COV layer under the names of the published checkpoints.

A module's attributes are named as the tensors are in a checkpoint of its layout, so that `load_state_dict` is all that is
needed to read one:

| layout | names |
|---|---|
| released | `conv1`, `bn1`, `layer1` … `layer4`, `layer_reduce`, `layer_reduce_bn`, `fc` |
| training | `features.N`, `representation.conv_dr_block`, `classifier` |
| finetuned | `features.N` with the reduction as the last ones, `classifier` |
| imgclsmob | `features.init_block`, `features.stageS.unitU`, `features.final_block`, `output` |

Everything here is written for reading and in plain operations: any dtype, any batch and image size. The layer follows Li, Xie,
Wang, Gao, "Towards Faster Training of Global Covariance Pooling Networks by Iterative Matrix Square Root Normalization",
CVPR 2018; the attention Gao, Xie, Wang, Li, "Global Second-order Pooling Convolutional Networks", CVPR 2019.
"""

from collections import OrderedDict

import torch
from torch import nn

ROW_MAJOR, COLUMN_MAJOR = "upper", "upper_column_major"


def covariance(x):
    """[N, C, H, W] → [N, C, C], divided by the number of positions."""
    x = x.flatten(2)
    x = x - x.mean(dim=2, keepdim=True)
    return x.bmm(x.transpose(1, 2)) / x.shape[2]


def root(sigma, iterations):
    """√t · Y_K with t = tr Σ, from Y₀ = Σ/t, Z₀ = I;  T = ½(3I − ZY);  Y ← YT;  Z ← TZ.  [N, C, C] → [N, C, C]"""
    eye = torch.eye(sigma.shape[1], dtype=sigma.dtype)
    trace = sigma.diagonal(dim1=1, dim2=2).sum(dim=1).view(-1, 1, 1)
    y, z = sigma / trace, eye.expand_as(sigma)
    for _ in range(iterations):
        t = 0.5 * (3 * eye - z.bmm(y))
        y, z = y.bmm(t), t.bmm(z)
    return trace.sqrt() * y


def triangle_positions(channels, order):
    """Rows and columns (i ≤ j) of the upper triangle's entries, row by row or column by column. Two of [C(C+1)/2]"""
    pairs = [(i, j) for i in range(channels) for j in range(i, channels)]
    if order == COLUMN_MAJOR:
        pairs.sort(key=lambda pair: (pair[1], pair[0]))
    rows, columns = zip(*pairs)
    return torch.tensor(rows), torch.tensor(columns)


class Representation(nn.Module):
    """[N, C, H, W] → [N, D(D+1)/2]: the reduction to D channels, where it is part of this, and the layer.

    With `reduction` None, the D channels are those that come in.
    """

    def __init__(self, channels, reduction=None, iterations=5, triangle=ROW_MAJOR):
        super().__init__()
        self.iterations, self.triangle = iterations, triangle
        if reduction is not None:
            self.conv_dr_block = nn.Sequential(*reduce(channels, reduction))
        channels = reduction or channels
        self.features = channels * (channels + 1) // 2

    def forward(self, x):
        if hasattr(self, "conv_dr_block"):
            x = self.conv_dr_block(x)
        s = root(covariance(x), self.iterations)
        rows, columns = triangle_positions(s.shape[1], self.triangle)
        return s[:, rows, columns]


def reduce(channels, reduction):
    """The 1×1 convolution in front of the layer, its batch norm and its ReLU."""
    return [nn.Conv2d(channels, reduction, 1, bias=False), nn.BatchNorm2d(reduction), nn.ReLU()]


class Block(nn.Module):
    """A residual block; `branch` is what is added to the shortcut. [N, C, H, W] → [N, C', ⌈H/s⌉, ⌈W/s⌉]"""

    def __init__(self, channels, out, stride):
        super().__init__()
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x):
        shortcut = self.downsample(x) if hasattr(self, "downsample") else x
        return torch.relu(self.branch(x) + shortcut)


class BasicBlock(Block):
    """Two 3×3 convolutions."""

    expansion = 1

    def __init__(self, channels, width, stride=1):
        super().__init__(channels, width, stride)
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def branch(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(x))


class Bottleneck(Block):
    """1×1, 3×3, 1×1; the stride is the second convolution's."""

    expansion = 4

    def __init__(self, channels, width, stride=1):
        super().__init__(channels, 4 * width, stride)
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)

    def branch(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(x))


class AttentionBlock(Bottleneck):
    """A bottleneck whose branch is scaled, channel by channel, by what the covariance of its own output says.

    The covariance [N, d, d] is read as d rows of one image each: batch norm by row, four filters over each row, a linear
    map to the channels, a sigmoid.
    """

    def __init__(self, channels, width, stride=1, attention=128, attention_stride=1):
        super().__init__(channels, width, stride)
        self.conv_for_DR = nn.Conv2d(4 * width, attention, 1, attention_stride)
        self.bn_for_DR = nn.BatchNorm2d(attention)
        self.row_bn = nn.BatchNorm2d(attention)
        self.row_conv_group = nn.Conv2d(attention, 4 * attention, (attention, 1), groups=attention)
        self.fc_adapt_channels = nn.Conv2d(4 * attention, 4 * width, 1)

    def branch(self, x):
        x = super().branch(x)
        reduced = torch.relu(self.bn_for_DR(self.conv_for_DR(torch.relu(x))))
        rows = self.row_bn(covariance(reduced).unsqueeze(3))
        return x * torch.sigmoid(self.fc_adapt_channels(self.row_conv_group(rows)))


def resnet_trunk(block, depths, widths, stem=None, last_stride=1, attention=None, attention_blocks="last"):
    """The modules before the reduction, by their released names, and the number of channels they give.

    With `attention`, the "last" block of every stage but the last has it, or "every" one; its covariance is of every
    second position in the first stage and of all in the others.
    """
    channels = stem or widths[0]
    parts = OrderedDict(
        conv1=nn.Conv2d(3, channels, 7, 2, 3, bias=False),
        bn1=nn.BatchNorm2d(channels),
        relu=nn.ReLU(),
        maxpool=nn.MaxPool2d(3, 2, 1),
    )
    last = len(depths) - 1
    for index, (depth, width) in enumerate(zip(depths, widths)):
        blocks = []
        for unit in range(depth):
            stride = 1 if unit or index == 0 else last_stride if index == last else 2
            attends = attention and index != last and (unit == depth - 1 or attention_blocks == "every")
            if attends:
                blocks.append(AttentionBlock(channels, width, stride, attention, 1 if index else 2))
            else:
                blocks.append(block(channels, width, stride))
            channels = width * block.expansion
        parts[f"layer{index + 1}"] = nn.Sequential(*blocks)
    return parts, channels


class Released(nn.Module):
    """A ResNet as the released models name it, the attention networks as well. [N, 3, H, W] → [N, classes]"""

    def __init__(self, trunk, channels, reduction, classes, **layer):
        super().__init__()
        self.trunk = list(trunk)
        for name, part in trunk.items():
            self.add_module(name, part)
        self.layer_reduce, self.layer_reduce_bn, self.layer_reduce_relu = reduce(channels, reduction)
        self.representation = Representation(reduction, **layer)
        self.fc = nn.Linear(self.representation.features, classes)

    def forward(self, x):
        for name in self.trunk:
            x = getattr(self, name)(x)
        x = self.layer_reduce_relu(self.layer_reduce_bn(self.layer_reduce(x)))
        return self.fc(self.representation(x))


class Training(nn.Module):
    """Features, representation, classifier, as the training code names them. [N, 3, H, W] → [N, classes]

    `reduction` inside the representation, or with `reduced_in_features` as the last of the features, or None.
    `classifier` makes a module of the two sizes that it is to have: one linear map, or the three of VGG and AlexNet.
    """

    def __init__(
        self, features, channels, reduction, classes, classifier=nn.Linear, reduced_in_features=False, **layer
    ):
        super().__init__()
        if reduced_in_features:
            features, channels, reduction = [*features, *reduce(channels, reduction)], reduction, None
        self.features = nn.Sequential(*features)
        self.representation = Representation(channels, reduction, **layer)
        self.classifier = classifier(self.representation.features, classes)

    def forward(self, x):
        return self.classifier(self.representation(self.features(x)))


def vgg_features(depths, widths, batch_norm=True):
    """3×3 convolutions with biases, a maximum pool between the stages and none behind the last: modules and channels."""
    parts, channels = [], 3
    for depth, width in zip(depths, widths):
        parts += [nn.MaxPool2d(2)] if parts else []
        for _ in range(depth):
            parts.append(nn.Conv2d(channels, width, 3, padding=1))
            parts += [nn.BatchNorm2d(width)] if batch_norm else []
            parts.append(nn.ReLU())
            channels = width
    return parts, channels


def vgg_classifier(hidden):
    """Linear maps as `classifier.0`, `.3` and `.6`."""

    def build(features, classes):
        return nn.Sequential(
            nn.Linear(features, hidden),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(hidden, classes),
        )

    return build


def alexnet_features(widths):
    """Five convolutions with biases, without the last pool: modules and channels."""
    first, second, third, fourth, fifth = widths
    parts = [nn.Conv2d(3, first, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    parts += [nn.Conv2d(first, second, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    for inputs, outputs in ((second, third), (third, fourth), (fourth, fifth)):
        parts += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
    return parts, fifth


def alexnet_classifier(hidden):
    """Linear maps as `classifier.1`, `.4` and `.6`."""

    def build(features, classes):
        return nn.Sequential(
            nn.Dropout(),
            nn.Linear(features, hidden),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, classes),
        )

    return build


class ConvBlock(nn.Module):
    """imgclsmob's convolution, batch norm and, where `active`, ReLU; padded to keep the size at stride 1."""

    def __init__(self, channels, out, kernel, stride=1, active=True):
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out)
        self.active = active

    def forward(self, x):
        x = self.bn(self.conv(x))
        return torch.relu(x) if self.active else x


class Unit(nn.Module):
    """imgclsmob's residual block; the stride of a bottleneck is its first convolution's or its second's."""

    def __init__(self, channels, out, stride, bottleneck, conv1_stride):
        super().__init__()
        if bottleneck:
            first, second = (stride, 1) if conv1_stride else (1, stride)
            convolutions = OrderedDict(
                conv1=ConvBlock(channels, out // 4, 1, first),
                conv2=ConvBlock(out // 4, out // 4, 3, second),
                conv3=ConvBlock(out // 4, out, 1, active=False),
            )
        else:
            convolutions = OrderedDict(
                conv1=ConvBlock(channels, out, 3, stride),
                conv2=ConvBlock(out, out, 3, active=False),
            )
        self.body = nn.Sequential(convolutions)
        if stride != 1 or channels != out:
            self.identity_conv = ConvBlock(channels, out, 1, stride, active=False)

    def forward(self, x):
        shortcut = self.identity_conv(x) if hasattr(self, "identity_conv") else x
        return torch.relu(self.body(x) + shortcut)


class Imgclsmob(nn.Module):
    """A ResNet as imgclsmob names it; `widths` are those inside a block, as elsewhere here. [N, 3, H, W] → [N, classes]"""

    def __init__(self, depths, widths, bottleneck, conv1_stride, reduction, classes, stem=None, **layer):
        super().__init__()
        channels = stem or widths[0]
        init_block = OrderedDict(conv=ConvBlock(3, channels, 7, 2), pool=nn.MaxPool2d(3, 2, 1))
        parts = OrderedDict(init_block=nn.Sequential(init_block))
        last = len(depths) - 1
        for index, (depth, width) in enumerate(zip(depths, widths)):
            stage = OrderedDict()
            for unit in range(depth):
                stride = 2 if unit == 0 and index not in (0, last) else 1
                out = 4 * width if bottleneck else width
                stage[f"unit{unit + 1}"] = Unit(channels, out, stride, bottleneck, conv1_stride)
                channels = out
            parts[f"stage{index + 1}"] = nn.Sequential(stage)
        parts["final_block"] = ConvBlock(channels, reduction, 1)
        parts["final_pool"] = Representation(reduction, **layer)
        self.features = nn.Sequential(parts)
        self.output = nn.Linear(parts["final_pool"].features, classes)

    def forward(self, x):
        return self.output(self.features(x))


class Digits(nn.Module):
    """The digit classifier of `tests/corpus/digits`. [N, 1, 8, 8] → [N, 10]"""

    def __init__(self, **layer):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        for index, (inputs, outputs) in enumerate([(32, 48), (48, 64), (64, 64)], 1):
            convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
            self.add_module(f"layer{index}", nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU()))
        self.layer_reduce, self.layer_reduce_bn, self.layer_reduce_relu = reduce(64, 32)
        self.representation = Representation(32, **layer)
        self.fc = nn.Linear(self.representation.features, 10)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = self.layer_reduce_relu(self.layer_reduce_bn(self.layer_reduce(x)))
        return self.fc(self.representation(x))


def build(case):
    """The network that an entry of `cases.json` describes."""
    layer = {"iterations": case["iterations"], "triangle": case["triangle"]}
    sizes = case["reduction"], case["classes"]
    architecture, layout = case["architecture"], case["layout"]
    if architecture in ("vgg", "alexnet"):
        if architecture == "vgg":
            parts, channels = vgg_features(case["depths"], case["widths"], case["batch_norm"])
            classifier = vgg_classifier(case["hidden"])
        else:
            parts, channels = alexnet_features(case["widths"])
            classifier = alexnet_classifier(case["hidden"])
        return Training(parts, channels, *sizes, classifier=classifier if case["hidden"] else nn.Linear, **layer)
    bottleneck = case["block"] == "bottleneck"
    depths, widths, stem = case["depths"], case["widths"], case["stem"]
    if layout == "imgclsmob":
        return Imgclsmob(depths, widths, bottleneck, case["conv1_stride"], *sizes, stem=stem, **layer)
    block = Bottleneck if bottleneck else BasicBlock
    attention = case.get("attention"), case.get("attention_blocks", "last")
    trunk, channels = resnet_trunk(block, depths, widths, stem, case["last_stride"], *attention)
    if layout == "released":
        return Released(trunk, channels, *sizes, **layer)
    return Training(trunk.values(), channels, *sizes, reduced_in_features=layout == "finetuned", **layer)
