"""Our layers, networks and runs beside those of plain_pytorch.py, from the same start."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import plain_pytorch
from effective_lr.studies.normalization.data import Splits
from effective_lr.studies.normalization.networks import Conv4, build_network, normalized_layers
from effective_lr.studies.normalization.settings import Run

LAYERS = ("conv1", "conv2", "conv3", "linear")


class Plain:
    """A run in plain PyTorch, in float64, with the values of our network: at its start, or of this one."""

    def __init__(self, run: Run, ours: Conv4 | None = None) -> None:
        self.run = run
        self.network, self.parameters = plain_pytorch.build(run.model_dump(), 1, torch.float64)
        layers = normalized_layers(ours or build_network(run, torch.float64))
        self.pairs: list[tuple[Tensor, Tensor]] = []  # our parameters and theirs
        for (_, layer), theirs in zip(layers, self.parameters, strict=True):
            both = zip((layer.weight, layer.gamma, layer.beta), theirs, strict=True)
            self.pairs += [(own, their) for own, their in both if own is not None]
        with torch.no_grad():
            for own, their in self.pairs:
                their.copy_(own.view_as(their))
        self.optimizer = plain_pytorch.optimizer_of(run.model_dump(), self.parameters)

    @property
    def weights(self) -> dict[str, Any]:
        return {name: weight for name, (weight, *_) in zip(LAYERS, self.parameters, strict=True)}

    def step(self, splits: Splits, batch: Tensor) -> tuple[float, float]:
        """Loss and error of a batch, before the step on it."""
        images, labels = splits.train_images[batch], splits.train_labels[batch]
        settings = self.run.model_dump()
        logits = plain_pytorch.step(settings, self.network, self.parameters, self.optimizer, images, labels)
        wrong = (logits.argmax(1) != labels).double().mean()
        return float(F.cross_entropy(logits, labels)), float(wrong)
