"""The networks, as functions of one flat vector of parameters: curvature is about vectors, not about modules.

A layer is a linear map or a convolution, then a normalization, then tanh; the last layer has no tanh. Without
normalization a layer adds a bias; with one it multiplies by a gain and adds a shift, and its rows start with norm 1.
The normalization follows every weight layer, the last one too, so that every penalised weight is scale invariant.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from effective_lr.studies.stability.settings import IMAGES, Run

CLASSES = 10


@dataclass(frozen=True)
class Layer:
    """The shape of a weight, (units, inputs) or (channels, channels before, 3, 3)."""

    shape: tuple[int, ...]

    @property
    def units(self) -> int:
        return self.shape[0]

    @property
    def fan_in(self) -> int:
        return math.prod(self.shape[1:])

    @property
    def weights(self) -> int:
        return math.prod(self.shape)


class Network:
    """What turns a vector of parameters (count,) and images (n, channels, size, size) into outputs (n, 10).

    The parameters of a layer follow each other: its weight, its gain where it is normalized, its bias or shift.
    `penalized` (count,) is 1 for weights and 0 for biases, gains and shifts. A row of a weight is a scale group.
    """

    def __init__(self, run: Run, device: torch.device | str = "cpu") -> None:
        self.run = run
        images = IMAGES[run.dataset, run.resolution]
        shapes: list[tuple[int, ...]]
        if run.network == "mlp":
            inputs = images.channels * images.size**2
            shapes = [(run.width, inputs), (run.second_width, run.width), (CLASSES, run.second_width)]
        else:
            side = math.ceil(math.ceil(images.size / 2) / 2)
            shapes = [(run.width, images.channels, 3, 3), (run.second_width, run.width, 3, 3)]
            shapes.append((CLASSES, run.second_width * side**2))
        self.layers = [Layer(shape) for shape in shapes]
        self.has_gain = run.normalization != "none"
        vectors = 2 if self.has_gain else 1  # beside each weight
        self.sizes = [size for layer in self.layers for size in (layer.weights, *[layer.units] * vectors)]
        marks = [mark for _ in self.layers for mark in (1.0, *[0.0] * vectors)]
        self.penalized = torch.cat(
            [torch.full((size,), mark, dtype=torch.float64) for size, mark in zip(self.sizes, marks, strict=True)]
        ).to(device)

    def start(self) -> Tensor:
        """The parameters (count,) that training starts from, drawn on the CPU from the seed of the run."""
        generator = torch.Generator().manual_seed(self.run.seed)
        pieces = []
        for layer in self.layers:
            weight = torch.randn(layer.units, layer.fan_in, generator=generator, dtype=torch.float64)
            if self.has_gain:
                pieces += [weight / weight.norm(dim=1, keepdim=True), torch.ones(layer.units, dtype=torch.float64)]
            else:
                pieces.append(self.run.initial_scale / math.sqrt(layer.fan_in) * weight)
            pieces.append(torch.zeros(layer.units, dtype=torch.float64))
        return torch.cat([piece.flatten() for piece in pieces]).to(self.penalized.device)

    def outputs(self, parameters: Tensor, images: Tensor, batch: int | None = None) -> Tensor:
        """Outputs (n, 10). Statistics of batch normalization are those of the first `batch` images, or of all."""
        x = images
        pieces = iter(parameters.split(self.sizes))
        for number, layer in enumerate(self.layers):
            weight = next(pieces).view(layer.shape)
            gain = next(pieces) if self.has_gain else None
            shift = next(pieces)
            if number:
                x = torch.tanh(x)
            if gain is None:
                x = self._linear(x, weight, shift)
            elif self.run.normalization == "weight":
                norms = weight.flatten(1).norm(dim=1)
                x = self._linear(x, weight * (gain / norms).view(-1, *[1] * (weight.dim() - 1)), shift)
            else:
                x = self._batch_normalized(self._linear(x, weight, None), gain, shift, batch)
        return x

    def _linear(self, x: Tensor, weight: Tensor, shift: Tensor | None) -> Tensor:
        if weight.dim() == 4:
            return F.conv2d(x, weight, shift, stride=2, padding=1)
        return F.linear(x.flatten(1), weight, shift)

    def _batch_normalized(self, x: Tensor, gain: Tensor, shift: Tensor, batch: int | None) -> Tensor:
        """Over images, and over space; written out because PyTorch's own refuses ε = 0."""
        dims, shape = (0, *range(2, x.dim())), (1, -1, *[1] * (x.dim() - 2))
        mean = x[:batch].mean(dims, keepdim=True)
        variance = (x[:batch] - mean).square().mean(dims, keepdim=True)
        return (x - mean) * (gain.view(shape) / (variance + self.run.norm_eps).sqrt()) + shift.view(shape)

    def group_norms(self, parameters: Tensor) -> Tensor:
        """The norm (groups,) of every row of every weight."""
        return torch.cat([weight.norm(dim=1) for weight in self.weights(parameters)])

    def weights(self, parameters: Tensor) -> list[Tensor]:
        """The weights (units, fan-in) of the layers."""
        step = 3 if self.has_gain else 2
        pieces = parameters.split(self.sizes)[::step]
        return [piece.view(layer.units, layer.fan_in) for piece, layer in zip(pieces, self.layers, strict=True)]

    def scales(self, parameters: Tensor) -> Tensor:
        """(count,): for a weight the norm of its row, for a gain, shift or bias 1."""
        pieces, step = [], 3 if self.has_gain else 2
        for number, piece in enumerate(parameters.split(self.sizes)):
            if number % step:
                pieces.append(torch.ones_like(piece))
            else:
                layer = self.layers[number // step]
                norms = piece.view(layer.units, -1).norm(dim=1, keepdim=True)
                pieces.append(norms.expand(-1, layer.fan_in).reshape(-1))
        return torch.cat(pieces)


def losses(outputs: Tensor, targets: Tensor, loss: str) -> Tensor:
    """The mean loss over images; targets (n, 10) are 1 for the class of an image and 0 elsewhere."""
    if loss == "mse":
        return 0.5 * (outputs - targets).square().sum(1).mean()
    return -(targets * F.log_softmax(outputs, dim=1)).sum(1).mean()
