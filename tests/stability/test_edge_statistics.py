"""Every part of every claim, on synthetic tables in which the claims are true, false, or not tested; and how often a
verdict is wrong."""

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from effective_lr.document.table import Results
from effective_lr.engine.contents import load_claims
from effective_lr.evidence.estimates import Estimate, Undecidable
from effective_lr.evidence.tidy import Experiment, Tables
from effective_lr.evidence.verdicts import (
    NEEDS_STUDY,
    NOT_REPRODUCED,
    REPRODUCED,
    UNDECIDED,
    Evidence,
    decide,
    statistics_of,
)
from effective_lr.studies.stability import STUDY, checks, figures, numbers, statistics, tables
from effective_lr.studies.stability.analysis import derive
from shared import ROOT, require_calibrated

CLAIMS = load_claims(ROOT / "paper" / "stability" / "claims.yaml")
STATISTICS = statistics_of(STUDY)
STEPS, EVERY, LOOK = 6000, 60, 50
GRIDS: dict[str, tuple[dict[str, Any], list[float]]] = {
    "mlp": ({"lr": 0.06}, [0, 0.001, 0.002, 0.004, 0.008, 0.01, 0.012]),
    "mlp_other_lr": ({"lr": 0.05, "steps": STEPS * 6 // 5}, [0.008]),
    "cnn": ({"lr": 0.1, "network": "cnn"}, [0, 0.008]),
    "batch": ({"lr": 0.05, "normalization": "batch"}, [0, 0.001, 0.005]),
    "weight": ({"lr": 0.03, "normalization": "weight"}, [0, 0.001, 0.005]),
    "cross_entropy": ({"lr": 0.15, "loss": "cross-entropy"}, [0, 0.002]),
}


def synthetic(experiment: str, run: dict[str, Any], true: bool) -> dict[str, Any]:
    """The probes of one run. Where the claims are false, decay does nothing, and nothing is as predicted."""
    lr, seed, steps = run["lr"], run["seed"], run["steps"]
    l2 = run["l2"] if true else 0.0
    step = np.arange(EVERY, steps + 1, EVERY)
    star, noise = 2 / lr, 1 + 0.001 * (seed - 200)
    normalized = experiment in ("batch", "weight")
    degree = np.full(len(step), {"cnn": 1.0, "cross_entropy": -6.0}.get(experiment, -1.9 if normalized else 2.2))
    rest = min(1.0, 0.006 * (lr / 0.06) / l2 * noise if l2 and experiment.startswith("mlp") else 1.0)
    if rest < 1:
        path = star * rest * (1 - 0.4 * np.exp(-step / 300))
    else:
        rate = 6e-4 + (4 * lr * l2 if normalized else -5e-2 * l2)  # of log S per step
        edge = np.log(2) / rate * noise
        path = star * np.where(step < edge, 0.5 * np.exp(rate * step), 1.03)
        spread = 0.02 if l2 < 0.004 else 0.005
        path = path * np.where(step < edge, 1, 1 + spread * noise * (-1.0) ** np.arange(len(step)))
    if experiment == "cross_entropy":
        path = star * (0.1 + 200 * l2) * noise * np.exp(-step / 1e6)
    is_at_edge = path > star
    slope = np.gradient(path, step) / lr
    force = np.where(is_at_edge, 1.0, slope * (1 if true else 2))
    x = np.where(is_at_edge, 0.02, 1e-9) if true else np.full(len(step), 0.02)
    drift = 0.01 * (1 + (-50 if true else 50) * run["l2"])
    norm = 50 * np.exp(-4 * lr * l2 * step)
    return {
        "step": step,
        "train_loss": np.full(len(step), 0.1),
        "sharpness": path,
        "sharpness_total": path,
        "degree": degree if true else np.full(len(step), 2.2),
        "alignment": degree / 20,
        "alpha0": force + 2 * run["l2"] * (degree if true else 2.2) * path,
        "alpha_eff": np.where(is_at_edge, 1.0, np.clip(slope, -1e-3, 1e-3)),
        "beta": np.full(len(step), (2 if true else 0.8) * noise / 0.02**2),
        "displacement": x,
        "weight_norm_squared": norm,
        "u_weight_share": np.full(len(step), 0.95),
        **({} if normalized else {"ntk_jitter": np.abs(x) + 1e-5, "ntk_drift": drift * noise * np.ones(len(step))}),
        **({"angle_squared": np.full(len(step), 1e-4)} if normalized else {}),
        "test_error": np.full(len(step), 0.2),
    }


def looks(run: dict[str, Any], true: bool) -> dict[str, Any]:
    """Late looks at several directions of the MLP; where the claims are false, they hold half of the force."""
    step = np.arange(run["steps"] * 2 // 3 + LOOK, run["steps"] + 1, LOOK)
    pressure = np.full(len(step), (1.02 if true else 0.5) * (1 + 0.001 * (run["seed"] - 200)))
    ratios = {f"edge_ratio_{number}": np.full(len(step), 1.1 - 0.1 * number) for number in range(1, 7)}
    pressures = {f"edge_pressure{end}": pressure * part for end, part in [("", 1), ("_diagonal", 0.9), ("_top", 0.7)]}
    columns = {"step": step, "edge_directions": 2.0 + 0 * step, "edge_force": 1.0 + 0 * step}
    return {**columns, **ratios, **pressures, "edge_pressure_whole": pressure}


def tables_of(true: bool = True, seeds: tuple[int, ...] = (200, 201, 202)) -> Tables:
    found = {}
    for experiment, (changes, penalties) in GRIDS.items():
        metrics, lines = [], []
        for seed in seeds:
            for l2 in penalties:
                run = checks.small_run(seed, **{"steps": STEPS, "l2": l2, **changes}, probes=100)
                table = pd.DataFrame(synthetic(experiment, run.model_dump(), true))
                above = table.loc[table["sharpness_total"] * run.lr > 2, "step"]
                parts = [table, pd.DataFrame(looks(run.model_dump(), true))][: 1 + (experiment == "mlp")]
                metrics += [one.melt("step", var_name="quantity").assign(run_id=run.run_id, layer="") for one in parts]
                edge = float(above.iloc[0]) if len(above) else np.nan
                line = {"run_id": run.run_id, **run.model_dump(), "edge_step": edge, "test_error": 0.2}
                lines.append(line | {"diverged": np.nan})
        found[experiment] = Experiment(*derive(pd.concat(metrics), pd.DataFrame(lines)))
    return Tables(found)


@pytest.fixture(scope="module")
def table_of_checks() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"check": "invariant_degree", "subject": subject, "seed": seed, "value": 1e-12, "holds": True}
            for subject in ("BN", "WN")
            for seed in checks.SEEDS
        ]
    )


@pytest.fixture(scope="module")
def true_tables() -> Tables:
    return tables_of()


def verdicts(tables: Tables, table_of_checks: pd.DataFrame) -> dict[tuple[str, str, str], dict[str, Any]]:
    """The parts of all claims, decided, by claim, statistic and subject."""
    evidence = Evidence(tables, table_of_checks)
    return {
        (name, part["statistic"], part["subject"]): part
        for name, claim in CLAIMS.items()
        for part in decide(name, claim, evidence, STATISTICS)["parts"]
    }


def changed(tables: Tables, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Tables:
    return Tables({name: Experiment(metrics, change(runs)) for name, (metrics, runs) in tables.items()})


def test_all_parts_are_reproduced_where_the_claims_are_true(true_tables: Tables, table_of_checks: pd.DataFrame) -> None:
    found = verdicts(true_tables, table_of_checks)
    assert {key: part["verdict"] for key, part in found.items() if part["verdict"] != REPRODUCED} == {}
    evidence = Evidence(true_tables, table_of_checks)
    for claim in CLAIMS.values():
        for what in claim.explored:
            assert np.isfinite(STATISTICS[what.statistic](evidence, what.subject).value)


def test_no_part_is_reproduced_where_the_claims_are_false(table_of_checks: pd.DataFrame) -> None:
    """Where decay does nothing all runs are at the edge: for what asks for that they are moved away."""
    false = tables_of(true=False)
    away = changed(false, lambda runs: runs.assign(late_edge_ratio=runs["late_edge_ratio"] / 2))
    wrong = table_of_checks.assign(value=3.0)
    found, moved = verdicts(false, wrong), verdicts(away, wrong)
    for (name, statistic, subject), part in found.items():
        at_edge = statistic in ("edge_ratio_at_weak_decay", "lowest_edge_ratio") or (
            subject == "CNN" and statistic == "edge_ratio_at_strong_decay"
        )
        decided = moved[name, statistic, subject] if at_edge else part
        assert decided["verdict"] == NOT_REPRODUCED or decided["value"] is None, (name, statistic, subject)


def test_without_runs_or_with_one_seed_or_old_seeds_alone_nothing_is_decided(
    true_tables: Tables, table_of_checks: pd.DataFrame
) -> None:
    nothing = pd.DataFrame(columns=["l2", "seed", "lr", "settled", "at_edge", "diverged", "reached_edge", "run_id"])
    empty = Tables({name: Experiment(pd.DataFrame(columns=["run_id"]), nothing) for name in GRIDS})
    no_checks = table_of_checks.iloc[:0]
    assert {(part["verdict"], part["value"]) for part in verdicts(empty, no_checks).values()} == {(UNDECIDED, None)}
    one_check = table_of_checks[table_of_checks["seed"] == 0]
    for part in verdicts(tables_of(seeds=(200,)), one_check).values():
        assert part["value"] is not None and part["verdict"] in (UNDECIDED, NEEDS_STUDY), part
    old = changed(true_tables, lambda runs: runs.assign(seed=runs["seed"] - 100))
    decided = {
        key[1] for key, part in verdicts(old, no_checks).items() if part["verdict"] not in (UNDECIDED, NEEDS_STUDY)
    }
    assert decided == {"plateau_across_lr"}  # whose rule has not changed


LATE = {
    *("late_degree", "late_sharpness_ratio", "edge_ratio_at_weak_decay", "edge_ratio_at_strong_decay", "degree_ratio"),
    *("lowest_edge_ratio", "plateau_law", "plateau_across_lr", "balance", "displacement_ratio", "jitter_ratio"),
    "kernel_drift_ratio",
}


def test_a_late_value_of_a_run_that_has_not_settled_or_diverged_decides_nothing(
    true_tables: Tables, table_of_checks: pd.DataFrame
) -> None:
    for change in ({"settled": False}, {"diverged": 50.0}):
        spoiled = changed(true_tables, lambda runs, change=change: runs.assign(**change))  # type: ignore[misc]
        for (_, statistic, _), part in verdicts(spoiled, table_of_checks).items():
            if statistic in LATE:
                assert re.search(r"\d+ of \d+ runs", part["why"]), part


def test_without_the_edge_there_is_no_delay_and_below_it_no_balance(true_tables: Tables) -> None:
    away = changed(true_tables, lambda runs: runs.assign(reached_edge=False, at_edge=False))
    for statistic, subject in [("edge_delay", "MLP"), ("balance", "MLP at 0.001")]:
        with pytest.raises(Undecidable, match="edge"):
            STATISTICS[statistic](Evidence(away, pd.DataFrame()), subject)


def table_with(values: Any, l2: float) -> pd.DataFrame:
    seeds = range(len(values))
    return pd.DataFrame({"seed": seeds, "l2": l2, "value": values, "settled": True, "diverged": np.nan})


def draw_ratio(rng: np.random.Generator, truth: float) -> Estimate:
    some = rng.normal(truth, 0.5, 4)
    tables = table_with(np.exp(some / 2), 0.008), table_with(np.exp(-some / 2), 0)
    return statistics.ratio(*tables, "value").map(np.log)


def draw_farthest(rng: np.random.Generator, truth: float) -> Estimate:
    some = rng.normal(truth, 0.5, 4)
    both = pd.concat([table_with(some, 0.01), table_with(some / 10, 0.02)])
    return statistics.farthest(both, "value", lambda value: value)


def test_wrong_verdicts_are_as_rare_as_the_intervals_allow() -> None:
    for draw in (draw_ratio, draw_farthest):
        require_calibrated(draw, (-1.0, 1.0), 1.0, 0.0)


def test_figures_are_drawn_whatever_has_settled(true_tables: Tables) -> None:
    nowhere = changed(true_tables, lambda runs: runs.assign(settled=False, at_edge=False, early_spread=np.nan))
    for draw in (figures.sharpness, figures.phase, figures.mechanism, figures.oscillation, figures.kernel):
        for some in (true_tables, nowhere):
            for axis in draw(some).axes:
                assert axis.lines or axis.texts  # no panel is empty
                assert axis.get_xlabel()


def test_the_fitted_critical_decay_is_that_of_the_tables(true_tables: Tables) -> None:
    assert figures.critical(true_tables["mlp"].runs) == pytest.approx(0.006, rel=0.02)
    assert np.isnan(figures.critical(true_tables["cnn"].runs))


@pytest.fixture(scope="module")
def results(true_tables: Tables, table_of_checks: pd.DataFrame) -> Results:
    model = {"check": "pressure", "subject": "all directions", "seed": 0, "value": 0.004, "holds": True}
    found = pd.concat([table_of_checks, pd.DataFrame([model])])
    evidence = Evidence(true_tables, found)
    decided = {name: decide(name, claim, evidence, STATISTICS) for name, claim in CLAIMS.items()}
    return Results(STUDY, true_tables, decided, found)


def test_the_table_has_a_row_for_every_setting_and_marks_what_has_not_settled(results: Results) -> None:
    table = tables.edge(results)
    assert sum(len(row) == len(table.header) for row in table.rows) == sum(len(grid) for _, grid in GRIDS.values())
    assert "*" not in table.latex().split(r"\midrule", 1)[1].replace("$*", "*").split("weight")[0]
    metrics, runs = results.tables["cnn"]
    unsettled = Tables({**results.tables, "cnn": Experiment(metrics, runs.assign(settled=False))})
    assert tables.edge(results._replace(tables=unsettled)).latex().count("*") == 2


def test_the_former_registration_is_beside_the_present_verdicts(results: Results) -> None:
    committed = ROOT / "results" / "published" / "stability" / "second_registration.json"
    table = tables.second_registration(results._replace(measured=json.loads(committed.read_text())))
    assert [row[0] for row in table.rows] == list(CLAIMS)
    assert table.rows[0][2:] == ["3 of 6", "undecided", "reproduced"]
    assert len(tables.second_registration(results).rows) == 1


def test_numbers_of_the_text_are_those_of_the_tables(results: Results) -> None:
    found = numbers.numbers(results)
    assert found["critical/MLP"] == "0.006"
    assert found["lr/CNN"] == "0.1"
    assert found["runs/unsettled"] == "0" or int(found["runs/unsettled"]) < 10
    assert float(found["sharpness_excess/WN"]) == pytest.approx(1, abs=0.1)
    assert float(found["angle/WN"]) == pytest.approx(
        np.mean([0.01 / (4 * 0.03 * l2) ** 0.5 for l2 in (0.001, 0.005)]), abs=0.01
    )
    assert (found["force/0.002"], found["whole/0.002"], found["apart/MLP"]) == ("1.00", "1.021", "0.0")
    assert found["steady/with_decay"] == found["edge/with_decay"] == "12"
    assert found["model/all directions"] == "0.4"
    uneven = results.tables["mlp"].runs.assign(late_pressure=lambda runs: 0.5 * runs["late_alpha_eff"])
    assert numbers.steady(uneven)["steady/with_decay"] == "0"


def test_the_error_of_a_sum_is_that_of_the_trapezoidal_rule() -> None:
    for points in (9, 10):
        time = np.linspace(0, 1, points)[-9:]
        assert abs(numbers.error_of_sum(3 * time**2, time)) == pytest.approx(
            np.trapezoid(3 * time**2, time) - (time[-1] ** 3 - time[0] ** 3)
        )
