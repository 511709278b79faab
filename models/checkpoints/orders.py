"""How the order of the triangle shows in a trained classifier: small networks are trained, a rule is held against them.

    venv/bin/python orders.py train SCRATCH      trains the networks of NETS into SCRATCH, some minutes on two cores
    venv/bin/python orders.py study SCRATCH      prints the table of README.md
    venv/bin/python orders.py distill SCRATCH    writes the chosen classifiers to tests/corpus/checkpoints/orders

A classifier that reads the layer has one column for each entry s_ij of the upper triangle. What training does to the
column grows with the size of s_ij, and that is about the product of a number for channel i and one for channel j, with
the diagonal apart. So ln‖w_ij‖ ≈ a_i + a_j, and 2a_i + d on the diagonal. `score` says how well that fits an order, and
`decide` names the order that fits better by THRESHOLD, or none.
"""

import itertools
import json
import math
import sys
from dataclasses import asdict, dataclass
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from networks import COLUMN_MAJOR, ROW_MAJOR, Representation, reduce, triangle_positions

TARGET = Path(__file__).parents[2] / "tests" / "corpus" / "checkpoints" / "orders"
TEST_IMAGES = 360
BATCH = 64


# Scores of random weights differ by about 1 (standard deviation); C < MIN_CHANNELS has hardly any entries to tell by.
THRESHOLD = 6.0
RIVAL = 0.6
MIN_CHANNELS = 6


def score(norms, channels, order):
    """How well ln‖w_ij‖, [C(C+1)/2] in the order given, is explained by the entries that the order says they belong to.

    The sum of two: how much the additive model leaves unexplained, on the scale on which two orders of random weights
    differ by 1; and half of Welch's t between the diagonal and the rest.
    """
    rows, columns = (index.numpy() for index in triangle_positions(channels, order))
    square = np.zeros((channels, channels))
    square[rows, columns] = square[columns, rows] = norms
    diagonal, others = np.diag(square), square[np.triu_indices(channels, 1)]
    # Least squares of s_ij ≈ a_i + a_j over i ≠ j has this closed form.
    sums = square.sum(axis=1) - diagonal
    a = (sums - others.sum() / (channels - 1)) / (channels - 2)
    off = others - np.add.outer(a, a)[np.triu_indices(channels, 1)]
    on = diagonal - 2 * a
    left = (off**2).sum() + ((on - on.mean()) ** 2).sum()
    total = ((norms - norms.mean()) ** 2).sum()
    fit = -(len(norms) - channels - 1) * math.log(max(left / total, 1e-12)) / (2 * math.sqrt(channels))
    t = (diagonal.mean() - others.mean()) / math.sqrt(
        diagonal.var(ddof=1) / channels + others.var(ddof=1) / len(others)
    )
    return fit + abs(t) / 2


def decide(weight):
    """The order that a classifier [outputs, C(C+1)/2] reads, or None where it does not show, and the scores' difference."""
    channels = (math.isqrt(8 * weight.shape[1] + 1) - 1) // 2
    norms = np.linalg.norm(weight.astype(np.float64), axis=0)
    if channels < MIN_CHANNELS or norms.std() <= 1e-6 * norms.mean():
        return None, 0.0
    # The columns of channels that never fire may have decayed to nothing.
    logarithms = np.log(np.maximum(norms, 1e-4 * norms.max()))
    rows, columns = (score(logarithms, channels, order) for order in (ROW_MAJOR, COLUMN_MAJOR))
    difference = rows - columns
    order = ROW_MAJOR if difference > 0 else COLUMN_MAJOR
    # Where both orders explain much, something else than the triangle does.
    shows = abs(difference) >= THRESHOLD and min(rows, columns) <= RIVAL * max(rows, columns)
    return (order if shows else None), difference


@dataclass(frozen=True)
class Net:
    """One network to train; `start` is the kind of training whose trunk it takes over."""

    channels: int
    order: str
    seed: int
    epochs: int
    weight_decay: float
    optimizer: str = "sgd"
    classes: int = 10
    hidden: int = 0
    iterations: int = 5
    finetuned: bool = False
    frozen: bool = False

    @property
    def kind(self):
        """What the table of README.md calls it."""
        if self.finetuned:
            return "100 classes, fine-tuned" + ", trunk frozen" * self.frozen
        if self.classes == 100:
            return "100 classes, from scratch"
        if self.hidden:
            return "10 classes, two linear maps"
        if self.epochs == 40:
            return "10 classes, 40 epochs with much weight decay"
        return f"10 classes, {'3 or 4' if self.epochs < 5 else '8 or 20'} epochs"

    @property
    def name(self):
        kind = "finetuned" if self.finetuned else "scratch"
        return (
            f"{kind}{'_frozen' * self.frozen}_c{self.channels}_{self.classes}classes_{self.optimizer}_wd{self.weight_decay:g}"
            f"_e{self.epochs}{f'_hidden{self.hidden}' * bool(self.hidden)}_k{self.iterations}_s{self.seed}_{self.order}"
        )


def nets():
    """What is trained: every number of channels with every weight decay, long and short, and some of other kinds."""
    found = []

    def add(channels, epochs, weight_decay, **fields):
        order = (ROW_MAJOR, COLUMN_MAJOR)[(len(found) + len(found) // 2) % 2]
        found.append(Net(channels, order, len(found), epochs, weight_decay, **fields))

    for channels in (8, 12, 16, 24, 32, 48):
        for weight_decay in (0.0, 1e-4, 1e-3):
            add(channels, 3, weight_decay)
            add(channels, 20, weight_decay)
        add(channels, 8, 1e-2, optimizer="adamw")
        add(channels, 8, 1e-4, iterations=3)
    for channels in (8, 16, 32):
        for weight_decay in (0.0, 1e-4, 1e-3):
            add(channels, 6, weight_decay, hidden=64)
        add(channels, 20, 5e-4, hidden=64)
    for channels in (12, 24, 48):
        add(channels, 6, 1e-4, classes=100)
        add(channels, 3, 1e-4, classes=100, finetuned=True)
        add(channels, 3, 0.0, classes=100, finetuned=True)
        add(channels, 6, 1e-3, classes=100, finetuned=True)
        add(channels, 3, 1e-4, classes=100, finetuned=True, frozen=True)
    for channels in (96, 128):
        add(channels, 3, 1e-4)
        add(channels, 4, 1e-4)
    for channels in (12, 16, 32, 48):
        add(channels, 40, 5e-3)
        add(channels, 40, 5e-2, optimizer="adamw")
    return found


def digits():
    """Standardized images [·, 1, 8, 8] and labels, for training and for the test."""
    data = load_digits()
    images = torch.from_numpy((data.images / 16.0).astype(np.float32))[:, None]
    images = (images - images.mean()) / images.std()
    labels = torch.from_numpy(data.target.astype(np.int64))
    mixed = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    images, labels = images[mixed], labels[mixed]
    return images[TEST_IMAGES:], labels[TEST_IMAGES:], images[:TEST_IMAGES], labels[:TEST_IMAGES]


def pairs(images, labels, count, generator):
    """Two digits side by side, moved up and down against each other: [count, 1, 8, 16], 100 classes."""
    chosen = torch.randint(len(images), (2, count), generator=generator)
    moved = torch.randint(-1, 2, (2, count), generator=generator)
    halves = []
    for which, shift in zip(chosen, moved):
        half = images[which].clone()
        for step in (-1, 1):
            half[shift == step] = half[shift == step].roll(step, dims=2)
        halves.append(half)
    return torch.cat(halves, dim=3), 10 * labels[chosen[0]] + labels[chosen[1]]


def data_for(classes):
    """Training and test sets for 10 or 100 classes."""
    train, labels, test, test_labels = digits()
    if classes == 10:
        return train, labels, test, test_labels
    generator = torch.Generator().manual_seed(1)
    return *pairs(train, labels, 6000, generator), *pairs(test, test_labels, 1000, generator)


class SmallNet(nn.Module):
    """[N, 1, H, W] → [N, classes]: two convolutions, the reduction, the layer, a classifier of one or two maps."""

    def __init__(self, net, classes):
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(1, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU(),
            nn.Conv2d(24, 48, 3, padding=1, bias=False), nn.BatchNorm2d(48), nn.ReLU(),
            *reduce(48, net.channels),
        )  # fmt: skip
        self.layer = Representation(net.channels, iterations=net.iterations, triangle=net.order)
        if net.hidden:
            self.classifier = nn.Sequential(
                nn.Linear(self.layer.features, net.hidden), nn.ReLU(), nn.Dropout(), nn.Linear(net.hidden, classes)
            )
        else:
            self.classifier = nn.Linear(self.layer.features, classes)

    def forward(self, x):
        return self.classifier(self.layer(self.trunk(x)))


def fit(model, parameters, images, labels, epochs, weight_decay, optimizer):
    """Trains in place, the learning rate falling to zero."""
    if optimizer == "sgd":
        optimizer = torch.optim.SGD(parameters, 0.05, 0.9, weight_decay=weight_decay)
    else:
        optimizer = torch.optim.AdamW(parameters, 3e-3, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * (len(images) // BATCH))
    model.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(BATCH)[: len(images) // BATCH]:
            loss = F.cross_entropy(model(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            schedule.step()
    model.eval()


def trained(net, scratch):
    """Trains one network and stores its classifier's first weights, before and after, and its accuracy in both orders."""
    path = scratch / f"{net.name}.npz"
    if path.exists():
        return
    torch.set_num_threads(1)
    torch.manual_seed(net.seed)
    if net.finetuned:
        images, labels, _, _ = data_for(10)
        model = SmallNet(net, 10)
        fit(model, model.parameters(), images, labels, 10, 1e-4, net.optimizer)
        model.classifier = nn.Linear(model.layer.features, net.classes)
    else:
        model = SmallNet(net, net.classes)
    first = model.classifier[0] if net.hidden else model.classifier
    untrained = first.weight.detach().clone()
    parameters = [{"params": model.classifier.parameters(), "lr": 0.2 if net.finetuned else 0.05}]
    if not net.frozen:
        parameters.append({"params": model.trunk.parameters()})
    if net.optimizer != "sgd":
        parameters = model.parameters()
    images, labels, test, test_labels = data_for(net.classes)
    fit(model, parameters, images, labels, net.epochs, net.weight_decay, net.optimizer)
    with torch.no_grad():
        right = (model(test).argmax(1) == test_labels).float().mean().item()
        model.layer.triangle = ROW_MAJOR if net.order == COLUMN_MAJOR else COLUMN_MAJOR
        wrong = (model(test).argmax(1) == test_labels).float().mean().item()
    weight = first.weight.detach().numpy()
    np.savez(path, weight=weight, untrained=untrained.numpy(), right=right, wrong=wrong)
    print(f"{net.name:70} {right:6.1%} {wrong:6.1%}", flush=True)


def random_weights():
    """Classifiers that have learnt nothing, by a name for how they were made: [outputs, C(C+1)/2] each."""
    rng = np.random.default_rng(0)
    for channels in (6, 8, 12, 16, 24, 32, 48, 64, 128, 256):
        features = channels * (channels + 1) // 2
        for classes in (2, 10, 100):
            for _ in range(max(1, 2400 // features)):
                bound = features**-0.5
                yield "uniform", rng.uniform(-bound, bound, (classes, features)).astype(np.float32)
                yield "normal", rng.normal(0.0, 0.01, (classes, features)).astype(np.float16)
                yield "zeros", np.zeros((classes, features), np.float32)
                yield "equal", np.full((classes, features), 0.02, np.float32)


def study(scratch):
    """Prints how often the rule is right, unsure and wrong: by channels, by kind, and of what has learnt nothing."""
    tables = {"by channels": {}, "by kind": {}, "nothing learnt": {}}

    def count(table, row, weight, truth):
        found, difference = decide(weight)
        answer = "unsure" if found is None else "right" if found == truth else "wrong"
        if truth == COLUMN_MAJOR:
            difference = -difference
        tables[table].setdefault(row, []).append((answer, difference if truth else abs(difference)))
        return answer, difference

    for net in nets():
        stored = np.load(scratch / f"{net.name}.npz")
        answer, difference = count("by channels", net.channels, stored["weight"], net.order)
        count("by kind", net.kind, stored["weight"], net.order)
        count("nothing learnt", "the same networks before training", stored["untrained"], None)
        if answer != "right":
            print(f"{answer}: {net.name}, {difference:.1f}, accuracy {float(stored['right']):.1%}")
    for kind, weight in random_weights():
        count("nothing learnt", kind, weight, None)
    for name, table in tables.items():
        print(
            f"\n| {name} | classifiers | right | unsure | wrong | difference: least, median, largest |\n|---|---|---|---|---|---|"
        )
        for row, answers in sorted(table.items(), key=lambda item: item[0] if name == "by channels" else 0):
            counts = " | ".join(str(sum(a == kind for a, _ in answers)) for kind in ("right", "unsure", "wrong"))
            spread = ", ".join(f"{np.quantile([d for _, d in answers], q):.1f}" for q in (0, 0.5, 1))
            print(f"| {row} | {len(answers)} | {counts} | {spread} |")


def chosen(found):
    """The nets whose classifiers are kept: of every kind, in both orders, and some that are short of evidence."""
    kinds = {}
    for net in found:
        short = net.epochs <= 3 and not net.finetuned
        wide = net.channels >= 96 or (net.classes == 100 and net.channels > 24)
        if not wide and net.epochs < 40:
            kinds.setdefault((net.channels, short, net.classes, bool(net.hidden), net.finetuned), []).append(net)
    orders = itertools.cycle((ROW_MAJOR, COLUMN_MAJOR))
    for (channels, _, classes, _, finetuned), group in kinds.items():
        if channels in (8, 16, 32, 48) if classes == 10 else finetuned:
            order = next(orders)
            yield next(net for net in reversed(group) if net.order == order)
    yield from (net for net in found if net.epochs == 20 and net.weight_decay == 1e-4)


def distill(scratch):
    """Writes the kept classifiers in float16, and two untrained ones, with the answers that the rule gives of them."""
    TARGET.mkdir(parents=True, exist_ok=True)
    cases = []

    def keep(name, weight, net, order, accuracies):
        weight = weight.astype(np.float16)
        decided, difference = decide(weight)
        assert decided in (None, order), f"{name}: wrong"
        np.savez_compressed(TARGET / f"{name}.npz", weight=weight)
        settings = asdict(net) | {"order": order}
        cases.append(
            {"weights": f"{name}.npz", "decided": decided, "difference": round(difference, 4)} | settings | accuracies
        )

    kept = list(chosen(nets()))
    for net in kept:
        stored = np.load(scratch / f"{net.name}.npz")
        accuracies = {
            "accuracy": round(float(stored["right"]), 4),
            "accuracy_in_other_order": round(float(stored["wrong"]), 4),
        }
        keep(net.name, stored["weight"], net, net.order, accuracies)
    for net in kept[1:8:4]:
        keep(f"untrained_c{net.channels}", np.load(scratch / f"{net.name}.npz")["untrained"], net, None, {})
    (TARGET / "cases.json").write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")


def main():
    command, scratch = sys.argv[1], Path(sys.argv[2])
    scratch.mkdir(parents=True, exist_ok=True)
    if command == "train":
        with Pool(2) as pool:
            pool.starmap(trained, [(net, scratch) for net in reversed(nets())], chunksize=1)
    elif command == "study":
        study(scratch)
    elif command == "distill":
        distill(scratch)


if __name__ == "__main__":
    main()
