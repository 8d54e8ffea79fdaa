"""Every part of every claim, on synthetic tables in which the claims are true, false, or not tested."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from effective_lr.document.table import Results, to_html
from effective_lr.engine.contents import Part, load_claims
from effective_lr.evidence.estimates import Undecidable
from effective_lr.evidence.tidy import Experiment, Tables
from effective_lr.evidence.verdicts import REPRODUCED, Evidence, judge, statistics_of
from effective_lr.studies.stability import STUDY, checks, figures, numbers, tables
from effective_lr.studies.stability.analysis import derive

CLAIMS = load_claims(Path(__file__).parents[2] / "paper" / "stability" / "claims.yaml")
PARTS = [
    pytest.param(part, id=f"{name}-{part.statistic}-{part.subject}")
    for name, claim in CLAIMS.items()
    for part in claim.parts
]
STATISTICS = statistics_of(STUDY)
STEPS, EVERY = 6000, 60
GRIDS: dict[str, tuple[dict[str, Any], list[float]]] = {
    "mlp": ({"lr": 0.06}, [0, 0.002, 0.004, 0.008, 0.01, 0.012]),
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
    star, noise = 2 / lr, 1 + 0.001 * (seed - 100)
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


def tables_of(true: bool = True, seeds: tuple[int, ...] = (100, 101, 102)) -> Tables:
    found = {}
    for experiment, (changes, penalties) in GRIDS.items():
        metrics, lines = [], []
        for seed in seeds:
            for l2 in penalties:
                run = checks.small_run(seed, **{"steps": STEPS, "l2": l2, **changes}, probes=100)
                table = pd.DataFrame(synthetic(experiment, run.model_dump(), true))
                above = table.loc[table["sharpness_total"] * run.lr > 2, "step"]
                metrics.append(table.melt("step", var_name="quantity").assign(run_id=run.run_id, layer=""))
                edge = float(above.iloc[0]) if len(above) else np.nan
                line = {"run_id": run.run_id, **run.model_dump(), "edge_step": edge, "test_error": 0.2}
                lines.append(line | {"diverged": np.nan})
        found[experiment] = Experiment(*derive(pd.concat(metrics), pd.DataFrame(lines)))
    return Tables.of(found)


@pytest.fixture(scope="module")
def table_of_checks() -> pd.DataFrame:
    return pd.DataFrame(checks.rows())


@pytest.fixture(scope="module")
def true_tables() -> Tables:
    return tables_of()


@pytest.fixture(scope="module")
def false_tables() -> Tables:
    return tables_of(true=False)


def verdict(part: Part, tables: Tables, table_of_checks: pd.DataFrame) -> str:
    evidence = Evidence(tables, table_of_checks)
    return judge(STATISTICS[part.statistic](evidence, part.subject), part.within)[0]


def at_half_the_edge(tables: Tables) -> Tables:
    return Tables.of(
        {
            name: Experiment(metrics, runs.assign(late_edge_ratio=runs["late_edge_ratio"] / 2))
            for name, (metrics, runs) in tables.items()
        }
    )


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_reproduced_where_the_claim_is_true(
    part: Part, true_tables: Tables, table_of_checks: pd.DataFrame
) -> None:
    assert verdict(part, true_tables, table_of_checks) == REPRODUCED


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_not_reproduced_where_the_claim_is_false(
    part: Part, false_tables: Tables, table_of_checks: pd.DataFrame
) -> None:
    if part.statistic in ("edge_ratio_at_weak_decay", "lowest_edge_ratio") or part.subject == "CNN":
        false_tables = at_half_the_edge(false_tables)  # where decay does nothing they would be at the edge
    if part.statistic == "invariant_degree":
        table_of_checks = table_of_checks.assign(value=3.0)
    try:
        assert verdict(part, false_tables, table_of_checks) != REPRODUCED
    except Undecidable:
        assert part.statistic in ("sharpness_rate", "norm_rate", "kernel_drift_ratio")


@pytest.mark.parametrize("part", PARTS)
def test_a_part_without_runs_is_undecided(part: Part) -> None:
    nothing = pd.DataFrame(columns=["l2", "seed", "lr", "settled", "at_edge", "diverged", "reached_edge", "run_id"])
    empty = Tables.of({name: Experiment(pd.DataFrame(), nothing) for name in GRIDS})
    with pytest.raises(Undecidable):
        verdict(part, empty, pd.DataFrame(columns=["check", "subject", "value"]))


@pytest.mark.parametrize("part", PARTS)
def test_a_part_with_one_seed_has_no_interval(part: Part, table_of_checks: pd.DataFrame) -> None:
    evidence = Evidence(tables_of(seeds=(100,)), table_of_checks[table_of_checks["seed"] == 0])
    estimate = STATISTICS[part.statistic](evidence, part.subject)
    assert np.isfinite(estimate.value)
    assert evidence.has_one_seed


LATE = [
    "late_degree",
    "late_sharpness_ratio",
    "edge_ratio_at_weak_decay",
    "edge_ratio_at_strong_decay",
    "lowest_edge_ratio",
    "plateau_slope",
    "plateau_across_lr",
    "degree_ratio",
    "spread_ratio",
    "displacement_ratio",
    "jitter_ratio",
    "kernel_drift_ratio",
]


@pytest.mark.parametrize("part", [part for part in PARTS if part.values[0].statistic in LATE])  # type: ignore[attr-defined]
@pytest.mark.parametrize("change", [{"settled": False}, {"diverged": 50.0}], ids=["unsettled", "diverged"])
def test_a_late_value_of_a_run_that_has_not_settled_or_diverged_decides_nothing(
    part: Part, change: dict[str, Any], true_tables: Tables, table_of_checks: pd.DataFrame
) -> None:
    spoiled = Tables.of(
        {name: Experiment(metrics, runs.assign(**change)) for name, (metrics, runs) in true_tables.items()}
    )
    with pytest.raises(Undecidable, match=r"\d+ of \d+ runs"):
        verdict(part, spoiled, table_of_checks)


def test_where_no_run_reaches_the_edge_its_delay_is_undecided(true_tables: Tables) -> None:
    metrics, runs = true_tables["mlp"]
    evidence = Evidence(Tables.of({"mlp": Experiment(metrics, runs.assign(reached_edge=False))}), pd.DataFrame())
    with pytest.raises(Undecidable, match="edge"):
        STATISTICS["edge_delay"](evidence, "MLP")


def test_every_label_is_one_that_pages_can_show() -> None:
    for statistic in STATISTICS.values():
        assert to_html(statistic.label)


@pytest.mark.parametrize("name", ["sharpness", "phase", "mechanism", "kernel"])
def test_figures_are_drawn_whatever_has_settled(name: str, true_tables: Tables) -> None:
    draw: Callable[[Tables], Any] = getattr(figures, name)
    unsettled = Tables.of(
        {key: Experiment(metrics, runs.assign(settled=False)) for key, (metrics, runs) in true_tables.items()}
    )
    for some in (true_tables, unsettled):
        figure = draw(some)
        for axis in figure.axes:
            assert axis.lines or axis.texts  # no panel is empty
            assert axis.get_xlabel()


def test_the_fitted_critical_decay_is_that_of_the_tables(true_tables: Tables) -> None:
    assert figures.critical(true_tables["mlp"].runs) == pytest.approx(0.006, rel=0.02)
    assert np.isnan(figures.critical(true_tables["cnn"].runs))


def test_the_table_has_a_row_for_every_setting_and_marks_what_has_not_settled(true_tables: Tables) -> None:
    results = Results(STUDY, true_tables, {}, pd.DataFrame())
    table = tables.edge(results)
    assert sum(len(row) == len(table.header) for row in table.rows) == sum(len(grid) for _, grid in GRIDS.values())
    assert "*" not in table.latex().split(r"\midrule", 1)[1].replace("$*", "*").split("weight")[0]
    assert to_html(table.header[-1])
    metrics, runs = true_tables["cnn"]
    unsettled = Tables.of({**true_tables, "cnn": Experiment(metrics, runs.assign(settled=False))})
    assert tables.edge(results._replace(tables=unsettled)).latex().count("*") == 2


def test_numbers_of_the_text_are_those_of_the_tables(true_tables: Tables) -> None:
    found = numbers.numbers(Results(STUDY, true_tables, {}, pd.DataFrame()))
    assert found["critical/MLP"] == "0.006"
    assert found["lr/CNN"] == "0.1"
    assert found["runs/unsettled"] == "0" or int(found["runs/unsettled"]) < 10
    assert float(found["sharpness_excess/WN"]) == pytest.approx(1, abs=0.1)
    assert float(found["angle/WN"]) == pytest.approx(
        np.mean([0.01 / (4 * 0.03 * l2) ** 0.5 for l2 in (0.001, 0.005)]), abs=0.01
    )


def test_every_number_of_the_text_exists(true_tables: Tables) -> None:
    """Names of \\num{...} that no statistic, no verdict and no function of the chapter makes would print as n/a."""
    text = (Path(__file__).parents[2] / "paper" / "stability" / "text.tex").read_text()
    names = set(re.findall(r"\\num\{([^}]*)\}", text))
    known = set(numbers.numbers(Results(STUDY, true_tables, {}, pd.DataFrame())))
    known |= {f"verdict/{name}" for name in CLAIMS} | {"runs/count", "runs/diverged", "runs/hours"}
    known |= {f"settings/{key}" for key in STUDY.run.model_fields}
    for claim in CLAIMS.values():
        known |= {
            f"{part.statistic}/{part.subject}" for part in claim.parts if STATISTICS[part.statistic].digits is not None
        }
    assert names <= known
