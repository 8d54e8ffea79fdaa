"""The statistics by which the claims of the chapter are decided. The unit of every interval is the seed.

A late value of a run that has not settled (analysis.py) decides nothing.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from effective_lr.evidence.estimates import Estimate, Undecidable, mean_interval, require_numbers
from effective_lr.evidence.verdicts import Evidence, statistic
from effective_lr.studies.stability import theory
from effective_lr.studies.stability.analysis import probes

CHECKS = {"invariant_degree": ("$|A+2|u_w|^2|$ in float64", None)}
EXPERIMENTS = {"MLP": "mlp", "CNN": "cnn", "BN": "batch", "WN": "weight", "cross-entropy": "cross_entropy"}
WEAK, DAMPED, STRONG = 2e-3, 4e-3, 8e-3  # λ that the claims name for networks without normalization
STRONG_NORMALIZED = 5e-3
FIRST_STEP = 150  # after which probes count: before it the start is forgotten


def at(runs: pd.DataFrame, l2: float) -> pd.DataFrame:
    """The runs at one λ. Raises Undecidable where there are none, or where one diverged."""
    found = runs[np.isclose(runs["l2"], l2)]
    if found.empty:
        raise Undecidable(f"no run at λ = {l2:g}")
    return finished(found)


def finished(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs, none of which diverged. Raises Undecidable otherwise."""
    if (count := int(runs["diverged"].notna().sum())) or runs.empty:
        raise Undecidable(f"{count} of {len(runs)} runs diverged")
    return runs


def settled(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs, all of which have settled. Raises Undecidable otherwise."""
    if count := int((~runs["settled"].astype(bool)).sum()):
        raise Undecidable(f"{count} of {len(runs)} runs have not settled")
    return runs


def ratio(above: pd.DataFrame, below: pd.DataFrame, column: str) -> Estimate:
    """The mean over seeds of the ratio of a positive column, its interval cut at 0."""
    return mean_interval(above.set_index("seed")[column] / below.set_index("seed")[column]).unsigned()


def late_ratio(evidence: Evidence, experiment: str, column: str, l2: float, reference: float = 0.0) -> Estimate:
    """The ratio of a late value at one λ to that at another."""
    runs = evidence.runs(experiment)
    return ratio(settled(at(runs, l2)), settled(at(runs, reference)), column)


def farthest(runs: pd.DataFrame, column: str, distance: Callable[[float], float]) -> Estimate:
    """The mean over seeds at that λ where it is farthest by `distance`."""
    estimates = [mean_interval(cell[column]) for _, cell in runs.groupby("l2")]
    return max(estimates, key=lambda estimate: distance(estimate.value))


def by_seed(values: pd.Series, runs: pd.DataFrame) -> Estimate:
    """The mean of a value of each run, first within seeds, then over them."""
    require_numbers(values)
    return mean_interval(values.groupby(runs["seed"]).mean())


def tables(evidence: Evidence, experiment: str, runs: pd.DataFrame) -> list[tuple[pd.Series, pd.DataFrame]]:
    """Each run with its probes after FIRST_STEP and before the edge."""
    metrics = evidence.tables[experiment].metrics
    found = []
    for _, run in runs.iterrows():
        table = probes(metrics, run)
        found.append((run, table[(table.index > FIRST_STEP) & (table.index < run["edge_step"])]))
    return found


def drift_pairs(table: pd.DataFrame, lr: float, l2: float) -> pd.DataFrame:
    """For every two adjacent probes: predicted α0 − 2λAS, their mean, and measured dS/dt."""
    force = pd.Series(theory.drift(table["alpha0"], table["degree"], table["sharpness"], l2))
    change = table["sharpness"].diff() / (lr * table.index.to_series().diff())
    return pd.DataFrame({"predicted": (force + force.shift()) / 2, "measured": change}).dropna()


@statistic("$t_{edge}$ with decay over without", digits=2)
def edge_delay(evidence: Evidence, subject: str) -> Estimate:
    """At λ = 4e-3, or at 8e-3 where the grid lacks that; at 5e-3 with a normalization.

    A run that never reaches the edge counts as steps + 1; where neither does, nothing is decided.
    """
    runs = evidence.runs(EXPERIMENTS[subject])
    l2 = DAMPED if np.isclose(runs["l2"], DAMPED).any() else STRONG
    decayed, start = at(runs, STRONG_NORMALIZED if subject in ("BN", "WN") else l2), at(runs, 0.0)
    has_edge = decayed.set_index("seed")["reached_edge"] | start.set_index("seed")["reached_edge"]
    if not has_edge.all():
        raise Undecidable("neither with decay nor without is the edge reached")
    return ratio(decayed, start, "edge_step")


@statistic(r"slope of $dS/dt$ on $\alpha_0-2\lambda AS$", digits=3)
def drift_slope(evidence: Evidence, subject: str) -> Estimate:
    """Through 0, over all runs of a seed."""
    experiment = EXPERIMENTS[subject]
    runs = finished(evidence.runs(experiment))
    pairs = pd.concat(
        [
            drift_pairs(table, run["lr"], run["l2"]).assign(seed=run["seed"])
            for run, table in tables(evidence, experiment, runs)
        ]
    )
    if pairs.empty:
        raise Undecidable(f"no two probes between step {FIRST_STEP} and the edge")
    products = pairs.assign(product=pairs["predicted"] * pairs["measured"], square=pairs["predicted"] ** 2)
    sums = products.groupby("seed")[["product", "square"]].sum()
    return mean_interval(sums["product"] / sums["square"])


@statistic("late $A$", digits=1)
def late_degree(evidence: Evidence, subject: str) -> Estimate:
    runs = settled(finished(evidence.runs(EXPERIMENTS[subject])))
    return by_seed(runs["late_degree"], runs)


@statistic(r"late $S$ at $\lambda=0.002$ over $\lambda=0$", digits=1)
def late_sharpness_ratio(evidence: Evidence, subject: str) -> Estimate:
    return late_ratio(evidence, EXPERIMENTS[subject], "late_sharpness", WEAK)


@statistic(r"late $R$, $\lambda\leq 0.002$", digits=3)
def edge_ratio_at_weak_decay(evidence: Evidence, subject: str) -> Estimate:
    """At that λ up to 2e-3 where it is farthest from 1."""
    runs = evidence.runs(EXPERIMENTS[subject])
    runs = settled(finished(runs[runs["l2"] <= WEAK * (1 + 1e-9)]))
    return farthest(runs, "late_edge_ratio", lambda value: abs(value - 1))


@statistic(r"late $R$, $\lambda=0.008$", digits=3)
def edge_ratio_at_strong_decay(evidence: Evidence, subject: str) -> Estimate:
    return mean_interval(settled(at(evidence.runs(EXPERIMENTS[subject]), STRONG))["late_edge_ratio"])


@statistic(r"lowest late $R$, $\lambda>0$", digits=3)
def lowest_edge_ratio(evidence: Evidence, subject: str) -> Estimate:
    runs = evidence.runs(EXPERIMENTS[subject])
    runs = settled(finished(runs[runs["l2"] > 0]))
    return farthest(runs, "late_edge_ratio", lambda value: -value)


@statistic(r"slope of late $\log S$ on $\log\lambda$", digits=2)
def plateau_slope(evidence: Evidence, subject: str) -> Estimate:
    """Over all λ from 8e-3 on."""
    runs = evidence.runs(EXPERIMENTS[subject])
    runs = settled(finished(runs[runs["l2"] >= STRONG * (1 - 1e-9)]))
    if runs["l2"].nunique() < 2:
        raise Undecidable("fewer than two λ")
    slopes = {
        seed: np.polyfit(np.log(some["l2"]), np.log(some["late_sharpness"]), 1)[0]
        for seed, some in runs.groupby("seed")
    }
    return mean_interval(pd.Series(slopes))


@statistic(r"late $S$ at another $\eta$, equal $t$", digits=3)
def plateau_across_lr(evidence: Evidence, subject: str) -> Estimate:
    """S at λ = 8e-3 over that at the learning rate of the main experiment, in the late part that both have; of several
    learning rates that with the ratio farthest from 1."""
    first, second = EXPERIMENTS[subject], f"{EXPERIMENTS[subject]}_other_lr"
    reference, others = (settled(at(evidence.runs(name), STRONG)) for name in (first, second))
    estimates = []
    for lr, some in others.groupby("lr"):
        pairs = some.merge(reference, on="seed", suffixes=("", "_reference"))
        start = max((some["late_start"] * lr).max(), (reference["late_start"] * reference["lr"]).max())
        end = min((some["steps"] * lr).min(), (reference["steps"] * reference["lr"]).min())
        quotients = {}
        for _, pair in pairs.iterrows():
            own, other = (
                mean_between(evidence.tables[name].metrics, run_id, start / rate, end / rate)
                for name, run_id, rate in [
                    (second, pair["run_id"], lr),
                    (first, pair["run_id_reference"], pair["lr_reference"]),
                ]
            )
            quotients[pair["seed"]] = own / other
        estimates.append(mean_interval(pd.Series(quotients, dtype=float)))
    return max(estimates, key=lambda estimate: abs(estimate.value - 1))


def mean_between(metrics: pd.DataFrame, run_id: str, start: float, end: float) -> float:
    """The mean sharpness of a run between two steps."""
    rows = metrics[(metrics["run_id"] == run_id) & (metrics["quantity"] == "sharpness")]
    return float(rows.loc[rows["step"].between(start - 0.5, end + 0.5), "value"].mean())


@statistic(r"late $A$ over that of the MLP, $\lambda=0.008$", digits=2)
def degree_ratio(evidence: Evidence, subject: str) -> Estimate:
    own, reference = (settled(at(evidence.runs(EXPERIMENTS[name]), STRONG)) for name in (subject, "MLP"))
    return ratio(own, reference[reference["seed"].isin(own["seed"])], "late_degree")


@statistic(r"late sd of $R$, $\lambda=0.004$ over $\lambda=0$", digits=2)
def spread_ratio(evidence: Evidence, subject: str) -> Estimate:
    return late_ratio(evidence, EXPERIMENTS[subject], "late_spread", DAMPED)


@statistic(r"$\langle\frac{\beta}{2}x^2\rangle/\langle\alpha_{eff}\rangle$ at the edge", digits=2)
def balance(evidence: Evidence, subject: str) -> Estimate:
    """Over all runs that are at the edge late in training."""
    runs = finished(evidence.runs(EXPERIMENTS[subject]))
    runs = runs[runs["at_edge"].astype(bool)]
    if runs.empty:
        raise Undecidable("no run is at the edge late in training")
    return by_seed(runs["late_pressure"] / runs["late_alpha_eff"], runs)


@statistic(r"late rms $x$, $\lambda=0.008$ over $\lambda=0$", digits=4)
def displacement_ratio(evidence: Evidence, subject: str) -> Estimate:
    return late_ratio(evidence, EXPERIMENTS[subject], "late_displacement", STRONG)


def log_slopes(evidence: Evidence, subject: str, column: str) -> pd.DataFrame:
    """The runs of an experiment with the slope of the logarithm of a quantity per step, before the edge."""
    experiment = EXPERIMENTS[subject]
    runs = finished(evidence.runs(experiment))
    slopes = []
    for _, table in tables(evidence, experiment, runs):
        if len(table) < 3:
            raise Undecidable(f"fewer than three probes between step {FIRST_STEP} and the edge")
        slopes.append(np.polyfit(table.index, np.log(table[column]), 1)[0])
    return runs.assign(slope=slopes)


@statistic(r"slope of $\log|w|^2$ over $-4\eta\lambda$", digits=3)
def norm_rate(evidence: Evidence, subject: str) -> Estimate:
    runs = log_slopes(evidence, subject, "weight_norm_squared")
    runs = runs[runs["l2"] > 0]
    return by_seed(-runs["slope"] / theory.invariant_growth(runs["lr"], runs["l2"]), runs)


@statistic(r"slope of $\log S$ above that of $\lambda=0$, over $4\eta\lambda$", digits=2)
def sharpness_rate(evidence: Evidence, subject: str) -> Estimate:
    runs = log_slopes(evidence, subject, "sharpness")
    start = runs[runs["l2"] == 0].set_index("seed")["slope"]
    runs = runs[runs["l2"] > 0]
    excess = runs["slope"] - runs["seed"].map(start)
    return by_seed(excess / theory.invariant_growth(runs["lr"], runs["l2"]), runs)


@statistic(r"kernel jitter, $\lambda=0.008$ over $\lambda=0$", digits=4)
def jitter_ratio(evidence: Evidence, subject: str) -> Estimate:
    return late_ratio(evidence, "mlp", "late_ntk_jitter", STRONG)


@statistic(r"kernel drift over that of $\lambda=0$", digits=2)
def kernel_drift_ratio(evidence: Evidence, subject: str) -> Estimate:
    """Of the MLP: at the largest λ > 0 whose runs are all at the edge, or below the edge at 8e-3."""
    if subject == "below the edge":
        return late_ratio(evidence, "mlp", "late_ntk_drift", STRONG)
    runs = finished(evidence.runs("mlp"))
    is_at_edge = runs[runs["l2"] > 0].groupby("l2")["at_edge"].all()
    if not is_at_edge.any():
        raise Undecidable("no run with decay is at the edge late in training")
    return late_ratio(evidence, "mlp", "late_ntk_drift", is_at_edge[is_at_edge].index.max())
