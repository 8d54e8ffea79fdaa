"""Stacked two-layer networks p – m – 1: one network per arm, all in the same few matrix products.

W1 is (p, arms, m), so that X W1 of all networks is one product. Gradients are written out: at these sizes the
bookkeeping of automatic differentiation would cost more than the arithmetic. A test compares both.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(eq=False)
class Networks:
    """relu(x W1 + b1) W2 + b2; with `eps`, batch normalization (shift b1, no gain) stands before the ReLU.

    W1 (p, arms, m), b1 (arms, m), W2 (arms, m), b2 (arms,), float64.
    """

    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor
    eps: float | None = None

    @property
    def parameters(self) -> list[Tensor]:
        return [self.w1, self.b1, self.w2, self.b2]

    def hidden(self, x: Tensor) -> Tensor:
        """X W1 (samples, arms, m)."""
        return (x @ self.w1.flatten(1)).view(len(x), *self.b1.shape)

    def outputs(self, x: Tensor, statistics: Tensor | None = None) -> Tensor:
        """(samples, arms); batch statistics are those of the inputs `statistics`, or of x itself."""
        z = self.hidden(x)
        if self.eps is not None:
            reference = z if statistics is None else self.hidden(statistics)
            z = (z - reference.mean(0)) / (reference.var(0, correction=0) + self.eps).sqrt()
        return ((z + self.b1).relu_() * self.w2).sum(2) + self.b2

    def loss_gradients(self, x: Tensor, y: Tensor, classes: bool) -> tuple[Tensor, list[Tensor]]:
        """The mean loss of each arm (arms,) and its gradients, in the order of `parameters`.

        Squared error, without ½, or log-loss for labels 0 and 1.
        """
        z = self.hidden(x)
        if self.eps is not None:
            inverse = (z.var(0, correction=0) + self.eps).rsqrt()
            z = normalized = (z - z.mean(0)) * inverse
        h = (z + self.b1).relu_()
        out = (h * self.w2).sum(2) + self.b2
        target = y[:, None]
        if classes:
            loss = torch.nn.functional.softplus(out) - target * out
            slope = (out.sigmoid() - target) / len(x)
        else:
            error = out - target
            loss = error.square()
            slope = error * (2 / len(x))
        gradient_w2 = (slope[:, :, None] * h).sum(0)
        back = torch.where(h > 0, slope[:, :, None] * self.w2, 0.0)
        gradient_b1 = back.sum(0)
        if self.eps is not None:
            back = (back - gradient_b1 / len(x) - normalized * (back * normalized).mean(0)) * inverse
        gradient_w1 = (x.T @ back.flatten(1)).view_as(self.w1)
        return loss.mean(0), [gradient_w1, gradient_b1, gradient_w2, slope.sum(0)]


def start(p: int, arms: int, units: int, gain: float, seed: int, eps: float | None = None) -> Networks:
    """The same random start for every arm: W1 ~ N(0, gain/p), W2 ~ N(0, 1/m), biases 0."""
    generator = torch.Generator().manual_seed(seed)
    w1 = torch.randn(p, 1, units, generator=generator, dtype=torch.float64) * (gain / p) ** 0.5
    w2 = torch.randn(1, units, generator=generator, dtype=torch.float64) / units**0.5
    zeros = torch.zeros(arms, units, dtype=torch.float64)
    return Networks(
        w1.repeat(1, arms, 1), zeros.clone(), w2.repeat(arms, 1), torch.zeros(arms, dtype=torch.float64), eps
    )


def hold(w1: Tensor) -> None:
    """Every unit's weights back to norm 1, in place."""
    w1.div_(w1.norm(dim=0))


def clip(gradients: list[Tensor], norm: float) -> None:
    """Each arm's gradient to at most this norm, in place."""
    w1, *others = gradients
    squared = w1.square().sum((0, 2)) + sum(g.square().flatten(1).sum(1) if g.dim() > 1 else g.square() for g in others)
    factor = norm / squared.sqrt().clamp_min(norm)
    w1.mul_(factor[:, None])
    for gradient in others:
        gradient.mul_(factor[:, None] if gradient.dim() > 1 else factor)
