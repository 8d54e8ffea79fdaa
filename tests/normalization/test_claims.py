"""Verdicts follow the data: each claim on tables where it holds, where it fails, and where nothing can be said."""

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from effective_lr.engine.contents import Claim, load_claims
from effective_lr.evidence import verdicts
from effective_lr.evidence.tidy import Experiment, Tables
from effective_lr.studies.normalization import theory
from effective_lr.studies.normalization.analysis import PLANES, on_contours
from effective_lr.studies.normalization.statistics import LAST_LAYER, NORM_POWER
from shared import ROOT, STUDY

CLAIMS = load_claims(ROOT / "paper" / STUDY.name / "claims.yaml")
STATISTICS = verdicts.statistics_of(STUDY)
Values = dict[tuple[str, str], float]  # (statistic, subject): the value that the tables are to have
SEEDS = (1, 2, 3)


def wanted(claim: Claim, holds: bool) -> Values:
    """The middle of each tolerance, or twice its half-width from there; twice a single bound, or 0."""
    values = {}
    for part in claim.parts:
        low, high = part.within
        middle, width = (2 * low, -2 * low) if math.isinf(high) else ((low + high) / 2, high - low)
        side = -1 if high == 100 else 1  # an error cannot be larger than 100 %
        values[part.statistic, part.subject] = middle if holds else middle + side * width
    return values


def frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Runs with these settings, and a little noise in their errors that differs between seeds."""
    usual = {
        "normalization": "batch", "optimizer": "sgd", "lr": 0.16, "l2": 0.0, "momentum": 0.9, "projected": False,
        "initial_norm": 1.0, "norm_eps": 1e-12, "affine_l2": "none", "steps": 5000, "late_fraction": 0.3,
        "diverged": np.nan, "test_error": 0.15, "late_train_loss": 0.4,
    }  # fmt: skip
    runs = pd.DataFrame([{**usual, **row, "seed": seed} for row in rows for seed in SEEDS])
    runs["test_error"] += 1e-4 * np.sin(np.arange(len(runs)))
    runs["run_id"] = [f"run{k}" for k in range(len(runs))]
    return runs


LAYERS = ("conv1", "conv2", "linear")


def metrics(runs: pd.DataFrame, quantities: dict[str, Any], step: Any = 5000) -> pd.DataFrame:
    """These quantities of every run, alike in all layers."""
    parts = [
        pd.DataFrame({"run_id": runs["run_id"], "step": step, "layer": layer, "quantity": name, "value": value})
        for name, value in quantities.items()
        for layer in LAYERS
    ]
    return pd.concat(parts, ignore_index=True)


def symmetry(values: Values) -> dict[str, Experiment]:
    rows = [
        {"normalization": kind, "initial_norm": a, "test_error": 0.2 + change / 100, "late_train_loss": loss}
        for kind in ("batch", "none")
        for a, change, loss in [
            (1.0, 0.0, 0.4),
            (4.0, values["symmetry_error", kind], 0.4 * math.exp(values.get(("symmetry_loss", kind), 0) / 100)),
            (0.5, 0.0, 0.4),
        ]
    ]
    return {"symmetry": Experiment(pd.DataFrame(), frame(rows))}


def equilibrium(values: Values) -> dict[str, Experiment]:
    experiments = {}
    for optimizer, power in NORM_POWER.items():
        rates = [0.003, 0.009, 0.027] if power < 4 else [0.08, 0.16, 0.32]
        penalties = {"adamw": [0.1, 0.3, 0.9], "sgd": [0.004, 0.008]}.get(optimizer, [0.0008, 0.004, 0.01])
        runs = frame([{"optimizer": optimizer, "lr": lr, "l2": l2} for lr in rates for l2 in penalties])
        grad, size = 0.1, 144.0
        settings = (optimizer, runs["lr"], runs["l2"], grad, size, runs["momentum"])
        chosen = runs[on_contours(runs)]
        centre = np.exp(np.log(chosen["lr"] * chosen["l2"]).mean())
        tilt = (runs["lr"] * runs["l2"] / centre) ** (values.get(("angle_slope", optimizer), 0.5) - 0.5)
        angle = theory.equilibrium_angle(*settings) * tilt * values.get(("angle_factor", optimizer), 1.0)
        norm = theory.equilibrium_norm(*settings) * values["norm_factor", optimizer] ** (1 / power)
        noise = 1 + 1e-3 * np.sin(np.arange(len(runs)))
        table = metrics(
            runs,
            {
                "late_norm_squared": (norm * noise) ** 2,
                "late_g_squared": grad**2,
                "late_angle_squared": (angle * noise) ** 2,
                "late_effective_lr": 1.0,
                "group_size": size,
            },
        )
        experiments[PLANES[optimizer]] = Experiment(table, runs)
    return experiments


def diagonals(values: Values) -> dict[str, Experiment]:
    experiments = {}
    for optimizer in ("sgd", "nesterov", "adam", "rmsprop"):
        s0, s = theory.diagonal_slope(optimizer), values["contour_slope", optimizer]
        rates, penalties = [0.009, 0.027, 0.081], [9e-4, 2.7e-3, 8.1e-3]
        if s0 == 1:
            rates, penalties = [0.01, 0.04, 0.16, 0.64], [0.0005, 0.002, 0.008, 0.032]
        runs = frame([{"optimizer": optimizer, "lr": lr, "l2": l2} for lr in rates for l2 in penalties])
        u = np.log(runs["lr"]) + s0 * np.log(runs["l2"])
        v = np.log(runs["lr"]) - s0 * np.log(runs["l2"])
        logit = -1.7 + 0.2 * u + 0.2 * (s0 - s) / (s0 + s) * v
        runs["test_error"] = 1 / (1 + np.exp(-logit)) + 1e-5 * np.sin(np.arange(len(runs)))
        experiments[PLANES[optimizer]] = Experiment(pd.DataFrame(), runs)
    return experiments


def growth(values: Values) -> dict[str, Experiment]:
    runs = frame([{"lr": lr} for lr in (0.64, 2.56)])
    noise = 1 + 1e-3 * np.sin(np.arange(len(runs)))
    parts = [
        metrics(
            runs,
            {"effective_lr": step ** values["growth_slope", "sgd"] * noise ** np.log(step), "g_squared": 0.1},
            step,
        )
        for step in (1000, 2500, 3000, 4000, 5000)
    ]
    return {"growth": Experiment(pd.concat(parts), runs)}


def penalty_exponent(values: Values) -> dict[str, Experiment]:
    experiments = {}
    for optimizer in ("adam", "rmsprop"):
        runs = frame([{"optimizer": optimizer, "lr": r, "l2": p} for r in (0.027, 0.081) for p in (1e-3, 2e-3, 5e-3)])
        rate = runs["lr"] * runs["l2"] ** values["l2_exponent", optimizer] * (1 + 1e-3 * np.sin(np.arange(len(runs))))
        late = dict.fromkeys(("late_norm_squared", "late_g_squared", "late_angle_squared", "group_size"), 1.0)
        experiments[PLANES[optimizer]] = Experiment(metrics(runs, {**late, "late_effective_lr": rate}), runs)
    return experiments


def projection(values: Values) -> dict[str, Experiment]:
    rows = [
        {"projected": True, "l2": l2, "test_error": error / 100}
        for l2, error in [
            (0.0, 15.0),
            (0.1, 15.0),
            (0.3125, 15.0 + values["projected_change", "sgd"]),
            (3.75, values["projected_beyond", "sgd"]),
        ]
    ]
    return {"projection_sgd": Experiment(pd.DataFrame(), frame(rows))}


def affine(values: Values) -> dict[str, Experiment]:
    change = values["affine_penalty", "hidden penalty"] / 100
    rows = [{"affine_l2": "none"}, {"affine_l2": "hidden", "test_error": 0.15 + change}]
    return {"affine_penalty": Experiment(pd.DataFrame(), frame(rows))}


MAKERS: dict[str, Callable[[Values], dict[str, Experiment]]] = {
    "C1": lambda values: {},
    "C2": symmetry,
    "C3": lambda values: {},
    "C4": equilibrium,
    "C5": diagonals,
    "C6": growth,
    "C7": penalty_exponent,
    "C8": projection,
    "C9": affine,
}


def evidence(name: str, holds: bool = True) -> verdicts.Evidence:
    values = wanted(CLAIMS[name], holds)
    rows = [
        {"check": statistic, "subject": subject, "seed": seed, "value": value * (1 + 1e-6 * seed) + 1e-15}
        for (statistic, subject), value in values.items()
        for seed in SEEDS
        if statistic in ("invariance", "affine_invariance", "norm_exponent")
    ]
    return verdicts.Evidence(
        Tables.of(MAKERS[name](values)), pd.DataFrame(rows, columns=["check", "subject", "seed", "value"])
    )


def changed(
    whole: verdicts.Evidence, change: Callable[[pd.DataFrame], pd.DataFrame], metrics: bool = False
) -> verdicts.Evidence:
    """With this change of the runs and checks, and of the metrics if so asked."""
    tables = {
        name: Experiment(change(one.metrics) if metrics else one.metrics, change(one.runs))
        for name, one in whole.tables.items()
    }
    return verdicts.Evidence(Tables.of(tables), change(whole.checks))


def decide(name: str, whole: verdicts.Evidence, claim: Claim | None = None) -> dict[str, Any]:
    return verdicts.decide(name, claim or CLAIMS[name], whole, STATISTICS)


def one_seed(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["seed"] == SEEDS[0]]


def without_values(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(**{key: np.nan for key in ("value", "test_error", "late_train_loss") if key in table})


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_that_holds_is_reproduced(name: str) -> None:
    result = decide(name, evidence(name))
    assert {part["verdict"] for part in result["parts"]} == {"reproduced"}, verdicts.tell(result)
    assert (result["verdict"], result["why"]) == ("reproduced", "")
    for part in result["parts"]:
        expected = wanted(CLAIMS[name], holds=True)[part["statistic"], part["subject"]]
        assert part["value"] == pytest.approx(expected, rel=0.03, abs=0.02)


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_that_fails_is_not_reproduced(name: str) -> None:
    result = decide(name, evidence(name, holds=False))
    assert {part["verdict"] for part in result["parts"]} == {"not reproduced"}, verdicts.tell(result)
    assert result["verdict"] == "not reproduced"


@pytest.mark.parametrize(
    ("change", "metrics", "reason"),
    [
        (lambda table: table.iloc[:0], False, "no runs in|no check was run"),
        (without_values, True, "not a number"),
        (one_seed, False, verdicts.ONE_SEED),
    ],
    ids=["empty", "nan", "single seed"],
)
@pytest.mark.parametrize("name", CLAIMS)
def test_where_nothing_can_be_said_a_claim_is_undecided(name: str, change: Any, metrics: bool, reason: str) -> None:
    result = decide(name, changed(evidence(name), change, metrics))
    assert result["verdict"] == "undecided"
    for part in result["parts"]:
        assert part["verdict"] == "undecided"
        assert pd.Series([part["why"]]).str.contains(reason).all(), part["why"]
        assert part["low"] is part["high"] is None
        assert (part["value"] is None) == (reason != verdicts.ONE_SEED), part
    json.dumps(result, allow_nan=False)


def without_gradient(table: pd.DataFrame) -> pd.DataFrame:
    """The hidden layers as units are that got no gradient: shrunk to nothing."""
    if "layer" not in table:
        return table
    lost = (table["layer"] != LAST_LAYER) & table["quantity"].isin(["late_g_squared", "late_norm_squared"])
    rates = (table["layer"] != LAST_LAYER) & (table["quantity"] == "late_effective_lr")
    return table.assign(value=table["value"].where(~lost, 0.0).where(~rates, np.inf))


@pytest.mark.parametrize("name", ["C4", "C7"])
def test_layers_without_a_gradient_are_named_and_leave_the_last_layer_to_explore(name: str) -> None:
    whole = decide(name, evidence(name))
    result = decide(name, changed(evidence(name), without_gradient, metrics=True))
    assert result["verdict"] == "undecided"
    assert "runs most units of a layer have no gradient" in verdicts.tell(result)
    assert [what["value"] for what in whole["explored"]] == [what["value"] for what in result["explored"]]
    assert result["explored"] and None not in [what["low"] for what in result["explored"]]


def test_what_was_explored_is_no_part_of_a_verdict() -> None:
    whole = evidence("C7")
    explored = CLAIMS["C7"].explored
    assert explored and not {what.statistic for what in explored} & {part.statistic for part in CLAIMS["C7"].parts}
    without = CLAIMS["C7"].model_copy(update={"explored": []})
    first, second = (decide("C7", whole, claim) for claim in (CLAIMS["C7"], without))
    assert {**first, "explored": []} == second


def test_every_statistic_of_the_study_decides_or_explores_something() -> None:
    assert {part.statistic for claim in CLAIMS.values() for part in [*claim.parts, *claim.explored]} == set(STATISTICS)
