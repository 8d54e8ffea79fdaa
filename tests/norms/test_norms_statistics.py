"""Every statistic of the chapter on tables whose answer is known, and on empty ones; the tables on published runs."""

import itertools
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from effective_lr.document.table import Results
from effective_lr.engine.contents import load_claims
from effective_lr.evidence import tidy
from effective_lr.evidence.estimates import Estimate, Undecidable
from effective_lr.evidence.tidy import Experiment, Tables
from effective_lr.evidence.verdicts import NOT_REPRODUCED, REPRODUCED, Evidence, decide, statistics_of
from effective_lr.studies.norms import STUDY, analysis, numbers, tables
from effective_lr.studies.norms.settings import Run, parse_arms
from shared import ROOT, published_layout, require_calibrated

CLAIMS = load_claims(ROOT / "paper/norms/claims.yaml")
STATISTICS = statistics_of(STUDY)
CHECKS = pd.DataFrame(columns=["check", "subject", "seed", "holds", "value"])
Values = Callable[[Run, str, float], dict[str, float]]  # of an arm, by quantity


def experiment(runs: list[Run], values: Values) -> Experiment:
    """The tables of runs, of whose arms `values` were measured; of tuned runs the chosen arms."""
    rows: list[tuple[Any, ...]] = []
    for run in runs:
        for arm in parse_arms(run.arms):
            layer = arm.penalty if run.kind == "tuned" else arm.name
            measured = values(run, arm.penalty, arm.strength)
            rows += [(run.run_id, run.steps, layer, quantity, value) for quantity, value in measured.items()]
    metrics = pd.DataFrame(rows, columns=["run_id", "step", "layer", "quantity", "value"])
    lines = [{**run.model_dump(), "run_id": run.run_id, "diverged": np.nan} for run in runs]
    return Experiment(metrics, pd.DataFrame(lines, columns=[*Run.model_fields, "run_id", "diverged"]))


# Tables whose answer is known. Losses share a noise, by the seed and the part, that ratios must cancel; a drift of 1 %
# a seed gives them a spread. Validation chooses the strength 0.1; the other one has far less test error.


def noisy(run: Run, mean: float) -> float:
    return mean * (1 + 0.05 * np.random.default_rng([run.seed, run.part]).normal())


def drift(run: Run) -> float:
    return 1 + 0.01 * (run.seed % 1000)


def alignment(run: Run, penalty: str, strength: float) -> dict[str, float]:
    correlated = {("car", "high"): 1.5, ("car", "low"): 0.5}
    factor = correlated.get((penalty, run.truth), 1.0) if run.rho else {"car": 1.2}.get(penalty, 1.0)
    factor *= 1.0 if penalty == "l2" else drift(run)
    return {"validation_rmse": strength, "test_rmse": noisy(run, factor) if strength == 0.1 else 0.01}


# What a penalty changes: the best standard one by held-out loss is ridge+, though lasso+ has the lower risk.
CHANGES = {"covridge": 0.9, "sparridge": 0.8, "covridge-all": 0.7, "sparridge-all": 0.6, "lasso+": 0.5, "ridge": 1.2}


def tuned(run: Run, penalty: str, strength: float, changes: dict[str, float] = CHANGES) -> dict[str, float]:
    own = penalty.startswith(("cov", "spar"))
    root = noisy(run, changes.get(penalty, 1.0) * (drift(run) if own else 1.0))
    size = 100 * (changes[penalty] * drift(run) if own else 1.0)
    found = {"cv_loss": 0.1 if penalty == "ridge+" else 0.2, "w1_squared": size, "nonzeros": size - 1}
    return found | {"risk": root**2, "test_mse": root**2, "train_mse": root**2 * (1 - 0.1 * size / 100)}


def theorem(run: Run, penalty: str, strength: float) -> dict[str, float]:
    slow, little = run.scaling == "slow", 0.0001 * (run.seed % 10)
    zeros = {"zero_measured": 0.5 + little, "zero_predicted": 0.5}
    distances = {"covariance_error": 0.02 * drift(run), "quantile_distance": (5 if slow else 0.07) * drift(run)}
    return {**zeros, **distances, "coverage": 0.7 if slow else 0.895 + little}


def held(run: Run, penalty: str, strength: float) -> dict[str, float]:
    moves = penalty == "car" and run.truth == "high"
    factor = {0.0: 1.0, 0.1: 9.0, 0.5: 1.4}[strength] if moves else 1.0
    return {"test_rmse": noisy(run, factor), "top_share": 0.9 - (strength if moves else 0)}


def free(run: Run, penalty: str, strength: float) -> dict[str, float]:
    ratio, relaxations = (1.02 * drift(run), 6.0) if strength > 0.01 else (0.5, 4.9)
    return {"angle_squared": 1e-3 * ratio, "predicted_angle_squared": 1e-3, "relaxations": relaxations}


def walk(run: Run, penalty: str, strength: float) -> dict[str, float]:
    slow = penalty == "car" and strength == 0.01
    kurtosis, angle = (5.7 if strength == 0.001 else 4.0) * drift(run), strength if penalty == "l1" else 1e-3
    found = {"kurtosis": kurtosis, "angle_squared": angle, "slowest_times": 1.0 if slow else 6.0}
    thirds = {"third_low": 1 - 0.2 * drift(run), "third_middle": 1.0, "third_high": 1.1}
    return {**found, **thirds, "top_share": (0.3 if slow else 0.1) * drift(run), "balance": drift(run)}


CELLS = [(0.9, "high"), (0.9, "low"), (0.0, "dense")]
TUNED = {"kind": "tuned", "folds": 5, "arms": "none: 0; ridge ridge+ lasso lasso+ elastic covridge sparridge: 0.1"}
DESIGN = {**TUNED, "correlation": "equal", "inputs": 20, "support": 10}
ENERGY = {**TUNED, "data": "cooling-load", "split": "random", "train_size": 576, "test_size": 192}
D1 = [
    {**DESIGN, "truth": truth, "rho": rho, "noise": noise}
    for truth, rho, noise in itertools.product(("linear", "sine"), (0.25, 0.75), (0.1, 2.0))
]
ALL = [{**cell, "arms": "covridge-all sparridge-all: 1"} for cell in D1 if (cell["rho"], cell["noise"]) == (0.75, 2.0)]
BRIDGE = {"kind": "bridge", "rho": 0.9, "momentum": 0.0}
WALK = {"kind": "walk", "rho": 0.8, "momentum": 0.0}
THEOREM = {"kind": "theorem", "inputs": 8, "arms": "covridge: 0.5,0.5; sparridge: 0.5,1.5"}
KNOWN: dict[str, tuple[Values, list[dict[str, Any]]]] = {  # the settings of the runs of one seed
    "alignment": (
        alignment,
        [{"kind": "network", "rho": rho, "truth": t, "arms": "l2 car inverse: 0.1 1"} for rho, t in CELLS],
    ),
    "simulated": (tuned, D1),
    "simulated_all": (tuned, ALL),
    "energy": (tuned, [ENERGY]),
    "energy_small": (tuned, [{**ENERGY, "split": "disjoint", "train_size": 60, "part": part} for part in (0, 1)]),
    "theorems": (theorem, [{**THEOREM, "scaling": scaling} for scaling in ("root", "slow")]),
    "bridge_held": (held, [{**BRIDGE, "truth": t, "arms": "l2 car: 0 0.1 0.5"} for t in ("high", "low", "sparse")]),
    "bridge_free": (free, [{**BRIDGE, "held": False, "truth": "sparse", "arms": "l2: 0.01 0.1; car: 0.01"}]),
    "walk": (
        walk,
        [{**WALK, "inputs": 50, "arms": "l2 car: 0.01 0.1"}, {**WALK, "inputs": 200, "arms": "l1: 0.001 0.1"}],
    ),
}


EMPTY = experiment([], alignment)


def known(changes: dict[str, float] = CHANGES, **replaced: list[dict[str, Any]]) -> Evidence:
    """Five seeds of all experiments, of which some have other settings."""

    def of(run: Run, penalty: str, strength: float) -> dict[str, float]:
        return tuned(run, penalty, strength, changes)

    made = {"leukemia": EMPTY, "leak": EMPTY}
    for name, (values, cells) in KNOWN.items():
        runs = [Run(**settings, seed=2000 + seed) for settings in replaced.get(name, cells) for seed in range(5)]
        made[name] = experiment(runs, of if values is tuned else values)
    return Evidence(Tables(made), CHECKS)


@pytest.fixture(scope="module")
def five() -> Evidence:
    return known()


def test_statistics_find_what_the_tables_hold(five: Evidence) -> None:
    drifted = 1 + 0.01 * np.arange(5)
    log_drift = np.log(drifted).mean()
    expected = {
        ("log_ratio", "car_high"): np.log(1.5) + log_drift,
        ("log_ratio", "car_low"): np.log(0.5) + log_drift,
        ("log_ratio", "inverse_high"): log_drift,
        ("log_ratio_independent", "car_dense"): np.log(1.2) + log_drift,
        ("covridge_ratio", "linear_0.25_0.1"): np.log(0.9) + log_drift,
        ("covridge_to_ridge", "sine_0.75_2"): np.log(0.9 / 1.2) + log_drift,
        ("sparridge_to_lasso", "linear_0.25_2_lasso"): np.log(0.8 / 0.5) + log_drift,
        ("sparridge_all_ratio", "linear_0.75_2"): np.log(0.6) + log_drift,
        ("energy_ratio", "covridge"): np.log(0.9) + log_drift,
        ("small_ratio", "sparridge"): np.log(0.8) + log_drift,
        ("pooled_ratio", "covridge_0.1"): np.log(0.9) + log_drift,
        ("size_ratio", "covridge_2"): 0.9 * np.exp(log_drift),
        ("nonzero_ratio", "sparridge_2"): 0.8 * np.exp(log_drift),
        ("coverage", "covridge"): 0.8952,
        ("zero_difference", "sparridge"): 0.0002,
        ("held_change", "car_high"): 40,
        ("held_change", "l2_high"): 0,
        ("held_share", "car_high"): -0.5,
        ("held_share", "l2_sparse"): 0,
        ("angle_ratio", "l2"): 1.02 * np.exp(log_drift),
        ("walk_share", "car"): 0.1 * drifted.mean(),  # without the slow arm
        ("walk_unevenness", "l2"): 0.2 * drifted.mean(),  # the third that departs most
        ("walk_kurtosis", "l1"): 5.7 * drifted.mean(),
        ("walk_balance", "l1"): drifted.mean(),
    }
    for (statistic, subject), value in expected.items():
        found = STATISTICS[statistic](five, subject)
        assert found.value == pytest.approx(value, abs=1e-9), (statistic, subject)
        assert found.low - 1e-9 <= value <= found.high + 1e-9 and np.isfinite(found.high)
    # Disjoint sets of one shuffle are averaged, and cells of one seed.
    for statistic, subject in (("small_ratio", "covridge"), ("pooled_ratio", "covridge_2")):
        assert STATISTICS[statistic](five, subject).freedom == 4
    # Splits of one data set overlap: the interval of Nadeau and Bengio, with t of 4 degrees of freedom at 95 %.
    splits = STATISTICS["energy_ratio"](five, "covridge")
    margin = 2.132 * np.log(drifted).std(ddof=1) * np.sqrt(1 / 5 + 192 / 576)
    assert splits.high - splits.value == pytest.approx(margin, rel=1e-3)


def test_what_is_missing_or_has_not_relaxed_is_undecidable(five: Evidence) -> None:
    for statistic, subject, why in [
        ("held_change", "scar_high", "no runs of scar_high"),
        ("angle_ratio", "car", "no run of car has relaxed"),
        ("covridge_ratio", "linear_0.5_1", "no runs of linear_0.5_1"),
        ("covridge_all_ratio", "linear_0.25_2", "no runs with covridge-all"),
        ("walk_share", "car", "no walk of car"),
    ]:
        given = known(walk=[{**WALK, "arms": "car: 0.01"}]) if statistic == "walk_share" else five
        with pytest.raises(Undecidable, match=why):
            STATISTICS[statistic](given, subject)
    with pytest.raises(Undecidable):
        analysis.repeated_splits(pd.Series([1.0, np.nan]), 1, 2)
    nothing = Evidence(Tables(dict.fromkeys([*KNOWN, "leukemia", "leak"], EMPTY)), CHECKS)
    for name, claim in CLAIMS.items():
        found = decide(name, claim, nothing, STATISTICS)
        assert all(part["value"] is None and part["why"] for part in [*found["parts"], *found["explored"]])


def test_claims_of_the_second_registration_are_reproduced_where_they_are_true_and_not_where_they_are_false() -> None:
    """With the lasso as good as ridge+, which Sparridge must beat, too."""
    fair = CHANGES | {"lasso+": 1.0}
    false = {name: change if name in ("ridge", "lasso+") else 1 / change for name, change in fair.items()}
    theorems = known().tables["theorems"]
    swapped = theorems.runs.assign(scaling=theorems.runs["scaling"].map({"root": "slow", "slow": "root"}))
    wrong = Tables(known(false).tables | {"theorems": theorems._replace(runs=swapped)})
    for given, verdict in [(known(fair), REPRODUCED), (Evidence(wrong, CHECKS), NOT_REPRODUCED)]:
        for name in ("N4", "N6", "N7", "N8", "N9"):
            assert decide(name, CLAIMS[name], given, STATISTICS)["verdict"] == verdict, name
            assert CLAIMS[name].seeds_from == 2000


def draw_splits(rng: np.random.Generator, truth: float) -> Estimate:
    """Repeated splits with the correlation that Nadeau and Bengio assume: their training sets overlap."""
    shared = 192 / (192 + 576)
    values = truth + 0.2 * (shared**0.5 * rng.normal() + (1 - shared) ** 0.5 * rng.normal(size=10))
    return analysis.repeated_splits(pd.Series(values), 192, 576)


def test_wrong_verdicts_on_splits_are_as_rare_as_the_intervals_allow() -> None:
    require_calibrated(draw_splits, (-1.0, 1.0), 1.0, 0.0)


def test_choice_ignores_what_diverged_and_marks_the_ends_of_the_grid() -> None:
    losses = {"l2": {0.1: np.nan, 1.0: 2.0, 10.0: 3.0}, "car": {0.1: 3.0, 1.0: 2.0, 10.0: 1.0}, "none": {0.0: 1.0}}
    run = Run(kind="network", truth="low", arms="l2 car: 0.1 1 10; none: 0", seed=0)
    given = experiment([run], lambda _, penalty, strength: {"validation_rmse": losses[penalty][strength]})
    best = analysis.chosen(analysis.arms(given)).set_index("penalty")
    assert best["strength"].to_dict() == {"l2": 1.0, "car": 10.0, "none": 0.0}
    assert best["at_end"].to_dict() == {"l2": True, "car": True, "none": False}


@pytest.fixture(scope="module")
def results() -> Results:
    """What is published; of one experiment there are no data."""
    layout = published_layout()
    found = tidy.read(layout.chapters["norms"], layout.tables("norms"))
    checks = pd.read_parquet(ROOT / "results/published/norms/checks.parquet")
    claims = {name: {"title": claim.title, "verdict": "undecided"} for name, claim in CLAIMS.items()}
    return Results(STUDY, Tables(found | {"leukemia": EMPTY}), claims, checks)


def test_tables_name_every_penalty_and_the_data_that_are_missing(results: Results) -> None:
    text = tables.real(results).latex()
    assert text.count("no data here") == 2 and "{Leukemia (Golub)}: no data here" in text  # GSE9476 is nobody's here
    assert "SCAR" in tables.errors(results).latex()
    text = tables.mse(results).latex()
    assert "Covridge, all layers" in text and r"$\rho=0.25$, $\sigma=0.1$" in text
    assert "a user's file" in tables.provenance(results).latex()
    found = numbers.numbers(results)
    assert found["networks/shrinkage"] == "0.05" and found["wins/cells"] == "8" and "n/a" not in found.values()
    assert "10^{-14}" in tables.readings(results).latex()
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
