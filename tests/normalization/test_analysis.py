"""The statistics of the paper, on tables whose answer is known."""

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from effective_lr.evidence.estimates import Estimate, Undecidable
from effective_lr.evidence.tidy import Experiment, Tables
from effective_lr.evidence.verdicts import Evidence
from effective_lr.studies.normalization import analysis, figures, statistics, theory


def plane(
    optimizer: str, lrs: list[float], penalties: list[float], error: Any, seeds: tuple[int, ...] = (100,)
) -> pd.DataFrame:
    """Runs of one optimizer over a plane, with the test error `error(lr, l2, seed)`."""
    cells = list(itertools.product(lrs, penalties, seeds))
    usual = {"optimizer": optimizer, "momentum": 0.9, "initial_norm": 1.0, "steps": 1000, "late_fraction": 0.3}
    usual |= {"width": 16, "starts_at_equilibrium": False, "diverged": np.nan}
    runs = pd.DataFrame(cells, columns=["lr", "l2", "seed"]).assign(**usual)
    runs["run_id"] = ["-".join(map(str, cell)) for cell in cells]
    runs["test_error"] = runs["validation_error"] = [error(*cell) for cell in cells]
    return runs


PLANES = {
    "sgd": ([0.01 * 4**k for k in range(5)], [0.0] + [6.25e-5 * 4**k for k in range(7)]),
    "nesterov": ([0.00125 * 4**k for k in range(5)], [0.0] + [6.25e-5 * 4**k for k in range(7)]),
    "adam": ([0.001 * 3**k for k in range(5)], [0.0] + [1e-5 * 9**k for k in range(6)]),
}


def slope_of(runs: pd.DataFrame) -> Estimate:
    optimizer = runs["optimizer"].iloc[0]
    tables = Tables({analysis.PLANES[optimizer]: Experiment(pd.DataFrame(), runs)})
    return statistics.contour_slope(Evidence(tables, pd.DataFrame()), optimizer)


def test_contour_slope_counts_cells_that_have_every_seed_and_none_that_diverged() -> None:
    def error(lr: float, l2: float, seed: int) -> float:
        return float(1 / (1 + np.exp(2 - 0.1 * np.log(lr * (l2 or 1e-30)))))

    runs = plane("sgd", *PLANES["sgd"], error, seeds=(200, 201))
    cells = analysis.contour_cells(runs)
    lr, l2 = cells[["lr", "l2"]].iloc[0]
    lone = (runs["lr"] == lr) & (runs["l2"] == l2) & (runs["seed"] == 201)
    diverged = runs.assign(diverged=runs["diverged"].mask(lone, 25.0), test_error=runs["test_error"].mask(lone, 0.5))
    for fewer in (runs[~lone], diverged):
        found = analysis.contour_cells(fewer)
        assert len(found) == len(cells) - 1 and not ((found["lr"] == lr) & (found["l2"] == l2)).any()
    assert slope_of(diverged).value == pytest.approx(1, rel=1e-6)
    assert slope_of(runs).freedom == len(cells) - 4  # intercept, u, u², v


def test_contour_slope_of_too_few_diagonals_is_undecidable() -> None:
    runs = plane("sgd", [0.16], [0.004, 0.016], lambda lr, l2, seed: 0.2, seeds=(100, 101))
    with pytest.raises(Undecidable, match="fewer than three diagonals"):
        slope_of(runs)


def test_best_setting_is_chosen_on_validation_and_reported_on_test() -> None:
    rng = np.random.default_rng(0)
    noise = {seed: rng.normal(0, 0.01) for seed in (100, 101, 102)}
    runs = plane("sgd", [0.1, 0.2], [0.0, 0.01], lambda lr, l2, seed: 0.2 + noise[seed], seeds=(100, 101, 102))
    runs["validation_error"] = np.where((runs["lr"] == 0.2) & (runs["l2"] == 0.01), 0.1, 0.3)
    best = analysis.best_setting(runs)
    assert (best.lr, best.l2, best.seeds) == (0.2, 0.01, 3)
    values = np.array([0.2 + noise[seed] for seed in noise])
    assert best.error.value == pytest.approx(values.mean())
    # Four cells of the same three values: the pooled deviation is theirs, with 4 × 2 degrees of freedom.
    margin = stats.t.ppf(0.95, 8) * values.std(ddof=1) / np.sqrt(3)
    assert best.error.high - best.error.value == pytest.approx(margin)
    assert analysis.best_setting(runs, only_without_penalty=True).l2 == 0


def test_a_run_that_diverged_counts_as_chance() -> None:
    runs = plane("sgd", [0.1], [0.0, 0.01], lambda lr, l2, seed: 0.2 + l2)
    runs.loc[0, ["diverged", "test_error"]] = [50.0, np.nan]
    assert analysis.error_or_chance(runs).tolist() == [0.9, pytest.approx(0.21)]


def test_equilibrium_ratio_is_one_where_the_theory_holds() -> None:
    runs = plane("sgd", [0.64], [0.0, 6.25e-5, 0.004], lambda lr, l2, seed: 0.2)
    grad = {"a": 0.1, "b": 0.3, "c": 0.2}
    rows = []
    for run in runs[runs["l2"] > 0].itertuples():
        for layer, g in grad.items():
            point = ("sgd", run.lr, run.l2, g, 1.0)
            found = {"late_g_squared": g**2, "group_size": 9.0}
            found["late_effective_lr"] = float(theory.equilibrium_effective_lr(*point))
            found["late_norm_squared"] = float(theory.equilibrium_norm(*point)) ** 2
            found["late_angle_squared"] = float(theory.equilibrium_angle(*point)) ** 2
            rows += [(run.run_id, 1000, layer, what, value) for what, value in found.items()]
    metrics = pd.DataFrame(rows, columns=["run_id", "step", "layer", "quantity", "value"])
    found = analysis.equilibrium_by_layer(metrics, runs)
    # At the smaller λ, 8ηλt is 0.2: that run is still on its way.
    assert found["l2"].tolist() == [0.004] * 3
    for what in ("norm", "effective_lr", "angle"):
        assert found[f"{what}_ratio"].tolist() == [pytest.approx(1)] * 3
    assert found["has_gradient"].all()
    assert list(analysis.equilibrium_by_layer(metrics, runs[runs["l2"] == 0])["angle_ratio"]) == []

    # A layer whose units have lost their gradient is no part of the comparison that figures show.
    lost = [(run_id, 1000, "b", "late_without_gradient", 0.1) for run_id in runs["run_id"]]
    metrics = pd.concat([metrics, pd.DataFrame(lost, columns=metrics.columns)], ignore_index=True)
    tables = Tables({"equilibrium": Experiment(metrics, runs)})
    [shown] = figures.with_gradients(tables).values()
    assert shown["layer"].tolist() == ["a", "c"] and np.isfinite(shown["norm_ratio"]).all()


def test_a_learning_rate_in_words_becomes_a_number() -> None:
    runs = plane("sgd", [0.16], [0.004, 0.016, 0.064], lambda lr, l2, seed: 0.2)
    runs = runs.assign(affine_lr=["shared", "frozen", 0.1], projected=False, lr_drop=1.0)
    metrics = pd.DataFrame(columns=["run_id", "step", "layer", "quantity", "value"])
    assert analysis.derive(metrics, runs)[1]["affine_lr"].tolist() == [0.16, 0.0, 0.1]


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
            [counts] = analysis.settled(
                runs := plane(optimizer, [lr], [product / lr], lambda *_: 0.2).assign(initial_norm=start)
            )
            left = left_of_the_start(runs.iloc[0], start)
            assert left <= 0.06 if counts else left >= 0.04, (optimizer, lr, product, start, left)
            chosen.add((optimizer, counts))
    assert len(chosen) == 4


def test_what_counts_as_settled_follows_from_settings() -> None:
    for optimizer, lr, l2, starts, counts in [
        # t₁ = 700 of 1000 steps; memory × angle up to 0.15: 4ηλ up to 0.15² for SGD.
        ("sgd", 0.1, 0.056, False, True),
        ("sgd", 0.1, 0.057, False, False),
        ("sgd", 0.1, 0.0, False, False),
        ("nesterov", 0.1, 9.7e-4, False, True),
        ("nesterov", 0.1, 1.0e-3, False, False),
        ("adamw", 0.01, 0.106, True, False),  # 4ηλt₁ must reach 3 from the predicted norm, and 12 from elsewhere
        ("adamw", 0.01, 0.108, True, True),
        ("adamw", 0.01, 0.108, False, False),
        ("adamw", 0.01, 0.14, True, False),
        ("adam", 0.003, 0.053**3 * 9.645, True, False),  # θ at most 0.05, and 1.5θ²t₁ at least 3: not in 1000 steps
    ]:
        runs = plane(optimizer, [lr], [l2], lambda lr, l2, seed: 0.2).assign(starts_at_equilibrium=starts)
        assert analysis.settled(runs).tolist() == [counts], (optimizer, lr, l2)
    runs = plane("rmsprop", [0.003], [0.047**3 * 9.645], lambda lr, l2, seed: 0.2).assign(steps=2000)
    assert analysis.settled(runs.assign(starts_at_equilibrium=True)).all() and not analysis.settled(runs).any()
    assert not analysis.settled(runs.assign(starts_at_equilibrium=True, width=32)).any()  # whose widest layer has more


def test_the_first_late_step_is_that_of_training() -> None:
    runs = pd.DataFrame({"steps": [5000, 40, 1, 7], "late_fraction": [0.3, 0.3, 0.3, 0.5]})
    assert analysis.first_late_step(runs).tolist() == [3500, 28, 0, 4]


SIZES = {"conv1": 9.0, "conv2": 144.0, "conv3": 288.0}


def layer_metrics(runs: pd.DataFrame, **quantities: object) -> pd.DataFrame:
    """These quantities of each run in each layer: a number, or a function of the run and the size of a scale group."""
    rows = [
        (run.run_id, 1000, layer, name, value(run, size) if callable(value) else value)
        for run in runs.itertuples()
        for layer, size in SIZES.items()
        for name, value in {"group_size": size, **quantities}.items()
    ]
    return pd.DataFrame(rows, columns=["run_id", "step", "layer", "quantity", "value"])


def test_a_layer_has_the_penalty_that_was_recorded_or_that_of_the_run() -> None:
    runs = plane("adam", [0.003], [0.01], lambda lr, l2, seed: 0.2)
    recorded = analysis.late_layers(layer_metrics(runs, layer_l2=lambda run, size: run.l2 * 288 / size), runs)
    assert recorded["layer_l2"].tolist() == pytest.approx([0.32, 0.02, 0.01])
    assert analysis.late_layers(layer_metrics(runs), runs)["layer_l2"].tolist() == [0.01] * 3
    # Every quantity has a column, also those that this optimizer does not record.
    assert recorded["late_norm_to_root"].isna().all()


def test_a_layer_is_live_up_to_one_lost_group_in_twenty() -> None:
    table = pd.DataFrame({"late_without_gradient": [0.0, 0.05, 0.051, 1.0]})
    assert analysis.is_live(table).tolist() == [True, True, False, False]


def test_causes_are_tabled_for_the_widest_layer() -> None:
    runs = plane("adam", [0.009], [0.01, 0.02], lambda lr, l2, seed: 0.2, seeds=(200, 201))
    runs = runs.assign(leak=np.where(runs["l2"] > 0.01, 0.1, 0.0), affine_lr=0.003)
    quantities = {
        "late_without_gradient": lambda run, size: float(size == 288) * (0.2 if run.seed == 200 else 0.4),
        "late_gamma": 0.5,
        "late_angle_squared": 0.04,
    }
    table = analysis.lost_by_cause(layer_metrics(runs, **quantities), runs)
    assert table.index.names == ["theta", "leak", "affine_lr"] and len(table) == 2
    assert table["lost"].tolist() == pytest.approx([0.3, 0.3])
    assert table["angle"].tolist() == pytest.approx([0.2, 0.2])
