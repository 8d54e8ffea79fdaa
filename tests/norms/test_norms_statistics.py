"""Every statistic of the chapter found again in published rows by pandas alone; what is missing; the tables."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from effective_lr.document.table import Results
from effective_lr.engine.contents import load_claims
from effective_lr.evidence import tidy
from effective_lr.evidence.estimates import Estimate, Undecidable
from effective_lr.evidence.tidy import Experiment, Tables
from effective_lr.evidence.verdicts import Evidence, decide, statistics_of
from effective_lr.studies.norms import STUDY, analysis, numbers, tables
from shared import ROOT, published_layout, require_calibrated

CLAIMS = load_claims(ROOT / "paper/norms/claims.yaml")
STATISTICS = statistics_of(STUDY)
CHECKS = pd.DataFrame(columns=["check", "subject", "seed", "holds", "value"])


@pytest.fixture(scope="module")
def published() -> Tables:
    layout = published_layout()
    return tidy.read(layout.chapters["norms"], layout.tables("norms"))


def wide(given: Tables, *experiments: str) -> pd.DataFrame:
    """A line for each run and arm, or chosen penalty; strength and penalty are parts of its name."""
    parts = []
    for metrics, runs in (given[name] for name in experiments):
        values = metrics[metrics["layer"] != ""].pivot(index=["run_id", "layer"], columns="quantity", values="value")
        parts.append(values.reset_index().merge(runs, on="run_id", suffixes=("", "_of_run")))
    names = pd.concat(parts)["layer"].str.split("/", n=1, expand=True)
    return pd.concat(parts).assign(penalty=names[0], level=pd.to_numeric(names[1], errors="coerce"))


STANDARD = ["none", "ridge+", "lasso+", "elastic"]
UNIT = ["truth", "rho", "noise", "seed", "part"]


def beside(table: pd.DataFrame, penalty: str, references: list[str] = STANDARD) -> tuple[pd.DataFrame, pd.DataFrame]:
    """By unit the line of a penalty, and that of the reference with the lowest held-out loss."""
    table = table[table["layer"].isin([penalty, *references])].sort_values("cv_loss")
    own, others = table[table["layer"] == penalty], table[table["layer"] != penalty]
    return own.set_index(UNIT), others.drop_duplicates(UNIT).set_index(UNIT)


def log_ratio(table: pd.DataFrame, penalty: str, references: list[str] = STANDARD, of: str = "risk") -> pd.Series:
    own, best = beside(table, penalty, references)
    return np.log((own[of] / best[of]).dropna())


def numbers_by_unit(given: Tables) -> dict[tuple[str, str], pd.Series]:
    """What each statistic is the mean of."""
    table = wide(given, "alignment")
    table = table.sort_values("validation_rmse").drop_duplicates(["run_id", "penalty"])
    losses = np.log(table.pivot(index=["rho", "truth", "seed"], columns="penalty", values="test_rmse"))
    found = {
        ("log_ratio", "car_high"): (losses["car"] - losses["l2"]).loc[0.9, "high"],
        ("log_ratio", "inverse_high"): (losses["inverse"] - losses["l2"]).loc[0.9, "high"],
        ("log_ratio_independent", "car_dense"): (losses["car"] - losses["l2"]).loc[0.0, "dense"],
    }
    d1 = wide(given, "simulated", "simulated_all")
    d1 = d1[d1["inputs"] == 20]
    for statistic, penalty, references in [
        ("covridge_ratio", "covridge", STANDARD),
        ("covridge_to_ridge", "covridge", ["ridge"]),
        ("sparridge_ratio", "sparridge", STANDARD),
        ("sparridge_all_ratio", "sparridge-all", STANDARD),
    ]:
        found[statistic, "sine_0.75_2"] = log_ratio(d1, penalty, references).loc["sine", 0.75, 2.0] / 2
    to_lasso = log_ratio(d1, "sparridge", ["lasso+"]).loc["linear", 0.25, 0.1] / 2
    found["sparridge_to_lasso", "linear_0.25_0.1_lasso"] = to_lasso
    noisy = d1[d1["noise"] == 2.0]
    own, best = beside(noisy, "sparridge")
    gaps = (own["risk"] - own["train_mse"] - best["risk"] + best["train_mse"]) / best["risk"]
    counts = noisy.assign(nonzeros=noisy["nonzeros"] + 1)
    found |= {
        ("pooled_ratio", "sparridge_2"): log_ratio(noisy, "sparridge") / 2,
        ("gap_change", "sparridge_2"): gaps,
        ("size_ratio", "sparridge_2"): log_ratio(noisy, "sparridge", of="w1_squared"),
        ("nonzero_ratio", "sparridge_2"): log_ratio(counts, "sparridge", ["lasso+"], "nonzeros"),
        ("energy_ratio", "covridge"): log_ratio(wide(given, "energy"), "covridge", of="test_mse") / 2,
        ("small_ratio", "sparridge"): log_ratio(wide(given, "energy_small"), "sparridge", of="test_mse") / 2,
    }
    own, best = beside(wide(given, "leukemia"), "sparridge", ["none", "ridge", "lasso", "elastic"])
    found["accuracy_difference", "sparridge"] = own["balanced_accuracy"] - best["balanced_accuracy"]
    found["log_loss_difference", "sparridge"] = own["test_log_loss"] - best["test_log_loss"]
    table = wide(given, "leak").query("layer == 'ridge' and selection == 'all'").set_index(UNIT)
    found["accuracy_by_chance", "all"] = table["balanced_accuracy"]
    table = wide(given, "theorems").set_index(["penalty", "scaling", "seed"]).sort_index()
    zeros = table["zero_measured"] - table["zero_predicted"]
    found |= {
        ("covariance_error", "covridge"): table["covariance_error"].loc["covridge", "root"],
        ("coverage", "covridge_slow"): table["coverage"].loc["covridge", "slow"],
        ("zero_difference", "sparridge"): zeros.loc["sparridge", "root"],
        ("quantile_distance", "sparridge_slow"): table["quantile_distance"].loc["sparridge", "slow"],
    }
    table = wide(given, "bridge_held").query("penalty == 'car' and truth == 'high'")
    first, last = (table[table["level"] == level].set_index("seed") for level in (0, table["level"].max()))
    found["held_change", "car_high"] = np.log(last["test_rmse"] / first["test_rmse"])
    found["held_share", "car_high"] = last["top_share"] - first["top_share"]
    table = wide(given, "bridge_free").query("penalty == 'car' and relaxations >= 5").set_index("seed")
    found["angle_ratio", "car"] = np.log(table["angle_squared"] / table["predicted_angle_squared"])
    table = wide(given, "walk").query("penalty != 'car' or slowest_times >= 5")
    table = table.set_index(["penalty", "inputs", "seed"]).sort_index()
    narrow = table[table["angle_squared"] <= 0.04**2]
    found |= {
        ("walk_share", "car"): table["top_share"].loc["car", 50],
        ("walk_kurtosis", "l1"): narrow["kurtosis"].loc["l1", 200],
        ("walk_balance", "l1"): table["balance"].loc["l1"],
    }
    thirds = table.loc["l2", 50][["third_low", "third_middle", "third_high"]] - 1
    worst = thirds[thirds.mean().abs().idxmax()]
    found["walk_unevenness", "l2"] = worst * np.sign(worst.mean())
    return found


def test_every_statistic_is_found_again_in_the_published_rows(published: Tables) -> None:
    """The mean over seeds with its t interval; of splits of one data set, which overlap, that of Nadeau and Bengio."""
    found = numbers_by_unit(published)
    shown = {"held_change": lambda log: 100 * np.expm1(log)}
    shown |= dict.fromkeys(("size_ratio", "nonzero_ratio", "angle_ratio"), np.exp)
    overlap = {"energy_ratio": 192 / 576, **dict.fromkeys(("accuracy_difference", "log_loss_difference"), 10 / 28)}
    overlap["accuracy_by_chance"] = 10 / 28
    for (statistic, subject), values in found.items():
        means = values.groupby("seed").mean()
        deviation = means.std() * np.sqrt(1 / len(means) + overlap.get(statistic, 0.0))
        ends = means.mean() + stats.t.ppf(0.95, len(means) - 1) * deviation * np.array([0, -1, 1])
        expected = shown.get(statistic, lambda log: log)(ends)
        if statistic == "walk_unevenness":
            expected = np.maximum(expected, 0)
        estimate = STATISTICS[statistic](Evidence(published, CHECKS), subject)
        assert estimate[:3] == pytest.approx(expected, rel=1e-9, abs=1e-12), (statistic, subject)
    assert {name for name, _ in found} | {"covridge_all_ratio"} == set(STATISTICS)


def test_what_is_missing_or_has_not_relaxed_is_undecidable(published: Tables) -> None:
    for experiment, quantity, statistic, subject, why in [
        ("bridge_free", "relaxations", "angle_ratio", "car", "no run of car has relaxed"),
        ("walk", "slowest_times", "walk_share", "car", "no walk of car"),
        ("walk", "angle_squared", "walk_kurtosis", "l1", "no walk of l1 has angles up to 0.04"),
        ("bridge_held", "", "held_change", "scar_high", "no runs of scar_high"),
        ("simulated", "", "covridge_ratio", "linear_0.5_1", "no runs of linear_0.5_1"),
        ("simulated", "", "covridge_all_ratio", "linear_0.25_2", "no runs with covridge-all"),
    ]:
        metrics, runs = published[experiment]
        metrics = metrics.assign(value=metrics["value"].where(metrics["quantity"] != quantity, 1.0))
        given = Tables(published | {experiment: Experiment(metrics, runs)})
        with pytest.raises(Undecidable, match=why):
            STATISTICS[statistic](Evidence(given, CHECKS), subject)
    with pytest.raises(Undecidable):
        analysis.repeated_splits(pd.Series([1.0, np.nan]), 1, 2)
    empty = Tables({name: Experiment(metrics[:0], runs[:0]) for name, (metrics, runs) in published.items()})
    for name, claim in CLAIMS.items():
        decided = decide(name, claim, Evidence(empty, CHECKS), STATISTICS)
        assert all(part["value"] is None and part["why"] for part in [*decided["parts"], *decided["explored"]])


def draw_splits(rng: np.random.Generator, truth: float) -> Estimate:
    """Repeated splits with the correlation that Nadeau and Bengio assume: their training sets overlap."""
    shared = 192 / (192 + 576)
    values = truth + 0.2 * (shared**0.5 * rng.normal() + (1 - shared) ** 0.5 * rng.normal(size=10))
    return analysis.repeated_splits(pd.Series(values), 192, 576)


def test_wrong_verdicts_on_splits_are_as_rare_as_the_intervals_allow() -> None:
    require_calibrated(draw_splits, (-1.0, 1.0), 1.0, 0.0)


def test_choice_ignores_what_diverged_and_marks_the_ends_of_the_grid() -> None:
    losses = {"l2": {0.1: np.nan, 1.0: 2.0, 10.0: 3.0}, "car": {0.1: 3.0, 1.0: 2.0, 10.0: 1.0}, "none": {0.0: 1.0}}
    rows = [("a", penalty, strength, loss) for penalty in losses for strength, loss in losses[penalty].items()]
    best = analysis.chosen(pd.DataFrame(rows, columns=["run_id", "penalty", "strength", "validation_rmse"]))
    best = best.set_index("penalty")
    assert best["strength"].to_dict() == {"l2": 1.0, "car": 10.0, "none": 0.0}
    assert best["at_end"].to_dict() == {"l2": True, "car": True, "none": False}


@pytest.fixture
def results(published: Tables) -> Results:
    claims = {name: {"title": claim.title, "verdict": "undecided"} for name, claim in CLAIMS.items()}
    return Results(STUDY, published, claims, pd.read_parquet(ROOT / "results/published/norms/checks.parquet"))


def test_tables_name_every_penalty_and_the_data_that_are_missing(results: Results) -> None:
    text = tables.real(results).latex()
    assert text.count("no data here") == 1 and r"\textbf{GSE9476}: no data here" in text
    assert "SCAR" in tables.errors(results).latex()
    text = tables.mse(results).latex()
    assert "Covridge, all layers" in text and r"$\rho=0.25$, $\sigma=0.1$" in text
    assert "a user's file" in tables.provenance(results).latex()
    found = numbers.numbers(results)
    assert found["networks/shrinkage"] == "0.05" and found["wins/cells"] == "8" and "n/a" not in found.values()
    assert r"\leq 10^{-14}" in tables.readings(results).latex()
    assert "n/a" in tables.readings(results._replace(checks=CHECKS)).latex()  # what was not tried


def test_tables_of_speeds_of_what_is_reported_and_of_the_first_registration(results: Results) -> None:
    assert "make bench" in tables.stacking(results).latex()
    speeds = {"networks_per_second": {"stacked": 60.0, "one_by_one": 4.0, "mlp_regressor": 3.0}}
    assert tables.stacking(results._replace(measured=speeds)).rows[0][1:] == ["60", "20.0"]
    items = json.loads((ROOT / "paper/norms/reported.json").read_text())
    assert len(tables.reported(results._replace(measured=items)).rows) == len(items["items"])
    then = json.loads((ROOT / "results/published/norms/first_registration.json").read_text())
    found = tables.first_registration(results._replace(measured=then)).rows
    assert found[5][2:4] == ["reproduced in part", "Covridge in simulations"] and found[8][1] == "--"
    assert [row[3] for row in found[:3]] == ["the same"] * 3
