"""What the tests share: a small run, small data, and PyTorch's own modules as a reference."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from effective_lr.config import Run
from effective_lr.data import Splits
from effective_lr.jobs import Result, RunCache, train
from effective_lr.networks import Conv4, NormalizedLayer
from effective_lr.training import Row, train_run

torch.set_num_threads(1)  # as in training: sums of floats depend on the number of threads

NORMALIZATIONS = ("batch", "weight", "layer", "none")
INVARIANT = NORMALIZATIONS[:3]
OPTIMIZERS = ("sgd", "momentum", "nesterov", "adam", "rmsprop", "adamw")
SMALL: dict[str, Any] = {
    "dataset": "fashion-mnist",
    "resolution": 14,
    "train_size": 96,
    "validation_size": 30,
    "test_size": 40,
    "width": 2,
    "normalization": "batch",
    "norm_eps": 1e-5,
    "initial_norm": 1.0,
    "optimizer": "sgd",
    "momentum": 0.9,
    "optimizer_eps": 1e-8,
    "lr": 0.05,
    "l2": 0.01,
    "affine_lr": 0.02,
    "batch_size": 16,
    "steps": 20,
    "probes": 200,  # enough for every step
    "evaluations": 2,
    "late_fraction": 0.5,
    "batch_statistics": "recomputed",
    "statistics_size": 64,
    "seed": 3,
}
Pairs = list[tuple[nn.Parameter, nn.Parameter]]


def make_run(**changes: Any) -> Run:
    """A run of a fraction of a second, with these settings changed."""
    return Run(**{**SMALL, **changes})


@pytest.fixture(scope="session")
def small_splits() -> Splits:
    """Images (N, 1, 14, 14) in float64, of the sizes of a small run: a pattern for each class, and noise."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randn(10, 1, 14, 14, generator=generator, dtype=torch.float64)

    def split(name: str) -> tuple[Tensor, Tensor]:
        labels = torch.randint(10, (SMALL[name],), generator=generator)
        noise = torch.randn(SMALL[name], 1, 14, 14, generator=generator, dtype=torch.float64)
        return patterns[labels] + noise, labels

    return Splits(*split("train_size"), *split("validation_size"), *split("test_size"), sha256="synthetic")


def train_rows(run: Run, splits: Splits, dtype: torch.dtype = torch.float32) -> list[Row]:
    """What a run measures."""
    return train_run(run, splits, dtype).rows


def train_or_reuse(
    run: Run, splits: Splits, folder: Path, code: str = "code", data: str = "data", reuse: bool = True
) -> Result:
    """What a job does for each of its runs."""
    cache = RunCache(folder, code, data)
    return (cache.finished(run) if reuse else None) or train(run, splits, cache, lambda training: None, reuse)


def twin_layer(layer: NormalizedLayer) -> tuple[nn.Sequential, Pairs]:
    """The layer from modules of PyTorch, with the same values, and pairs of its parameters with ours."""
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


def twin_network(network: Conv4) -> tuple[nn.Sequential, Pairs]:
    """The network from modules of PyTorch, in the order of its definition: normalization, ReLU, pooling."""
    layers = (network.conv1, network.conv2, network.conv3, network.linear)
    (conv1, conv2, conv3, linear), pairs = zip(*map(twin_layer, layers), strict=True)
    first = [conv1, nn.ReLU(), nn.MaxPool2d(2), conv2, nn.ReLU(), nn.MaxPool2d(2), conv3, nn.ReLU()]
    return nn.Sequential(*first, nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear), [
        pair for layer in pairs for pair in layer
    ]


@pytest.fixture(scope="module")
def single(small_splits: Splits) -> Splits:
    """The small data in float32, as the product trains."""
    names = ("train_images", "validation_images", "test_images")
    images = {name: getattr(small_splits, name).float() for name in names}
    return replace(small_splits, **images)
