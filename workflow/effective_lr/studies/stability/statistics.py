"""The statistics by which the claims of the chapter are decided. The unit of every interval is the seed, and a ratio is
averaged over seeds as a logarithm.

A subject is a network, or a network at one λ: "MLP at 0.002". A late value of a run that has not settled (analysis.py)
decides nothing.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from effective_lr.evidence.estimates import (
    Estimate,
    Undecidable,
    geometric_mean,
    log_ratio,
    mean_interval,
    require_numbers,
)
from effective_lr.evidence.tidy import Experiment
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
        raise Undecidable(f"no run at λ = {l2:g}: needs the scale study")
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


def cell(evidence: Evidence, subject: str) -> pd.DataFrame:
    """The settled runs of a subject that names its λ."""
    name, l2 = subject.split(" at ")
    return settled(at(evidence.runs(EXPERIMENTS[name]), float(l2)))


def ratio(above: pd.DataFrame, below: pd.DataFrame, column: str) -> Estimate:
    """The geometric mean over seeds of the ratio of a positive column."""
    for runs in (above, below):
        require_numbers(runs[column])
    return log_ratio(above.set_index("seed")[column], below.set_index("seed")[column])


def late_ratio(evidence: Evidence, experiment: str, column: str, l2: float, reference: float = 0.0) -> Estimate:
    """The ratio of a late value at one λ to that at another."""
    runs = evidence.runs(experiment)
    return ratio(settled(at(runs, l2)), settled(at(runs, reference)), column)


def farthest(runs: pd.DataFrame, column: str, distance: Callable[[float], float]) -> Estimate:
    """The mean over seeds at that λ where it is farthest by `distance`."""
    estimates = [mean_interval(some[column]) for _, some in runs.groupby("l2")]
    return max(estimates, key=lambda estimate: distance(estimate.value))


def before_the_edge(experiment: Experiment, runs: pd.DataFrame) -> list[tuple[pd.Series, pd.DataFrame]]:
    """Each run with its probes after FIRST_STEP and before the edge."""
    found = []
    for _, run in runs.iterrows():
        table = probes(experiment.metrics, run)
        found.append((run, table[(table.index > FIRST_STEP) & (table.index < run["edge_step"])]))
    return found


def drift_pairs(table: pd.DataFrame, lr: float, l2: float) -> pd.DataFrame:
    """For every two adjacent probes of a run: predicted α0 − 2λAS, their mean, and measured dS/dt."""
    force = pd.Series(theory.drift(table["alpha0"], table["degree"], table["sharpness"], l2))
    change = table["sharpness"].diff() / (lr * table.index.to_series().diff())
    return pd.DataFrame({"predicted": (force + force.shift()) / 2, "measured": change}).dropna()


def drift_before_the_edge(experiment: Experiment, runs: pd.DataFrame) -> pd.DataFrame:
    """These pairs of all the runs, with their seeds."""
    pairs = [pd.DataFrame({"predicted": [], "measured": [], "seed": []})]
    for run, table in before_the_edge(experiment, runs):
        if len(table) > 1:
            pairs.append(drift_pairs(table, run["lr"], run["l2"]).assign(seed=run["seed"]))
    return pd.concat(pairs)


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
    pairs = drift_before_the_edge(evidence.tables[experiment], finished(evidence.runs(experiment)))
    if pairs.empty:
        raise Undecidable(f"no two probes between step {FIRST_STEP} and the edge")
    products = pairs.assign(product=pairs["predicted"] * pairs["measured"], square=pairs["predicted"] ** 2)
    sums = products.groupby("seed")[["product", "square"]].sum()
    return mean_interval(sums["product"] / sums["square"])


@statistic("late $A$", digits=1)
def late_degree(evidence: Evidence, subject: str) -> Estimate:
    return mean_interval(cell(evidence, subject)["late_degree"])


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


def below_the_edge(evidence: Evidence, subject: str) -> pd.DataFrame:
    """The settled runs with λ from 8e-3 on."""
    runs = evidence.runs(EXPERIMENTS[subject])
    return settled(finished(runs[runs["l2"] >= STRONG * (1 - 1e-9)]))


@statistic(r"late $2\lambda AS/\alpha_0$, $\lambda\geq 0.008$", digits=3)
def plateau_law(evidence: Evidence, subject: str) -> Estimate:
    """At that λ where it is farthest from 1, at which the force vanishes."""
    runs = below_the_edge(evidence, subject)
    value = 2 * runs["l2"] * runs["late_degree"] * runs["late_sharpness"] / runs["late_alpha0"]
    estimates = [geometric_mean(some) for _, some in value.groupby(runs["l2"])]
    return max(estimates, key=lambda estimate: abs(np.log(estimate.value)))


@statistic(r"slope of late $\log S$ on $\log\lambda$", digits=2)
def plateau_slope(evidence: Evidence, subject: str) -> Estimate:
    """Over all λ from 8e-3 on."""
    runs = below_the_edge(evidence, subject)
    if runs["l2"].nunique() < 2:
        raise Undecidable("fewer than two λ")
    slopes = {
        seed: np.polyfit(np.log(some["l2"]), np.log(some["late_sharpness"]), 1)[0]
        for seed, some in runs.groupby("seed")
        if some["l2"].nunique() > 1
    }
    return mean_interval(pd.Series(slopes, dtype=float))


@statistic(r"late $S$ at another $\eta$, equal $t$", digits=3)
def plateau_across_lr(evidence: Evidence, subject: str) -> Estimate:
    """S at λ = 8e-3 over that at the learning rate of the main experiment, in the late part that both have; of several
    learning rates that with the ratio farthest from 1."""
    first, second = EXPERIMENTS[subject], f"{EXPERIMENTS[subject]}_other_lr"
    reference, others = (settled(at(evidence.runs(name), STRONG)) for name in (first, second))
    estimates = []
    for _, some in others.groupby("lr"):
        pair = [(first, reference), (second, some)]
        start = max((runs["late_start"] * runs["lr"]).max() for _, runs in pair)
        end = min((runs["steps"] * runs["lr"]).min() for _, runs in pair)
        below, above = (
            pd.Series(
                {
                    run["seed"]: mean_between(evidence, name, run["run_id"], start / run["lr"], end / run["lr"])
                    for _, run in runs.iterrows()
                }
            )
            for name, runs in pair
        )
        estimates.append(log_ratio(above, below))
    return max(estimates, key=lambda estimate: abs(np.log(estimate.value)))


def mean_between(evidence: Evidence, experiment: str, run_id: str, start: float, end: float) -> float:
    """The mean sharpness of a run between two steps."""
    metrics = evidence.tables[experiment].metrics
    rows = metrics[(metrics["run_id"] == run_id) & (metrics["quantity"] == "sharpness")]
    return float(rows.loc[rows["step"].between(start - 0.5, end + 0.5), "value"].mean())


@statistic(r"late $A$ over that of the MLP, $\lambda=0.008$", digits=2)
def degree_ratio(evidence: Evidence, subject: str) -> Estimate:
    own, reference = (settled(at(evidence.runs(EXPERIMENTS[name]), STRONG)) for name in (subject, "MLP"))
    return ratio(own, reference, "late_degree")


@statistic(r"sd of $R$ soon after the edge, $\lambda=0.008$ over $\lambda=0$", digits=2)
def early_spread_ratio(evidence: Evidence, subject: str) -> Estimate:
    runs = evidence.runs(EXPERIMENTS[subject])
    return ratio(at(runs, STRONG), at(runs, 0.0), "early_spread")


@statistic("late sd of $R$", digits=4)
def late_spread(evidence: Evidence, subject: str) -> Estimate:
    return geometric_mean(cell(evidence, subject)["late_spread"])


def over_force(evidence: Evidence, subject: str, pressure: str) -> Estimate:
    """A late mean pressure over the force that it should hold, of runs that are all at the edge."""
    runs = cell(evidence, subject)
    if count := int((~runs["at_edge"].astype(bool)).sum()):
        raise Undecidable(f"{count} of {len(runs)} runs are not at the edge late in training")
    return geometric_mean(runs[f"late_{pressure}"] / runs["late_edge_force"])


@statistic(r"pressure over $\alpha_{eff}$, all directions at the edge", digits=2)
def balance(evidence: Evidence, subject: str) -> Estimate:
    return over_force(evidence, subject, "edge_pressure")


@statistic(r"pressure over $\alpha_{eff}$, without products $x_ix_j$", digits=2)
def balance_without_products(evidence: Evidence, subject: str) -> Estimate:
    return over_force(evidence, subject, "edge_pressure_diagonal")


@statistic(r"pressure over $\alpha_{eff}$, top direction alone", digits=2)
def balance_of_top(evidence: Evidence, subject: str) -> Estimate:
    return over_force(evidence, subject, "edge_pressure_top")


@statistic("directions at the edge", digits=1)
def edge_directions(evidence: Evidence, subject: str) -> Estimate:
    return mean_interval(cell(evidence, subject)["late_edge_directions"])


@statistic(r"late rms $x$, $\lambda=0.008$ over $\lambda=0$", digits=None)
def displacement_ratio(evidence: Evidence, subject: str) -> Estimate:
    return late_ratio(evidence, EXPERIMENTS[subject], "late_displacement", STRONG)


@statistic(r"slope of $\log|w|^2$ over $-4\eta\lambda$", digits=3)
def norm_rate(evidence: Evidence, subject: str) -> Estimate:
    """Per step, before the edge; over all λ > 0."""
    rates = {}
    for run, table in decayed(evidence, subject):
        slope = np.polyfit(table.index, np.log(table["weight_norm_squared"]), 1)[0]
        rates[run["seed"], run["l2"]] = -slope / theory.invariant_growth(run["lr"], run["l2"])
    return by_seed(rates)


@statistic(r"decay's part of the change of $S$ over $\sum 4\eta\lambda|u_w|^2S$", digits=3)
def decay_rate(evidence: Evidence, subject: str) -> Estimate:
    """Σ(ΔS − Δt·α0) over Σ4ηλ|u_w|²S before the edge, in one run: no other run is the reference. Over all λ > 0."""
    rates = {}
    for run, table in decayed(evidence, subject):
        time, growth = run["lr"] * table.index, theory.invariant_growth(1.0, run["l2"])
        change = table["sharpness"].iloc[-1] - table["sharpness"].iloc[0] - np.trapezoid(table["alpha0"], time)
        rates[run["seed"], run["l2"]] = change / np.trapezoid(
            growth * table["u_weight_share"] * table["sharpness"], time
        )
    return by_seed(rates)


def decayed(evidence: Evidence, subject: str) -> list[tuple[pd.Series, pd.DataFrame]]:
    """The runs with λ > 0, each with its probes before the edge. Raises Undecidable where one has fewer than three."""
    runs = finished(evidence.runs(EXPERIMENTS[subject]))
    found = before_the_edge(evidence.tables[EXPERIMENTS[subject]], runs[runs["l2"] > 0])
    if any(len(table) < 3 for _, table in found):
        raise Undecidable(f"fewer than three probes between step {FIRST_STEP} and the edge")
    return found


def by_seed(values: dict[tuple[int, float], float]) -> Estimate:
    """The mean of a number by (seed, λ), first within seeds, then over them."""
    if not values:
        raise Undecidable("no run with decay")
    return mean_interval(pd.Series(values).groupby(level=0).mean())


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
