"""Networks and derivatives, against plain PyTorch, dense matrices and finite differences; the closed forms: the edge of
a quadratic, rest below the edge, and the cubic map at it."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from effective_lr.studies.stability import checks, theory
from effective_lr.studies.stability.curvature import Point, kernel, top_pair, top_pairs
from effective_lr.studies.stability.networks import Network

NORMALIZED: list[dict[str, Any]] = [{}, {"normalization": "batch", "norm_eps": 1e-12}, {"normalization": "weight"}]
NETWORKS = [{"network": kind, **how} for kind in ("mlp", "cnn") for how in NORMALIZED] + [{"loss": "cross-entropy"}]


def plain_pytorch(network: Network, w: Tensor, images: Tensor) -> Tensor:
    """The network as one would write it at first."""
    pieces = list(w.split(network.sizes))
    x = images
    for number, layer in enumerate(network.layers):
        weight, *vectors = (pieces.pop(0) for _ in range(3 if network.has_gain else 2))
        weight = weight.view(layer.shape)
        x = x if number == 0 else x.tanh()
        if network.run.normalization == "weight":
            weight = torch._weight_norm(weight, vectors[0].view(-1, *[1] * (weight.dim() - 1)), 0)
        x = F.conv2d(x, weight, stride=2, padding=1) if weight.dim() == 4 else x.flatten(1) @ weight.T
        shift = vectors[-1].view(1, -1, *[1] * (x.dim() - 2))
        if network.run.normalization == "batch":
            x = F.batch_norm(x, None, None, *vectors, training=True, eps=1e-12)
        else:
            x = x + shift
    return x


@pytest.mark.parametrize("settings", NETWORKS, ids=str)
def test_networks_agree_with_plain_pytorch(settings: dict[str, Any]) -> None:
    network, _, w = checks.small_problem(checks.small_run(0, **settings))
    images = torch.randn(12, 1, 14, 14, dtype=torch.float64)
    torch.testing.assert_close(network.outputs(w, images), plain_pytorch(network, w, images))


@pytest.mark.parametrize("normalization", ["batch", "weight"])
@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_normalized_networks_do_not_see_the_scale_of_a_row(normalization: str, kind: str) -> None:
    network, _, w = checks.small_problem(checks.small_run(0, network=kind, normalization=normalization))
    images = torch.randn(12, 1, 14, 14, dtype=torch.float64)
    scaled = torch.where(network.penalized > 0, 3 * w, w)
    torch.testing.assert_close(network.outputs(scaled, images), network.outputs(w, images))
    torch.testing.assert_close(network.group_norms(scaled), 3 * network.group_norms(w))


def test_the_start_has_the_deviation_of_its_fan_in_or_rows_of_norm_one_where_a_normalization_follows() -> None:
    network = Network(checks.small_run(0, width=400))
    assert float(network.weights(network.start())[0].std()) == pytest.approx(0.7 / 14, rel=0.01)
    network = Network(checks.small_run(0, normalization="weight"))
    torch.testing.assert_close(network.group_norms(network.start()), torch.ones(19, dtype=torch.float64))
    torch.testing.assert_close(network.scales(network.start()), torch.ones_like(network.penalized))


@pytest.mark.parametrize("settings", NETWORKS, ids=str)
def test_the_largest_pairs_against_the_dense_hessian(settings: dict[str, Any]) -> None:
    _, loss, w = checks.small_problem(checks.small_run(0, width=2, second_width=2, **settings))
    values, vectors = torch.linalg.eigh(torch.autograd.functional.hessian(loss, w))
    times = Point(loss, w).hessian_times
    assert top_pair(times, torch.ones_like(w), 1e-3)[0] == pytest.approx(float(values[-1]), rel=1e-5)
    found, directions = top_pairs(times, torch.ones_like(w), 6, checks.EXACT)
    assert found == pytest.approx(values.flip(0)[:6].tolist(), rel=1e-8)
    torch.testing.assert_close((directions @ vectors.flip(1)[:, :6]).abs(), torch.eye(6).double(), atol=1e-5, rtol=0)


def test_the_largest_eigenvalue_is_not_the_largest_in_magnitude() -> None:
    matrix = torch.diag(torch.tensor([-9.0, *np.linspace(0, 2, 30)], dtype=torch.float64))
    value, vector = top_pair(lambda v: matrix @ v, torch.ones(31, dtype=torch.float64), checks.EXACT)
    assert value == pytest.approx(2)
    assert float(vector[-1]) == pytest.approx(1, abs=1e-3)  # on the side of the start


def test_an_epsilon_breaks_the_degree_of_invariant_weights() -> None:
    assert checks.invariant_degree(checks.small_run(0, normalization="batch", norm_eps=0.3)) > 0.01


def test_the_spherical_sharpness_does_not_see_the_scale_of_a_row() -> None:
    network, loss, w = checks.small_problem(checks.small_run(0, normalization="weight"))

    def spherical(w: Tensor) -> float:
        scales, point = network.scales(w), Point(loss, w)
        return top_pair(lambda v: scales * point.hessian_times(scales * v), torch.ones_like(w), checks.EXACT)[0]

    rescaled = w.clone()
    for number, row in enumerate(row for weight in network.weights(rescaled) for row in weight):
        row.mul_(0.5 + 0.1 * number)
    assert spherical(rescaled) == pytest.approx(spherical(w), rel=1e-8)
    assert checks.top(loss, rescaled)[0] != pytest.approx(checks.top(loss, w)[0], rel=0.01)
    start = network.start()  # its rows have norm 1
    assert spherical(start) == pytest.approx(checks.top(loss, start)[0])


@pytest.mark.parametrize("settings", [{}, {"network": "cnn"}, {"normalization": "weight"}])
def test_the_kernel_against_the_jacobian(settings: dict[str, Any]) -> None:
    network, _, w = checks.small_problem(checks.small_run(0, **settings))
    images = torch.randn(7, 1, 14, 14, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda w: network.outputs(w, images), w).flatten(1)
    torch.testing.assert_close(kernel(network, w, images), jacobian @ jacobian.T)


LIMITS = {"map": 0.02, "pressure": 0.05, "third_derivative": 0.01, "drift": 1e-5, "hessian_product": 1e-8}


def test_rows_of_the_checks_hold_where_they_should() -> None:
    for check, subject, value, holds in checks.trials(0):
        assert value < LIMITS.get(check, 1e-9) if holds else value > 0.1, (check, subject, value)


positive = st.floats(0.01, 10)


@given(lr=st.floats(0.01, 1), l2=st.floats(0, 0.1), distance=st.floats(1e-3, 0.5), sign=st.sampled_from([-1, 1]))
def test_gradient_descent_on_a_quadratic_is_stable_below_the_edge_alone(
    lr: float, l2: float, distance: float, sign: int
) -> None:
    sharpness, w = theory.edge(lr, l2) * (1 + sign * distance), 1.0
    for _ in range(2000):
        w -= lr * (sharpness * w + 2 * l2 * w)
        if abs(w) > 1e6:
            break
    assert (abs(w) < 1) == (sign < 0)


@given(alpha0=positive, degree=positive, lr=st.floats(0.001, 0.1))
def test_at_the_critical_decay_the_sharpness_rests_at_the_edge(alpha0: float, degree: float, lr: float) -> None:
    critical = theory.critical_l2(alpha0, degree, lr)
    assert theory.resting_sharpness(alpha0, degree, critical) == pytest.approx(2 / lr)
    assert theory.drift(alpha0, degree, theory.edge(lr, 0.5 * critical), 0.5 * critical) > 0
    assert theory.drift(alpha0, degree, theory.resting_sharpness(alpha0, degree, 0.3), 0.3) == pytest.approx(
        0, abs=1e-9
    )


@given(degree=st.floats(-3, 0))
def test_without_a_positive_degree_there_is_no_critical_decay(degree: float) -> None:
    assert theory.critical_l2(1.0, degree, 0.05) == np.inf
    assert theory.drift(1.0, degree, 40.0, 0.1) >= theory.drift(1.0, degree, 40.0, 0.0)


def test_the_mean_square_of_the_oscillation_balances_the_force() -> None:
    edge = theory.EdgeMap(lr=0.05, force=0.3, restoring=0.1, beta=10.0)
    x, y = edge.trajectory(0.1, 0.1, 40_000)[-5_000:].T
    assert np.mean(x**2) == pytest.approx(theory.squared_displacement(0.3, 10.0), rel=1e-3)
    assert abs(y.mean()) < 1e-6
