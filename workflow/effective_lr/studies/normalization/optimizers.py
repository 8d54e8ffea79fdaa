"""The optimizers, with the penalty λ‖w‖², and the projection that holds ‖w‖ at 1.

With g = ∇(L + λ‖w‖²), for the weights η = `lr`, for γ and β η = `affine_lr` and, but for an ablation, λ = 0, they are
those of PyTorch; λ may differ between layers:

    sgd        w ← w − ηg
    momentum   v ← μv + g              w ← w − ηv                       heavy ball
    nesterov   v ← μv + g              w ← w − η(g + μv)
    rmsprop    s ← αs + (1 − α)g²      w ← w − ηg/(√s + ε)              α = 0.99
    adam       m ← β₁m + (1 − β₁)g     w ← w − ηm̂/(√ŝ + ε)              β₁ = 0.9, β₂ = 0.999
               s ← β₂s + (1 − β₂)g²    m̂ = m/(1 − β₁ᵗ), ŝ = s/(1 − β₂ᵗ)
    adamw      as adam, but g = ∇L and first w ← (1 − 2ηλ)w

With `corrected_squares` RMSProp takes ŝ = s/(1 − αᵗ) for s.

The objective has no factor ½ (van Laarhoven 2017), so the gradient of its penalty is 2λw: PyTorch's weight_decay is 2λ.

They are written out because PyTorch's own import its compiler when they are made, which costs each training job as much
as importing all the rest, and their bookkeeping takes a twentieth of a step. The tests hold both equal.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from effective_lr.studies.normalization.networks import layer_penalties, normalized_layers
from effective_lr.studies.normalization.settings import Run

HAS_MEANS = ("momentum", "nesterov", "adam", "adamw")  # rules that remember gradients
HAS_SQUARES = ("rmsprop", "adam", "adamw")  # and their squares
SQUARE_DECAY_RMSPROP = 0.99
MEAN_DECAY_ADAM, SQUARE_DECAY_ADAM = 0.9, 0.999


@dataclass
class Group:
    """Parameters that share a learning rate, a penalty and an ε, and what the optimizer remembers of them."""

    parameters: list[Tensor]
    lr: float
    penalties: list[float]  # λ of each parameter
    eps: float
    factors: list[Tensor] | None = None  # what the update of each parameter is multiplied by beside the learning rate
    means: list[Tensor] = field(init=False)  # of gradients: v of momentum, m of Adam; empty where a rule has none
    squares: list[Tensor] = field(init=False)  # of squared gradients: s

    def remember(self, has_means: bool, has_squares: bool) -> None:
        """Make room for what the rule remembers between steps."""
        self.means = [torch.zeros_like(parameter) for parameter in self.parameters if has_means]
        self.squares = [torch.zeros_like(parameter) for parameter in self.parameters if has_squares]


class Optimizer:
    """The optimizer of a run: `weights` are penalised, `affine`, γ and β, only where the run's `affine_l2` says so."""

    def __init__(self, run: Run, network: nn.Module) -> None:
        layers = [layer for _, layer in normalized_layers(network)]
        weights: list[Tensor] = [layer.weight for layer in layers]
        frozen = run.affine_lr == "frozen"
        penalised_layers = {"none": [], "hidden": layers[:-1], "last": layers[-1:], "all": layers}[run.affine_l2]
        penalised = {id(parameter) for layer in penalised_layers for parameter in layer.parameters()}
        others = [p for p in network.parameters() if not frozen and all(p is not weight for weight in weights)]
        free: list[Tensor] = [p for p in others if id(p) not in penalised]
        held: list[Tensor] = [p for p in others if id(p) in penalised]
        affine_lr = run.lr if isinstance(run.affine_lr, str) else run.affine_lr
        penalties = [0.0] * len(layers) if run.replay != "none" else layer_penalties(run, layers)
        self.rule = run.optimizer
        self.momentum = run.momentum
        self.corrects_squares = run.optimizer != "rmsprop" or run.corrected_squares
        self.square_decay = SQUARE_DECAY_RMSPROP if run.optimizer == "rmsprop" else SQUARE_DECAY_ADAM
        self.weights = Group(weights, run.lr, penalties, run.optimizer_eps)
        self.affine = Group(free, affine_lr, [0.0] * len(free), run.optimizer_eps)
        penalised_affine = Group(held, affine_lr, [run.l2] * len(held), run.optimizer_eps)
        self.groups = [group for group in (self.weights, self.affine, penalised_affine) if group.parameters]
        for group in self.groups:
            group.remember(has_means=self.rule in HAS_MEANS, has_squares=self.rule in HAS_SQUARES)
        self.steps = 0

    def zero_grad(self) -> None:
        """Forget the gradients; the next ones are then stored, not added."""
        for group in self.groups:
            for parameter in group.parameters:
                parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Change the parameters, which must all have gradients; the gradients stay as they are."""
        self.steps += 1
        for group in self.groups:
            gradients: Any = [parameter.grad for parameter in group.parameters]
            is_penalised = any(group.penalties)
            if is_penalised and self.rule == "adamw":
                torch._foreach_mul_(group.parameters, [1 - 2 * group.lr * l2 for l2 in group.penalties])
            elif is_penalised:
                penalty = torch._foreach_mul(group.parameters, [2 * l2 for l2 in group.penalties])
                gradients = torch._foreach_add(gradients, penalty)
            update = self._update(group, gradients)
            if group.factors is not None:
                update = torch._foreach_mul(update, group.factors)
            torch._foreach_add_(group.parameters, update, alpha=-group.lr)

    def _update(self, group: Group, gradients: Any) -> Any:
        """What the learning rate multiplies."""
        match self.rule:
            case "sgd":
                return gradients
            case "momentum" | "nesterov":
                torch._foreach_mul_(group.means, self.momentum)
                torch._foreach_add_(group.means, gradients)
                if self.rule == "momentum":
                    return group.means
                return torch._foreach_add(gradients, group.means, alpha=self.momentum)
            case "rmsprop":
                update = gradients
            case "adam" | "adamw":
                torch._foreach_lerp_(group.means, gradients, 1 - MEAN_DECAY_ADAM)
                update = torch._foreach_div(group.means, 1 - MEAN_DECAY_ADAM**self.steps)
        torch._foreach_mul_(group.squares, self.square_decay)
        torch._foreach_addcmul_(group.squares, gradients, gradients, 1 - self.square_decay)
        return torch._foreach_div(update, torch._foreach_add(self.roots(group), group.eps))

    def roots(self, group: Group) -> Any:
        """√ŝ of each parameter; PyTorch's RMSProp does not correct s for its start at 0."""
        correction = 1 - self.square_decay**self.steps if self.corrects_squares else 1.0
        return torch._foreach_div(torch._foreach_sqrt(group.squares), correction**0.5)

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold for the next step to be the same."""
        memory = [[group.means, group.squares] for group in self.groups]
        return {"steps": self.steps, "memory": memory}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state()`."""
        self.steps = state["steps"]
        for group, (means, squares) in zip(self.groups, state["memory"], strict=True):
            for mine, saved in zip([*group.means, *group.squares], [*means, *squares], strict=True):
                mine.copy_(saved)


def project(network: nn.Module) -> None:
    """w ← w/‖w‖₂ for every scale group, after a step (van Laarhoven 2017, section 5.5)."""
    for _, layer in normalized_layers(network):
        layer.set_group_norms(1.0)
