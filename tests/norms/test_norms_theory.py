"""L1 to L9 and B1 to B8: the checks of the chapter, and what they do not cover. Each fails where its condition is
broken."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from effective_lr.engine.contents import load_claims
from effective_lr.studies.norms import checks, linear, networks, theory
from effective_lr.studies.norms.data import RELU_SIGNS, relu_scale
from effective_lr.studies.norms.penalties import Penalties, metrics
from effective_lr.studies.norms.settings import Arm, Run
from shared import ROOT

from .conftest import measured


def test_every_check_holds_or_fails_as_it_should() -> None:
    rows = checks.rows(seeds=(3,))
    claims = load_claims(ROOT / "paper/norms/claims.yaml").values()
    assert {(row["check"], row["subject"]) for row in rows} >= {
        (part.check, part.subject) for claim in claims for part in claim.parts if part.check
    }
    for row in rows:
        assert row["value"] <= 1e-10 if row["holds"] else row["value"] > 0.01, row


def random_problem(seed: int = 0, n: int = 200, p: int = 6) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, p)) @ random.normal(size=(p, p))
    return x - x.mean(0), random.normal(size=p)


def test_risks_of_l4_are_those_of_repeated_noise() -> None:
    """The exact mean over noise, by simulation: 4,000 draws, so 4 standard errors are about 6 %."""
    x, b = random_problem()
    n, variance = len(x), 0.5
    s = x.T @ x / n
    d, v = np.linalg.eigh(s)
    noise = np.random.default_rng(1).normal(size=(4000, n)) * variance**0.5
    for a in (1, 0, -1):
        matrix = np.linalg.solve(s + 0.4 * theory.power(s, a), x.T / n)
        errors = (x @ b + noise) @ matrix.T - b
        found = np.einsum("ki,ij,kj->k", errors, s, errors).mean()
        assert found == pytest.approx(theory.penalised_risk(d, v.T @ b, 0.4, a, variance, n), rel=0.06)
    ridge = theory.ridge_risk(d, v.T @ b, 0.4, variance, n)
    assert theory.penalised_risk(d, v.T @ b, 0.4, 0, variance, n) == pytest.approx(ridge)
    factor, risk = theory.car_risk(b @ s @ b, variance * len(b) / n)
    assert theory.penalised_risk(d, v.T @ b, 1 / factor - 1, 1, variance, n) == pytest.approx(risk)


def test_relu_moment_and_scale_of_the_network_truth() -> None:
    random = np.random.default_rng(0)
    sigma = 0.5 ** np.abs(np.subtract.outer(np.arange(4), np.arange(4)))
    w = random.normal(size=(4, 3))
    w /= np.sqrt(np.einsum("ik,ij,jk->k", w, sigma, w))
    signal = np.maximum(random.multivariate_normal(np.zeros(4), sigma, 400_000) @ w, 0) @ RELU_SIGNS
    assert relu_scale(w, sigma) == pytest.approx(signal.std(), rel=0.01)


def test_path_is_the_closed_form_at_every_strength() -> None:
    x, b = random_problem(n=40)
    y = x @ b + np.random.default_rng(2).normal(size=40) + 7
    cx, cy = theory.centred(x, y)
    s = cx.T @ cx / 40
    for a in (1, 0, -1):
        found, df = linear.path(x, y, np.array([0.01, 1.0]), a, 0.001)
        for column, l2, freedom in zip(found.T, (0.01, 1.0), df, strict=True):
            p = theory.power(s, a, 0.001)
            assert_allclose(column, theory.solve(cx, cy, l2, p), rtol=1e-8)
            assert freedom == pytest.approx(np.trace(np.linalg.solve(s + l2 * p, s)))


def test_singular_covariance() -> None:
    """L2: where S is singular CAR gives the solution of least norm. S⁻¹ does not exist, which an error names."""
    x, b = random_problem(n=4)
    cx, cy = theory.centred(x, x @ b)
    s = cx.T @ cx / 4
    with pytest.raises(ValueError, match=r"rank below 6.*e > 0"):
        theory.power(s, -1)
    assert_allclose(2 * cx @ theory.solve(cx, cy, 1.0, s), cy, atol=1e-9)


def test_relu_network_hides_its_first_layer_from_a_penalty() -> None:
    """L8: (w, b, v) → (cw, cb, v/c) leaves the function, so that a penalty on W1 alone limits nothing."""
    nets = networks.start(5, 1, 3, 2.0, seed=0)
    nets.b1 += 0.3
    x = torch.randn(20, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    arm = Arm("car", 1.0)
    penalties = Penalties([arm], metrics(x, 0.05, [arm]))
    value, before = float(penalties.value(nets.w1)), nets.outputs(x)
    nets.w1 *= 1e-3
    nets.b1 *= 1e-3
    nets.w2 /= 1e-3
    assert_allclose(nets.outputs(x), before, atol=1e-12)
    assert float(penalties.value(nets.w1)) == pytest.approx(1e-6 * value)


def test_null_space_of_the_inputs_keeps_its_start() -> None:
    """L9: p > n, CAR with e = 0. With e > 0, or ridge, the part of W1 that no sample sees decays."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 15, generator=generator, dtype=torch.float64)
    y = torch.randn(6, generator=generator, dtype=torch.float64)
    x -= x.mean(0)
    null = torch.linalg.svd(x).Vh[5:]
    arms = [Arm("car", 0.1), Arm("l2", 0.1)]
    for e in (0.0, 0.05):
        penalties = Penalties(arms, metrics(x, e, arms))
        nets = networks.start(15, 2, 3, 2.0, seed=0)
        before = torch.einsum("np,pau->anu", null, nets.w1)
        for _ in range(200):
            _, gradients = nets.loss_gradients(x, y, classes=False)
            nets.w1 -= 0.02 * (gradients[0] + penalties.gradient(nets.w1))
        after = torch.einsum("np,pau->anu", null, nets.w1)
        distance = (after - before).flatten(1).norm(dim=1) / before.flatten(1).norm(dim=1)
        for arm, moved in zip(penalties.arms, distance.tolist(), strict=True):  # which has an order of its own
            assert moved < 1e-12 if arm.penalty == "car" and e == 0 else moved > 0.02


def test_pull_on_a_direction() -> None:
    """B6: a small step of the penalty alone turns u by −η_eff·l_eff·P_u∇R(u); l2 does not turn it."""
    x, w = random_problem()
    r = np.linalg.norm(w)
    u, lr, strength, variance = w / r, 1e-6, 0.3, np.cov(x.T, bias=True)
    for penalty, sign in {"l2": 0, "car": -1, "inverse": 1}.items():
        p = theory.power(variance, theory.POWER[penalty])
        after = w - lr * strength * 2 * p @ w
        turned = (after / np.linalg.norm(after) - u) / (lr / r**2)
        assert_allclose(turned, theory.pull(u, 2 * p @ u, strength * r**2), atol=1e-4 * max(1, np.abs(turned).max()))
        assert np.sign(turned @ variance @ u) == sign if sign else np.abs(turned).max() < 1e-4


def test_pull_fades_under_gradient_flow() -> None:
    """B6: with dτ = dt/r², d(1/l_eff)/dτ = k²·R(u), whatever the loss does: here it does nothing. Steps of 1e-5."""
    x, start = random_problem()
    strength, step = 0.2, 1e-5
    for penalty, k in {"l2": 2, "car": 2, "l1": 1}.items():
        p, w, tau, total = np.eye(6) if penalty == "l2" else np.cov(x.T, bias=True) / 6, start, 0.0, 0.0
        for _ in range(10_000):
            r = np.linalg.norm(w)
            value = np.abs(w / r).sum() if penalty == "l1" else w @ p @ w / r**2
            slope = np.sign(w) if penalty == "l1" else 2 * p @ w
            total += step / r**2 * k**2 * value
            tau += step / r**2
            w = w - step * strength * slope
        assert tau > 0.005
        grown = 1 / (strength * np.linalg.norm(w) ** k) - 1 / (strength * np.linalg.norm(start) ** k)
        assert grown == pytest.approx(total, rel=1e-3)


def test_random_gradients_reach_the_equilibrium_and_the_stationary_law() -> None:
    """B5 and B7, in 20 dimensions of mild correlation, where 6,000 steps are ten times the slowest component's time;
    and 40 are too few."""
    run = Run(
        kind="walk", momentum=0.0, seed=0, lr=0.05, late_fraction=0.5, walkers=16, inputs=20, rho=0.5, steps=6000,
        arms="l2 car: 0.05; l1: 0.005",
    )  # fmt: skip
    found, short = measured(run), measured(run.changed(steps=40))
    for arm in ("l2/0.05", "car/0.05", "l1/0.005"):
        assert found[arm, "balance"] == pytest.approx(1, abs=0.03), arm
    d = np.linalg.eigvalsh(0.5 ** np.abs(np.subtract.outer(np.arange(20), np.arange(20))))
    assert found["car/0.05", "top_share"] == pytest.approx(5 / 20, abs=0.03)
    assert found["l2/0.05", "top_share"] == pytest.approx(theory.direction_shares(d, "l2")[-5:].sum(), abs=0.04)
    assert found["l1/0.005", "kurtosis"] > found["l2/0.05", "kurtosis"] + 1
    assert short["car/0.05", "slowest_times"] < 1 and abs(short["car/0.05", "top_share"] - 5 / 20) > 0.1


# The reported penalties


def test_linear_covridge_and_the_standard_penalties_are_those_of_closed_forms_and_of_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, b = random_problem(n=80)
    y = x @ b + np.random.default_rng(3).normal(size=80)
    y -= y.mean()
    n, s = 80, x.T @ x / 80
    ridge = linear_model.Ridge(alpha=n * 0.3, fit_intercept=False).fit(x, y).coef_
    assert_allclose(theory.covridge(x, y, 0.0, 0.3, 0.1), ridge, rtol=1e-6)
    # λ1·(S + δI) + λ2·I: least squares on rows of √λ1·X/√n and √(λ1δ + λ2)·I beside the data.
    rows = np.vstack([x / np.sqrt(n), np.sqrt(0.7 / n) * x, np.sqrt(0.7 * 0.1 + 0.3) * np.eye(6)])
    target = np.concatenate([y / np.sqrt(n), np.zeros(n + 6)])
    expected = np.linalg.lstsq(rows, target, rcond=None)[0]
    assert_allclose(theory.covridge(x, y, 0.7, 0.3, 0.1), expected, rtol=1e-6)
    assert_allclose(theory.covridge(x, y, 0.7, 0.3, 0.0), theory.covridge(x, y, 0.0, 0.3 / 1.7, 0.0) / 1.7, rtol=1e-10)
    # Sparridge with I in place of C is the elastic net; alone it is the lasso.
    t = (x.T @ y / n)[None]
    for l1, l2 in ((0.5, 0.0), (0.5, 0.2)):
        alpha, ratio = l1 / 2 + l2, l1 / (l1 + 2 * l2)
        net = linear_model.ElasticNet(alpha=alpha, l1_ratio=ratio, fit_intercept=False, tol=1e-14, max_iter=100_000)
        found = theory.lasso_paths(s + l2 * np.eye(6), t, np.full(6, l1), np.zeros(6))[0]
        assert_allclose(found, net.fit(x, y).coef_, rtol=1e-6, atol=1e-9)
        assert_allclose(theory.lasso(s, t[0], l1, l2, np.eye(6)), net.coef_, rtol=1e-6, atol=1e-9)


def test_moments_of_covridge_are_those_of_repeated_noise_and_minimizers_of_the_limit_meet_their_conditions() -> None:
    x, b = random_problem(n=50)
    s = x.T @ x / 50
    penalty = 0.4 * (s + 0.1 * np.eye(6)) + 0.2 * np.eye(6)
    mean, covariance = theory.covridge_moments(s, penalty, b, 0.25, 50)
    noise = 0.5 * np.random.default_rng(4).normal(size=(40_000, 50))
    draws = np.array([theory.covridge(x, x @ b, 0.4, 0.2, 0.1)]) + noise @ x / 50 @ np.linalg.inv(s + penalty)
    assert_allclose(draws.mean(0), mean, atol=5 * np.sqrt(covariance.max() / 40_000))
    assert np.linalg.norm(np.cov(draws.T) - covariance) < 0.03 * np.linalg.norm(covariance)
    beta = np.array([1.0, -2.0, 0.5, 0.0, 0.0, 0.0])
    z = np.random.default_rng(5).normal(size=(200, 6))
    u = theory.sparridge_limit(s, penalty, beta, z, 0.3, 1.0)
    slope = 2 * u @ s - 2 * z + 2 * 0.3 * penalty @ beta
    sign = np.where(beta != 0, np.sign(beta), np.sign(u))
    assert_allclose(np.where(sign != 0, slope + sign, 0.0), 0, atol=1e-6)
    assert (np.abs(slope[sign == 0]) <= 1 + 1e-6).all() and (u == 0).any()


def test_the_theorems_hold_with_their_scaling_and_fail_without() -> None:
    arms = "covridge: 0.5,0.5; sparridge: 0.5,1.5"
    run = Run(kind="theorem", inputs=8, rho=0.5, train_size=2000, walkers=2000, arms=arms, seed=0)
    covridge, sparridge = "covridge/0.5/0.5", "sparridge/0.5/1.5"
    root, slow = measured(run), measured(run.changed(scaling="slow"))
    assert root[covridge, "covariance_error"] < 0.15 and slow[covridge, "covariance_error"] < 0.15
    assert root[covridge, "coverage"] == pytest.approx(0.9, abs=0.02) and slow[covridge, "coverage"] < 0.85
    assert root[sparridge, "zero_measured"] == pytest.approx(root[sparridge, "zero_predicted"], abs=0.05)
    assert root[sparridge, "quantile_distance"] < 0.5 < 1 < slow[sparridge, "quantile_distance"]
