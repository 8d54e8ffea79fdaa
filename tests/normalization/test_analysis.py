"""The statistics of the paper, on tables whose answer is known."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from effective_lr.evidence.estimates import Estimate, Undecidable
from effective_lr.evidence.tidy import Experiment, Tables
from effective_lr.evidence.verdicts import Evidence
from effective_lr.studies.normalization import analysis, figures, statistics, theory


def plane(
    optimizer: str, lrs: list[float], penalties: list[float], error: object, seeds: tuple[int, ...] = (100,)
) -> pd.DataFrame:
    """Runs of one optimizer over a plane, with the test error `error(lr, l2, seed)`."""
    assert callable(error)
    return pd.DataFrame(
        [
            {
                "run_id": f"{lr}-{l2}-{seed}",
                "optimizer": optimizer,
                "lr": lr,
                "l2": l2,
                "seed": seed,
                "momentum": 0.9,
                "initial_norm": 1.0,
                "steps": 1000,
                "late_fraction": 0.3,
                "diverged": np.nan,
                "test_error": error(lr, l2, seed),
                "validation_error": error(lr, l2, seed),
            }
            for lr in lrs
            for l2 in penalties
            for seed in seeds
        ]
    )


PLANES = {
    "sgd": ([0.01 * 4**k for k in range(5)], [0.0] + [6.25e-5 * 4**k for k in range(7)]),
    "nesterov": ([0.00125 * 4**k for k in range(5)], [0.0] + [6.25e-5 * 4**k for k in range(7)]),
    "adam": ([0.001 * 3**k for k in range(5)], [0.0] + [1e-5 * 9**k for k in range(6)]),
}


def slope_of(runs: pd.DataFrame) -> Estimate:
    optimizer = runs["optimizer"].iloc[0]
    tables = Tables.of({analysis.PLANES[optimizer]: Experiment(pd.DataFrame(), runs)})
    return statistics.contour_slope(Evidence(tables, pd.DataFrame()), optimizer)


@pytest.mark.parametrize("optimizer", PLANES)
@pytest.mark.parametrize("tilt", [0.7, 1.0, 1.4])
def test_contour_slope_is_that_of_the_contours(optimizer: str, tilt: float) -> None:
    slope = tilt * theory.diagonal_slope(optimizer)

    def error(lr: float, l2: float, seed: int) -> float:
        across = np.log(lr) + slope * np.log(l2 or 1e-30)
        return float(1 / (1 + np.exp(2 - 0.1 * across)))

    found = slope_of(plane(optimizer, *PLANES[optimizer], error, seeds=(100, 101)))
    assert found.value == pytest.approx(slope, rel=1e-6)
    assert found.low <= found.value <= found.high


def test_contour_slope_uses_the_mean_of_seeds_and_no_cell_that_diverged() -> None:
    def error(lr: float, l2: float, seed: int) -> float:
        return float(1 / (1 + np.exp(2 - 0.1 * np.log(lr * (l2 or 1e-30)))))

    runs = plane("sgd", *PLANES["sgd"], error, seeds=(100, 101))
    hit = runs[analysis.on_contours(runs)].index[0]
    whole = len(analysis.contour_cells(runs))
    runs.loc[hit, ["diverged", "test_error"]] = [25.0, 0.5]
    assert len(analysis.contour_cells(runs)) == whole - 1
    assert slope_of(runs).value == pytest.approx(1, rel=1e-6)


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


def test_one_seed_gives_no_interval() -> None:
    error = analysis.best_setting(plane("sgd", [0.1], [0.0, 0.01], lambda lr, l2, seed: 0.2)).error
    assert error.value == pytest.approx(0.2) and np.isnan(error.low) and np.isnan(error.high)


def test_a_run_that_diverged_counts_as_chance() -> None:
    runs = plane("sgd", [0.1], [0.0, 0.01], lambda lr, l2, seed: 0.2 + l2)
    runs.loc[0, ["diverged", "test_error"]] = [50.0, np.nan]
    assert analysis.error_or_chance(runs).tolist() == [0.9, pytest.approx(0.21)]


def test_equilibrium_ratio_is_one_where_the_theory_holds() -> None:
    runs = plane("sgd", [0.64], [0.0, 6.25e-5, 0.016], lambda lr, l2, seed: 0.2)
    grad = {"a": 0.1, "b": 0.3, "c": 0.2}
    rows = []
    for run in runs[runs["l2"] > 0].itertuples():
        for layer, g in grad.items():
            predicted = float(theory.equilibrium_effective_lr("sgd", run.lr, run.l2, g, 1.0))
            rows.append((run.run_id, 1000, layer, "late_g_squared", g**2))
            rows.append((run.run_id, 1000, layer, "late_effective_lr", predicted))
            norm = float(theory.equilibrium_norm("sgd", run.lr, run.l2, g, 1.0))
            rows.append((run.run_id, 1000, layer, "late_norm_squared", norm**2))
            angle = float(theory.equilibrium_angle("sgd", run.lr, run.l2, g, 1.0))
            rows.append((run.run_id, 1000, layer, "late_angle_squared", angle**2))
            rows.append((run.run_id, 1000, layer, "group_size", 9.0))
    metrics = pd.DataFrame(rows, columns=["run_id", "step", "layer", "quantity", "value"])
    found = analysis.equilibrium_by_layer(metrics, runs)
    # At the smaller λ, 8ηλt is 0.2: that run is still on its way.
    assert found["l2"].tolist() == [0.016] * 3
    for what in ("norm", "effective_lr", "angle"):
        assert found[f"{what}_ratio"].tolist() == [pytest.approx(1)] * 3
    assert found["has_gradient"].all()
    assert list(analysis.equilibrium_by_layer(metrics, runs[runs["l2"] == 0])["angle_ratio"]) == []

    # A layer whose units have lost their gradient is no part of the comparison that figures show.
    lost = (metrics["layer"] == "b") & metrics["quantity"].isin(["late_g_squared", "late_norm_squared"])
    metrics.loc[lost, "value"] = 0.0
    tables = Tables.of({"plane_sgd": Experiment(metrics, runs)})
    [(_, shown)] = figures.equilibria(tables)
    assert shown["layer"].tolist() == ["a", "c"] and np.isfinite(shown["norm_ratio"]).all()
