"""Verdicts follow the data: each claim on the published runs with made-up values, where it holds, fails, or is open."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from effective_lr.evidence import estimates, verdicts
from effective_lr.evidence.tidy import Tables
from effective_lr.evidence.verdicts import Evidence, since
from effective_lr.studies.normalization import analysis, figures, statistics, theory
from made_up import Made, Published, Value, changed, with_runs
from shared import STUDY, require_calibrated

STATISTICS = verdicts.statistics_of(STUDY)
SIZES = {"conv1": 9, "conv2": 144, "conv3": 288, "linear": 64}  # weights in a scale group


def worst(x: float, rows: Any, usual: float = 1.0) -> Any:
    """What is asked for in one layer, and the usual value in the others."""
    return np.where(rows.layer == "conv2", x, usual)


def layer_l2(rows: Any) -> Any:
    """λ of each layer."""
    is_square = rows.optimizer.isin(["adam", "rmsprop"])
    return rows.l2 * np.where(is_square, 288 / rows.layer.map(SIZES), 1)


def shrinking(rows: Any, x: float, memory: float = -0.02) -> Any:
    """⟨w, w⟩ whose shrinking by the penalty is x times the growth by the steps."""
    growth = theory.equilibrium_growth(rows.optimizer.iloc[0], rows.lr, 1.0, memory)
    return worst(x, rows) * growth / (4 * layer_l2(rows))


def losing(rows: Any, shift: Any) -> Any:
    """The share of lost units, which reaches a half at an η²λ that this logarithm moves from the middle of the scan."""
    return 0.5 + (np.log(rows.lr**2 * rows.l2.clip(1e-9) / 2.4e-7) - shift) / 20


def safe(rows: Any) -> Any:
    """Whether no unit is to be lost: up to a small θ, under Adam and RMSProp."""
    return (rows.l2 < 2e-4) | ~rows.optimizer.isin(["adam", "rmsprop"])


def replayed(rows: Any, smallest: float) -> Any:
    """1 for the replays of penalties from this one on, of four from 0.00025 to 0.016; else 0."""
    return 1.0 * ((rows.replay != "none") & (rows.l2 >= smallest))


def memorized(rows: Any) -> Any:
    """Training losses that a penalty changes."""
    return np.where(rows.l2 > 0, 0.4, 0.1)


def contours(rows: Any, x: float) -> Any:
    """Test errors whose contours in (log η, log λ) have the slope x."""
    s = theory.diagonal_slope(rows.optimizer.iloc[0])
    u, v = (np.log(rows.lr) + sign * s * np.log(rows.l2.clip(1e-9)) for sign in (1, -1))
    return 1 / (1 + np.exp(1.7 - 0.2 * u - 0.2 * (s - x) / (s + x) * v))


BALANCE: dict[str, Value] = {"balance_gradient": lambda rows, x: 1.0, "balance_memory": lambda rows, x: -0.02}
MADE: Made = {
    "symmetry_error": {"test_error": lambda rows, x: 0.2 + x / 100 * (rows.initial_norm == 3)},
    "symmetry_loss": {"late_train_loss": lambda rows, x: 0.4 * np.exp(x / 100 * (rows.initial_norm == 3))},
    "replay_error": {"test_error": lambda rows, x: 0.2 + x / 100 * replayed(rows, 0.016)},
    "replay_error_mean": {"test_error": lambda rows, x: 0.2 + 2 * x / 100 * replayed(rows, 0.004)},
    "replay_loss": {"late_train_loss": lambda rows, x: memorized(rows) * x ** replayed(rows, 0.016)},
    "replay_loss_mean": {"late_train_loss": lambda rows, x: memorized(rows) * x ** (2 * replayed(rows, 0.004))},
    "penalty_change": {"test_error": lambda rows, x: 0.2 + x / 100 * (rows.l2 == 0.004)},
    "penalty_gain": {  # chosen on validation: another λ has a smaller test error
        "test_error": lambda rows, x: 0.5 - x / 100 * (rows.l2 == 0.004) - 0.3 * (rows.l2 == 0.016),
        "validation_error": lambda rows, x: 0.5 - 0.1 * (rows.l2 == 0.004) - 0.2 * (rows.l2 == 0),
    },
    "angle_slope": {"late_angle_squared": lambda rows, x: (rows.lr * rows.l2) ** (2 * worst(x, rows, 0.5))},
    "angle_factor": {"late_angle_squared": lambda rows, x: (worst(x, rows) * analysis.predicted_angle(rows)) ** 2},
    "norm_factor": {
        "late_g_squared": lambda rows, x: 0.01,
        "late_norm_squared": lambda rows, x: (worst(x, rows) * 0.01 * rows.lr / (4 * rows.l2)) ** 0.5,
    },
    "balance": {**BALANCE, **dict.fromkeys(["balance_norm", "balance_rooted_norm"], shrinking)},
    "balance_memoryless": {
        **BALANCE,
        **dict.fromkeys(["balance_norm", "balance_rooted_norm"], lambda rows, x: shrinking(rows, x, 0.0)),
    },
    "root_balance": {"late_norm_to_root": lambda rows, x: worst(x, rows) * rows.lr / (4 * layer_l2(rows))},
    "equilibrium_share": {
        "late_without_gradient": lambda rows, x: 0.06 * rows.layer.isin(["conv1", "conv2"][: round(3 - 3 * x)])
    },
    "contour_slope": {"test_error": contours},
    "growth_balance": {"growth_ratio_min": lambda rows, x: 1.0, "growth_ratio_max": lambda rows, x: worst(x, rows)},
    "growth_factor": {"fourth_power_ratio": lambda rows, x: worst(x, rows)},
    "growth_excess": {
        "implied_slope": lambda rows, x: -0.5,
        "measured_slope": lambda rows, x: worst(x, rows, 0.0) - 0.5,
    },
    "growth_slope": {  # of runs that grow enough, which those with a small η do not
        "measured_slope": lambda rows, x: np.where(rows.lr > 0.3, worst(x, rows, -2.0), 5.0)
    },
    "growth_slope_of_median": {"measured_slope": lambda rows, x: worst(9.0, rows, x)},
    "growth_slope_predicted": {  # where G² rises as the rate falls, to the power −y, it is −1/(2 − y)
        "late_effective_lr": lambda rows, x: rows.lr * rows.l2,
        "late_g_squared": lambda rows, x: (rows.lr * rows.l2) ** -(2 + 1 / x),
    },
    "l2_exponent": {"late_effective_lr": lambda rows, x: rows.lr * rows.l2 ** worst(x, rows, 0.9)},
    "projected_change": {"test_error": lambda rows, x: 0.2 + x / 100 * (rows.l2 == 0.3125)},
    "projected_match": {"test_error": lambda rows, x: 0.2 + x / 100 * (rows.l2 == 1.5625)},
    "projected_beyond": {"test_error": lambda rows, x: np.where(rows.l2 == 3.75, x / 100, 0.2)},
    "affine_penalty": {"test_error": lambda rows, x: 0.2 + x / 100 * (rows.affine_l2 == "hidden")},
    "affine_penalty_loss": {"late_train_loss": lambda rows, x: 0.4 * np.exp(x / 100 * (rows.affine_l2 == "hidden"))},
    "first_lost_layer": {
        "late_without_gradient": lambda rows, x: losing(rows, (np.log(x) + worst(0, rows)) * (rows.layer != "conv3"))
    },
    "lost_exponent": {"late_without_gradient": lambda rows, x: losing(rows, x * np.log(rows.layer.map(SIZES) / 100))},
    "lost_share": {"late_without_gradient": lambda rows, x: np.where(safe(rows), worst(x, rows, 0.0), 0.9)},
    "lost_share_of_widest": {
        "late_without_gradient": lambda rows, x: x * ((rows.layer == "conv3") & (rows.l2.round(5) == 0.00857))
    },
    "lost_norm": {"lost_norm_squared": lambda rows, x: (worst(x, rows) * rows.lr / 2) ** 2 * rows.layer.map(SIZES)},
    "lost_angle": {"lost_angle_squared": lambda rows, x: (worst(x, rows) * math.pi) ** 2},
}

ANSWERS = {
    "equilibrium_share": (1.0, 2 / 3),
    "growth_slope_of_median": (-0.625, 0.0),
    "growth_slope_predicted": (-0.625, 0.0),
}


@pytest.fixture(scope="module")
def published() -> Published:
    return Published(STUDY.name, {*analysis.LATE, "test_error"})


def test_a_statistic_is_what_its_data_say_and_the_verdict_follows(published: Published) -> None:
    """Where layers are judged, the one that fails is enough."""
    assert MADE.keys() == STATISTICS.keys()
    published.require_known_answers(MADE, ANSWERS)


def test_where_nothing_can_be_said_a_claim_is_undecided(published: Published) -> None:
    published.require_undecided_where_nothing_can_be_said()


def test_a_cell_that_misses_a_seed_or_has_a_run_that_diverged_does_not_count(published: Published) -> None:
    for statistic, subject, experiment, cell in [
        ("angle_factor", "sgd", "equilibrium", {"lr": 0.64, "l2": 0.001}),
        ("balance", "adam", "equilibrium", {"lr": 0.003, "l2": 0.000509}),
        ("l2_exponent", "rmsprop", "equilibrium", {"lr": 0.003, "l2": 0.000509}),
        ("growth_slope", "sgd", "growth", {"lr": 0.64, "l2": 0.0}),
        ("contour_slope", "sgd", "plane_sgd", {"lr": 0.16, "l2": 0.004}),
    ]:
        whole, measure = since(published.whole, 200), STATISTICS[statistic]
        runs = whole.tables[experiment].runs
        is_cell = (runs["optimizer"] == subject) & np.isclose(runs[[*cell]], [*cell.values()], rtol=1e-2).all(axis=1)
        first = runs.index == runs.index[is_cell][0]
        without = measure(with_runs(whole, experiment, lambda runs: runs[~is_cell]), subject)  # noqa: B023
        assert without != measure(whole, subject)
        alone = with_runs(whole, experiment, lambda runs: runs[~first])  # noqa: B023
        diverged = with_runs(whole, experiment, lambda runs: runs.assign(diverged=np.where(first, 25.0, np.nan)))  # noqa: B023
        for fewer in (alone, diverged):
            found = measure(fewer, subject)
            assert found[:3] == pytest.approx(without[:3], rel=1e-9), (statistic, found, without)
        assert experiment == "plane_sgd" or f"1 of {(runs['optimizer'] == subject).sum()} runs diverged" in found.note


def test_a_layer_without_equilibrium_is_left_out_counted_and_named_and_not_drawn(published: Published) -> None:
    for statistic, subject, x, usual in [
        ("balance", "sgd", 5.0, 1.0),
        ("growth_factor", "sgd", 5.0, 1.0),
        ("l2_exponent", "adam", -1.0, 0.9),
    ]:
        whole = published.whole
        for quantity, value in MADE[statistic].items():
            whole = changed(whole, quantity, lambda rows, value=value, x=x: value(rows, x))
        lost = changed(whole, "late_without_gradient", lambda rows: worst(0.06, rows, 0.05))
        found = STATISTICS[statistic](lost, subject)
        assert found.value == pytest.approx(usual) and "without equilibrium: conv2 in" in found.note, found
        with pytest.raises(estimates.Undecidable, match="no layer has an equilibrium"):
            STATISTICS[statistic](changed(whole, "late_without_gradient", lambda rows: 0.06), subject)
        for shown in figures.with_gradients(lost.tables).values():
            assert "conv2" not in set(shown["layer"]) and np.isfinite(shown["norm_ratio"]).all()


def learning(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs of one loss, on which no penalty acts."""
    return runs.assign(late_train_loss=0.4)


NEEDED: list[tuple[str, str, str, Callable[[pd.DataFrame], pd.DataFrame], str]] = [
    ("replay_error", "slow replay", "memorization", learning, "no penalty changes"),
    ("projected_match", "sgd", "projection_sgd", lambda runs: runs[runs["lr"] != 0.8], "no pair of runs at 0.8 λc"),
    ("lost_share_of_widest", "adam", "lost_units", lambda runs: runs.assign(steps=1000), "predicted for 5000 steps"),
    ("contour_slope", "sgd", "plane_sgd", lambda runs: runs[runs["lr"] == 0.16], "fewer than three diagonals"),
    ("l2_exponent", "adam", "equilibrium", lambda runs: runs[runs["l2"] > 1e-3], "no η has two λ"),
    ("growth_slope", "sgd", "growth", lambda runs: runs[runs["lr"] < 0.3], "no run has grown enough"),
]


def test_a_statistic_without_what_it_needs_says_so(published: Published) -> None:
    for statistic, subject, experiment, change, message in NEEDED:
        with pytest.raises(estimates.Undecidable, match=message):
            STATISTICS[statistic](with_runs(since(published.whole, 200), experiment, change), subject)
    found = STATISTICS["lost_norm"](
        changed(since(published.whole, 300), "lost_norm_squared", lambda rows: 0.0), "rmsprop"
    )
    assert found[:3] == (0, 0, 0) and "the norm underflows in" in found.note


def test_the_law_of_the_overview_is_that_of_the_claims(published: Published) -> None:
    whole = since(published.whole, 300)
    law = analysis.equilibrium_law(whole.tables).set_index(["optimizer", "layer"]).drop(columns="seed")
    means = np.exp(np.log(law).groupby(level=[0, 1]).mean())
    for part in published.claims["C4"].parts:
        if part.statistic == "balance":
            assert part.within == figures.LAW_TOLERANCES.get(part.subject, figures.LAW_TOLERANCE)
            for column, statistic in [("with_memory", "balance"), ("without_memory", "balance_memoryless")]:
                found = STATISTICS[statistic](whole, part.subject).value
                assert np.isclose(means.loc[part.subject, column], found).any(), (part.subject, statistic)


def of_layers(rng: np.random.Generator, truth: float) -> estimates.Estimate:
    """One of four layers departs; three seeds with three cells each, which share their seed."""
    shared = 0.04 * rng.normal(size=(4, 3, 1)) + truth * (np.arange(4) == 3)[:, None, None]
    x = pd.Series((shared + 0.02 * rng.normal(size=(4, 3, 3))).ravel(), name="x")
    index = np.indices((4, 3, 3)).reshape(3, -1)
    cells = analysis.Cells(pd.DataFrame({"layer": index[0], "seed": index[1], "x": x}))
    return statistics.by_layer("", lambda *_: cells, "x", statistics.away_from(0))(
        Evidence(Tables(), pd.DataFrame()), ""
    )


def of_cells(rng: np.random.Generator, truth: float) -> estimates.Estimate:
    """One of three cells departs from the reference; four seeds, which shift all cells alike."""
    x = rng.normal(size=(1, 4)) + 0.3 * rng.normal(size=(3, 4)) + truth * (np.arange(3) == 2)[:, None]
    a, seed = np.indices((3, 4)).reshape(2, -1)
    return statistics.largest_change(pd.DataFrame({"a": a, "seed": seed}), lambda _: pd.Series(x.ravel()), "a", 0)


def test_wrong_verdicts_are_as_rare_as_the_intervals_allow() -> None:
    for draw, edge in [(of_layers, 0.1), (of_cells, 1.5)]:
        require_calibrated(draw, (-edge, edge), edge, 0.0)
