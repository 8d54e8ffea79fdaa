"""Our layers, networks and runs beside those of plain_pytorch.py, from the same start."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import plain_pytorch
from effective_lr.studies.normalization.data import Splits
from effective_lr.studies.normalization.networks import Conv4, NormalizedLayer, build_network, normalized_layers
from effective_lr.studies.normalization.settings import Run

LAYERS = ("conv1", "conv2", "conv3", "linear")
Pairs = list[tuple[Tensor, Tensor]]  # our parameters and theirs


def paired(layers: Iterable[NormalizedLayer], parameters: Any) -> Pairs:
    """Give them our values."""
    ours = [(layer.weight, layer.gamma, layer.beta) for layer in layers]
    both: Any = [pair for layer in zip(ours, parameters, strict=True) for pair in zip(*layer, strict=True)]
    pairs = [(own, their) for own, their in both if own is not None]
    with torch.no_grad():
        for own, their in pairs:
            their.copy_(own.view_as(their))
    return pairs


def twin_network(network: Conv4, run: Run) -> tuple[nn.Sequential, Pairs]:
    """The network of PyTorch with the same values: normalization, ReLU, pooling."""
    twin, parameters = plain_pytorch.build(run.model_dump(), 1, torch.float64)
    return twin, paired((layer for _, layer in normalized_layers(network)), parameters)


class Plain:
    """A run in plain PyTorch, in float64."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.network, self.parameters = plain_pytorch.build(run.model_dump(), 1, torch.float64)
        paired((layer for _, layer in normalized_layers(build_network(run, torch.float64))), self.parameters)
        self.optimizer = plain_pytorch.optimizer_of(run.model_dump(), self.parameters)

    @property
    def weights(self) -> dict[str, Any]:
        return {name: weight for name, (weight, *_) in zip(LAYERS, self.parameters, strict=True)}

    def step(self, splits: Splits, batch: Tensor) -> tuple[float, float]:
        """Loss and error of a batch, before the step on it."""
        images, labels = splits.train_images[batch], splits.train_labels[batch]
        logits = plain_pytorch.step(
            self.run.model_dump(), self.network, self.parameters, self.optimizer, images, labels
        )
        wrong = (logits.argmax(1) != labels).double().mean()
        return float(F.cross_entropy(logits, labels)), float(wrong)
