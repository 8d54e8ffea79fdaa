"""The layers and the network of the study from PyTorch's own modules, as a reference."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from effective_lr.studies.normalization.networks import Conv4, NormalizedLayer

Pairs = list[tuple[nn.Parameter, nn.Parameter]]


def _layer(layer: NormalizedLayer) -> tuple[nn.Sequential, Pairs]:
    units, inputs = layer.weight.shape[:2]
    bias = layer.normalization in ("weight", "none")
    linear: Any = (
        nn.Conv2d(inputs, units, 3, padding=1, bias=bias) if layer.convolution else nn.Linear(inputs, units, bias)
    )
    norm: Any = nn.Identity()
    weight, gamma, beta = linear.weight, None, linear.bias
    match layer.normalization:
        case "batch":
            norm = (nn.BatchNorm2d if layer.convolution else nn.BatchNorm1d)(units, eps=layer.eps)
            gamma, beta = norm.weight, norm.bias
        case "layer":
            norm = nn.GroupNorm(1, units, eps=layer.eps)
            gamma, beta = norm.weight, norm.bias
        case "weight":
            weight_norm(linear)
            gamma, weight = linear.parametrizations.weight.original0, linear.parametrizations.weight.original1
    pairs = [(layer.weight, weight), (layer.beta, beta)]
    if layer.gamma is not None:
        pairs.append((layer.gamma, gamma))
    twin = nn.Sequential(linear, norm).to(layer.weight.dtype)
    with torch.no_grad():
        for ours, theirs in pairs:
            theirs.copy_(ours.view_as(theirs))
    return twin, pairs


def _network(network: Conv4) -> tuple[nn.Sequential, Pairs]:
    layers = (network.conv1, network.conv2, network.conv3, network.linear)
    (conv1, conv2, conv3, linear), pairs = zip(*map(_layer, layers), strict=True)
    first = [conv1, nn.ReLU(), nn.MaxPool2d(2), conv2, nn.ReLU(), nn.MaxPool2d(2), conv3, nn.ReLU()]
    return nn.Sequential(*first, nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear), [
        pair for layer in pairs for pair in layer
    ]


@pytest.fixture(scope="session")
def twin_layer() -> Callable[[NormalizedLayer], tuple[nn.Sequential, Pairs]]:
    """The layer from modules of PyTorch, with the same values, and pairs of its parameters with ours."""
    return _layer


@pytest.fixture(scope="session")
def twin_network() -> Callable[[Conv4], tuple[nn.Sequential, Pairs]]:
    """The network from modules of PyTorch, in the order of its definition: normalization, ReLU, pooling."""
    return _network
