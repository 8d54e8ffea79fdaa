"""Normalized layers, their scale groups, and the four-layer network.

A layer is (linear or convolution) → normalization → activation (van Laarhoven 2017, equations 1 to 3). X is the input,
w the weights of a unit; μ, σ are taken over the batch and the image (batch) or over all units of one example (layer):

    batch, layer   (Xw − μ(Xw)) / σ(Xw) · γ + β
    weight         Xw / ‖w‖₂ · γ + β
    none           Xw + β
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effective_lr.studies.normalization.settings import CLASSES, DATASETS, TYPICAL_GRADIENT, Run


class NormalizedLayer(nn.Module):
    """A linear map or a 3×3 convolution, normalized, with γ and β per unit.

    `weight` has the shape (units, inputs) or (units, inputs, 3, 3); the input (batch, inputs[, height, width]) becomes
    (batch, units[, height, width]). Batch normalization uses the statistics of the batch in training mode and
    `running_mean`, `running_var` in evaluation mode.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, inputs: int, units: int, normalization: str, eps: float, convolution: bool) -> None:
        super().__init__()
        self.normalization = normalization
        self.eps = eps
        self.convolution = convolution
        self.weight = nn.Parameter(torch.empty(units, inputs, *([3, 3] if convolution else [])))
        self.gamma = nn.Parameter(torch.ones(units)) if normalization != "none" else None
        self.beta = nn.Parameter(torch.zeros(units))
        self.running_momentum = 0.1
        if normalization == "batch":
            self.register_buffer("running_mean", torch.zeros(units))
            self.register_buffer("running_var", torch.ones(units))

    def linear_map(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, weight, bias, padding=1) if self.convolution else F.linear(x, weight, bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.normalization == "none":
            return self.linear_map(x, self.weight, self.beta)
        assert self.gamma is not None
        if self.normalization == "layer":
            return F.group_norm(self.linear_map(x, self.weight, None), 1, self.gamma, self.beta, self.eps)
        if self.normalization == "batch" and self.training:
            statistics = self.running_mean, self.running_var
            z = self.linear_map(x, self.weight, None)
            return F.batch_norm(z, *statistics, self.gamma, self.beta, True, self.running_momentum, self.eps)
        # What is left is an affine map of each unit that does not depend on x: it goes into the weights, for speed.
        if self.normalization == "weight":
            scale = self.gamma / self.group_norms()
            shift: Tensor = self.beta
        else:
            scale = self.gamma / (self.running_var + self.eps).sqrt()
            shift = self.beta - self.running_mean * scale
        return self.linear_map(x, self.weight * scale.view(self.group_shape), shift)

    def group_norms(self, values: Tensor | None = None) -> Tensor:
        """Euclidean norm of each scale group of `weight`, or of a tensor of its shape.

        The shape of the result is (units,), and (1,) for layer normalization.

        A scale group is the largest set of weights that can be rescaled together without a change of the output: one
        unit under batch and weight normalization, the whole layer under layer normalization. Without normalization
        nothing can be; units are measured all the same, as the control.
        """
        values = self.weight if values is None else values
        if self.normalization == "layer":
            return torch.linalg.vector_norm(values).view(1)
        return torch.linalg.vector_norm(values, dim=tuple(range(1, values.dim())))

    def group_sums(self, values: Tensor) -> Tensor:
        """The sums over each scale group of a tensor of the shape of `weight`; shaped as `group_norms`."""
        return values.sum().view(1) if self.normalization == "layer" else values.flatten(1).sum(1)

    @property
    def group_shape(self) -> tuple[int, ...]:
        """The shape in which numbers of the scale groups broadcast against `weight`."""
        return (-1, *[1] * (self.weight.dim() - 1))

    @property
    def group_size(self) -> int:
        """The number of weights in a scale group, d."""
        return self.weight.numel() if self.normalization == "layer" else self.weight[0].numel()

    @torch.no_grad()
    def set_group_norms(self, norm: float) -> None:
        """Rescale every scale group to the given norm."""
        self.weight.mul_(norm / self.group_norms().view(self.group_shape))


class Conv4(nn.Module):
    """conv(c) – pool – conv(2c) – pool – conv(4c) – global average pool – linear(10), all four normalized.

    Maximum pooling stands between normalization and activation, ReLU or leaky: both orders are the same function, and
    this one rectifies a quarter of the values. The mean before the classifier is taken by pooling, whose backward pass
    keeps channels_last. Images (batch, channels, side, side) become logits (batch, 10).
    """

    def __init__(self, channels: int, width: int, normalization: str, eps: float, leak: float = 0.0) -> None:
        super().__init__()
        self.leak = leak
        self.conv1 = NormalizedLayer(channels, width, normalization, eps, convolution=True)
        self.conv2 = NormalizedLayer(width, 2 * width, normalization, eps, convolution=True)
        self.conv3 = NormalizedLayer(2 * width, 4 * width, normalization, eps, convolution=True)
        self.linear = NormalizedLayer(4 * width, CLASSES, normalization, eps, convolution=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activate(F.max_pool2d(self.conv1(x), 2))
        x = self.activate(F.max_pool2d(self.conv2(x), 2))
        x = self.activate(self.conv3(x))
        return self.linear(F.avg_pool2d(x, x.shape[-1]).flatten(1))

    def activate(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, self.leak) if self.leak else F.relu(x)


def normalized_layers(network: nn.Module) -> Iterator[tuple[str, NormalizedLayer]]:
    """The layers that hold the penalised weights, with their names, found by their type."""
    for name, module in network.named_modules():
        if isinstance(module, NormalizedLayer):
            yield name, module


def layer_penalties(run: Run, layers: list[NormalizedLayer]) -> list[float]:
    """λ of each layer; all are those of the run, or they make λ times the size of a scale group the same in all."""
    if run.layer_l2 == "equal":
        return [run.l2] * len(layers)
    largest = max(layer.group_size for layer in layers)
    return [run.l2 * largest / layer.group_size for layer in layers]


def predicted_norm(run: Run, l2: float, size: int) -> float:
    """‖w‖ at the equilibrium of a scale group of `size` weights with the penalty `l2`, for a typical gradient.

    theory.equilibrium_norm derives it; it stands here too because it decides results.
    """
    if run.optimizer == "adamw":
        return float((run.lr * size / (4 * l2)) ** (1 / 2))
    if run.optimizer in ("adam", "rmsprop"):
        return float((run.lr * size**0.5 * TYPICAL_GRADIENT / (4 * l2)) ** (1 / 3))
    net_lr = run.lr / (1 - run.momentum) if run.optimizer in ("momentum", "nesterov") else run.lr
    return float((net_lr * TYPICAL_GRADIENT**2 / (4 * l2)) ** (1 / 4))


def build_network(run: Run, dtype: torch.dtype = torch.float32) -> Conv4:
    """The network of a run at its start: Gaussian directions, every scale group at its first norm, γ = 1, β = 0.

    The weights depend on the seed alone, so runs that differ in λ or η start from the same directions.
    """
    network = Conv4(DATASETS[run.dataset].channels, run.width, run.normalization, run.norm_eps, run.leak).to(dtype)
    generator = torch.Generator().manual_seed(run.seed)
    layers = [layer for _, layer in normalized_layers(network)]
    with torch.no_grad():
        for layer, l2 in zip(layers, layer_penalties(run, layers), strict=True):
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64))
            norm = predicted_norm(run, l2, layer.group_size) if run.starts_at_equilibrium else run.initial_norm
            layer.set_group_norms(norm)
            if run.affine_lr == "frozen":
                layer.beta.requires_grad_(False)
                if layer.gamma is not None:
                    layer.gamma.requires_grad_(False)
    return network.to(memory_format=torch.channels_last)
