"""Optimizers with the penalty λ‖w‖² on the weights alone, and the projection that holds ‖w‖ at 1.

The objective has no factor ½ (van Laarhoven 2017), so the gradient of the penalty is 2λw, while PyTorch adds
weight_decay · w: `weight_decay = 2λ`, here and nowhere else.
"""

from typing import Any

import torch
from torch import nn

from effective_lr.config import Run
from effective_lr.networks import normalized_layers


def build_optimizer(run: Run, network: nn.Module) -> torch.optim.Optimizer:
    """PyTorch's optimizer for a run: the penalised weights at `lr`, γ and β without penalty at `affine_lr`."""
    weights = [layer.weight for _, layer in normalized_layers(network)]
    penalised = {id(weight) for weight in weights}
    affine = [parameter for parameter in network.parameters() if id(parameter) not in penalised]
    groups: list[dict[str, Any]] = [
        {"params": weights, "lr": run.lr, "weight_decay": 2 * run.l2},
        {"params": affine, "lr": run.lr if run.affine_lr == "shared" else run.affine_lr, "weight_decay": 0.0},
    ]
    match run.optimizer:
        case "sgd":
            return torch.optim.SGD(groups)
        case "momentum":
            return torch.optim.SGD(groups, momentum=run.momentum)
        case "nesterov":
            return torch.optim.SGD(groups, momentum=run.momentum, nesterov=True)
        case "adam":
            return torch.optim.Adam(groups, eps=run.optimizer_eps)
        case "rmsprop":
            return torch.optim.RMSprop(groups, eps=run.optimizer_eps)
        case "adamw":
            return torch.optim.AdamW(groups, eps=run.optimizer_eps)


def project(network: nn.Module) -> None:
    """w ← w/‖w‖₂ for every scale group, after a step (van Laarhoven 2017, section 5.5)."""
    for _, layer in normalized_layers(network):
        layer.set_group_norms(1.0)
