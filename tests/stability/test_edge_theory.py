"""The closed forms: the edge of a quadratic, rest below the edge, and the cubic map at it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effective_lr.studies.stability import theory

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
