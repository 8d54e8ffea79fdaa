"""The numbers of the chapter's sentences, beside those of its claims."""

import numpy as np
import pandas as pd

from effective_lr.document.notation import number, thousands
from effective_lr.document.table import MISSING, Results, fixed
from effective_lr.evidence.tidy import Experiment
from effective_lr.studies.stability import theory
from effective_lr.studies.stability.analysis import probes
from effective_lr.studies.stability.figures import critical
from effective_lr.studies.stability.statistics import EXPERIMENTS, FIRST_STEP, STRONG


def numbers(results: Results) -> dict[str, str]:
    """In LaTeX, by what they are and of what."""
    tables = results.tables
    runs = tables.runs()
    mlp, weight = tables["mlp"].runs, tables["weight"]
    counts = {
        "runs/at_edge": thousands(int(runs["at_edge"].sum())),
        "runs/settled": thousands(int(runs["settled"].sum())),
        "runs/unsettled": thousands(int((~runs["settled"].astype(bool)).sum())),
    }
    by_network = {
        f"{key}/{name}": value
        for name, experiment in EXPERIMENTS.items()
        for key, value in network(tables[experiment].runs).items()
    }
    return {
        **counts,
        **by_network,
        "critical/MLP": rounded(critical(mlp)),
        "critical/without_decay": rounded(critical_without_decay(mlp)),
        "displacement/MLP": rounded(late_quotient(mlp, "late_displacement")),
        "jitter/MLP": rounded(late_quotient(mlp, "late_ntk_jitter")),
        "convex_shift/MLP": number(float(mlp["lr"].max() * STRONG)),
        "sharpness_excess/WN": fixed(excess_over_equal_steps(weight)),
        "angle/WN": fixed(angle_over_law(weight.runs)),
        "angle/BN": fixed(angle_over_law(tables["batch"].runs)),
    }


def network(runs: pd.DataFrame) -> dict[str, str]:
    """Settings of one experiment, and its edge without decay."""
    start = runs[runs["l2"] == 0]
    reached = start["reached_edge"].all() and len(start)
    return {
        "lr": number(float(runs["lr"].iloc[0])),
        "steps": thousands(int(runs["steps"].iloc[0])),
        **{key: thousands(int(runs[key].iloc[0])) for key in ("train_size", "width", "second_width", "ntk_images")},
        "edge_step": thousands(round(start["edge_step"].mean())) if reached else MISSING,
    }


def rounded(value: float) -> str:
    return MISSING if np.isnan(value) else number(float(f"{value:.2g}"))


def late_quotient(runs: pd.DataFrame, column: str) -> float:
    """The mean over settled runs of a late value at λ = 8e-3, over that at λ = 0; NaN where there is none of either."""
    late = runs[runs["settled"].astype(bool)]
    return float(late.loc[np.isclose(late["l2"], STRONG), column].mean() / late.loc[late["l2"] == 0, column].mean())


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


def angle_over_law(runs: pd.DataFrame) -> float:
    """The late rms angle per step over √(4ηλ), mean over settled runs with decay."""
    late = runs[(runs["l2"] > 0) & runs["settled"].astype(bool)]
    return float((late["late_angle_squared"] ** 0.5 / theory.invariant_angle(late["lr"], late["l2"])).mean())
