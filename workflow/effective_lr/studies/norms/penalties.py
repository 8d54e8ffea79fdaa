"""The penalties of all arms of a run at once: value, gradient of the smooth part, and proximal map.

Weights W are (p, arms, units). For arm i: l2_i·tr(W'P_i W) + l1_i·Σ_j a_j Σ_u |W_ju|, where P_i is I, P_1 (CAR), P_−1
(inverse), and the weights a_j are 1 but for adaptive l1. P_a = p·S_e^a/tr(S_e^a), so that tr P
= p.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from effective_lr.studies.norms.settings import Arm

Metric = Callable[[Tensor], Tensor]  # W -> P W, (p, ...)

# The metric of the quadratic part, and the shares of the strength that go into the quadratic and the l1 part.
FORMS: dict[str, tuple[str, float, float]] = {
    "none": ("identity", 0.0, 0.0),
    "l2": ("identity", 1.0, 0.0),
    "l1": ("identity", 0.0, 1.0),
    "l1+l2": ("identity", 0.5, 0.5),
    "car": ("car", 1.0, 0.0),
    "scar": ("car", 0.5, 0.5),
    "inverse": ("inverse", 1.0, 0.0),
    "adaptive": ("identity", 0.0, 1.0),
}


def metric_power(x: Tensor, a: int, e: float) -> Metric:
    """W -> P_a W for inputs x (n, p), without a p × p matrix where p > n.

    a = −1 goes by Woodbury's identity. ValueError where S_e is singular (e = 0 with a constant or dependent input).
    """
    n, p = x.shape
    centred = x - x.mean(0)
    ridge = float(e * centred.square().sum() / n / p)  # e·tr(S)/p
    if a == -1 and ridge == 0 and torch.linalg.matrix_rank(centred) < p:
        raise ValueError(
            f"shrinkage = 0: the covariance of {p} inputs in {n} samples has no inverse; use shrinkage > 0"
        )
    if p <= n:
        s = (1 - e) * centred.T @ centred / n + ridge * torch.eye(p, dtype=x.dtype)
        matrix = s if a == 1 else torch.linalg.inv(s)
        matrix = matrix * (p / matrix.trace())
        return lambda w: (matrix @ w.flatten(1)).view_as(w)
    gram = centred @ centred.T
    if a == 1:
        scale = p / ((1 - e) * float(gram.trace()) / n + ridge * p)
        return lambda w: scale * ((1 - e) / n * (centred.T @ (centred @ w.flatten(1))).view_as(w) + ridge * w)
    inner = torch.linalg.inv(n * ridge / (1 - e) * torch.eye(n, dtype=x.dtype) + gram)
    trace = (p - float((inner * gram).sum())) / ridge
    return lambda w: (p / trace / ridge) * (w - (centred.T @ (inner @ (centred @ w.flatten(1)))).view_as(w))


def metrics(x: Tensor, e: float, arms: Sequence[Arm]) -> dict[str, Metric]:
    """The metrics that these arms need, on the inputs x (n, p)."""
    needed = {FORMS[arm.penalty][0] for arm in arms}
    build = {"car": (1, e), "inverse": (-1, e)}
    return {name: metric_power(x, *build[name]) for name in build if name in needed}


class Penalties:
    """The penalties of `arms`, which are put in an order in which those of one metric stand together."""

    def __init__(self, arms: Sequence[Arm], metrics: dict[str, Metric], input_weights: Tensor | None = None) -> None:
        order = ["identity", *metrics]
        self.arms = sorted(arms, key=lambda arm: order.index(FORMS[arm.penalty][0]))
        forms = [FORMS[arm.penalty] for arm in self.arms]
        strengths = torch.tensor([arm.strength for arm in self.arms], dtype=torch.float64)
        self.strengths = strengths
        self.l2 = strengths * torch.tensor([form[1] for form in forms], dtype=torch.float64)
        self.l1 = strengths * torch.tensor([form[2] for form in forms], dtype=torch.float64)
        self.input_weights = input_weights  # (p,) of adaptive l1
        names = [form[0] for form in forms]
        self.blocks = [
            (slice(names.index(name), names.index(name) + names.count(name)), metric)
            for name, metric in metrics.items()
            if name in names
        ]
        self.has_l1 = bool((self.l1 > 0).any())

    def transformed(self, w: Tensor) -> Tensor:
        """P W of every arm."""
        result = w.clone()
        for block, metric in self.blocks:
            result[:, block] = metric(w[:, block])
        return result

    def value(self, w: Tensor) -> Tensor:
        """The penalty of each arm (arms,)."""
        weights = 1.0 if self.input_weights is None else self.input_weights[:, None, None]
        return self.l2 * (w * self.transformed(w)).sum((0, 2)) + self.l1 * (weights * w.abs()).sum((0, 2))

    def gradient(self, w: Tensor) -> Tensor:
        """2·l2·P W, the gradient of the quadratic part."""
        return self.transformed(w).mul_(2 * self.l2[:, None])

    def prox(self, w: Tensor, lr: float) -> None:
        """W ← soft(W, lr·l1·a), in place: the l1 part of a step, with exact zeros."""
        if self.has_l1:
            threshold = lr * self.l1[:, None]
            if self.input_weights is not None:
                threshold = threshold * self.input_weights[:, None, None]
            # w − clamp(w, −t, t) is soft(w, t), and exactly 0 within the threshold.
            w.sub_(torch.minimum(torch.maximum(w, -threshold), threshold))
