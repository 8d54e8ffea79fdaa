"""What figures, tables and statistics take from the tidy tables, on tables whose answer is known."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from effective_lr.evidence import tidy
from effective_lr.studies.normalization import analysis
from shared import STUDY, published_layout


def plane(
    optimizer: str, lrs: tuple[float, ...], penalties: tuple[float, ...], seeds: tuple[int, ...] = (100,)
) -> pd.DataFrame:
    """Runs of one optimizer over a plane."""
    cells = list(itertools.product(lrs, penalties, seeds))
    usual = {"optimizer": optimizer, "momentum": 0.9, "initial_norm": 1.0, "steps": 1000, "late_fraction": 0.3}
    usual |= {"width": 16, "starts_at_equilibrium": False, "diverged": np.nan, "test_error": 0.2}
    return pd.DataFrame(cells, columns=["lr", "l2", "seed"]).assign(**usual)


def test_best_setting_is_chosen_on_validation_and_reported_on_test() -> None:
    values = 0.2 + np.random.default_rng(0).normal(0, 0.01, 3)
    runs = plane("sgd", (0.1, 0.2), (0.0, 0.01), (100, 101, 102)).assign(test_error=np.tile(values, 4))
    runs["validation_error"] = np.where((runs["lr"] == 0.2) & (runs["l2"] == 0.01), 0.1, 0.3)
    best = analysis.best_setting(runs)
    assert (best.lr, best.l2, best.seeds) == (0.2, 0.01, 3)
    assert best.error.value == pytest.approx(values.mean())
    # Four cells of the same three values: the pooled deviation is theirs, with 4 × 2 degrees of freedom.
    margin = stats.t.ppf(0.95, 8) * values.std(ddof=1) / np.sqrt(3)
    assert best.error.high - best.error.value == pytest.approx(margin)
    assert analysis.best_setting(runs, only_without_penalty=True).l2 == 0
    runs.loc[0, ["diverged", "test_error"]] = [50.0, np.nan]
    assert analysis.error_or_chance(runs)[:2].tolist() == [0.9, pytest.approx(values[1])]


def left_of_the_start(run: pd.Series, start: float) -> float:
    """|‖w‖⁴/‖w*‖⁴ − 1| at the first late step by the recursion: Pythagoras, decay, and a gradient of one size."""
    g, norm = analysis.TYPICAL_GRADIENT, start
    rate = run["lr"] / (1 - run["momentum"] * (run["optimizer"] == "nesterov"))
    for _ in range(round(run["steps"] * 0.7)):
        norm = np.hypot((1 - 2 * rate * run["l2"]) * norm, rate * g / norm)
    return abs(norm**4 * 4 * run["l2"] / (rate * g**2) - 1)


def test_what_counts_as_settled_has_forgotten_its_start_however_far() -> None:
    chosen = set()
    for optimizer, rates, products in [
        ("sgd", (0.01, 0.3, 3.0), (3e-4, 6e-4, 1.5e-3)),
        ("nesterov", (0.02,), (4e-5, 9e-5)),
    ]:
        for lr, product, start in itertools.product(rates, products, (0.5, 1.0, 5.0)):
            [counts] = analysis.settled(runs := plane(optimizer, (lr,), (product / lr,)).assign(initial_norm=start))
            left = left_of_the_start(runs.iloc[0], start)
            assert left <= 0.06 if counts else left >= 0.04, (optimizer, lr, product, start, left)
            chosen.add((optimizer, counts))
    assert len(chosen) == 4


def test_what_counts_as_settled_follows_from_settings() -> None:
    for optimizer, lr, l2, steps, starts, counts in [
        # t₁ is 0.7 of the steps; memory × angle up to 0.15: 4ηλ up to 0.15² for SGD.
        ("sgd", 0.1, 0.056, 1000, False, True),
        ("sgd", 0.1, 0.057, 1000, False, False),
        ("sgd", 0.1, 0.0, 1000, False, False),
        ("nesterov", 0.1, 9.7e-4, 1000, False, True),
        ("nesterov", 0.1, 1.0e-3, 1000, False, False),
        # 4ηλt₁ must reach 3 from the predicted norm, and 12 from elsewhere.
        ("adamw", 0.01, 0.106, 1000, True, False),
        ("adamw", 0.01, 0.108, 1000, True, True),
        ("adamw", 0.01, 0.108, 1000, False, False),
        ("adamw", 0.01, 0.14, 1000, True, False),
        # θ at most 0.05, and 1.5θ²t₁ at least 3.
        ("adam", 0.003, 0.053**3 * 9.645, 2000, True, False),
        ("rmsprop", 0.003, 0.047**3 * 9.645, 1000, True, False),
        ("rmsprop", 0.003, 0.047**3 * 9.645, 2000, True, True),
        ("rmsprop", 0.003, 0.047**3 * 9.645, 2000, False, False),
    ]:
        runs = plane(optimizer, (lr,), (l2,)).assign(starts_at_equilibrium=starts, steps=steps)
        assert analysis.settled(runs).tolist() == [counts], (optimizer, lr, l2)


def test_causes_are_tabled_for_the_widest_layer_and_learning_rates_are_numbers() -> None:
    layout, names = published_layout(), ("causes", "shared_affine_lr")
    read = tidy.read(layout.chapters[STUDY.name], [layout.published(STUDY.name)], names)
    assert (read["shared_affine_lr"].runs["affine_lr"] == read["shared_affine_lr"].runs["lr"]).all()
    metrics, runs = read["causes"]
    found = analysis.lost_by_cause(metrics, runs)
    assert 0.0 in found.index.get_level_values("affine_lr")  # which is frozen
    last = metrics[(metrics["layer"] == "conv3") & (metrics["step"] == runs["steps"].max())]
    settings = runs.set_index("run_id")[["lr", "l2", "leak", "affine_lr"]]
    values = last.pivot(index="run_id", columns="quantity", values="value").join(settings)
    groups = values.groupby([(4 * values["lr"] ** 2 * values["l2"] * 288 / 0.1) ** (1 / 3), "leak", "affine_lr"])
    assert found["lost"].tolist() == pytest.approx(groups["late_without_gradient"].mean().tolist())
    angles = groups["late_angle_squared"].agg(lambda squares: np.sqrt(squares).mean())
    assert found["angle"].tolist() == pytest.approx(angles.tolist())
