"""Penalties against dense matrices and difference quotients, the proximal map against its definition."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch import Tensor

from effective_lr.studies.norms import theory
from effective_lr.studies.norms.penalties import FORMS, Penalties, metric_power, metrics
from effective_lr.studies.norms.settings import Arm

ARMS = [Arm(penalty, 0.3) for penalty in FORMS if penalty != "adaptive"]


def inputs(samples: int, p: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(p, p, generator=generator, dtype=torch.float64)
    return torch.randn(samples, p, generator=generator, dtype=torch.float64) @ mixed + 3.0


def test_metric_is_the_power_of_the_shrunk_covariance_with_trace_p() -> None:
    """Above n as below: by products with the samples and Woodbury's identity, no p × p matrix."""
    for samples, p in [(30, 7), (7, 7), (5, 12), (2, 12)]:
        x = inputs(samples, p)
        for a in (1, -1):
            dense = theory.power(np.cov(x.numpy().T, bias=True), a, e=0.05)
            dense *= p / np.trace(dense)
            found = metric_power(x, a, 0.05)(torch.eye(p, dtype=torch.float64)[:, None])[:, 0]
            assert_allclose(found, dense, atol=1e-9 * np.abs(dense).max())


def test_singular_covariance_has_no_inverse_and_the_error_names_what_to_do() -> None:
    x = inputs(30, 5)
    x[:, 2] = 4.0  # a constant input
    with pytest.raises(ValueError, match=r"shrinkage = 0.*5 inputs in 30 samples.*shrinkage > 0"):
        metric_power(x, -1, 0.0)
    with pytest.raises(ValueError, match="shrinkage = 0"):
        metric_power(inputs(4, 9), -1, 0.0)
    direction = torch.zeros(5, 1, 1, dtype=torch.float64)
    direction[2] = 1.0
    assert metric_power(x, 1, 0.0)(direction).abs().max() < 1e-12  # CAR does not see it
    assert metric_power(x, 1, 0.05)(direction)[2] > 0.01


def test_gradient_is_the_slope_of_the_quadratic_part() -> None:
    arms = [arm for arm in ARMS if not FORMS[arm.penalty][2]]
    for p in (6, 40):
        penalties = Penalties(arms, metrics(inputs(20, p), 0.05, arms))
        generator = torch.Generator().manual_seed(1)
        w, direction = (torch.randn(p, len(arms), 3, generator=generator, dtype=torch.float64) for _ in range(2))
        ahead, behind = (penalties.value(w + h * direction) for h in (1e-5, -1e-5))
        slope = (penalties.gradient(w) * direction).sum((0, 2))
        assert_allclose(slope, (ahead - behind) / 2e-5, atol=1e-8)


def test_value_is_the_sum_of_its_parts() -> None:
    x = inputs(20, 5)
    penalties = Penalties(ARMS, metrics(x, 0.05, ARMS))
    w = torch.randn(5, len(ARMS), 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values = dict(zip([arm.penalty for arm in penalties.arms], penalties.value(w), strict=True))
    for i, arm in enumerate(penalties.arms):
        metric, l2, l1 = FORMS[arm.penalty]
        matrix = np.eye(5)
        if metric != "identity":
            matrix = theory.power(np.cov(x.numpy().T, bias=True), -1 if metric == "inverse" else 1, 0.05)
            matrix *= 5 / np.trace(matrix)
        mine = w[:, i].numpy()
        expected = 0.3 * (l2 * np.trace(mine.T @ matrix @ mine) + l1 * np.abs(mine).sum())
        assert values[arm.penalty] == pytest.approx(expected, abs=1e-12), arm
    assert values["none"] == 0


@given(w=st.floats(-3, 3), threshold=st.floats(0.01, 2), other=st.floats(-4, 4))
def test_prox_is_the_minimum_that_defines_it(w: float, threshold: float, other: float) -> None:
    """argmin over z of ½(z − w)² + threshold·|z|: no other z is better, and |w| ≤ threshold gives an exact 0."""
    weights = torch.tensor([[[w]]], dtype=torch.float64)
    Penalties([Arm("l1", threshold)], {}).prox(weights, lr=1.0)
    z = float(weights)

    def objective(z: float) -> float:
        return (z - w) ** 2 / 2 + threshold * abs(z)

    assert objective(z) <= objective(other) + 1e-12
    assert (z == 0) == (abs(w) <= threshold)
    assert z == pytest.approx(float(theory.soft(w, threshold)), abs=1e-12)


def test_prox_takes_the_weights_of_adaptive_l1() -> None:
    weights = torch.ones(3, 2, 1, dtype=torch.float64)
    penalties = Penalties([Arm("adaptive", 0.1), Arm("adaptive", 0.2)], {}, torch.tensor([1.0, 2.0, 100.0]).double())
    penalties.prox(weights, lr=1.0)
    assert_allclose(weights[:, :, 0], [[0.9, 0.8], [0.8, 0.6], [0.0, 0.0]])
