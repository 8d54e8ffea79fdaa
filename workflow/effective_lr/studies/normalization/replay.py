"""The effective learning rate that a penalty would have produced, given to weights that no penalty touches.

SGD with the penalty moves w = v·u, ‖u‖ = 1, to a multiple of u − h·∇L(u) with h = η/(v²(1 − 2ηλ)), and v follows

    v₀ = ‖w₀‖,   v_{t+1}² = (1 − 2ηλ)²v_t² + η²(‖∇L(w_t)‖‖w_t‖/v_t)²

since the gradient is tangent and ‖∇L(w)‖‖w‖ does not depend on ‖w‖. A scale group whose norm is held at 1 and that is
trained at its own learning rate h therefore passes through the same directions. In exact arithmetic it is the same
training; in float32 the paths part, and only statistics can agree.

The slow replay is no such identity. It has one v for each layer, whose recursion takes, in place of ‖∇L(w_t)‖²‖w_t‖²,
its mean over the layer's groups and, exponentially, over 100 steps (over all so far, while these are fewer). So no
single gradient sets a rate, and no group has a rate of its own.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from effective_lr.studies.normalization.networks import Conv4, NormalizedLayer, build_network, normalized_layers
from effective_lr.studies.normalization.optimizers import Optimizer
from effective_lr.studies.normalization.settings import Run

SLOW_STEPS = 100  # that the slow replay averages squared gradients over


class Replay:
    """v² of every scale group, (groups,) for each layer, from the run's own gradients or from a decayed run beside it.

    The open loop takes the norms of a run with the penalty that starts from the same weights and sees the same batches.
    """

    def __init__(self, run: Run, network: Conv4, dtype: torch.dtype, device: torch.device) -> None:
        self.run = run
        self.layers = [layer for _, layer in normalized_layers(network)]
        self.is_slow = run.replay == "slow"
        self.squares = [square.mean().view(1) if self.is_slow else square for square in norms_squared(self.layers)]
        self.means = [torch.zeros_like(square) for square in self.squares]  # of the slow replay, of η²‖∇L‖²‖w‖²
        self.steps = 0
        self.decayed: tuple[Conv4, Optimizer] | None = None
        if run.replay == "open":
            decayed = run.changed(replay="none")
            beside = build_network(decayed, dtype).to(device)
            self.decayed = beside, Optimizer(decayed, beside)

    @torch.no_grad()
    def factors(self, images: Tensor, labels: Tensor) -> list[Tensor]:
        """What the update of this step is multiplied by, h/η·‖w‖² for each group; then v² of the next step.

        The layers hold the weights that the step starts from, and their gradients.
        """
        kept = 1 - 2 * self.run.lr * self.run.l2
        norms, factors = norms_squared(self.layers), []
        for layer, norm, square in zip(self.layers, norms, self.squares, strict=True):
            factors.append((norm / (square * kept)).to(layer.weight.dtype).view(layer.group_shape))
        if self.decayed is not None:
            self.squares = self._decayed_step(images, labels)
        else:
            self.squares = [
                kept**2 * square + step / square
                for square, step in zip(self.squares, self._steps_squared(norms), strict=True)
            ]
        return factors

    def _steps_squared(self, norms: list[Tensor]) -> list[Tensor]:
        """η²‖∇L‖²‖w‖² of this step for each group, or of the slow replay its mean for each layer."""
        found = [
            self.run.lr**2 * layer.group_norms(layer.weight.grad).double() ** 2 * norm
            for layer, norm in zip(self.layers, norms, strict=True)
        ]
        if not self.is_slow:
            return found
        self.steps += 1
        for mean, step in zip(self.means, found, strict=True):
            mean += (step.mean() - mean) / min(self.steps, SLOW_STEPS)
        return self.means

    def _decayed_step(self, images: Tensor, labels: Tensor) -> list[Tensor]:
        assert self.decayed is not None
        network, optimizer = self.decayed
        with torch.enable_grad():
            optimizer.zero_grad()
            F.cross_entropy(network(images), labels).backward()
        optimizer.step()
        return norms_squared([layer for _, layer in normalized_layers(network)])

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold for the next step to be the same."""
        beside = [part.state_dict() if isinstance(part, Conv4) else part.state() for part in self.decayed or ()]
        return {"squares": self.squares, "means": self.means, "steps": self.steps, "decayed": beside}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state()`."""
        self.squares, self.means, self.steps = state["squares"], state["means"], state["steps"]
        if self.decayed is not None:
            network, optimizer = self.decayed
            network.load_state_dict(state["decayed"][0])
            optimizer.load(state["decayed"][1])


def norms_squared(layers: list[NormalizedLayer]) -> list[Tensor]:
    """‖w‖² of the scale groups of each layer, in float64."""
    return [layer.group_norms(layer.weight.detach()).double() ** 2 for layer in layers]
