"""The numbers of the chapter's sentences, beside those of its claims."""

import numpy as np
import pandas as pd

from effective_lr.document.notation import number, thousands
from effective_lr.document.table import MISSING, Results, fixed, percent
from effective_lr.evidence.tidy import Experiment
from effective_lr.studies.stability import theory
from effective_lr.studies.stability.analysis import critical, is_steady, probes
from effective_lr.studies.stability.statistics import DAMPED, EXPERIMENTS, FIRST_STEP, STRONG, WEAK, before_the_edge


def numbers(results: Results) -> dict[str, str]:
    """In LaTeX, by what they are and of what."""
    tables = results.tables
    mlp, weight = tables["mlp"].runs, tables["weight"]
    unsettled = int((~tables.runs()["settled"].astype(bool)).sum())
    return {
        "runs/unsettled": thousands(unsettled),
        **{
            f"{key}/{name}": value
            for name in ("MLP", "CNN")
            for key, value in settings(tables[EXPERIMENTS[name]].runs).items()
        },
        "critical/MLP": rounded(critical(mlp)),
        "critical/without_decay": rounded(critical_without_decay(mlp)),
        "convex_shift/MLP": number(float(mlp["lr"].max() * STRONG)),
        "displacement/MLP": rounded(value_of(results, "displacement_ratio", "MLP")),
        "jitter/MLP": rounded(value_of(results, "jitter_ratio", "one step")),
        **at_the_edge(mlp),
        **steady(pd.concat([mlp, tables["cnn"].runs])),
        **model_of_two_directions(results.checks),
        "sharpness_excess/WN": fixed(excess_over_equal_steps(weight)),
        **{
            f"{key}/{name}": value
            for name in ("BN", "WN")
            for key, value in invariant(tables[EXPERIMENTS[name]]).items()
        },
    }


def settings(runs: pd.DataFrame) -> dict[str, str]:
    """Settings of one experiment."""
    counts = ("steps", "train_size", "width", "second_width", "ntk_images", "pairs_every")
    return {"lr": number(float(runs["lr"].iloc[0])), **{key: thousands(int(runs[key].iloc[0])) for key in counts}}


def value_of(results: Results, statistic: str, subject: str) -> float:
    found = results.estimates(statistic).get(subject)
    return found.value if found else np.nan


def at_the_edge(runs: pd.DataFrame) -> dict[str, str]:
    """Of the MLP where it is at the edge: geometric means over seeds at each λ, and how far the pressure along the
    directions at the edge is from that of all directions and orders."""
    late = runs[runs["at_edge"].astype(bool)]
    late = late.assign(whole=late["late_edge_pressure_whole"] / late["late_edge_force"])
    means = np.exp(np.log(late[["late_displacement_range", "late_edge_force", "whole"]]).groupby(late["l2"]).mean())
    found: dict[str, str] = {}
    for l2 in (0.0, 1e-3, WEAK, DAMPED):
        swing, force, whole = means.loc[l2] if l2 in means.index else [np.nan] * 3
        found |= {f"range/{l2:g}": fixed(swing, 4), f"force/{l2:g}": fixed(force), f"whole/{l2:g}": fixed(whole, 3)}
    apart = (late["late_edge_pressure"] / late["late_edge_pressure_whole"] - 1).abs().max()
    return {**found, "apart/MLP": percent(apart)}


def steady(runs: pd.DataFrame) -> dict[str, str]:
    """How many runs the top direction alone holds at the edge, and how much R varies in them and in the others."""
    late = runs[runs["at_edge"].astype(bool)]
    alone, decays = is_steady(late), late["l2"] > 0
    return {
        "edge/with_decay": str(int(decays.sum())),
        "edge/without_decay": str(int((~decays).sum())),
        "steady/with_decay": str(int((alone & decays).sum())),
        "steady/without_decay": str(int((alone & ~decays).sum())),
        "steady/spread": rounded(late.loc[alone, "late_spread"].max()),
        "unsteady/spread": rounded(late.loc[~alone, "late_spread"].min()),
    }


def model_of_two_directions(checks: pd.DataFrame) -> dict[str, str]:
    """|pressure/force − 1| in the float64 model by what the pressure is summed over, in percent: the largest over seeds
    where it should be 0, elsewhere the smallest."""
    found = checks[checks["check"] == "pressure"]
    groups = found.groupby(["subject", "holds"])["value"]
    return {f"model/{subject}": percent(some.max() if holds else some.min()) for (subject, holds), some in groups}


def rounded(value: float) -> str:
    return MISSING if np.isnan(value) else number(float(f"{value:.2g}"))


def critical_without_decay(runs: pd.DataFrame) -> float:
    """λ_c = α0η/(4A) as the late force and degree of the runs without decay predict it: by the theory a lower bound."""
    start = runs[(runs["l2"] == 0) & runs["settled"].astype(bool)]
    found = theory.critical_l2(start["late_alpha_eff"], start["late_degree"], start["lr"])
    return float(np.mean(found)) if len(start) else np.nan


def excess_over_equal_steps(experiment: Experiment) -> float:
    """The slope of log S above that of λ = 0, over 4ηλ, both fitted over the steps before the earlier of the two edges.

    The mean over all runs with decay; NaN where a fit has fewer than three probes.
    """
    ratios: list[float] = []
    for _, some in experiment.runs.groupby("seed"):
        start = some[some["l2"] == 0]
        for _, run in some[some["l2"] > 0].iterrows():
            if start.empty:
                continue
            end = min(run["edge_step"], start["edge_step"].iloc[0])
            slopes = [log_slope(probes(experiment.metrics, one), end) for one in (run, start.iloc[0])]
            ratios.append((slopes[0] - slopes[1]) / float(theory.invariant_growth(run["lr"], run["l2"])))
    return float(np.mean(ratios)) if ratios else np.nan


def log_slope(table: pd.DataFrame, end: float) -> float:
    """The slope of log S per step between FIRST_STEP and `end`."""
    table = table[(table.index > FIRST_STEP) & (table.index < end)]
    return float(np.polyfit(table.index, np.log(table["sharpness"]), 1)[0]) if len(table) > 2 else np.nan


def invariant(experiment: Experiment) -> dict[str, str]:
    """Of one network with scale-invariant weights: its angle per step, and how hard decay's part of the change of S is
    to measure."""
    shares, errors = [], []
    for run, table in before_the_edge(experiment, experiment.runs[experiment.runs["l2"] > 0]):
        time = run["lr"] * table.index.to_numpy()
        growth = theory.invariant_growth(1.0, run["l2"]) * table["u_weight_share"] * table["sharpness"]
        part = np.trapezoid(growth, time)
        shares.append(part / (table["sharpness"].iloc[-1] - table["sharpness"].iloc[0]))
        errors.append(abs(error_of_sum(table["alpha0"].to_numpy(), time) / part))
    late = experiment.runs[(experiment.runs["l2"] > 0) & experiment.runs["settled"].astype(bool)]
    angle = late["late_angle_squared"] ** 0.5 / theory.invariant_angle(late["lr"], late["l2"])
    return {
        "angle": fixed(float(angle.mean())),
        "least_share": percent(min(shares)),
        "sum_error": percent(max(errors)),
    }


def error_of_sum(values: np.ndarray, time: np.ndarray) -> float:
    """Of the trapezoidal rule over evenly spaced points, from what it gives with every second of them."""
    first = 1 - len(values) % 2
    values, time = values[first:], time[first:]
    return float(np.trapezoid(values, time) - np.trapezoid(values[::2], time[::2])) / 3
