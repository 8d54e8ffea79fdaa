"""Verdicts follow the data: each claim on tables where it holds, where it fails, and where nothing can be said."""

import json
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

from effective_lr.engine.contents import Claim, load_claims
from effective_lr.evidence import estimates, verdicts
from effective_lr.evidence.tidy import Experiment, Tables
from effective_lr.studies.normalization import statistics, theory
from effective_lr.studies.normalization.analysis import PLANES, settled
from effective_lr.studies.normalization.settings import TYPICAL_GRADIENT
from shared import ROOT, STUDY

CLAIMS = load_claims(ROOT / "paper" / STUDY.name / "claims.yaml")
STATISTICS = verdicts.statistics_of(STUDY)
Values = dict[tuple[str, str], float]  # (statistic, subject): the value that the tables are to have
SEEDS = (301, 302, 303)


def wanted(claim: Claim, holds: bool) -> Values:
    """The middle of each tolerance, or twice its half-width from there; twice a single bound, or half of it."""
    values = {}
    for part in claim.parts:
        low, high = part.within
        if math.isinf(low) or math.isinf(high):
            bound = high if math.isinf(low) else low
            values[part.name, part.subject] = 2 * bound if holds else bound / 2
            continue
        side = -1 if high == 100 or part.name == "equilibrium_share" else 1  # no error is above 100 %, no share above 1
        values[part.name, part.subject] = (low + high) / 2 + (0 if holds else side * (high - low))
    return values


def frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Runs with these settings, and a little noise in their errors that differs between seeds."""
    usual = {
        "normalization": "batch", "optimizer": "sgd", "lr": 0.16, "l2": 0.0, "momentum": 0.9, "projected": False,
        "initial_norm": 1.0, "norm_eps": 1e-12, "affine_l2": "none", "replay": "none", "steps": 5000, "width": 16,
        "late_fraction": 0.3, "diverged": np.nan, "test_error": 0.15, "late_train_loss": 0.4,
        "starts_at_equilibrium": False, "corrected_squares": False,
    }  # fmt: skip
    runs = pd.DataFrame([{**usual, **row, "seed": seed} for row in rows for seed in SEEDS])
    runs["test_error"] += 2e-5 * np.sin(np.arange(len(runs)))
    runs["validation_error"] = runs["test_error"]
    runs["run_id"] = [f"run{k}" for k in range(len(runs))]
    return runs


def evaluated(runs: pd.DataFrame) -> Experiment:
    """With three late evaluations of each run, one of them far off, of which the median is its test error."""
    parts = [
        pd.DataFrame({"run_id": runs["run_id"], "step": step, "layer": "", "quantity": "test_error", "value": value})
        for step, value in [(4000, runs["test_error"]), (4500, 0.7), (5000, 0.9 * runs["test_error"])]
    ]
    middle = [parts[0], parts[1], parts[2].assign(value=parts[0]["value"])]
    return Experiment(pd.concat(middle, ignore_index=True), runs)


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
    return {"symmetry": evaluated(frame(rows)), **memorization(values)}


def memorization(values: Values, effect: float = 3.0) -> dict[str, Experiment]:
    """λ = 0, which memorizes, two penalties with their replays, which depart as the worst and the mean are to, and the
    control. `effect`: the factor of the training loss by the penalties."""
    slow = "slow replay"
    error, mean_error = (values[what, slow] / 100 for what in ("replay_error", "replay_error_mean"))
    loss, mean_loss = (math.log(values[what, slow]) for what in ("replay_loss", "replay_loss_mean"))
    rows: list[dict[str, Any]] = [{"l2": 0.0, "test_error": 0.4, "late_train_loss": 0.4 / effect}]
    for k, l2 in enumerate([1e-3, 4e-3]):
        rows.append({"l2": l2, "test_error": 0.3})
        of_error, of_loss = [(2 * mean_error - error, 2 * mean_loss - loss), (error, loss)][k]
        for replay in ("slow", "closed", "open"):
            departed = {"test_error": 0.3 + of_error, "late_train_loss": 0.4 * math.exp(of_loss)}
            rows.append({"l2": l2, "replay": replay, **departed})
        gain = (1 - k) * values["penalty_gain", "none"] / 100
        rows.append({"normalization": "none", "l2": l2, "test_error": 0.5 - gain})
    rows.append({"normalization": "none", "l2": 0.0, "test_error": 0.5})
    return {"memorization": evaluated(frame(rows))}


def penalties(lr: float, *thetas: float) -> list[float]:
    """λ of the widest layer at these θ of it."""
    return [theta**3 * TYPICAL_GRADIENT / (4 * lr**2 * WIDEST) for theta in thetas]


# Ten cells of each optimizer that have settled: products ηλ, or θ of the widest layer, at two η.
SETTLED = {
    "sgd": ([0.16, 0.32], [3.2e-4, 6.4e-4, 1.3e-3, 2.6e-3, 5.1e-3]),
    "nesterov": ([0.02, 0.04], [4e-5, 5e-5, 6e-5, 7.5e-5, 9e-5]),
    "adamw": ([0.009, 0.018], [3e-4, 5e-4, 7e-4, 9e-4, 1.2e-3]),
    "adam": ([0.003, 0.009], [0.03, 0.034, 0.038, 0.042, 0.047]),
    "rmsprop": ([0.003, 0.009], [0.03, 0.034, 0.038, 0.042, 0.047]),
}


def equilibrium(values: Values) -> dict[str, Experiment]:
    """Each optimizer in settled cells, of which conv3 is without equilibrium in as many as the share asks for, and one
    cell that has not settled and is off."""
    found = []
    for optimizer, (rates, points) in SETTLED.items():
        is_square = optimizer in ("adam", "rmsprop")
        cells = [(lr, l2) for lr in rates for l2 in (penalties(lr, *points) if is_square else [x / lr for x in points])]
        starts = optimizer not in ("sgd", "nesterov")
        rows = [{"optimizer": optimizer, "lr": lr, "l2": l2, "starts_at_equilibrium": starts} for lr, l2 in cells]
        runs = frame([*rows, {**rows[0], "l2": rows[0]["l2"] / 100}])
        runs["run_id"] = optimizer + runs["run_id"]
        assert settled(runs).tolist() == [True] * 30 + [False] * 3
        dead = round(30 * (1 - values.get(("equilibrium_share", optimizer), 1.0)))
        centre = np.exp(np.log(runs["lr"] * runs["l2"])[:30].mean())

        def late(size: float, runs: pd.DataFrame = runs, dead: int = dead, centre: float = centre) -> dict[str, Any]:
            optimizer, cell = runs["optimizer"].iloc[0], np.arange(len(runs)) // len(SEEDS)
            layer_l2 = runs["l2"] * (WIDEST / size if optimizer in ("adam", "rmsprop") else 1)
            off = np.where(cell < 10, 1.0, 5.0) * noise(runs)
            settings = (optimizer, runs["lr"], layer_l2, TYPICAL_GRADIENT, size)
            tilt = (runs["lr"] * runs["l2"] / centre) ** (values.get(("angle_slope", optimizer), 0.5) - 0.5)
            norm = theory.equilibrium_norm(*settings) * (values.get(("norm_factor", optimizer), 1.0) * off) ** (1 / 4)
            memory = -0.02 if optimizer in ("nesterov", "adam", "adamw") else 0.0
            growth = theory.equilibrium_growth(optimizer, runs["lr"], 1.0, memory)
            shrunk = off * values.get(("balance", optimizer), 1.0) * growth / (4 * layer_l2)
            angle = theory.equilibrium_angle(*settings) * tilt * values.get(("angle_factor", optimizer), 1.0) * off
            exponent = values.get(("l2_exponent", optimizer), 1 / 3)
            rate = runs["lr"] * layer_l2**exponent if optimizer in ("adam", "rmsprop") else runs["lr"] / norm**2
            return {
                "layer_l2": layer_l2,
                "late_norm_squared": norm**2,
                "late_angle_squared": angle**2,
                "late_effective_lr": rate * off,
                "late_norm_to_root": off * runs["lr"] / (4 * layer_l2),
                "late_without_gradient": ((cell < dead) & (size == WIDEST)).astype(float),
                "balance_norm": shrunk if optimizer != "adamw" else 1.0,
                "balance_rooted_norm": shrunk if optimizer == "adamw" else 1.0,
                "balance_gradient": 1.0,
                "balance_memory": memory,
            }

        found.append(Experiment(metrics(runs, late), runs))
    tables = [pd.concat(parts, ignore_index=True) for parts in zip(*found, strict=True)]
    return {"equilibrium": Experiment(*tables)}


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
    return {"growth": Experiment(metrics(runs, lambda size: late), runs), **equilibrium({})}


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
    thetas = [0.05 * 2 ** (k / 2) for k in range(8)]
    scan = [{"lr": 0.009, "l2": l2} for l2 in penalties(0.009, *thetas)]
    arms = [("adam", False), ("rmsprop", False), ("rmsprop", True)]
    rows = [{"optimizer": name, "corrected_squares": arm, **cell} for name, arm in arms for cell in scan]
    runs = frame([*rows, {"optimizer": "adamw", "lr": 0.009, "l2": 0.1}])
    theta = (4 * runs["lr"] ** 2 * runs["l2"] * WIDEST / TYPICAL_GRADIENT) ** (1 / 3)

    def of(statistic: str) -> pd.Series:
        return runs["optimizer"].map(lambda optimizer: values.get((statistic, optimizer), 0.0))

    def late(size: float) -> dict[str, Any]:
        share = pd.Series(0.0, index=runs.index)
        for name in ("adam", "rmsprop"):
            shifts = critical_shifts(values["first_lost_layer", name], values["lost_exponent", name])
            if size in shifts:
                above = 3 * np.log(theta / CRITICAL_THETA) - shifts[size]
                share = share.where(runs["optimizer"] != name, (0.5 + above / 4).clip(0, 1))
        share = share.where((theta > 0.051) & (runs["optimizer"] != "adamw"), of("lost_share"))
        if size == WIDEST:
            share = share.where(~np.isclose(theta, 0.2), of("lost_share_of_widest") * noise(runs))
        lost_norm = values["lost_norm", "rmsprop"] * runs["lr"] * math.sqrt(size) / 2 * noise(runs)
        return {
            "late_without_gradient": share,
            "lost_norm_squared": lost_norm**2,
            "lost_angle_squared": (values["lost_angle", "rmsprop"] * math.pi * noise(runs)) ** 2,
        }

    plane = frame([{"l2": l2} for l2 in (0.0, 0.004, 0.016)])
    of_plane = metrics(plane, lambda size: {"late_without_gradient": values["lost_share", "sgd"]})
    return {"lost_units": Experiment(metrics(runs, late), runs), "plane_sgd": Experiment(of_plane, plane)}


MAKERS: dict[str, Callable[[Values], dict[str, Experiment]]] = {
    "C1": lambda values: {},
    "C2": symmetry,
    "C3": lambda values: {},
    "C4": equilibrium,
    "C5": diagonals,
    "C6": growth,
    "C7": equilibrium,
    "C8": projection,
    "C9": affine,
    "C10": lost_units,
}


@cache
def evidence(name: str, holds: bool = True) -> verdicts.Evidence:
    values = wanted(CLAIMS[name], holds)
    rows = [
        {"check": part.check, "subject": part.subject, "seed": seed, "value": value * (1 + 1e-6 * seed) + 1e-15}
        for part in CLAIMS[name].parts
        for value in [values[part.name, part.subject]]
        for seed in (1, 2, 3)
        if part.check
    ]
    checks = pd.DataFrame(rows, columns=["check", "subject", "seed", "value"])
    return verdicts.Evidence(Tables.of(MAKERS[name](values)), checks)


def decide(name: str, whole: verdicts.Evidence, claim: Claim | None = None) -> dict[str, Any]:
    return verdicts.decide(name, claim or CLAIMS[name], whole, STATISTICS)


@cache
def decided(name: str, holds: bool = True) -> dict[str, Any]:
    return decide(name, evidence(name, holds))


def verdict(name: str, whole: verdicts.Evidence, statistic: str, subject: str) -> str:
    """Of one part alone."""
    [part] = [part for part in CLAIMS[name].parts if (part.name, part.subject) == (statistic, subject)]
    alone = CLAIMS[name].model_copy(update={"parts": [part], "explored": []})
    return str(decide(name, whole, alone)["verdict"])


def parts_of(result: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(part["statistic"], part["subject"]): part for part in [*result["parts"], *result["explored"]]}


def with_table(whole: verdicts.Evidence, name: str, **tables: pd.DataFrame) -> verdicts.Evidence:
    """With the metrics or the runs of one experiment exchanged."""
    changed = {**whole.tables, name: whole.tables[name]._replace(**tables)}
    return verdicts.Evidence(Tables.of(changed), whole.checks)


def changed(
    whole: verdicts.Evidence, change: Callable[[pd.DataFrame], pd.DataFrame], metrics: bool = False
) -> verdicts.Evidence:
    """With this change of the runs and checks, and of the metrics if so asked."""
    tables = {
        name: Experiment(change(one.metrics) if metrics else one.metrics, change(one.runs))
        for name, one in whole.tables.items()
    }
    return verdicts.Evidence(Tables.of(tables), change(whole.checks))


def with_layer(whole: verdicts.Evidence, layer: str, quantity: str, factor: float) -> verdicts.Evidence:
    """With this quantity of one layer changed by a factor, or set to it where it is 0, in every experiment."""

    def change(table: pd.DataFrame) -> pd.DataFrame:
        if "layer" not in table:
            return table
        hit = (table["layer"] == layer) & (table["quantity"] == quantity)
        value = (table["value"] * factor).where(table["value"] != 0, factor)
        return table.assign(value=table["value"].where(~hit, value))

    return changed(whole, change, metrics=True)


def test_a_claim_that_holds_is_reproduced_and_one_that_fails_is_not() -> None:
    for name, claim in CLAIMS.items():
        for holds, expected_verdict in [(True, "reproduced"), (False, "not reproduced")]:
            result = decided(name, holds)
            assert {part["verdict"] for part in result["parts"]} == {expected_verdict}, verdicts.tell(result)
            for part in result["parts"]:
                expected = wanted(claim, holds)[part["statistic"], part["subject"]]
                assert not holds or part["value"] == pytest.approx(expected, rel=0.03, abs=0.02), part
        for what in decided(name)["explored"]:
            assert what["value"] is not None and what["low"] is not None, what


def without_values(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(
        **{key: np.nan for key in ("value", "test_error", "validation_error", "late_train_loss") if key in table}
    )


def test_where_nothing_can_be_said_a_claim_is_undecided() -> None:
    nothing: list[tuple[Callable[[pd.DataFrame], pd.DataFrame], bool, str]] = [
        (lambda table: table.iloc[:0], False, "no runs|no check was run"),
        (without_values, True, "not a number"),
        (lambda table: table[table["seed"] == table["seed"].min()], False, verdicts.NO_INTERVAL),
    ]
    for name in CLAIMS:
        for change, of_metrics, reason in nothing:
            result = decide(name, changed(evidence(name), change, of_metrics))
            assert result["verdict"] == "undecided"
            for part in result["parts"]:
                assert part["verdict"] == "undecided"
                assert pd.Series([part["why"]]).str.contains(reason).all(), part
                assert part["low"] is part["high"] is None
                assert (part["value"] is None) == (reason != verdicts.NO_INTERVAL), part
            json.dumps(result, allow_nan=False)


def test_statistics_experiments_and_seeds_are_those_of_the_claims() -> None:
    named = {part.statistic for claim in CLAIMS.values() for part in [*claim.parts, *claim.explored]} - {""}
    assert named == set(STATISTICS)
    for name, claim in CLAIMS.items():
        assert set(claim.experiments) == set(MAKERS[name](wanted(claim, holds=True)))
        for part in claim.parts:
            first = claim.seeds_from if part.seeds_from is None else part.seeds_from
            assert not part.planned or first == 300, part


def test_the_planned_power_is_that_of_the_stated_seeds() -> None:
    for claim in CLAIMS.values():
        for part in claim.parts:
            if plan := part.planned:
                low, high = np.log(part.within) if plan.log else part.within
                found = estimates.power(plan.seeds, plan.deviation, plan.expected, (low, high))
                assert plan.power >= 0.9 and plan.power - 0.005 <= found, (part, found)


def test_earlier_seeds_do_not_decide_a_new_rule() -> None:
    """The tables of a failure as they were seen before, beside those that hold."""
    for name in ("C2", "C4", "C7"):
        whole, seen = evidence(name), evidence(name, holds=False)
        tables = {}
        for experiment, (metrics, runs) in seen.tables.items():
            earlier = runs.assign(seed=runs["seed"] - 100, run_id="old" + runs["run_id"])
            both = Experiment(metrics.assign(run_id="old" + metrics["run_id"]), earlier), whole.tables[experiment]
            tables[experiment] = Experiment(*(pd.concat(pair, ignore_index=True) for pair in zip(*both, strict=True)))
        parts = decide(name, verdicts.Evidence(Tables.of(tables), whole.checks))["parts"]
        assert {part["verdict"] for part in parts if part["statistic"] != "penalty_gain"} == {"reproduced"}


# The unit of an interval, and what it rests on


def test_an_interval_counts_seeds_and_not_cells() -> None:
    for name, statistic, subject, freedom in [
        ("C1", "invariance", "batch", None),  # a range
        ("C2", "symmetry_error", "batch", 4),  # (3 − 1 cells)(3 − 1 seeds)
        ("C2", "replay_error", "slow replay", 2),  # 3 − 1 seeds
        ("C4", "angle_slope", "sgd", 2),
        ("C4", "balance", "adam", 2),
        ("C6", "growth_balance", "sgd", None),
        ("C6", "growth_factor", "sgd", 2),
        ("C7", "l2_exponent", "adam", 2),
        ("C8", "projected_match", "sgd", 14),  # (8 − 1 cells)(3 − 1 seeds)
        ("C9", "affine_penalty", "hidden penalty", 2),
        ("C10", "lost_norm", "rmsprop", 2),
    ]:
        assert parts_of(decided(name))[statistic, subject]["freedom"] == freedom, statistic


def test_a_cell_without_every_seed_does_not_count() -> None:
    for name, experiment, part in [
        ("C4", "equilibrium", ("angle_factor", "sgd")),
        ("C4", "equilibrium", ("balance", "adam")),
        ("C5", "plane_sgd", ("contour_slope", "sgd")),
        ("C7", "equilibrium", ("l2_exponent", "rmsprop")),
    ]:
        whole = evidence(name)
        metrics, runs = whole.tables[experiment]
        is_alone = runs.groupby(["optimizer", "lr", "l2"]).ngroup() % 4 == 0
        wrong = runs["run_id"][is_alone]
        runs = runs.assign(test_error=runs["test_error"].where(~is_alone, 0.5))[~is_alone | (runs["seed"] == SEEDS[0])]
        if len(metrics):
            metrics = metrics.assign(value=metrics["value"].where(~metrics["run_id"].isin(wrong), 9.0))
        assert verdict(name, with_table(whole, experiment, metrics=metrics, runs=runs), *part) == "reproduced", part


def test_one_layer_that_fails_is_enough() -> None:
    for name, statistic, subject, quantity, factor in [
        ("C4", "angle_factor", "sgd", "late_angle_squared", 1.5),
        ("C4", "norm_factor", "sgd", "late_norm_squared", 0.8),
        ("C4", "balance", "nesterov", "balance_norm", 1.2),
        ("C4", "balance", "adamw", "balance_rooted_norm", 1.2),
        ("C4", "balance", "rmsprop", "balance_norm", 1.2),
        ("C6", "growth_balance", "sgd", "growth_ratio_min", 0.99),
        ("C6", "growth_factor", "sgd", "fourth_power_ratio", 1.2),
        ("C6", "growth_slope", "sgd", "measured_slope", 0.4),
        ("C10", "lost_share", "sgd", "late_without_gradient", 4),
        ("C10", "lost_angle", "rmsprop", "lost_angle_squared", 1.5),
    ]:
        for layer in ("conv2", "conv3"):
            whole = with_layer(evidence(name), layer, quantity, factor)
            assert verdict(name, whole, statistic, subject) == "not reproduced", (statistic, layer)


def test_a_layer_without_equilibrium_is_left_out_counted_and_named() -> None:
    for name in ("C4", "C6", "C7"):
        whole = evidence(name)
        lost = with_layer(whole, "conv2", "late_without_gradient", 0.06)
        for before, part in zip(decided(name)["parts"], decide(name, lost)["parts"], strict=True):
            if part["statistic"] == "equilibrium_share":
                assert part["value"] == pytest.approx(before["value"] - 1 / 3) and part["verdict"] == "not reproduced"
            else:
                assert part["value"] == pytest.approx(before["value"]) and "conv2 in" in part["why"], part
        for layer in set(LAYERS) - {"conv2"}:
            lost = with_layer(lost, layer, "late_without_gradient", 0.06)
        whys = {part["why"] for part in decide(name, lost)["parts"] if part["statistic"] != "equilibrium_share"}
        assert whys == {"no layer has an equilibrium"}


def test_diverged_runs_take_their_cells_with_them_and_are_counted() -> None:
    for name, experiment, count in [("C6", "growth", 9), ("C4", "equilibrium", 30)]:
        whole = evidence(name)
        metrics, runs = whole.tables[experiment]
        first = runs["run_id"].iloc[0]
        runs = runs.assign(diverged=runs["diverged"].where(runs["run_id"] != first, 25.0))
        result = decide(name, with_table(whole, experiment, metrics=metrics[metrics["run_id"] != first], runs=runs))
        whys = [part["why"] for part in result["parts"]]
        assert f"1 of {count} runs diverged, and their cells are left out" in " ".join(whys)
        assert {part["verdict"] for part in result["parts"]} <= {"reproduced", "undecided"}


# Conditions under which a part says nothing


def test_a_replay_is_compared_on_its_own_seeds() -> None:
    """Where the penalty has a seed more, the replay has the interval that it has without."""
    whole = evidence("C2")
    runs = whole.tables["memorization"].runs
    last = runs["seed"] == runs["seed"].max()
    found, expected = (
        parts_of(decide("C2", with_table(whole, "memorization", runs=some)))
        for some in (runs[~(last & (runs["replay"] == "open"))], runs[~last])
    )
    for statistic in ("replay_error", "replay_loss"):
        one, other = found[statistic, "open replay"], expected[statistic, "open replay"]
        assert one["value"] is not None
        assert (one["value"], one["low"], one["high"]) == pytest.approx((other["value"], other["low"], other["high"]))


def test_a_replay_is_no_test_where_the_penalty_does_nothing() -> None:
    whole = evidence("C2")
    idle = memorization(wanted(CLAIMS["C2"], holds=True), effect=1.5)["memorization"]
    parts = parts_of(decide("C2", with_table(whole, "memorization", runs=idle.runs)))
    for statistic in ("replay_error", "replay_error_mean", "replay_loss", "replay_loss_mean"):
        assert "no penalty changes the training loss 2 times" in parts[statistic, "slow replay"]["why"]


def test_the_best_penalty_is_chosen_on_validation() -> None:
    whole = evidence("C2")
    runs = whole.tables["memorization"].runs.copy()
    runs.loc[(runs["normalization"] == "none") & (runs["l2"] == 4e-3), "validation_error"] = 0.1
    found = STATISTICS["penalty_gain"](with_table(whole, "memorization", runs=runs), "none")
    assert found.value == pytest.approx(0, abs=0.02)


def test_projected_training_needs_its_partner_at_every_fraction() -> None:
    whole = evidence("C8")
    runs = whole.tables["projection_sgd"].runs
    found = decide("C8", with_table(whole, "projection_sgd", runs=runs[~np.isclose(runs["lr"], 0.8)]))
    part = parts_of(found)["projected_match", "sgd"]
    assert (part["verdict"], part["why"]) == ("undecided", "no pair of runs at 0.8 λc")


def test_most_units_are_to_be_lost_only_in_enough_steps() -> None:
    whole = evidence("C10")
    parts = parts_of(
        decide("C10", with_table(whole, "lost_units", runs=whole.tables["lost_units"].runs.assign(steps=1000)))
    )
    assert parts["lost_share_of_widest", "adam"]["why"] == "predicted for 5000 steps"
    assert parts["lost_share", "adam"]["verdict"] == "reproduced"


def test_a_lost_norm_that_underflows_is_0_and_no_missing_value() -> None:
    whole = evidence("C10")
    metrics = whole.tables["lost_units"].metrics
    value = metrics["value"].where(~((metrics["quantity"] == "lost_norm_squared") & (metrics["layer"] == "conv2")), 0.0)
    part = parts_of(decide("C10", with_table(whole, "lost_units", metrics=metrics.assign(value=value))))
    found = part["lost_norm", "rmsprop"]
    assert (found["value"], found["verdict"]) == (0, "not reproduced") and "the norm underflows in" in found["why"]


def test_a_gradient_that_rises_as_the_rate_falls_slows_the_decay() -> None:
    x, whole = 0.4, evidence("C6")
    metrics = whole.tables["equilibrium"].metrics
    rates = metrics[metrics["quantity"] == "late_effective_lr"].set_index(["run_id", "layer"])["value"]
    keys = pd.MultiIndex.from_frame(metrics[["run_id", "layer"]])
    g_squared = pd.Series(0.01 * rates.reindex(keys).to_numpy() ** -x, index=metrics.index)
    metrics = metrics.assign(value=metrics["value"].where(metrics["quantity"] != "late_g_squared", g_squared))
    found = STATISTICS["growth_slope_predicted"](with_table(whole, "equilibrium", metrics=metrics), "sgd")
    assert found.value == pytest.approx(-1 / (2 - x))


# Calibration: how often a verdict is wrong where the truth is at the edge of the tolerance, and in its middle

REPEATS = 300


def wrong(statistic: Callable[[np.random.Generator, float], estimates.Estimate], edge: float) -> tuple[float, float]:
    """The shares of verdicts `reproduced` or `not reproduced` at the edge of ±edge, the larger one, and of `not
    reproduced` in the middle."""
    rng, counts = np.random.default_rng(0), {}
    for truth in (edge, 0.0):
        found = [verdicts.judge(statistic(rng, truth), (-edge, edge)).verdict for _ in range(REPEATS)]
        counts[truth] = {verdict: found.count(verdict) / REPEATS for verdict in set(found)}
    at_edge = max(counts[edge].get(verdict, 0.0) for verdict in (verdicts.REPRODUCED, verdicts.NOT_REPRODUCED))
    return at_edge, counts[0.0].get(verdicts.NOT_REPRODUCED, 0.0)


def of_layers(rng: np.random.Generator, truth: float) -> estimates.Estimate:
    """One of four layers departs; three seeds with three cells each, which share their seed."""
    rows = [
        {"layer": layer, "seed": seed, "x": truth * (layer == 3) + shared + 0.02 * rng.normal()}
        for layer in range(4)
        for seed, shared in enumerate(0.04 * rng.normal(size=3))
        for _ in range(3)
    ]
    cells = statistics.Cells(pd.DataFrame(rows))
    found = statistics.by_layer("", lambda *_: cells, statistics.mean("x"), statistics.away_from(0))
    return found(evidence("C1"), "")


def of_cells(rng: np.random.Generator, truth: float) -> estimates.Estimate:
    """One of three cells departs from the reference; four seeds, which shift all cells alike."""
    seeds = rng.normal(size=4)
    rows = [
        {"a": a, "seed": seed, "x": truth * (a == 2) + seeds[seed] + 0.3 * rng.normal()}
        for a in range(3)
        for seed in range(4)
    ]
    runs = pd.DataFrame(rows)
    return statistics.largest_change(runs, runs["x"], "a", 0)


def of_penalties(rng: np.random.Generator, truth: float) -> estimates.Estimate:
    """One of four λ departs; twelve seeds, and other deviations at each λ."""
    noise = rng.normal(size=(4, 12)) * np.array([[0.4], [0.2], [0.1], [0.05]])
    return statistics.at_worst(pd.DataFrame(noise + truth * np.array([[1], [0], [0], [0]])))


def of_shares(rng: np.random.Generator, truth: float) -> estimates.Estimate:
    """Three seeds, each of nine pairs of which a share 0.9 − truth has an equilibrium; less 0.9."""
    return estimates.mean_interval(pd.Series(rng.binomial(9, 0.9 - truth, size=3) / 9 - 0.9).round(9))


def test_verdicts_are_as_often_wrong_as_their_intervals_allow() -> None:
    allowed = 0.05 + 3 * math.sqrt(0.05 * 0.95 / REPEATS)  # one side of a 90 % interval, and the scatter of the count
    for statistic, edge in [(of_layers, 0.1), (of_cells, 1.5), (of_penalties, 0.9), (of_shares, 0.1)]:
        at_edge, in_the_middle = wrong(statistic, edge)
        assert at_edge <= allowed and in_the_middle <= allowed / 2, (statistic, at_edge, in_the_middle)
