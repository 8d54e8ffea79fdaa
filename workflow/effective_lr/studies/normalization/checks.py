"""The exact statements of the theory, tried in float64: a small network, 50 steps, and what is left of a difference.

Each check gives a residual: how far two computations that should agree are apart, relative to their size. Rounding
leaves about 1e-14. Beside them stand controls, the same computations with a condition of the statement broken, whose
residuals must be large. `norm_exponent` gives exponents instead. The images are synthetic: no dataset is needed.
"""

import copy
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from effective_lr.studies.normalization.data import Splits
from effective_lr.studies.normalization.networks import Conv4, build_network, normalized_layers
from effective_lr.studies.normalization.optimizers import Optimizer, project
from effective_lr.studies.normalization.replay import norms_squared
from effective_lr.studies.normalization.settings import Run
from effective_lr.studies.normalization.training import angles, batches, plain_float32

SEEDS = (100, 101, 102)
INVARIANT = ("batch", "weight", "layer")
SCALES = (1 / 8, 1 / 2, 3.0)  # a of the symmetries
NORMS = (0.25, 0.6, 1.0, 1.7, 4.0)  # α of the exponents
# Step sizes at which the small network learns within its few steps.
RATES: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.2, "l2": 0.05},
    "momentum": {"lr": 0.02, "l2": 0.05},
    "nesterov": {"lr": 0.02, "l2": 0.05},
    "adam": {"lr": 0.01, "l2": 0.02},
    "rmsprop": {"lr": 0.01, "l2": 0.02},
    "adamw": {"lr": 0.01, "l2": 1.0},
}
# ε of a normalization that is 0 in effect; PyTorch refuses 0 itself in training.
NO_EPS = 1e-20


def small_run(optimizer: str = "sgd", **changes: Any) -> Run:
    """The run that all checks change."""
    settings: dict[str, Any] = {
        "dataset": "fashion-mnist",
        "resolution": 14,
        "train_size": 96,
        "validation_size": 1,
        "test_size": 40,
        "width": 2,
        "normalization": "batch",
        "norm_eps": 1e-5,
        "initial_norm": 1.0,
        "optimizer": optimizer,
        "momentum": 0.9,
        "optimizer_eps": 1e-8,
        "affine_lr": 0.02,
        "batch_size": 16,
        "steps": 50,
        "probes": 1,
        "evaluations": 1,
        "late_fraction": 1.0,
        "batch_statistics": "recomputed",
        "statistics_size": 96,
        "seed": SEEDS[0],
        **RATES[optimizer],
    }
    return Run(**{**settings, **changes})


def synthetic_splits(seed: int) -> Splits:
    """Images (N, 1, 14, 14) in float64 of the sizes of a small run: a pattern for each class, and noise."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randn(10, 1, 14, 14, generator=generator, dtype=torch.float64)

    def split(size: int) -> tuple[Tensor, Tensor]:
        labels = torch.randint(10, (size,), generator=generator)
        noise = torch.randn(size, 1, 14, 14, generator=generator, dtype=torch.float64)
        return patterns[labels] + noise, labels

    run = small_run()
    return Splits(*split(run.train_size), *split(run.validation_size), *split(run.test_size))


class Trained:
    """Losses (steps,), and held-out logits by the statistics of the held-out images."""

    def __init__(self, run: Run, splits: Splits, affine_eps: float | None = None) -> None:
        self.run, self.splits = run, splits
        self.network = build_network(run, torch.float64)
        self.optimizer = Optimizer(run, self.network)
        # One ε serves all parameters of a run, but the gradients of γ and β do not scale: theirs stays.
        self.optimizer.affine.eps = run.optimizer_eps if affine_eps is None else affine_eps
        self.layers = [layer for _, layer in normalized_layers(self.network)]
        self.start = self.norms_squared()
        losses = []
        for t, batch in enumerate(batches(run, torch.device("cpu"))):
            self.before_step(t)
            losses.append(self.step(batch))
        self.before_step(run.steps)
        self.losses = torch.tensor(losses, dtype=torch.float64)
        self.logits = self.network(splits.test_images).detach()

    def norms_squared(self) -> list[Tensor]:
        return norms_squared(self.layers)

    def before_step(self, t: int) -> None:
        """What a check changes before step t, counted from 0, and after the last one."""

    def step(self, batch: Tensor) -> float:
        """One step; the loss that it starts from."""
        loss = F.cross_entropy(self.network(self.splits.train_images[batch]), self.splits.train_labels[batch])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.run.projected:
            project(self.network)
        return float(loss.detach())

    def distance(self, other: "Trained") -> float:
        """The largest difference in losses and logits, relative to the largest value."""
        return max(relative(self.losses, other.losses), relative(self.logits, other.logits))


@cache
def reference(run: Run, splits: Splits) -> Trained:
    """The run itself, with which several checks compare others."""
    return Trained(run, splits)


def relative(x: Tensor, y: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return float((x - y).abs().max() / x.abs().max())


def rescaled(run: Run, a: float, keep: str = "") -> Run:
    """The run that starts from aw and trains the same function; the setting `keep` is left as it is."""
    lr_power, l2_power = {"adam": (1, 2), "rmsprop": (1, 2), "adamw": (1, 1)}.get(run.optimizer, (2, 2))
    changes = {
        "initial_norm": run.initial_norm * a,
        "lr": run.lr * a**lr_power,
        "l2": run.l2 / a**l2_power,
        "norm_eps": run.norm_eps * a**2,
        "optimizer_eps": run.optimizer_eps / a,
    }
    changes.pop(keep, None)
    return run.model_copy(update=changes)


def symmetry(run: Run, splits: Splits, scales: tuple[float, ...] = SCALES, keep: str = "") -> float:
    """(w, η, λ, ε) → (aw, a²η, λ/a², a²ε) for SGD and momentum, aη for Adam and RMSProp, aη and λ/a for AdamW."""
    others = [Trained(rescaled(run, a, keep), splits, affine_eps=run.optimizer_eps) for a in scales]
    return max(reference(run, splits).distance(other) for other in others)


def invariance(normalization: str, seed: int, splits: Splits) -> float:
    """Output and α·gradient at αw against those at w, and the cosine between weights and gradient."""
    network = build_network(small_run(normalization=normalization, norm_eps=NO_EPS, seed=seed), torch.float64)
    logits, gradients = weight_gradients(network, splits)
    residuals = []
    for (_, layer), gradient in zip(normalized_layers(network), gradients, strict=True):
        weight = layer.weight.detach()
        sizes = layer.group_norms(weight) * layer.group_norms(gradient)
        products = (weight * gradient).flatten(1).sum(1)
        radial = products.sum().view(1) if layer.normalization == "layer" else products
        residuals.append(float((radial / sizes).abs().max()))
    for alpha in NORMS:
        scaled = copy.deepcopy(network)
        with torch.no_grad():
            for _, layer in normalized_layers(scaled):
                layer.weight.mul_(alpha)
        scaled_logits, scaled_gradients = weight_gradients(scaled, splits)
        residuals.append(relative(logits, scaled_logits))
        residuals += [relative(g, alpha * s) for g, s in zip(gradients, scaled_gradients, strict=True)]
    return max(residuals)


def weight_gradients(network: Conv4, splits: Splits) -> tuple[Tensor, list[Tensor]]:
    """Logits and the gradients of the weights of each layer, on the training images."""
    weights = [layer.weight for _, layer in normalized_layers(network)]
    logits = network(splits.train_images)
    return logits.detach(), list(torch.autograd.grad(F.cross_entropy(logits, splits.train_labels), weights))


def affine_invariance(normalization: str, layer_name: str, seed: int, splits: Splits) -> float:
    """The logits when γ and β of one layer are 3 times as large, and the ε of the next layer follows."""
    network = build_network(small_run(normalization=normalization, seed=seed), torch.float64)
    with torch.no_grad():
        for _, layer in normalized_layers(network):
            layer.beta.copy_(torch.linspace(-0.5, 0.5, len(layer.beta)))
    changed = copy.deepcopy(network)
    layers = dict(normalized_layers(changed))
    with torch.no_grad():
        for parameter in (layers[layer_name].gamma, layers[layer_name].beta):
            assert parameter is not None
            parameter.mul_(3.0)
    names = list(layers)
    for name in names[names.index(layer_name) + 1 :][:1]:
        layers[name].eps *= 9.0
    return relative(network(splits.test_images).detach(), changed(splits.test_images).detach())


def pythagoras(run: Run, splits: Splits) -> float:
    """‖w_T‖² = ‖w₀‖² + η² Σ‖g_t‖² in every scale group, for SGD with λ = 0."""
    squares: list[list[Tensor]] = []

    class Watched(Trained):
        def step(self, batch: Tensor) -> float:
            loss = super().step(batch)
            squares.append([layer.group_norms(layer.weight.grad).square() for layer in self.layers])
            return loss

    trained = Watched(run, splits)
    groups = zip(trained.start, trained.norms_squared(), zip(*squares, strict=True), strict=True)
    return max(relative(end, start + run.lr**2 * sum(of_steps)) for start, end, of_steps in groups)


def growing_lr(run: Run, splits: Splits) -> float:
    """Li & Arora (2020): SGD with (η, wd = 2λ) is SGD without, at η_t = η(1 − ηwd)^(−2t−1); ε follows the norm."""
    shrink = 1 - 2 * run.lr * run.l2

    class Growing(Trained):
        def before_step(self, t: int) -> None:
            self.optimizer.weights.lr = run.lr * shrink ** (-2 * t - 1)
            for layer in self.layers:
                layer.eps = run.norm_eps * shrink ** (-2 * t)

    return reference(run, splits).distance(Growing(run.model_copy(update={"l2": 0.0}), splits))


def norm_transfer(run: Run, splits: Splits) -> float:
    """Hoffer et al. (2018), Zhang et al. (2019): SGD without decay follows SGD with decay, in lock-step, if its η is
    η/(1−2ηλ) times the ratio of its norm² to that of the decayed weights; ε follows the norm as well."""
    decayed_norms: list[float] = []

    class Recorded(Trained):
        def before_step(self, t: int) -> None:
            decayed_norms.append(float(self.norms_squared()[0][0]))

    class Scheduled(Trained):
        def before_step(self, t: int) -> None:
            ratio = float(self.norms_squared()[0][0]) / decayed_norms[t]
            self.optimizer.weights.lr = run.lr / (1 - 2 * run.lr * run.l2) * ratio
            for layer in self.layers:
                layer.eps = run.norm_eps * ratio

    recorded = Recorded(run, splits)
    return recorded.distance(Scheduled(run.model_copy(update={"l2": 0.0}), splits))


def projected_penalty(run: Run, splits: Splits, shrunk: bool = True) -> float:
    """SGD projected to ‖w‖ = 1 with (η, λ) is SGD projected with (η/(1−2ηλ), 0)."""
    lr = run.lr / (1 - 2 * run.lr * run.l2) if shrunk else run.lr
    return reference(run, splits).distance(Trained(run.model_copy(update={"l2": 0.0, "lr": lr}), splits))


def norm_exponent(run: Run, splits: Splits) -> float:
    """The exponent of ‖w‖ in the angle per step, from αw, with λ = 0 and steps too small to change the function.

    A fit of log(RMS angle) of steps 2 and 3 on log α (a projected run starts from α only in step 1); the median over
    scale groups within a layer, then over layers.
    """
    measured = []
    for alpha in NORMS:
        found: dict[str, list[Tensor]] = {}

        class Watched(Trained):
            def step(self, batch: Tensor) -> float:
                before = [layer.weight.detach().clone() for layer in self.layers]
                loss = super().step(batch)
                for (name, layer), weight in zip(normalized_layers(self.network), before, strict=True):
                    found.setdefault(name, []).append(angles(weight, layer.weight.detach(), layer) ** 2)  # noqa: B023
                return loss

        Watched(run.model_copy(update={"initial_norm": alpha}), splits)
        measured.append([float(torch.stack(steps[1:]).mean(0).sqrt().quantile(0.5)) for steps in found.values()])
    slopes = [np.polyfit(np.log(NORMS), np.log(column), 1)[0] for column in zip(*measured, strict=True)]
    return float(np.median(slopes))


def gauss_newton_exponent(seed: int, splits: Splits) -> float:
    """As `norm_exponent`, for a step of undamped Gauss–Newton: Δ = −(JᵀHJ)⁺ ∇L, with J the derivatives of the logits by
    the weights and H those of the loss by the logits, on 8 images, under weight normalization."""
    network = build_network(small_run(normalization="weight", width=1, seed=seed), torch.float64)
    images, labels = splits.train_images[:8], splits.train_labels[:8]
    layers = dict(normalized_layers(network))
    measured = []
    for alpha in NORMS:
        weights = {f"{name}.weight": alpha * layer.weight.detach() for name, layer in layers.items()}

        def logits(weights: dict[str, Tensor]) -> Tensor:
            return torch.func.functional_call(network, weights, (images,))

        blocks = torch.func.jacrev(logits)(weights)
        jacobian = torch.cat(
            [blocks[key].flatten(2).flatten(2) for key in weights], dim=2
        )  # (images, classes, weights)
        probabilities = logits(weights).softmax(1)
        curvature = torch.diag_embed(probabilities) - probabilities.unsqueeze(2) * probabilities.unsqueeze(1)
        matrix = torch.einsum("nci,ncd,ndj->ij", jacobian, curvature, jacobian) / len(images)
        error = probabilities - F.one_hot(labels, probabilities.shape[1])
        gradient = torch.einsum("nci,nc->i", jacobian, error) / len(images)
        step = -1e-6 * torch.linalg.pinv(matrix, rtol=1e-10, hermitian=True) @ gradient
        sizes = [weight.numel() for weight in weights.values()]
        turned = [
            angles(weight, weight + part.view_as(weight), layer)
            for weight, part, layer in zip(weights.values(), step.split(sizes), layers.values(), strict=True)
        ]
        measured.append([float(angle.detach().quantile(0.5)) for angle in turned])
    slopes = [np.polyfit(np.log(NORMS), np.log(column), 1)[0] for column in zip(*measured, strict=True)]
    return float(np.median(slopes))


def rows_of(seed: int) -> Iterator[tuple[str, str, bool, float]]:
    """(check, subject, whether it should hold, residual or exponent) of every check, at one seed."""
    splits = synthetic_splits(seed)

    def small(optimizer: str = "sgd", **changes: Any) -> Run:
        return small_run(optimizer, seed=seed, **changes)

    for normalization in (*INVARIANT, "none"):
        yield "invariance", normalization, normalization in INVARIANT, invariance(normalization, seed, splits)
    for optimizer in RATES:
        for normalization in INVARIANT:
            run = small(optimizer, normalization=normalization)
            yield "symmetry", f"{optimizer}, {normalization}", True, symmetry(run, splits)
        run = small(optimizer, normalization="none")
        yield "symmetry", f"{optimizer}, none", False, symmetry(run, splits, (0.5,))
    yield "symmetry", "sgd, batch, ε unscaled", False, symmetry(small(), splits, (1e-3,), keep="norm_eps")
    adam = small("adam", normalization="weight", optimizer_eps=1e-5)
    yield "symmetry", "adam, weight, ε unscaled", False, symmetry(adam, splits, (1e3,), keep="optimizer_eps")

    for normalization in INVARIANT:
        run = small(normalization=normalization)
        yield "growing_lr", normalization, True, growing_lr(run, splits)
        yield "norm_transfer", normalization, True, norm_transfer(run, splits)
        free = small(normalization=normalization, l2=0.0, norm_eps=NO_EPS)
        yield "pythagoras", normalization, True, pythagoras(free, splits)
        held = small(normalization=normalization, projected=True, l2=1.0)
        yield "projected_penalty", normalization, True, projected_penalty(held, splits)
    yield "growing_lr", "none", False, growing_lr(small(normalization="none"), splits)
    yield "norm_transfer", "none", False, norm_transfer(small(normalization="none"), splits)
    yield "pythagoras", "momentum", False, pythagoras(small("momentum", l2=0.0, norm_eps=NO_EPS), splits)
    held = small(projected=True, l2=1.0)
    yield "projected_penalty", "batch, η unchanged", False, projected_penalty(held, splits, shrunk=False)

    for subject, normalization, layer, holds in [
        ("batch", "batch", "conv2", True),
        ("layer", "layer", "conv2", True),
        ("weight", "weight", "conv2", False),
        ("last layer", "batch", "linear", False),
    ]:
        yield "affine_invariance", subject, holds, affine_invariance(normalization, layer, seed, splits)

    tiny: dict[str, Any] = {
        "lr": 1e-6,
        "affine_lr": 1e-6,
        "l2": 0.0,
        "steps": 3,
        "norm_eps": NO_EPS,
        "optimizer_eps": 1e-12,
    }
    for optimizer in ("sgd", "momentum", "nesterov", "adam", "rmsprop"):
        yield "norm_exponent", optimizer, True, norm_exponent(small(optimizer, **tiny), splits)
    yield "norm_exponent", "projected", True, norm_exponent(small(projected=True, **tiny), splits)
    yield "norm_exponent", "gauss_newton", True, gauss_newton_exponent(seed, splits)


def rows() -> list[dict[str, Any]]:
    """For each check and seed: check, subject, whether it should hold, value, seed."""
    plain_float32()
    names = ("check", "subject", "holds", "value", "seed")
    return [dict(zip(names, (*row, seed), strict=True)) for seed in SEEDS for row in rows_of(seed)]
