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
from effective_lr.studies.normalization import statistics, theory
from effective_lr.studies.normalization.analysis import PLANES, settled
from effective_lr.studies.normalization.settings import TYPICAL_GRADIENT
from shared import ROOT, STUDY

CLAIMS = load_claims(ROOT / "paper" / STUDY.name / "claims.yaml")
STATISTICS = verdicts.statistics_of(STUDY)
Values = dict[tuple[str, str], float]  # (statistic, subject): the value that the tables are to have
SEEDS = (1, 2, 3)


def wanted(claim: Claim, holds: bool) -> Values:
    """The middle of each tolerance, or twice its half-width from there; twice a single bound, or half of it."""
    values = {}
    for part in claim.parts:
        low, high = part.within
        if math.isinf(low) or math.isinf(high):
            bound = high if math.isinf(low) else low
            values[part.statistic, part.subject] = 2 * bound if holds else bound / 2
            continue
        side = -1 if high == 100 else 1  # an error cannot be larger than 100 %
        values[part.statistic, part.subject] = (low + high) / 2 + (0 if holds else side * (high - low))
    return values


def frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Runs with these settings, and a little noise in their errors that differs between seeds."""
    usual = {
        "normalization": "batch", "optimizer": "sgd", "lr": 0.16, "l2": 0.0, "momentum": 0.9, "projected": False,
        "initial_norm": 1.0, "norm_eps": 1e-12, "affine_l2": "none", "replay": "none", "steps": 5000,
        "late_fraction": 0.3, "diverged": np.nan, "test_error": 0.15, "late_train_loss": 0.4,
    }  # fmt: skip
    runs = pd.DataFrame([{**usual, **row, "seed": seed} for row in rows for seed in SEEDS])
    runs["test_error"] += 2e-5 * np.sin(np.arange(len(runs)))
    runs["validation_error"] = runs["test_error"]
    runs["run_id"] = [f"run{k}" for k in range(len(runs))]
    return runs


LAYERS = {"conv1": 9.0, "conv2": 144.0, "conv3": 288.0, "linear": 64.0}  # weights in a scale group
WIDEST = max(LAYERS.values())


def metrics(runs: pd.DataFrame, quantities: Callable[[float], dict[str, Any]]) -> pd.DataFrame:
    """What every run measured late, as a function of the size of a layer's scale groups."""
    usual = {
        "late_norm_squared": 1.0, "late_g_squared": 0.01, "late_angle_squared": 1e-4, "late_effective_lr": 1.0,
        "late_without_gradient": 0.0, "layer_l2": runs["l2"],
    }  # fmt: skip
    parts = [
        pd.DataFrame({"run_id": runs["run_id"], "step": 5000, "layer": layer, "quantity": name, "value": value})
        for layer, size in LAYERS.items()
        for name, value in {**usual, "group_size": size, **quantities(size)}.items()
    ]
    return pd.concat(parts, ignore_index=True)


def noise(runs: pd.DataFrame) -> Any:
    return 1 + 1e-4 * np.sin(np.arange(len(runs)))


def of_optimizer(runs: pd.DataFrame, values: Values, statistic: str, usual: float = 0.0) -> pd.Series:
    """The value that a statistic is to have for the optimizer of each run."""
    return runs["optimizer"].map(lambda optimizer: values.get((statistic, optimizer), usual))


def symmetry(values: Values) -> dict[str, Experiment]:
    rows = [
        {"normalization": kind, "initial_norm": a, "test_error": 0.2 + change / 100, "late_train_loss": loss}
        for kind in ("batch", "weight", "layer", "none")
        for a, change, loss in [
            (1.0, 0.0, 0.4),
            (4.0, values["symmetry_error", kind], 0.4 * math.exp(values.get(("symmetry_loss", kind), 0) / 100)),
            (0.5, 0.0, 0.4),
        ]
    ]
    return {"symmetry": Experiment(pd.DataFrame(), frame(rows)), **memorization(values)}


def memorization(values: Values, effect: float = 0.1) -> dict[str, Experiment]:
    """λ = 0, which memorizes, two penalties with their replays, of which the second departs, and the control."""
    error, loss = values["replay_error", "closed replay"] / 100, values["replay_loss", "closed replay"] / 100
    rows: list[dict[str, Any]] = [{"l2": 0.0, "test_error": 0.3 + effect}]
    for l2, departs in [(1e-3, 0), (4e-3, 1)]:
        rows.append({"l2": l2, "test_error": 0.3})
        for replay in ("closed", "open"):
            departed = {"test_error": 0.3 + departs * error, "late_train_loss": 0.4 * math.exp(departs * loss)}
            rows.append({"l2": l2, "replay": replay, **departed})
        gain = (1 - departs) * values["penalty_gain", "none"] / 100
        rows.append({"normalization": "none", "l2": l2, "test_error": 0.5 - gain})
    rows.append({"normalization": "none", "l2": 0.0, "test_error": 0.5})
    return {"memorization": Experiment(pd.DataFrame(), frame(rows))}


def plane_sgd(values: Values) -> dict[str, Experiment]:
    runs = frame([{"lr": lr, "l2": l2} for lr in (0.08, 0.16, 0.32) for l2 in (0.0, 0.004, 0.008)])
    penalized = runs["l2"].where(runs["l2"] > 0, 1e-9)  # λ = 0 does not count
    settings = ("sgd", runs["lr"], penalized, TYPICAL_GRADIENT, 1.0)
    chosen = runs[settled(runs)]
    centre = np.exp(np.log(chosen["lr"] * chosen["l2"]).mean())
    tilt = (runs["lr"] * penalized / centre) ** (values.get(("angle_slope", "sgd"), 0.5) - 0.5)
    angle = theory.equilibrium_angle(*settings) * tilt * values.get(("angle_factor", "sgd"), 1.0)
    norm = theory.equilibrium_norm(*settings) * values.get(("norm_factor", "sgd"), 1.0) ** (1 / 4)
    late = {
        "late_norm_squared": (norm * noise(runs)) ** 2,
        "late_angle_squared": (angle * noise(runs)) ** 2,
        "late_effective_lr": runs["lr"] / norm**2,
        "late_without_gradient": values.get(("lost_share", "sgd"), 0.0),
    }
    return {"plane_sgd": Experiment(metrics(runs, lambda size: late), runs)}


SMALL_STEP_SLOPE = -2.0  # of log(‖w‖⁴ or ‖w‖² over predicted) in the angle


def small_steps(values: Values) -> dict[str, Experiment]:
    grids = {"nesterov": ([0.02, 0.04], [0.001, 0.002, 0.004]), "adamw": ([0.009, 0.018], [0.1, 0.1414, 0.2])}
    runs = [
        frame([{"optimizer": optimizer, "lr": lr, "l2": l2} for lr in rates for l2 in penalties])
        for optimizer, (rates, penalties) in grids.items()
    ]
    parts = []
    for part in runs:
        part["run_id"] = part["optimizer"] + part["run_id"]

        def late(size: float, part: pd.DataFrame = part) -> dict[str, Any]:
            optimizer = part["optimizer"].iloc[0]
            settings = (optimizer, part["lr"], part["l2"], TYPICAL_GRADIENT, size)
            angle = theory.equilibrium_angle(*settings)
            ratio = values.get(("small_step_limit", optimizer), 1.0) * np.exp(SMALL_STEP_SLOPE * angle)
            norm = theory.equilibrium_norm(*settings) * ratio ** (1 / statistics.NORM_POWER[optimizer])
            return {
                "late_norm_squared": (norm * (1 + 1e-2 * (noise(part) - 1))) ** 2,
                "late_angle_squared": angle**2,
                "late_without_gradient": values.get(("lost_share", optimizer), 0.0),
            }

        parts.append(metrics(part, late))
    return {"small_steps": Experiment(pd.concat(parts, ignore_index=True), pd.concat(runs, ignore_index=True))}


def penalties(lr: float, *thetas: float) -> list[float]:
    """λ of the widest layer at these θ of it."""
    return [theta**3 * TYPICAL_GRADIENT / (4 * lr**2 * WIDEST) for theta in thetas]


def layer_penalty(values: Values) -> dict[str, Experiment]:
    """Adam and RMSProp with one θ in all layers, and, called long, with one λ."""
    experiments = {}
    for name, steps, one_theta in [("layer_penalty", 5000, True), ("long", 20000, False)]:
        runs = frame(
            [
                {"optimizer": optimizer, "lr": lr, "l2": l2, "steps": steps}
                for optimizer in ("adam", "rmsprop")
                for lr in (0.003, 0.009)
                for l2 in penalties(lr, 0.02 if one_theta else 0.04, 0.03, 0.045, 0.07, 0.09)
            ]
        )

        def late(size: float, runs: pd.DataFrame = runs, one_theta: bool = one_theta) -> dict[str, Any]:
            layer_l2 = runs["l2"] * WIDEST / size if one_theta else runs["l2"]
            balance = of_optimizer(runs, values, "balance", 1.0)
            exponent = of_optimizer(runs, values, "l2_exponent", 1 / 3)
            in_window = runs["l2"] * runs["lr"] ** 2 * 4 * WIDEST / TYPICAL_GRADIENT
            balance = balance.where((in_window > 0.0239**3) & (in_window < 0.08**3), 7.0)  # must not count
            return {
                "layer_l2": layer_l2,
                "late_norm_to_root": balance * noise(runs) * runs["lr"] / (4 * layer_l2),
                "late_effective_lr": runs["lr"] * layer_l2**exponent * noise(runs),
            }

        experiments[name] = Experiment(metrics(runs, late), runs)
    return experiments


def equilibrium(values: Values) -> dict[str, Experiment]:
    return {**plane_sgd(values), **small_steps(values), **layer_penalty(values)}


def diagonals(values: Values) -> dict[str, Experiment]:
    experiments = {}
    for optimizer in ("sgd", "nesterov", "adam", "rmsprop"):
        s0, s = theory.diagonal_slope(optimizer), values["contour_slope", optimizer]
        rates, l2s = [0.009, 0.027, 0.081], [9e-4, 2.7e-3, 8.1e-3]
        if s0 == 1:
            rates, l2s = [0.01, 0.04, 0.16, 0.64], [0.0005, 0.002, 0.008, 0.032]
        runs = frame([{"optimizer": optimizer, "lr": lr, "l2": l2} for lr in rates for l2 in l2s])
        u = np.log(runs["lr"]) + s0 * np.log(runs["l2"])
        v = np.log(runs["lr"]) - s0 * np.log(runs["l2"])
        logit = -1.7 + 0.2 * u + 0.2 * (s0 - s) / (s0 + s) * v
        runs["test_error"] = 1 / (1 + np.exp(-logit)) + 1e-5 * np.sin(np.arange(len(runs)))
        experiments[PLANES[optimizer]] = Experiment(pd.DataFrame(), runs)
    return experiments


def growth(values: Values) -> dict[str, Experiment]:
    """Two η that grow enough for the slope to count, and one that does not, whose slope must not."""
    runs = frame([{"lr": lr} for lr in (0.04, 0.64, 2.56)])
    slope = np.where(runs["lr"] > 0.1, values["growth_slope", "sgd"], -0.01) * noise(runs)
    late = {
        "growth_ratio_min": 1.0,
        "growth_ratio_max": values["growth_balance", "sgd"],
        "fourth_power_ratio": values["growth_factor", "sgd"] * noise(runs),
        "measured_slope": slope,
        "implied_slope": slope - values["growth_excess", "sgd"] * noise(runs),
    }
    return {"growth": Experiment(metrics(runs, lambda size: late), runs), **plane_sgd({})}


def projection(values: Values) -> dict[str, Experiment]:
    match = values["projected_match", "sgd"]
    cells = [(0.16, 0.0, 15.0), (0.16, 0.1, 15.0), (0.16, 0.3125, 15.0 + values["projected_change", "sgd"])]
    for fraction, departs in [(0.25, 0), (0.5, 1), (0.8, 0), (0.9, 0)]:
        cells += [(0.16, fraction * 3.125, 20 + departs * match), (0.16 / (1 - fraction), 0.0, 20.0)]
    cells += [(0.16, 3.75, values["projected_beyond", "sgd"])]
    rows = [{"projected": True, "lr": lr, "l2": l2, "test_error": error / 100} for lr, l2, error in cells]
    return {"projection_sgd": Experiment(pd.DataFrame(), frame(rows))}


def affine(values: Values) -> dict[str, Experiment]:
    change = values["affine_penalty", "hidden penalty"] / 100
    rows = [{"affine_l2": "none"}, {"affine_l2": "hidden", "test_error": 0.15 + change, "late_train_loss": 0.44}]
    return {"affine_penalty": Experiment(pd.DataFrame(), frame(rows))}


CRITICAL_THETA = 0.12  # of the widest layer


def critical_shifts(ratio: float, exponent: float) -> dict[float, float]:
    """log(critical η²λ) of the layers that lose units, over that of the widest: `ratio` for the next, and for the first
    what gives least squares of all three this exponent."""
    sizes = np.array([LAYERS["conv1"], LAYERS["conv2"], LAYERS["conv3"]])
    x = np.log(sizes) - np.log(sizes).mean()
    first = (exponent * (x @ x) - x[1] * np.log(ratio)) / x[0]
    return dict(zip(sizes, [first, np.log(ratio), 0.0], strict=True))


def lost_units(values: Values) -> dict[str, Experiment]:
    thetas = np.array([0.05 * 2 ** (k / 2) for k in range(8)])
    rows = [
        {"optimizer": name, "lr": 0.009, "l2": l2} for name in ("adam", "rmsprop") for l2 in penalties(0.009, *thetas)
    ]
    runs = frame(rows)
    theta = (4 * runs["lr"] ** 2 * runs["l2"] * WIDEST / TYPICAL_GRADIENT) ** (1 / 3)

    def late(size: float) -> dict[str, Any]:
        share = pd.Series(0.0, index=runs.index)
        for name in ("adam", "rmsprop"):
            shifts = critical_shifts(values["first_lost_layer", name], values["lost_exponent", name])
            if size in shifts:
                above = 3 * np.log(theta / CRITICAL_THETA) - shifts[size]
                share = share.where(runs["optimizer"] != name, (0.5 + above / 4).clip(0, 1))
        share = share.where(theta > 0.051, of_optimizer(runs, values, "lost_share"))
        if size == WIDEST:
            losing = of_optimizer(runs, values, "lost_share_of_widest")
            share = share.where(~np.isclose(theta, 0.2), losing * noise(runs))
        lost_norm = values["lost_norm", "rmsprop"] * runs["lr"] * math.sqrt(size) / 2 * noise(runs)
        return {
            "late_without_gradient": share,
            "lost_norm_squared": lost_norm**2,
            "lost_angle_squared": (values["lost_angle", "rmsprop"] * math.pi * noise(runs)) ** 2,
        }

    return {"lost_units": Experiment(metrics(runs, late), runs), **plane_sgd(values), **small_steps(values)}


MAKERS: dict[str, Callable[[Values], dict[str, Experiment]]] = {
    "C1": lambda values: {},
    "C2": symmetry,
    "C3": lambda values: {},
    "C4": equilibrium,
    "C5": diagonals,
    "C6": growth,
    "C7": layer_penalty,
    "C8": projection,
    "C9": affine,
    "C10": lost_units,
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
    return table.assign(
        **{key: np.nan for key in ("value", "test_error", "validation_error", "late_train_loss") if key in table}
    )


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
        assert part["low"] is part["high"] is part["freedom"] is None
        assert (part["value"] is None) == (reason != verdicts.ONE_SEED), part
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize("name", CLAIMS)
def test_what_is_explored_has_a_value_where_the_claim_holds(name: str) -> None:
    for what in decide(name, evidence(name))["explored"]:
        assert what["value"] is not None and what["low"] is not None, what


def test_what_was_explored_is_no_part_of_a_verdict() -> None:
    whole = evidence("C6")
    assert CLAIMS["C6"].explored
    without = CLAIMS["C6"].model_copy(update={"explored": []})
    first, second = (decide("C6", whole, claim) for claim in (CLAIMS["C6"], without))
    assert {**first, "explored": []} == second


def test_every_statistic_of_the_study_decides_or_explores_something() -> None:
    assert {part.statistic for claim in CLAIMS.values() for part in [*claim.parts, *claim.explored]} == set(STATISTICS)


def test_a_claim_names_the_experiments_that_it_reads() -> None:
    for name, claim in CLAIMS.items():
        assert set(claim.experiments) == set(MAKERS[name](wanted(claim, holds=True))) - IN_COMMON.get(name, set())


IN_COMMON = {"C7": {"long"}}  # what a maker has for another claim


# The unit of an interval, and what it rests on


def parts_of(result: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(part["statistic"], part["subject"]): part for part in [*result["parts"], *result["explored"]]}


@pytest.mark.parametrize(
    ("name", "statistic", "subject", "freedom"),
    [
        ("C1", "invariance", "batch", None),  # a range
        ("C2", "symmetry_error", "batch", 4),  # (3 − 1 cells)(3 − 1 seeds)
        ("C2", "replay_error", "closed replay", 6),  # (2 arms × 2 λ − 1)(3 − 1 seeds)
        ("C4", "angle_slope", "sgd", 2),  # 3 − 1 seeds
        ("C4", "small_step_limit", "nesterov", 2),
        ("C4", "balance", "adam", 2),
        ("C6", "growth_balance", "sgd", None),
        ("C6", "growth_factor", "sgd", 2),
        ("C7", "l2_exponent", "adam", 2),
        ("C8", "projected_match", "sgd", 14),  # (8 − 1 cells)(3 − 1 seeds)
        ("C9", "affine_penalty", "hidden penalty", 2),
        ("C10", "lost_norm", "rmsprop", 2),
    ],
)
def test_an_interval_counts_seeds_and_not_cells(name: str, statistic: str, subject: str, freedom: int | None) -> None:
    assert parts_of(decide(name, evidence(name)))[statistic, subject]["freedom"] == freedom


@pytest.mark.parametrize(
    ("name", "experiment", "part"),
    [
        ("C4", "plane_sgd", ("angle_factor", "sgd")),
        ("C4", "layer_penalty", ("balance", "adam")),
        ("C5", "plane_sgd", ("contour_slope", "sgd")),
        ("C7", "layer_penalty", ("l2_exponent", "rmsprop")),
    ],
)
def test_a_cell_without_every_seed_does_not_count(name: str, experiment: str, part: tuple[str, str]) -> None:
    """Of a plane the cells beside those that a claim rests on have one seed: here every third does."""
    whole = evidence(name)
    metrics, runs = whole.tables[experiment]
    is_alone = runs.groupby(["lr", "l2"]).ngroup() % 3 == 0
    wrong = runs["run_id"][is_alone]
    runs = runs.assign(test_error=runs["test_error"].where(~is_alone, 0.5))[~is_alone | (runs["seed"] == SEEDS[0])]
    if len(metrics):
        metrics = metrics.assign(value=metrics["value"].where(~metrics["run_id"].isin(wrong), 9.0))
    tables = Tables.of({**whole.tables, experiment: Experiment(metrics, runs)})
    parts = parts_of(decide(name, verdicts.Evidence(tables, whole.checks)))
    assert parts[part]["verdict"] == "reproduced"


def with_layer(whole: verdicts.Evidence, layer: str, quantity: str, factor: float) -> verdicts.Evidence:
    """With this quantity of one layer changed by a factor, or by 1 where it is 0, in every experiment."""

    def change(table: pd.DataFrame) -> pd.DataFrame:
        if "layer" not in table:
            return table
        changed = (table["layer"] == layer) & (table["quantity"] == quantity)
        value = (table["value"] * factor).where(table["value"] != 0, factor)
        return table.assign(value=table["value"].where(~changed, value))

    return changed(whole, change, metrics=True)


@pytest.mark.parametrize(
    ("name", "statistic", "subject", "quantity", "factor"),
    [
        ("C4", "angle_factor", "sgd", "late_angle_squared", 1.5),
        ("C4", "norm_factor", "sgd", "late_norm_squared", 0.8),
        ("C4", "small_step_limit", "nesterov", "late_norm_squared", 1.2),
        ("C4", "small_step_limit", "adamw", "late_norm_squared", 1.2),
        ("C4", "balance", "rmsprop", "late_norm_to_root", 1.2),
        ("C6", "growth_balance", "sgd", "growth_ratio_min", 0.99),
        ("C6", "growth_factor", "sgd", "fourth_power_ratio", 1.2),
        ("C6", "growth_slope", "sgd", "measured_slope", 0.4),
        ("C10", "lost_share", "sgd", "late_without_gradient", 4),
        ("C10", "lost_angle", "rmsprop", "lost_angle_squared", 1.5),
    ],
)
@pytest.mark.parametrize("layer", ["conv2", "conv3"])
def test_one_layer_that_fails_is_enough(
    name: str, statistic: str, subject: str, quantity: str, factor: float, layer: str
) -> None:
    result = decide(name, with_layer(evidence(name), layer, quantity, factor))
    assert parts_of(result)[statistic, subject]["verdict"] == "not reproduced"


@pytest.mark.parametrize("name", ["C4", "C6", "C7"])
def test_a_layer_without_equilibrium_is_left_out_and_named(name: str) -> None:
    whole = evidence(name)
    result = decide(name, with_layer(whole, "conv2", "late_without_gradient", 0.06))
    values = [part["value"] for part in decide(name, whole)["parts"]]
    assert [part["value"] for part in result["parts"]] == pytest.approx(values)
    for part in result["parts"]:
        assert "without equilibrium: conv2 in " in part["why"]
    assert result["verdict"] == "reproduced" and "without equilibrium: conv2" in verdicts.tell(result)
    for layer in LAYERS:
        whole = with_layer(whole, layer, "late_without_gradient", 0.06)
    result = decide(name, whole)
    assert {part["why"].split(";")[0] for part in result["parts"]} == {"no layer has an equilibrium"}
    assert decide(name, with_layer(evidence(name), "conv2", "late_without_gradient", 0.05))["why"] == ""


def test_diverged_runs_take_their_cells_with_them_and_are_counted() -> None:
    whole = evidence("C6")
    metrics, runs = whole.tables["growth"]
    first = runs["run_id"].iloc[0]
    runs = runs.assign(diverged=runs["diverged"].where(runs["run_id"] != first, 25.0))
    tables = Tables.of({**whole.tables, "growth": Experiment(metrics[metrics["run_id"] != first], runs)})
    result = decide("C6", verdicts.Evidence(tables, whole.checks))
    assert result["verdict"] == "reproduced" and "1 of 9 runs diverged, and their cells are left out" in result["why"]


# Conditions under which a part says nothing


def test_a_replay_is_compared_on_its_own_seeds() -> None:
    """Where the penalty has a seed more, the replay has the interval that it has without."""
    values = wanted(CLAIMS["C2"], holds=True)
    metrics, runs = memorization(values)["memorization"]
    last = runs["seed"] == runs["seed"].max()
    of_replay = Experiment(metrics, runs[~(last & (runs["replay"] == "open"))])
    of_both = Experiment(metrics, runs[~last])
    found, expected = (
        parts_of(decide("C2", verdicts.Evidence(Tables.of({**symmetry(values), "memorization": one}), pd.DataFrame())))
        for one in (of_replay, of_both)
    )
    for statistic in ("replay_error", "replay_loss"):
        one, other = found[statistic, "open replay"], expected[statistic, "open replay"]
        assert one["value"] is not None
        assert (one["value"], one["low"], one["high"]) == pytest.approx((other["value"], other["low"], other["high"]))


def test_a_replay_is_no_test_where_the_penalty_does_nothing() -> None:
    values = wanted(CLAIMS["C2"], holds=True)
    tables = Tables.of({**symmetry(values), **memorization(values, effect=0.01)})
    parts = parts_of(decide("C2", verdicts.Evidence(tables, pd.DataFrame())))
    for statistic in ("replay_error", "replay_loss"):
        assert parts[statistic, "closed replay"]["verdict"] == "undecided"
        assert "no penalty changes the error by more than 1.5 points" in parts[statistic, "closed replay"]["why"]
    assert parts["penalty_change", "batch"]["value"] == pytest.approx(1, abs=0.02)


def test_the_best_penalty_is_chosen_on_validation() -> None:
    whole = evidence("C2")
    runs = whole.tables["memorization"].runs
    worse = (runs["normalization"] == "none") & (runs["l2"] == 4e-3)
    runs.loc[worse, "validation_error"] = 0.1
    assert STATISTICS["penalty_gain"](whole, "none").value == pytest.approx(0, abs=0.02)


def test_projected_training_needs_its_partner_at_every_fraction() -> None:
    whole = evidence("C8")
    runs = whole.tables["projection_sgd"].runs
    tables = Tables.of({"projection_sgd": Experiment(pd.DataFrame(), runs[~np.isclose(runs["lr"], 0.8)])})
    part = parts_of(decide("C8", verdicts.Evidence(tables, whole.checks)))["projected_match", "sgd"]
    assert (part["verdict"], part["why"]) == ("undecided", "no pair of runs at 0.8 λc")


def test_most_units_are_to_be_lost_only_in_enough_steps() -> None:
    whole = evidence("C10")
    runs = whole.tables["lost_units"].runs
    tables = Tables.of(
        {**whole.tables, "lost_units": whole.tables["lost_units"]._replace(runs=runs.assign(steps=1000))}
    )
    parts = parts_of(decide("C10", verdicts.Evidence(tables, whole.checks)))
    assert parts["lost_share_of_widest", "adam"]["why"] == "predicted for 5000 steps"
    assert parts["lost_share", "adam"]["verdict"] == "reproduced"


def test_steps_are_extrapolated_to_0_and_the_slope_is_shown() -> None:
    parts = parts_of(decide("C4", evidence("C4")))
    assert parts["small_step_slope", "adamw"]["value"] == pytest.approx(SMALL_STEP_SLOPE, abs=0.1)
    for optimizer in ("nesterov", "adamw"):
        assert parts["small_step_limit", optimizer]["value"] == pytest.approx(1, abs=0.005)


def test_a_gradient_that_rises_as_the_rate_falls_slows_the_decay() -> None:
    x, whole = 0.4, evidence("C6")
    metrics, runs = whole.tables["plane_sgd"]
    rates = metrics[metrics["quantity"] == "late_effective_lr"].set_index(["run_id", "layer"])["value"]
    keys = pd.MultiIndex.from_frame(metrics[["run_id", "layer"]])
    g_squared = pd.Series(0.01 * rates.reindex(keys).to_numpy() ** -x, index=metrics.index)
    metrics = metrics.assign(value=metrics["value"].where(metrics["quantity"] != "late_g_squared", g_squared))
    tables = Tables.of({**whole.tables, "plane_sgd": Experiment(metrics, runs)})
    found = STATISTICS["growth_slope_predicted"](verdicts.Evidence(tables, whole.checks), "sgd")
    assert found.value == pytest.approx(-1 / (2 - x))
