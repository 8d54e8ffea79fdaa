"""Layers against PyTorch's own modules, scale groups, and the invariance that the paper rests on. All in float64."""

import copy
import math
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
from twins import twin_layer, twin_network

ROUNDING: dict[str, Any] = {"rtol": 1e-11, "atol": 1e-12}
both_kinds = pytest.mark.parametrize("convolution", [False, True], ids=["linear", "convolution"])
scales = st.floats(-3, 3).map(lambda exponent: 10**exponent)


def random_layer(normalization: str, convolution: bool, units: int = 5, eps: float = 1e-3) -> NormalizedLayer:
    torch.manual_seed(0)
    layer = NormalizedLayer(3, units, normalization, eps, convolution).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return layer


def random_input(convolution: bool, batch: int = 8) -> Tensor:
    return torch.randn(batch, 3, *[6, 6] * convolution, dtype=torch.float64, requires_grad=True)


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


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@both_kinds
def test_layer_is_that_of_pytorch(normalization: str, convolution: bool) -> None:
    layer = random_layer(normalization, convolution)
    twin, pairs = twin_layer(layer)
    for training in (True, True, False):  # a second batch, so that running statistics are means
        layer.train(training), twin.train(training)
        x = random_input(convolution)
        ours, theirs = layer(x), twin(x)
        assert_close(ours, theirs, **ROUNDING)
        direction = torch.randn_like(ours)
        our_gradients = torch.autograd.grad(ours, [x, *(p for p, _ in pairs)], direction)
        their_gradients = torch.autograd.grad(theirs, [x, *(p for _, p in pairs)], direction)
        for our, their in zip(our_gradients, their_gradients, strict=True):
            assert_close(our, their.view_as(our), **ROUNDING)
    if normalization == "batch":
        assert_close(layer.running_mean, twin[1].running_mean, **ROUNDING)
        assert_close(layer.running_var, twin[1].running_var, **ROUNDING)


def test_network_is_convolution_normalization_relu_pooling() -> None:
    images, labels = images_and_labels()
    for normalization, leak in [*((name, 0.0) for name in NORMALIZATIONS), ("batch", 0.1)]:
        network = random_network(normalization, eps=1e-5, leak=leak)
        twin, pairs = twin_network(network, make_run(normalization=normalization, norm_eps=1e-5, leak=leak))
        for training in (True, False):
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
@both_kinds
def test_scale_groups(normalization: str, convolution: bool) -> None:
    layer = random_layer(normalization, convolution)
    per_unit = 27 if convolution else 3
    rows = layer.weight.detach().reshape(5, per_unit)
    if normalization == "layer":
        expected, size = rows.square().sum().sqrt().view(1), 5 * per_unit
    else:
        expected, size = rows.square().sum(1).sqrt(), per_unit
    assert_close(layer.group_norms().detach(), expected)
    assert_close(layer.group_norms(-3 * layer.weight).detach(), 3 * expected)
    assert layer.group_size == size
    assert layer.group_size * len(expected) == layer.weight.numel()
    before = layer.weight.detach().clone()
    layer.set_group_norms(0.7)
    factor = (0.7 / expected).view(-1, *[1] * (before.dim() - 1))
    assert_close(layer.weight.detach(), before * factor)


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


@pytest.mark.parametrize("normalization", INVARIANT)
@given(alpha=scales)
@settings(max_examples=20, deadline=None)
def test_function_ignores_the_scale_of_all_groups_when_eps_follows(normalization: str, alpha: float) -> None:
    network = random_network(normalization, eps=1e-5)
    logits, gradients = weight_gradients(network)
    with torch.no_grad():
        for _, layer in normalized_layers(network):
            layer.weight.mul_(alpha)
            layer.eps *= alpha**2
    scaled_logits, scaled_gradients = weight_gradients(network)
    assert_close(scaled_logits, logits, rtol=1e-9, atol=1e-10)
    for scaled, gradient in zip(scaled_gradients, gradients, strict=True):
        assert_close(scaled * alpha, gradient, rtol=1e-7, atol=1e-9 * float(gradient.abs().max()))


def radial_parts(network: Conv4) -> list[float]:
    """The cosine between w and ∇L in each scale group."""
    _, gradients = weight_gradients(network)
    parts = []
    for (_, layer), gradient in zip(normalized_layers(network), gradients, strict=True):
        for group in groups(layer):
            w, g = layer.weight.detach()[group], gradient[group]
            parts.append(float((w * g).sum() / (w.norm() * g.norm()).clamp(min=1e-9)))
    return parts


@pytest.mark.parametrize("normalization", INVARIANT)
def test_gradient_is_tangent_in_every_scale_group(normalization: str) -> None:
    assert max(map(abs, radial_parts(random_network(normalization, eps=1e-20)))) < 1e-10


def test_without_normalization_there_is_no_invariance() -> None:
    network = random_network("none", eps=1e-20)
    logits, gradients = weight_gradients(network)
    assert max(map(abs, radial_parts(network))) > 0.1
    with torch.no_grad():
        for _, layer in normalized_layers(network):
            layer.weight.mul_(2)
    scaled_logits, scaled_gradients = weight_gradients(network)
    assert not torch.allclose(scaled_logits, logits, rtol=0.1)
    assert not torch.allclose(2 * scaled_gradients[0], gradients[0], rtol=0.1)


@pytest.mark.parametrize("layer_name", ["conv1", "conv2", "conv3", "linear"])
def test_layer_normalization_sees_the_scale_of_a_single_unit(layer_name: str) -> None:
    network = random_network("layer", eps=1e-20)
    logits, _ = weight_gradients(network)
    with torch.no_grad():
        getattr(network, layer_name).weight[0] *= 2
    assert not torch.allclose(weight_gradients(network)[0], logits, rtol=1e-3)


def with_scaled_affine(network: Conv4, layer_name: str, c: float) -> Tensor:
    """The logits when γ and β of one layer are c times as large, and the next ε follows."""
    changed = copy.deepcopy(network)
    names = [name for name, _ in normalized_layers(changed)]
    with torch.no_grad():
        getattr(changed, layer_name).gamma.mul_(c)
        getattr(changed, layer_name).beta.mul_(c)
    for name in names[names.index(layer_name) + 1 :][:1]:
        getattr(changed, name).eps *= c**2
    return weight_gradients(changed)[0]


@pytest.mark.parametrize("layer_name", ["conv1", "conv2", "conv3"])
@given(c=scales)
@settings(max_examples=5, deadline=None)
def test_function_ignores_the_scale_of_hidden_gamma_and_beta(layer_name: str, c: float) -> None:
    for normalization in ("batch", "layer"):
        network = random_network(normalization, eps=1e-5)
        logits, _ = weight_gradients(network)
        assert_close(with_scaled_affine(network, layer_name, c), logits, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("normalization, layer_name", [("weight", "conv2"), ("batch", "linear"), ("layer", "linear")])
def test_function_depends_on_the_scale_of_other_gamma_and_beta(normalization: str, layer_name: str) -> None:
    network = random_network(normalization, eps=1e-5)
    logits, _ = weight_gradients(network)
    assert not torch.allclose(with_scaled_affine(network, layer_name, math.sqrt(2)), logits, rtol=1e-2)
