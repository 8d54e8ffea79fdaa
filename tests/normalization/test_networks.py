"""The start of a network, and the invariance that the paper rests on. In float64."""

import pytest
import torch
from torch.testing import assert_close

from effective_lr.studies.normalization import theory
from effective_lr.studies.normalization.checks import weight_gradients
from effective_lr.studies.normalization.data import Splits
from effective_lr.studies.normalization.networks import build_network, layer_penalties, normalized_layers
from effective_lr.studies.normalization.settings import TYPICAL_GRADIENT
from shared import INVARIANT, NORMALIZATIONS, OPTIMIZERS, make_run
from twins import LAYERS


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_network_at_its_start(normalization: str) -> None:
    norm = 0.25
    layers = [
        dict(normalized_layers(build_network(make_run(normalization=normalization, **changes), torch.float64)))
        for changes in ({"initial_norm": norm}, {"lr": 3, "l2": 0}, {"seed": 4})
    ]
    assert tuple(layers[0]) == LAYERS
    for layer, same, different in zip(*(chosen.values() for chosen in layers), strict=True):
        assert_close(layer.group_norms(), torch.full_like(layer.group_norms(), norm))
        assert len(layer.group_norms()) == (1 if normalization == "layer" else len(layer.weight))
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
        assert_close(layer.group_norms(), torch.full_like(layer.group_norms(), float(norm)), rtol=1e-11, atol=1e-12)
    sizes = [layer.group_size for layer in layers]
    products = {round(l2 * size, 9) for l2, size in zip(penalties, sizes, strict=True)}
    assert max(penalties) == 0.3 * (1 if layer_l2 == "equal" else max(sizes) / min(sizes))
    assert min(penalties) == 0.3 and len(products) == (4 if layer_l2 == "equal" else 1)


@pytest.mark.parametrize("normalization", INVARIANT)
@pytest.mark.parametrize("alpha", [1e-3, 0.3, 1e3])
def test_the_function_ignores_the_scale_of_a_group_and_of_nothing_smaller(
    normalization: str, alpha: float, small_splits: Splits
) -> None:
    """y(αw) = y(w) and ∇L(αw) = ∇L(w)/α for one scale group of each layer; but not for a single weight of it."""
    for number, name in enumerate(LAYERS):
        network = build_network(make_run(normalization=normalization, norm_eps=1e-20), torch.float64)
        weight = getattr(network, name).weight
        logits, gradients = weight_gradients(network, small_splits)
        group = slice(None) if normalization == "layer" else slice(1, 2)
        with torch.no_grad():
            weight[group] *= alpha
        gradients[number][group] /= alpha
        scaled_logits, scaled_gradients = weight_gradients(network, small_splits)
        assert_close(scaled_logits, logits, rtol=1e-9, atol=1e-10)
        for scaled, gradient in zip(scaled_gradients, gradients, strict=True):
            assert_close(scaled, gradient, rtol=1e-7, atol=1e-9 * float(gradient.abs().max()))
        with torch.no_grad():
            weight[(0,) * weight.dim()] *= 2
        assert not torch.allclose(weight_gradients(network, small_splits)[0], logits, rtol=1e-3)
