"""The bijection there and back and on a random-gradient model; closed forms against simulation; the checks."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from effective_lr.studies.manifold import bijection, checks, theory, toys

E = 1 / 120  # the decay per step of the study
POSITIVE = st.floats(1e-4, 1e2)


@given(POSITIVE, st.floats(1e-4, 1.0), st.floats(0, 0.99))
def test_the_bijection_there_and_back(rms: float, angle: float, beta1: float) -> None:
    lr, decay = bijection.decoupled(rms, angle, beta1)
    assert bijection.constrained(lr, decay, beta1) == pytest.approx((rms, angle))


def test_the_bijection_by_the_formulas_of_the_chapter() -> None:
    rms, angle = 1 / 8, bijection.matched_angle(E)
    assert angle == pytest.approx(0.02962, abs=1e-5)
    lr, decay = bijection.decoupled(rms, angle)
    assert (lr, decay) == pytest.approx((rms * math.sqrt(2 * E), E / lr))


def random_gradients(start: float, steps: int, beta2: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """AdamW on white gradients that are tangent to the sphere and shrink with the norm: ‖W_t‖/R and the angles."""
    generator = torch.Generator().manual_seed(0)
    size, rms = 4096, 0.1
    radius = rms * math.sqrt(size)
    lr, decay = bijection.decoupled(rms, bijection.matched_angle(E))
    weight = torch.randn(size, generator=generator, dtype=torch.float64)
    weight *= start * radius / weight.norm()
    group = {"params": [weight], "lr": float(lr), "weight_decay": float(decay)}
    adam = torch.optim.AdamW([group], betas=(0.9, beta2), eps=1e-12)
    norms, angles = [], []
    for _ in range(steps):
        before = weight.clone()
        gradient = torch.randn(size, generator=generator, dtype=torch.float64)
        weight.grad = (gradient - before * (gradient @ before) / (before @ before)) / before.norm()
        adam.step()
        norms.append(float(weight.norm()) / radius)
        cosine = float(before @ weight / (before.norm() * weight.norm()))
        angles.append(math.acos(min(cosine, 1.0)))
    return np.array(norms), np.array(angles)


def test_adamw_on_random_gradients_settles_where_the_bijection_says_at_the_predicted_rate() -> None:
    """From four times the norm. The late norm has a deficit of a few e, of either sign."""
    norms, angles = random_gradients(4.0, 1200)
    steps = np.arange(round(0.2 / E), round(1 / E))
    excess = norms[steps] ** 2 - np.mean(norms[600:] ** 2)
    assert -np.polyfit(steps, np.log(excess), 1)[0] == pytest.approx(2 * E, rel=0.2)
    assert np.sqrt(np.mean(norms[600:] ** 2)) == pytest.approx(1, abs=0.06)
    assert np.sqrt(np.mean(angles[600:] ** 2)) == pytest.approx(bijection.matched_angle(E), rel=0.06)
    assert angles[round(0.2 / E) : round(0.4 / E)].mean() < bijection.matched_angle(E) / 2
    predicted = theory.adamw_angle(np.arange(1, 301), E, 4.0)
    np.testing.assert_allclose(angles[:300].cumsum()[[49, 299]], predicted.cumsum()[[49, 299]], rtol=0.1)


def test_a_long_memory_of_the_second_moment_breaks_the_rate_from_below() -> None:
    """While the norm grows, Adam remembers the larger gradients of the past: with β2 = 0.999 for far too long."""
    short, long = (random_gradients(0.25, 150, beta2)[0][-1] for beta2 in (0.95, 0.999))
    predicted = theory.adamw_norm(150, E, 0.25)
    assert abs(short / predicted - 1) < 0.1 and long / predicted < 0.85


def test_relaxation_starts_and_ends_where_it_must() -> None:
    assert theory.adamw_norm(0, 0.01, 4.0) == pytest.approx(4)
    assert theory.adamw_norm(1e6, 0.01, 4.0) == pytest.approx(1)
    assert theory.adamw_angle(1, 0.01, 1.0) == pytest.approx(math.sqrt(2 * 0.01))  # Adam's first step is not smoothed
    assert theory.adamw_angle(12, 1e-9, 1.0) / bijection.matched_angle(1e-9) == pytest.approx(1.34, abs=0.005)
    assert theory.growth_without_decay(1200, 1 / 120) == pytest.approx(math.sqrt(21))


def test_a_constant_direction_gets_stuck_where_the_closed_form_says() -> None:
    """And not where all singular values are equal."""
    for seed in range(4):
        loss = toys.Toy(seed).loss
        for name, form in [("muonh", "msign"), ("sign", "sign")]:
            for lr in (0.03, 0.1):
                assert toys.floor(seed, name, lr) == pytest.approx(theory.stuck_gradient(loss, form), rel=1e-6)
        assert toys.floor(seed, "macro-F", 0.03) < 0.2 * theory.stuck_gradient(loss, "msign")
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
    slopes = [*checks.rates(7), *checks.descent(7)]  # of the toy
    assert all(row["holds"] for row in [*found, *slopes]), [*found, *slopes]
