"""Layers against PyTorch's own modules, scale groups, and the invariance that the paper rests on. All in float64."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from effective_lr.studies.normalization import theory
from effective_lr.studies.normalization.networks import (
    Conv4,
    NormalizedLayer,
    build_network,
    layer_penalties,
    normalized_layers,
)
from effective_lr.studies.normalization.settings import TYPICAL_GRADIENT
from shared import INVARIANT, NORMALIZATIONS, OPTIMIZERS, make_run
from twins import Plain

ROUNDING: dict[str, Any] = {"rtol": 1e-11, "atol": 1e-12}
scales = st.floats(-3, 3).map(lambda exponent: 10**exponent)


def random_network(normalization: str, eps: float, leak: float = 0.0) -> Conv4:
    """Every unit with a norm, γ and β of its own."""
    network = build_network(make_run(normalization=normalization, norm_eps=eps, leak=leak), torch.float64)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(torch.rand(parameter.shape[0], *[1] * (parameter.dim() - 1), dtype=torch.float64) + 0.5)
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return network


def images_and_labels() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(12, 1, 14, 14, generator=generator, dtype=torch.float64)
    return images, torch.randint(10, (12,), generator=generator)


def weight_gradients(network: Conv4) -> tuple[Tensor, list[Tensor]]:
    """Logits, and the gradient of the data term for the weights of each layer."""
    images, labels = images_and_labels()
    logits = network(images)
    weights = [layer.weight for _, layer in normalized_layers(network)]
    return logits.detach(), list(torch.autograd.grad(F.cross_entropy(logits, labels), weights))


def groups(layer: NormalizedLayer) -> list[slice]:
    """The rows of `weight` in each scale group."""
    units = len(layer.weight)
    return [slice(None)] if layer.normalization == "layer" else [slice(unit, unit + 1) for unit in range(units)]


def test_network_is_convolution_normalization_relu_pooling() -> None:
    images, labels = images_and_labels()
    for normalization, leak in [*((name, 0.0) for name in NORMALIZATIONS), ("batch", 0.1)]:
        network = random_network(normalization, eps=1e-5, leak=leak)
        plain = Plain(make_run(normalization=normalization, norm_eps=1e-5, leak=leak), network)
        twin, pairs = plain.network, plain.pairs
        for training in (True, True, False):  # a second time, so that running statistics are means
            network.train(training), twin.train(training)
            ours, theirs = network(images), twin(images)
            assert ours.shape == (12, 10)
            assert_close(ours, theirs, **ROUNDING)
            our_gradients = torch.autograd.grad(F.cross_entropy(ours, labels), [p for p, _ in pairs])
            their_gradients = torch.autograd.grad(F.cross_entropy(theirs, labels), [p for _, p in pairs])
            for our, their in zip(our_gradients, their_gradients, strict=True):
                assert_close(our, their.view_as(our), **ROUNDING)
        assert len(pairs) == len(list(network.parameters()))


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_network_at_its_start(normalization: str) -> None:
    norm = 0.25
    layers = [
        dict(normalized_layers(build_network(make_run(normalization=normalization, **changes), torch.float64)))
        for changes in ({"initial_norm": norm}, {"lr": 3, "l2": 0}, {"seed": 4})
    ]
    assert list(layers[0]) == ["conv1", "conv2", "conv3", "linear"]
    for layer, same, different in zip(*(chosen.values() for chosen in layers), strict=True):
        assert_close(layer.group_norms().detach(), torch.full((len(groups(layer)),), norm, dtype=torch.float64))
        assert_close(layer.weight.detach(), norm * same.weight.detach())
        assert not torch.allclose(same.weight, different.weight)
        assert layer.gamma is None if normalization == "none" else bool((layer.gamma == 1).all())
        assert bool((layer.beta == 0).all())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("layer_l2", ["equal", "inverse_size"])
def test_a_start_at_equilibrium_is_where_the_theory_puts_it(optimizer: str, layer_l2: str) -> None:
    run = make_run(optimizer=optimizer, layer_l2=layer_l2, starts_at_equilibrium=True, lr=0.02, l2=0.3)
    layers = [layer for _, layer in normalized_layers(build_network(run, torch.float64))]
    penalties = layer_penalties(run, layers)
    for layer, l2 in zip(layers, penalties, strict=True):
        norm = theory.equilibrium_norm(optimizer, run.lr, l2, TYPICAL_GRADIENT, layer.group_size, run.momentum)
        assert_close(layer.group_norms(), torch.full_like(layer.group_norms(), float(norm)), **ROUNDING)
    sizes = [layer.group_size for layer in layers]
    products = {round(l2 * size, 9) for l2, size in zip(penalties, sizes, strict=True)}
    assert max(penalties) == 0.3 * (1 if layer_l2 == "equal" else max(sizes) / min(sizes))
    assert min(penalties) == 0.3 and len(products) == (4 if layer_l2 == "equal" else 1)


def test_the_pooling_before_the_classifier_keeps_channels_last() -> None:
    network, seen = build_network(make_run(width=4)), []
    network.conv3.register_full_backward_hook(lambda module, inputs, outputs: seen.append(outputs[0]))
    images = torch.randn(16, 1, 14, 14).to(memory_format=torch.channels_last)
    network(images).sum().backward()
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


# Scale invariance: y(αw) = y(w), ∇L(αw) = ∇L(w)/α, ⟨w, ∇L⟩ = 0


@pytest.mark.parametrize("normalization", INVARIANT)
@given(alpha=scales, data=st.data())
@settings(max_examples=20, deadline=None)
def test_function_ignores_the_scale_of_one_group(normalization: str, alpha: float, data: st.DataObject) -> None:
    network = random_network(normalization, eps=1e-20)  # far below the variance even at α = 1e-3
    logits, gradients = weight_gradients(network)
    index = data.draw(st.integers(0, 3))
    layer = [layer for _, layer in normalized_layers(network)][index]
    group = data.draw(st.sampled_from(groups(layer)))
    with torch.no_grad():
        layer.weight[group].mul_(alpha)
    scaled_logits, scaled_gradients = weight_gradients(network)
    gradients[index][group] /= alpha
    assert_close(scaled_logits, logits, rtol=1e-9, atol=1e-10)
    for scaled, gradient in zip(scaled_gradients, gradients, strict=True):
        assert_close(scaled, gradient, rtol=1e-7, atol=1e-9 * float(gradient.abs().max()))


@pytest.mark.parametrize("layer_name", ["conv1", "conv2", "conv3", "linear"])
def test_layer_normalization_sees_the_scale_of_a_single_unit(layer_name: str) -> None:
    network = random_network("layer", eps=1e-20)
    logits, _ = weight_gradients(network)
    with torch.no_grad():
        getattr(network, layer_name).weight[0] *= 2
    assert not torch.allclose(weight_gradients(network)[0], logits, rtol=1e-3)
