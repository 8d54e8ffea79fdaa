"""Stacked networks p – h1 – h2 – c with ReLU, one for each arm, on the same samples, with the reported penalties.

The first layer of all networks is one matrix product, the others are batched ones. All is float32.
Gradients are written out, as in networks.py; a test compares them with automatic differentiation. Adam is PyTorch's
own, fused.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from effective_lr.studies.norms.settings import Arm

LAYERS = 3
FRACTION = 0.5  # α of the elastic net


class Form(NamedTuple):
    """The coefficients of tr(W'CW), ‖W‖² and ‖W‖₁, and the layers that they penalise."""

    covariance: float
    squares: float
    absolute: float
    layers: int


def form(arm: Arm) -> Form:
    """[3rd] Covridge λ1·tr(W'CW) + λ2·‖W‖², Sparridge λ1·tr(W'CW) + γ·‖W‖₁ on the first layer, or on all of them;
    ridge λ‖W‖², lasso γ‖W‖₁, elastic net γ(α‖W‖₁ + (1−α)/2·‖W‖²) on all weights."""
    first, second = arm.strength, arm.second or 0.0
    match arm.penalty.removesuffix("+").removesuffix("-all"):
        case "covridge":
            return Form(first, second, 0.0, LAYERS if arm.penalty.endswith("-all") else 1)
        case "sparridge":
            return Form(first, 0.0, second, LAYERS if arm.penalty.endswith("-all") else 1)
        case "ridge":
            return Form(0.0, first, 0.0, LAYERS)
        case "lasso":
            return Form(0.0, 0.0, first, LAYERS)
        case "elastic":
            return Form(0.0, first * (1 - FRACTION) / 2, first * FRACTION, LAYERS)
        case _:
            return Form(0.0, 0.0, 0.0, LAYERS)


class Stack:
    """Weights W1 (p, arms·h1), W2 (arms, h1, h2), W3 (arms, h2, c), and biases in the same layout.

    Xavier's start, the same for every arm; biases 0, not penalised.
    """

    def __init__(
        self, arms: list[Arm], sizes: tuple[int, int, int, int], seed: int, lr: float, device: torch.device
    ) -> None:
        p, h1, h2, c = sizes
        self.count, self.sizes = len(arms), sizes
        generator = torch.Generator().manual_seed(seed)

        def start(inputs: int, outputs: int) -> Tensor:
            bound = (6 / (inputs + outputs)) ** 0.5
            return ((2 * torch.rand(inputs, outputs, generator=generator) - 1) * bound).to(device)

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, device=device)

        n = self.count
        first, second, last = start(p, h1), start(h1, h2), start(h2, c)
        self.weights = [first.repeat(1, n), second.repeat(n, 1, 1), last.repeat(n, 1, 1)]
        self.biases = [zeros(n * h1), zeros(n, 1, h2), zeros(n, 1, c)]
        self.parameters = [tensor for pair in zip(self.weights, self.biases, strict=True) for tensor in pair]
        self.optimizer = torch.optim.Adam(self.parameters, lr=lr, fused=True)
        # Coefficients of each layer in the shape of its weights, None where all are 0.
        forms = [form(arm) for arm in arms]
        self.coefficients: list[list[Tensor | None]] = []
        for layer in range(LAYERS):
            columns = torch.tensor([f[:3] if layer < f.layers else (0.0,) * 3 for f in forms], device=device).T
            shaped = [column.repeat_interleave(h1) if layer == 0 else column[:, None, None] for column in columns]
            self.coefficients.append([column if bool(column.any()) else None for column in shaped])

    def hidden(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The two hidden layers (arms, samples, units)."""
        w1, w2, _ = self.weights
        h1 = torch.addmm(self.biases[0], x, w1).relu_().view(len(x), self.count, -1).transpose(0, 1)
        return h1, torch.baddbmm(self.biases[1], h1, w2).relu_()

    def outputs(self, x: Tensor) -> Tensor:
        """(arms, samples, c)."""
        return torch.baddbmm(self.biases[2], self.hidden(x)[1], self.weights[2])

    def gradients(self, x: Tensor, y: Tensor) -> list[Tensor]:
        """Of the mean squared error, or of the mean log-loss of softmax for classes y, in the order of `parameters`."""
        _, w2, w3 = self.weights
        h1, h2 = self.hidden(x)
        out = torch.baddbmm(self.biases[2], h2, w3)
        if self.sizes[3] == 1:
            slope = (out - y[:, None]).mul_(2 / len(x))
        else:
            slope = out.softmax(2)
            slope -= torch.nn.functional.one_hot(y, self.sizes[3])
            slope /= len(x)
        back2 = torch.bmm(slope, w3.transpose(1, 2)).mul_(h2 > 0)
        back1 = torch.bmm(back2, w2.transpose(1, 2)).mul_(h1 > 0).transpose(0, 1).reshape(len(x), -1)
        return [
            x.T @ back1,
            back1.sum(0),
            torch.bmm(h1.transpose(1, 2), back2),
            back2.sum(1, keepdim=True),
            torch.bmm(h2.transpose(1, 2), slope),
            slope.sum(1, keepdim=True),
        ]

    def covariances(self, x: Tensor, delta: float) -> list[Tensor]:
        """C = H'H/n + δI of each layer's inputs H on the samples x: (p, p), (arms, h1, h1) and (arms, h2, h2).

        That of the first layer is left as its samples (n, p) where p > n; those of the others are made where an arm
        penalises them.
        """
        found = [x if x.shape[1] > len(x) else self.covariance(x, delta)]
        if self.coefficients[1][0] is not None:
            found += [self.covariance(h, delta) for h in self.hidden(x)]
        return found

    @staticmethod
    def covariance(h: Tensor, delta: float) -> Tensor:
        return h.mT @ h / h.shape[-2] + delta * torch.eye(h.shape[-1], device=h.device)

    def add_penalties(self, gradients: list[Tensor], covariances: list[Tensor], delta: float) -> None:
        """2·λ1·CW + 2·λ2·W + γ·sign W, added in place. A subgradient: under Adam no weight becomes exactly 0."""
        for layer, (w, (covariance, squares, absolute)) in enumerate(zip(self.weights, self.coefficients, strict=True)):
            gradient = gradients[2 * layer]
            if covariance is not None:
                c = covariances[layer]
                if layer == 0 and c.shape[0] != c.shape[1]:
                    product = (c.T @ (c @ w)).div_(len(c)).add_(w, alpha=delta)
                else:
                    product = c @ w
                gradient.addcmul_(product, covariance, value=2)
            if squares is not None:
                gradient.addcmul_(w, squares, value=2)
            if absolute is not None:
                gradient.addcmul_(w.sign(), absolute)

    def step(self, x: Tensor, y: Tensor, covariances: list[Tensor], delta: float) -> None:
        """One step of Adam on one batch."""
        gradients = self.gradients(x, y)
        self.add_penalties(gradients, covariances, delta)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()

    def squares(self, layer: int) -> Tensor:
        """‖W‖² of each arm (arms,), in one layer."""
        return self.of_arm(layer).double().square().sum((1, 2))

    def of_arm(self, layer: int) -> Tensor:
        """W of a layer as (arms, inputs, outputs)."""
        w = self.weights[layer]
        return w.view(len(w), self.count, -1).transpose(0, 1) if layer == 0 else w
