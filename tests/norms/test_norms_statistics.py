"""Every statistic of the chapter on tables that are true, false, empty and of one seed; the figures and tables on small
runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from effective_lr.document.table import Results, Table
from effective_lr.engine.contents import load_claims, load_contents
from effective_lr.evidence.estimates import NO_VALUE, Estimate, Undecidable
from effective_lr.evidence.tidy import Experiment, Tables
from effective_lr.evidence.verdicts import ONE_SEED, Evidence, decide, measure, statistics_of
from effective_lr.studies.norms import STUDY, analysis, figures, numbers, tables
from effective_lr.studies.norms.settings import Run, parse_arms

ROOT = Path(__file__).parents[2]
CLAIMS = load_claims(ROOT / "paper/norms/claims.yaml")
STATISTICS = statistics_of(STUDY)
Values = Callable[[Run, str, float], dict[str, float]]  # of an arm, by quantity
CHECKS = pd.DataFrame(columns=["check", "subject", "seed", "holds", "value"])


def experiment(runs: list[Run], values: Values, extra: tuple[str, ...] = ()) -> Experiment:
    """The tables of runs, of whose arms `values` were measured; `extra` are arms of baselines."""
    rows, lines = [], []
    for run in runs:
        arms = [(arm.name, arm.penalty, arm.strength) for arm in parse_arms(run.arms)]
        for name, penalty, strength in [*arms, *((name, name, np.nan) for name in extra)]:
            rows += [
                (run.run_id, run.steps, name, what, value) for what, value in values(run, penalty, strength).items()
            ]
        lines.append({**run.model_dump(), "run_id": run.run_id, "diverged": np.nan})
    metrics = pd.DataFrame(rows, columns=["run_id", "step", "layer", "quantity", "value"])
    return Experiment(
        metrics, pd.DataFrame(lines, columns=None if lines else [*Run.model_fields, "run_id", "diverged"])
    )


def evidence(checks: pd.DataFrame = CHECKS, **experiments: Experiment) -> Evidence:
    empty = experiment([], lambda *_: {})
    names = ("alignment", "cooling_small", "leukemia", "bridge_held", "bridge_free", "walk")
    return Evidence(Tables.of({name: experiments.get(name, empty) for name in names}), checks)


def alignment_runs(seeds: int) -> list[Run]:
    cells = [(0.9, truth) for truth in ("high", "low", "sparse", "dense")] + [(0.0, "sparse"), (0.0, "dense")]
    return [
        Run(kind="network", rho=rho, truth=truth, arms="l2 l1 car scar inverse: 0.1 1", seed=seed)
        for rho, truth in cells
        for seed in range(seeds)
    ]


def noisy(run: Run, mean: float) -> float:
    """About the mean, by the seed and the part alone: all penalties of a run share it, as they share its samples."""
    return mean * (1 + 0.05 * np.random.default_rng([run.seed, run.part]).normal())


def with_ratio(ratio: float) -> Values:
    """The chosen arm of l2 and l1 has a test RMSE near 1, others `ratio` times that; the arm not chosen has far
    less."""

    def values(run: Run, penalty: str, strength: float) -> dict[str, float]:
        factor = 1.0 if penalty in ("l2", "l1") else ratio * (1 + 0.01 * run.seed)
        chosen = strength == 0.1
        return {"validation_rmse": 1.0 if chosen else 2.0, "test_rmse": noisy(run, factor) if chosen else 0.01}

    return values


@pytest.mark.parametrize(
    ("statistic", "subject"),
    [("log_ratio", "car_high"), ("log_ratio_to_l1", "scar_low"), ("log_ratio_independent", "car_dense")],
)
@pytest.mark.parametrize("ratio", [1.5, 0.7])
def test_log_ratios_are_those_of_the_arms_that_validation_chooses(statistic: str, subject: str, ratio: float) -> None:
    found = STATISTICS[statistic](evidence(alignment=experiment(alignment_runs(5), with_ratio(ratio))), subject)
    expected = np.log(ratio) + np.log(1 + 0.01 * np.arange(5)).mean()
    assert found.value == pytest.approx(expected)
    assert found.low < expected < found.high < expected + 0.1


def test_truths_and_correlations_are_kept_apart() -> None:
    def values(run: Run, penalty: str, strength: float) -> dict[str, float]:
        better = run.truth == "low" and run.rho > 0 and penalty == "car"
        return {"validation_rmse": strength, "test_rmse": noisy(run, 0.5 if better else 1.0)}

    found = evidence(alignment=experiment(alignment_runs(3), values))
    assert STATISTICS["log_ratio"](found, "car_low").value == pytest.approx(np.log(0.5))
    assert STATISTICS["log_ratio"](found, "car_high").value == pytest.approx(0)
    assert STATISTICS["log_ratio"](found, "inverse_low").value == pytest.approx(0)


def cooling_runs(parts: int, seeds: int = 1) -> list[Run]:
    return [
        Run(
            kind="network", data="cooling-load", split="disjoint", part=part, train_size=60, validation_size=134,
            test_size=154, arms="none: 0; l2 car scar: 0.1 1", seed=seed,
        )
        for part in range(parts) for seed in range(seeds)
    ]  # fmt: skip


def small(car: float, scar_weights: float, scar_error: float = 1.0) -> Values:
    def values(run: Run, penalty: str, strength: float) -> dict[str, float]:
        error = {"car": car, "scar": scar_error}.get(penalty, 1.0) * (1 + 0.001 * run.part)
        weights = (scar_weights if penalty == "scar" else 1.0) * (256 + run.part)
        return {"validation_rmse": strength + 1, "test_rmse": noisy(run, error), "nonzeros": weights, "train_rmse": 1.0}

    return values


def test_small_sets_are_independent_and_shuffles_are_averaged() -> None:
    """Eight sets and one shuffle decide; a second shuffle of the same sets adds no repetition."""
    for seeds in (1, 2):
        found = evidence(cooling_small=experiment(cooling_runs(8, seeds), small(0.9, 0.2)))
        ratio = STATISTICS["small_set_log_ratio"](found, "car")
        assert ratio.value == pytest.approx(np.log(0.9)) and np.isfinite(ratio.low)
        assert measure(CLAIMS["N4"].parts[0], found, STATISTICS)[1] == ""
        assert STATISTICS["nonzero_ratio"](found, "scar").value == pytest.approx(0.2)
    worse = evidence(cooling_small=experiment(cooling_runs(8), small(1.1, 0.6, 1.5)))
    assert STATISTICS["small_set_log_ratio"](worse, "car").value == pytest.approx(np.log(1.1))
    assert STATISTICS["nonzero_ratio"](worse, "scar").value == pytest.approx(0.6)
    assert STATISTICS["excess_error"](worse, "scar").value > 5
    assert abs(STATISTICS["excess_error"](found, "scar").value) < 0.1
    with pytest.raises(Undecidable, match="fewer than two sets"):
        STATISTICS["excess_error"](evidence(cooling_small=experiment(cooling_runs(1), small(1, 1))), "scar")


def leukemia_runs(seeds: int) -> list[Run]:
    return [
        Run(
            kind="network", data="leukemia", split="stratified", train_size=25, validation_size=0, test_size=13,
            folds=3, batch_size=25, arms="none: 0; l2 car0: 0.1 1", seed=seed,
        )
        for seed in range(seeds)
    ]  # fmt: skip


def log_losses(difference: float) -> Values:
    def values(run: Run, penalty: str, strength: float) -> dict[str, float]:
        loss = noisy(run, 0.4) + (difference * (1 + 0.1 * run.seed) if penalty == "car0" else 0)
        return {"validation_log_loss": strength, "test_log_loss": loss, "test_error": 0.0, "train_log_loss": 0.1}

    return values


@pytest.mark.parametrize("difference", [-0.1, 0.1])
def test_repeated_splits_have_the_interval_of_nadeau_and_bengio(difference: float) -> None:
    found = STATISTICS["log_loss_difference"](
        evidence(leukemia=experiment(leukemia_runs(6), log_losses(difference))), "car0"
    )
    values = difference * (1 + 0.1 * np.arange(6))
    assert found.value == pytest.approx(values.mean())
    margin = 2.015 * values.std(ddof=1) * np.sqrt(1 / 6 + 13 / 25)  # t of 5 degrees of freedom at 95 %
    assert found.high - found.value == pytest.approx(margin, rel=1e-3)


def held_runs(seeds: int) -> list[Run]:
    return [
        Run(kind="bridge", rho=0.9, truth=truth, arms="l2 car inverse l1: 0 0.1 0.5", momentum=0.0, seed=seed)
        for truth in ("high", "low", "sparse")
        for seed in range(seeds)
    ]


def test_held_norms_compare_the_largest_strength_with_none() -> None:
    def values(run: Run, penalty: str, strength: float) -> dict[str, float]:
        moves = penalty == "car" and run.truth == "high"
        factor = {0.0: 1.0, 0.1: 9.0, 0.5: 1.4}[strength] if moves else 1.0
        return {"test_rmse": noisy(run, factor), "top_share": 0.9 - (strength if moves else 0), "train_rmse": 1.0}

    found = evidence(bridge_held=experiment(held_runs(4), values))
    assert STATISTICS["held_change"](found, "car_high").value == pytest.approx(40)
    assert STATISTICS["held_change"](found, "l2_high").value == pytest.approx(0, abs=1e-9)
    assert STATISTICS["held_share"](found, "car_high").value == pytest.approx(-0.5)
    assert STATISTICS["held_share"](found, "l2_sparse").value == pytest.approx(0)
    with pytest.raises(Undecidable, match="no runs of scar_high"):
        STATISTICS["held_change"](found, "scar_high")


def test_only_relaxed_runs_count_for_the_angle() -> None:
    def values(run: Run, penalty: str, strength: float) -> dict[str, float]:
        relaxed = strength > 0.01
        ratio = 1.02 + 0.001 * run.seed if relaxed else 0.5
        return {"angle_squared": 1e-3 * ratio, "predicted_angle_squared": 1e-3, "relaxations": 6.0 if relaxed else 4.9}

    runs = [run.changed(held=False, truth="sparse", arms="l2: 0.01 0.1; car: 0.01") for run in held_runs(3)[-3:]]
    found = evidence(bridge_free=experiment(runs, values))
    assert STATISTICS["angle_ratio"](found, "l2").value == pytest.approx(1.021, abs=1e-4)
    with pytest.raises(Undecidable, match="no run of car has relaxed"):
        STATISTICS["angle_ratio"](found, "car")


def walk_runs(seeds: int) -> list[Run]:
    cells = [(50, "l2 car: 0.01 0.1"), (200, "l1: 0.001 0.1")]
    return [
        Run(kind="walk", inputs=inputs, rho=0.8, momentum=0.0, arms=arms, seed=seed)
        for inputs, arms in cells
        for seed in range(seeds)
    ]


def walked(run: Run, penalty: str, strength: float) -> dict[str, float]:
    spread = 0.001 * run.seed
    slow = penalty == "car" and strength == 0.01
    return {
        "top_share": (0.3 if slow else 0.1) + spread,
        "balance": 1 + spread,
        "kurtosis": (5.7 if strength == 0.001 else 4.0) + spread,
        "angle_squared": strength if penalty == "l1" else 1e-3,
        "slowest_times": 1.0 if slow else 6.0,
        "third_low": 0.8 - spread,
        "third_middle": 1.0,
        "third_high": 1.1,
    }


def test_walks_count_where_they_have_relaxed_and_angles_are_small() -> None:
    found = evidence(walk=experiment(walk_runs(3), walked))
    assert STATISTICS["walk_share"](found, "car").value == pytest.approx(0.101)  # without the slow arm
    assert STATISTICS["walk_unevenness"](found, "l2").value == pytest.approx(0.201)  # the third that departs most
    assert STATISTICS["walk_kurtosis"](found, "l1").value == pytest.approx(5.701)
    assert STATISTICS["walk_balance"](found, "l1").value == pytest.approx(1.001)
    with pytest.raises(Undecidable, match="no walk of car"):
        STATISTICS["walk_share"](evidence(walk=experiment([r for r in walk_runs(2) if r.inputs == 200], walked)), "car")


PARTS = [(name, part) for name, claim in CLAIMS.items() for part in claim.parts]


@pytest.mark.parametrize(
    ("name", "part"), PARTS, ids=lambda value: value if isinstance(value, str) else f"{value.statistic}-{value.subject}"
)
def test_no_part_is_decided_by_empty_tables(name: str, part: Any) -> None:
    estimate, why = measure(part, evidence(), STATISTICS)
    assert np.isnan(estimate.value) and why
    assert decide(name, CLAIMS[name], evidence(), STATISTICS)["verdict"] == "undecided"


def one_seed() -> Evidence:
    return evidence(
        alignment=experiment(alignment_runs(1), with_ratio(0.5)),
        leukemia=experiment(leukemia_runs(1), log_losses(-0.1)),
        bridge_held=experiment(held_runs(1), lambda r, p, s: {"test_rmse": 1.0, "top_share": 0.5}),
        bridge_free=experiment(
            [held_runs(1)[0].changed(held=False, arms="l2 car inverse l1: 0.1")],
            lambda r, p, s: {"angle_squared": 1.0, "predicted_angle_squared": 1.0, "relaxations": 9.0},
        ),
        walk=experiment(walk_runs(1), walked),
    )


@pytest.mark.parametrize(
    "part",
    [p for n, p in PARTS if n in ("N3", "N5", "N7") and p.statistic != "held_penalty"],
    ids=lambda p: f"{p.statistic}-{p.subject}",
)
def test_one_seed_gives_no_interval(part: Any) -> None:
    estimate, why = measure(part, one_seed(), STATISTICS)
    assert np.isfinite(estimate.value) and np.isnan(estimate.low) and why == ONE_SEED


def checks_of(value: Callable[[str, str], float]) -> pd.DataFrame:
    parts = [part for name in ("N1", "N2") for part in CLAIMS[name].parts]
    lines = [(p.statistic, p.subject, seed, True, value(p.statistic, p.subject)) for p in parts for seed in (0, 1)]
    return pd.DataFrame(lines, columns=list(CHECKS))


def test_exact_claims_follow_their_checks() -> None:
    """Reproduced where what holds is at rounding and what fails is of order 1; not where either is the other way
    round."""

    def true(statistic: str, subject: str) -> float:
        fails = subject.endswith("_none") or (
            subject == "l2" and statistic in ("one_factor", "scaled_lasso", "reparametrization")
        )
        return 0.0 if statistic == "symmetry_of_zeros" else 0.5 if fails else 1e-14

    for name in ("N1", "N2"):
        assert decide(name, CLAIMS[name], evidence(checks_of(true)), STATISTICS)["verdict"] == "reproduced"
        wrong = evidence(checks_of(lambda statistic, subject: 0.5 - true(statistic, subject)))
        assert decide(name, CLAIMS[name], wrong, STATISTICS)["verdict"] == "not reproduced"


def test_nan_of_a_check_decides_nothing() -> None:
    checks = checks_of(lambda *_: np.nan)
    assert measure(CLAIMS["N2"].parts[8], evidence(checks), STATISTICS)[0] == NO_VALUE


def test_claims_name_what_there_is() -> None:
    contents = load_contents(ROOT / "paper/norms/contents.yaml")
    assert {part.statistic for claim in CLAIMS.values() for part in claim.parts} == set(STATISTICS)
    assert {f"N{k}" for k in range(1, 8)} == set(CLAIMS)
    for scale in ("laptop", "study"):
        text = (ROOT / f"config/norms/{scale}.yaml").read_text()
        seeds = [
            seed for e in yaml.safe_load(text)["experiments"].values() for seed in e.get("grid", {}).get("seed", [])
        ]
        assert seeds and min(seeds) >= 1000  # no pilot saw them
    for name, item in contents.figures.items():
        assert callable(getattr(figures, name)) and "Prediction" in item.caption
    for name in set(contents.tables) - {"verdicts", "settings", "costs"}:
        assert callable(getattr(tables, name))


# Choice of the strength


def test_choice_ignores_what_diverged_and_marks_the_ends_of_the_grid() -> None:
    run = Run(kind="network", truth="low", arms="l2 car: 0.1 1 10; none: 0", seed=0)

    def values(run: Run, penalty: str, strength: float) -> dict[str, float]:
        loss = {"l2": {0.1: np.nan, 1.0: 2.0, 10.0: 3.0}, "car": {0.1: 3.0, 1.0: 2.0, 10.0: 1.0}}.get(
            penalty, {0.0: 1.0}
        )
        return {"validation_rmse": loss[strength], "test_rmse": 1.0}

    best = analysis.chosen(analysis.arms(experiment([run], values))).set_index("penalty")
    assert best["strength"].to_dict() == {"l2": 1.0, "car": 10.0, "none": 0.0}
    assert best["at_end"].to_dict() == {"l2": True, "car": True, "none": False}


def test_baselines_choose_for_themselves() -> None:
    def values(run: Run, penalty: str, strength: float) -> dict[str, float]:
        own = {} if penalty == "ridge-cv" else {"validation_rmse": strength}
        return {"test_rmse": 0.5, **own}

    best = analysis.chosen(analysis.arms(experiment(cooling_runs(2), values, extra=("ridge-cv",))))
    assert (best["penalty"] == "ridge-cv").sum() == 2


def test_one_split_has_no_interval() -> None:
    assert analysis.repeated_splits(pd.Series([1.0]), 1, 2)[:1] == (1.0,)
    assert np.isnan(analysis.repeated_splits(pd.Series([1.0]), 1, 2).low)
    with pytest.raises(Undecidable):
        analysis.repeated_splits(pd.Series([1.0, np.nan]), 1, 2)


# Figures, tables and numbers, on real runs of a few steps


@pytest.fixture(scope="module")
def tiny() -> Tables:
    """All experiments of the smoke scale that need no data, at a few steps; the others are empty, as where data are
    missing."""
    import torch

    from effective_lr.engine import grid
    from effective_lr.studies.norms.training import load, train

    _, runs = grid.load_scale(ROOT / "config/norms", "smoke", STUDY)
    found = {}
    for name, members in runs.items():
        mine = [run for run in members if STUDY.data(run) is None]
        trained = {run.run_id: train(run, load({}, run, torch.device("cpu"))) for run in mine}
        rows = [(run_id, *row) for run_id, training in trained.items() for row in training.rows]
        empty = experiment(mine, lambda *_: {})
        found[name] = Experiment(pd.DataFrame(rows, columns=list(empty.metrics)), empty.runs)
    return Tables.of(found)


@pytest.mark.parametrize("name", ["alignment_decides", "forest", "bridge", "equilibrium_of_penalties"])
def test_figures_are_drawn_with_data_in_every_panel(tiny: Tables, name: str) -> None:
    figure = getattr(figures, name)(tiny)
    assert isinstance(figure, Figure)
    assert all(axis.has_data() for axis in figure.axes)
    plt.close(figure)


def results_of(tables_: Tables, checks: pd.DataFrame = CHECKS, measured: dict[str, Any] | None = None) -> Results:
    return Results(STUDY, tables_, {}, checks, measured)


def test_tables_say_where_data_are_missing(tiny: Tables) -> None:
    table = tables.errors(results_of(tiny))
    assert isinstance(table, Table)
    text = table.latex()
    assert "no data here" in text and "SCAR" in text and "truth high" in text
    assert table.html()
    assert tables.errors_of_splits(results_of(tiny)).latex().count("no data here") == 4
    assert tables.errors_of_diabetes(results_of(tiny)).latex().count("no data here") == 2
    assert "bundled" in tables.provenance(results_of(tiny)).latex()
    known = numbers.numbers(results_of(tiny))
    assert known["leukemia/errors-l2"] == "n/a" and known["reported/cooling_full"] == "n/a"
    assert known["networks/shrinkage"] == "0.05" and int(known["networks/count"].replace(r"\,", "")) > 100


def test_readings_show_the_worst_residual() -> None:
    checks = pd.DataFrame(
        [("one_factor", "car", s, True, v) for s, v in enumerate((1e-15, 3e-13))], columns=list(CHECKS)
    )
    text = tables.readings(results_of(Tables([]), checks)).latex()
    assert "10^{-12}" in text and "n/a" in text


def test_stacking_shows_the_measurement_where_there_is_one() -> None:
    assert "make bench" in tables.stacking(results_of(Tables([]))).latex()
    speeds = {"networks_per_second": {"stacked": 60.0, "one_by_one": 4.0, "mlp_regressor": 3.0}}
    assert tables.stacking(results_of(Tables([]), measured=speeds)).rows[0][1:] == ["60", "20.0"]


def test_data_sets_of_the_table_have_their_intervals() -> None:
    found = tables.block(analysis.arms(experiment(cooling_runs(3), small(0.9, 0.2))), "Cooling", [])
    assert len(found) == 5 and "[" in str(found[2][4])
    assert isinstance(
        analysis.by_split(pd.DataFrame([{"split": "drawn", "data": "simulated", "x": 1.0}] * 2), "x"), Estimate
    )
