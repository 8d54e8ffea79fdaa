"""The bijection there and back and on a random-gradient model; closed forms against simulation; the checks."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from effective_lr.studies.manifold import bijection, checks, theory, toys

POSITIVE = st.floats(1e-4, 1e2)
K = math.sqrt(0.1 / 1.9)


@given(POSITIVE, st.floats(1e-4, 1.0), st.floats(0, 0.99))
def test_the_bijection_there_and_back(rms: float, angle: float, beta1: float) -> None:
    lr, decay = bijection.decoupled(rms, angle, beta1)
    assert bijection.constrained(lr, decay, beta1) == pytest.approx((rms, angle))


def test_the_bijection_by_the_formulas_of_the_chapter() -> None:
    e, rms = 1 / 120, 1 / 8
    angle = bijection.matched_angle(e)
    assert angle == pytest.approx(0.02962, abs=1e-5)
    lr, decay = bijection.decoupled(rms, angle)
    assert lr == pytest.approx(rms * math.sqrt(2 * e))
    assert decay == pytest.approx(e / lr)


def random_gradients(e: float, start: float, steps: int, beta2: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """AdamW on white gradients that are tangent to the sphere and shrink with the norm: ‖W_t‖/R and the angles."""
    generator = torch.Generator().manual_seed(0)
    size = 4096
    rms = 0.1
    lr, decay = bijection.decoupled(rms, bijection.matched_angle(e))
    weight = torch.nn.Parameter(torch.randn(size, generator=generator, dtype=torch.float64))
    with torch.no_grad():
        weight *= start * rms * math.sqrt(size) / weight.norm()
    adam = torch.optim.AdamW([weight], lr=float(lr), weight_decay=float(decay), betas=(0.9, beta2), eps=1e-12)
    norms, angles = [], []
    for _ in range(steps):
        before = weight.detach().clone()
        gradient = torch.randn(size, generator=generator, dtype=torch.float64)
        gradient -= before * (gradient @ before) / (before @ before)
        weight.grad = gradient / before.norm()
        adam.step()
        norms.append(float(weight.detach().norm()) / (rms * math.sqrt(size)))
        cosine = float(before @ weight.detach() / (before.norm() * weight.detach().norm()))
        angles.append(math.acos(min(cosine, 1.0)))
    return np.array(norms), np.array(angles)


def test_adamw_on_random_gradients_settles_where_the_bijection_says() -> None:
    e = 1 / 120
    norms, angles = random_gradients(e, 1.0, 1200)
    assert np.sqrt(np.mean(norms[600:] ** 2)) == pytest.approx(1, abs=0.06)  # a deficit of a few e, of either sign
    assert np.sqrt(np.mean(angles[600:] ** 2)) == pytest.approx(bijection.matched_angle(e), rel=0.06)


def test_adamw_on_random_gradients_relaxes_from_above_at_the_predicted_rate() -> None:
    e = 1 / 120
    norms, angles = random_gradients(e, 4.0, 1200)
    steps = np.arange(round(0.2 / e), round(1 / e))
    excess = norms[steps] ** 2 - np.mean(norms[600:] ** 2)
    rate = -np.polyfit(steps, np.log(excess), 1)[0]
    assert rate == pytest.approx(2 * e, rel=0.2)
    window = slice(round(0.2 / e), round(0.4 / e))
    assert angles[window].mean() < bijection.matched_angle(e) / 2
    predicted = theory.adamw_angle(np.arange(1, 301), e, 4.0)
    np.testing.assert_allclose(angles[:300].cumsum()[[49, 299]], predicted.cumsum()[[49, 299]], rtol=0.1)


def test_a_long_memory_of_the_second_moment_breaks_the_rate_from_below() -> None:
    """While the norm grows, Adam remembers the larger gradients of the past: with β2 = 0.999 for far too long."""
    e = 1 / 120
    short, _ = random_gradients(e, 0.25, 150)
    long, _ = random_gradients(e, 0.25, 150, beta2=0.999)
    predicted = theory.adamw_norm(np.arange(1, 151), e, 0.25)
    assert abs(short[-1] / predicted[-1] - 1) < 0.1
    assert long[-1] / predicted[-1] < 0.85


def test_relaxation_starts_and_ends_where_it_must() -> None:
    assert theory.adamw_norm(0, 0.01, 4.0) == pytest.approx(4)
    assert theory.adamw_norm(1e6, 0.01, 4.0) == pytest.approx(1)
    first = theory.adamw_angle(1, 0.01, 1.0)
    assert first == pytest.approx(math.sqrt(2 * 0.01))  # the first step of Adam has no smoothing
    warm_up = theory.adamw_angle(12, 1e-9, 1.0) / bijection.matched_angle(1e-9)
    assert warm_up == pytest.approx(1.34, abs=0.005)
    assert theory.growth_without_decay(1200, 1 / 120) == pytest.approx(math.sqrt(21))


@pytest.mark.parametrize("seed", range(4))
def test_a_constant_direction_gets_stuck_where_the_closed_form_says(seed: int) -> None:
    loss = toys.Toy(seed).loss
    for name, form in [("muonh", "msign"), ("sign", "sign")]:
        for lr in (0.03, 0.1):
            assert toys.floor(seed, name, lr) == pytest.approx(theory.stuck_gradient(loss, form), rel=1e-6)
    assert toys.floor(seed, "macro-F", 0.03) < 0.2 * theory.stuck_gradient(loss, "msign")


def test_nothing_gets_stuck_where_all_singular_values_are_equal() -> None:
    assert theory.stuck_gradient(np.eye(4), "msign") == pytest.approx(0, abs=1e-7)
    assert theory.stuck_gradient(np.diag([1.0, 2.0, 0.0]), "msign") == pytest.approx(math.sqrt(0.1))
    assert theory.stuck_gradient(np.full((2, 3), -2.0), "sign") == pytest.approx(0, abs=1e-7)
    with pytest.raises(ValueError, match=r"'cube'.*msign or sign"):
        theory.stuck_gradient(np.eye(2), "cube")


def test_the_projected_direction_is_one_of_descent() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        gradient, weight = generator.standard_normal((6, 9)), toys.normalize(generator.standard_normal((6, 9)))
        tangent = toys.project(gradient, weight)
        step = toys.direction("macro-F", gradient, weight)
        assert np.sum(tangent * step) == pytest.approx(np.linalg.svd(tangent, compute_uv=False).sum())


def test_every_exact_statement_holds_and_every_broken_one_fails() -> None:
    found = [row for seed in (7, 8) for check in (checks.larger_step, checks.subsumption) for row in check(seed)]
    assert {row["subject"] for row in found} == {"residual", *checks.VERSIONS}
    assert all(row["holds"] for row in found), found


def test_the_slopes_of_the_toy_are_the_predicted_ones() -> None:
    found = [*checks.rates(7), *checks.descent(7)]
    assert all(row["holds"] for row in found), found
