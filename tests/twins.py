"""Our layers and runs beside those of plain_pytorch.py, from the same start."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import plain_pytorch
from effective_lr.studies.normalization.data import Splits
from effective_lr.studies.normalization.networks import build_network, normalized_layers
from effective_lr.studies.normalization.settings import Run

LAYERS = ("conv1", "conv2", "conv3", "linear")


class Plain:
    """A run in plain PyTorch, in float64."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.network, self.parameters = plain_pytorch.build(run.model_dump(), 1, torch.float64)
        layers = [layer for _, layer in normalized_layers(build_network(run, torch.float64))]
        with torch.no_grad():
            for layer, theirs in zip(layers, self.parameters, strict=True):
                for own, their in zip((layer.weight, layer.gamma, layer.beta), theirs, strict=True):
                    if own is not None:
                        their.copy_(own.view_as(their))
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
