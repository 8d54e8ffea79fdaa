"""The statistics by which the claims of the chapter are decided. Errors are in points of percent.

The repetition that an interval counts is the seed: cells of one seed share its images and weights. So a number is first
taken over the cells of each seed, and its t interval is over seeds. A change between cells is taken by the two-way
layout of cells and seeds (estimates.contrast). Where layers are judged, each has its own interval, and the statistic is
that of the layer whose interval reaches farthest from the prediction: the others are nearer.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from effective_lr.evidence.estimates import (
    Estimate,
    Undecidable,
    contrast,
    finite,
    log_ratio,
    mean_interval,
    require_numbers,
)
from effective_lr.evidence.verdicts import NO_INTERVAL, Evidence, Statistic, statistic
from effective_lr.studies.normalization import analysis, theory
from effective_lr.studies.normalization.analysis import ROUNDING, Cells, complete, finished, live
from effective_lr.studies.normalization.settings import TYPICAL_GRADIENT

LOSS_ACTS = 2.0  # factor of the training loss, by which a penalty must act for its replay to be a test
FRACTIONS = (0.25, 0.5, 0.8, 0.9)  # of the critical λ, at which projected training has a partner without a penalty
SAFE_THETA, LOSING_THETA = 0.05, 0.2  # of the widest layer, at which no unit is lost, and most are
LOSING_STEPS = 5000  # for which the losses at LOSING_THETA are predicted: γ needs time to shrink

# Labels and digits of the float64 checks that are not residuals.
CHECKS = {"norm_exponent": (r"exponent of $\|w\|$", 3)}

Value = Callable[[pd.DataFrame], pd.Series]  # of each run
Worst = Callable[[Estimate], float]  # the larger, the farther an interval reaches from what is predicted


# Means over seeds, and the worst of several


def away_from(middle: float) -> Worst:
    return lambda one: float(np.nanmax([abs(x - middle) for x in (one.value, one.low, one.high)]))


highest, lowest = away_from(-1e6), away_from(1e6)  # far beyond any number here


def by_layer(
    label: str,
    cells: Callable[[Evidence, str], Cells],
    measure: str | Callable[[pd.DataFrame], float],
    worst: Worst,
    by: tuple[str, ...] = ("layer",),
    digits: int = 2,
    is_log: bool = False,
) -> Statistic:
    """A statistic of layers: `measure` of the cells of each seed, its mean over seeds in the worst layer.

    A measure that is a column is its mean over cells; `is_log`: a geometric mean.
    """

    def found(evidence: Evidence, subject: str) -> Estimate:
        table, note = cells(evidence, subject)
        if isinstance(measure, str):
            values = logs(table[measure]) if is_log else table[measure]
            require_numbers(values)
            seeds = values.groupby([table[key] for key in (*by, "seed")]).mean()
        else:
            seeds = pd.Series({key: measure(rows) for key, rows in table.groupby([*by, "seed"])})
        layers = (mean_interval(one) for _, one in seeds.groupby(level=list(range(len(by)))))
        estimate = max(layers, key=worst).map(np.exp if is_log else float)
        return (estimate.shown(NO_INTERVAL) if np.isnan(estimate.low) else estimate).noted(note)

    what = measure.__doc__ if callable(measure) else "The geometric mean." if is_log else "The mean."
    found.__doc__ = f"{what} Over the cells of each seed; mean over seeds, in the worst layer."
    return Statistic(found, label, digits)


def logs(values: pd.Series) -> pd.Series:
    """Logarithms; NaN, without a warning, of what has none."""
    return np.log(values.where(values > 0))


def slope(x: pd.Series, y: pd.Series) -> float:
    """Of least squares of log y on log x; NaN where a value has no logarithm."""
    logged = logs(y)
    return np.nan if logged.isna().any() else float(np.polyfit(np.log(x), logged, 1)[0])


def cells_and_seeds(runs: pd.DataFrame, value: pd.Series, by: list[str]) -> pd.DataFrame:
    """A value with a row for each cell and a column for each seed."""
    return runs.assign(value=value).groupby([*by, "seed"])["value"].mean().unstack("seed")


def changes(runs: pd.DataFrame, value: Value, by: str, reference: float | str) -> dict[float | str, Estimate]:
    """The change of a value from the cell by = reference in every other cell, by the two-way layout."""
    if reference not in set(runs[by]) or runs[by].nunique() < 2:
        raise Undecidable("there is nothing to compare with")
    table = cells_and_seeds(runs, value(runs), [by])
    return {cell: contrast(table, cell, reference) for cell in table.index if cell != reference}


def largest_change(runs: pd.DataFrame, value: Value, by: str, reference: float | str) -> Estimate:
    """The one of `changes` that reaches farthest from 0."""
    return max(changes(runs, value, by, reference).values(), key=away_from(0))


def percent_error(runs: pd.DataFrame) -> pd.Series:
    return 100 * analysis.error_or_chance(runs)


def median_errors(evidence: Evidence, experiment: str) -> Value:
    """The median of each run's late evaluations: one bad checkpoint does not move it."""
    return lambda runs: 100 * analysis.median_error(evidence.tables[experiment], runs)


def log_loss(runs: pd.DataFrame) -> pd.Series:
    return logs(runs["late_train_loss"])


def percent_loss(runs: pd.DataFrame) -> pd.Series:
    """100 times the logarithm of the late training loss: its differences are changes in percent."""
    return 100 * log_loss(runs)


# Cells by layer


def layers_of(evidence: Evidence, experiment: str, runs: pd.DataFrame) -> Cells:
    """`late_layers` of these runs of an experiment, of cells in which every seed has finished."""
    chosen, note = finished(runs)
    table = analysis.late_layers(evidence.tables[experiment].metrics, chosen)
    return Cells(complete(table, runs["seed"].nunique()), note)


def at_equilibrium(evidence: Evidence, subject: str) -> Cells:
    """Measured and predicted values of the cells that have settled, by live layer."""
    return analysis.at_equilibrium(evidence.tables["equilibrium"], subject)


def on_diagonals(evidence: Evidence, subject: str) -> Cells:
    """The same in the layers that have three values of ηλ, through which a slope can be laid."""
    table, note = at_equilibrium(evidence, subject)
    diagonals = np.log(table["lr"] * table["l2"]).round(2).groupby(table["layer"]).transform("nunique")
    if diagonals.max() < 3:
        raise Undecidable("fewer than three values of ηλ")
    return Cells(table[diagonals >= 3], note)


def with_penalties(evidence: Evidence, subject: str) -> Cells:
    """The same in the layers that have two λ at one η."""
    table, note = at_equilibrium(evidence, subject)
    penalties = table.groupby(["layer", "lr"])["l2"].transform("nunique").groupby(table["layer"]).transform("max")
    if penalties.max() < 2:
        raise Undecidable("no η has two λ in the window: needs the scale study")
    return Cells(table[penalties >= 2], note)


# C2: the family of one function, and a penalty replayed


def family(evidence: Evidence, subject: str) -> pd.DataFrame:
    """The runs of the symmetry family under a normalization, with the smallest ε."""
    runs = evidence.runs("symmetry")
    runs = runs[runs["normalization"] == subject]
    return runs[runs["norm_eps"] == runs["norm_eps"].min()]


@statistic("largest change of the error, points", digits=1)
def symmetry_error(evidence: Evidence, subject: str) -> Estimate:
    """The largest change of the median test error along the family from that at a = 1."""
    return largest_change(family(evidence, subject), median_errors(evidence, "symmetry"), "initial_norm", 1.0)


@statistic(r"largest change of the training loss, \%", digits=1)
def symmetry_loss(evidence: Evidence, subject: str) -> Estimate:
    """The largest change of the late training loss along the family from that at a = 1, as 100·log."""
    return largest_change(family(evidence, subject), percent_loss, "initial_norm", 1.0)


def memorizing(evidence: Evidence, normalization: str, *replays: str) -> pd.DataFrame:
    """The runs on few images with noisy labels: λ = 0 and every λ, without and with these ways to replay a penalty."""
    runs = evidence.runs("memorization")
    return runs[(runs["normalization"] == normalization) & runs["replay"].isin(["none", *replays])]


def replayed(evidence: Evidence, subject: str, value: Value) -> pd.DataFrame:
    """A value of a replay (subject: slow, closed or open replay) less that of the penalty, by λ (rows) and seed.

    Raises Undecidable where no penalty changes the training loss by a factor of LOSS_ACTS: its replay is no test then.
    """
    kind = subject.split()[0]
    runs = memorizing(evidence, "batch", kind)
    is_replay = runs["replay"] == kind
    runs = runs[runs["seed"].isin(runs.loc[is_replay, "seed"])]  # the penalty may have others, too
    if runs.empty:
        raise Undecidable(f"no {subject}")
    replay, penalty = runs[runs["replay"] == kind], runs[runs["replay"] == "none"]
    losses = cells_and_seeds(penalty, logs(penalty["late_train_loss"]), ["l2"]).mean(axis=1)
    require_numbers(losses)
    if 0.0 not in losses.index or (losses - losses.loc[0.0]).abs().max() < np.log(LOSS_ACTS):
        raise Undecidable(f"no penalty changes the training loss {LOSS_ACTS:g} times, so none is to be replayed")
    values = cells_and_seeds(replay, value(replay), ["l2"])
    return values - cells_and_seeds(penalty, value(penalty), ["l2"]).loc[values.index]


def at_worst(by_l2: pd.DataFrame) -> Estimate:
    """The mean over seeds, at the λ whose interval reaches farthest from 0."""
    return max((mean_interval(seeds) for _, seeds in by_l2.iterrows()), key=away_from(0))


@statistic("error, replay less penalty, points", digits=1)
def replay_error(evidence: Evidence, subject: str) -> Estimate:
    """The median test error of a replay less that of the penalty, paired by seed, at the worst λ."""
    return at_worst(replayed(evidence, subject, median_errors(evidence, "memorization")))


@statistic(r"the same, mean over $\lambda$", digits=1)
def replay_error_mean(evidence: Evidence, subject: str) -> Estimate:
    """The median test error of a replay less that of the penalty, paired by seed, mean over λ."""
    return mean_interval(replayed(evidence, subject, median_errors(evidence, "memorization")).mean(skipna=False))


@statistic("training loss, replay over penalty", digits=2)
def replay_loss(evidence: Evidence, subject: str) -> Estimate:
    """The late training loss of a replay over that of the penalty: geometric mean over seeds, at the worst λ."""
    return at_worst(replayed(evidence, subject, log_loss)).map(np.exp)


@statistic(r"the same, mean over $\lambda$", digits=2)
def replay_loss_mean(evidence: Evidence, subject: str) -> Estimate:
    """The late training loss of a replay over that of the penalty: geometric mean over seeds and λ."""
    return mean_interval(replayed(evidence, subject, log_loss).mean(skipna=False)).map(np.exp)


@statistic(r"largest change of the error by $\lambda$, points", digits=1)
def penalty_change(evidence: Evidence, subject: str) -> Estimate:
    """The largest change of the median test error from that at λ = 0: whether there is something to regularize."""
    runs = memorizing(evidence, subject)
    return largest_change(runs, median_errors(evidence, "memorization"), "l2", 0.0).unsigned()


@statistic(r"error at $\lambda=0$ less that at the best $\lambda$, points", digits=1)
def penalty_gain(evidence: Evidence, subject: str) -> Estimate:
    """What the λ > 0 with the lowest mean validation error gains over λ = 0 in test error."""
    runs = memorizing(evidence, subject)
    gains = changes(runs, lambda some: -percent_error(some), "l2", 0.0)
    validation = analysis.error_or_chance(runs, "validation")
    require_numbers(validation)
    return gains[validation[runs["l2"] > 0].groupby(runs["l2"]).mean().idxmin()]


# C4: equilibrium, and C7: what remains of λ under Adam and RMSProp


def angle_in_product(cells: pd.DataFrame) -> float:
    """The slope of the logarithm of the angle per step on log ηλ."""
    return slope(cells["lr"] * cells["l2"], cells["angle"])


def rate_in_penalty(cells: pd.DataFrame) -> float:
    """The exponent of λ in η_eff: least squares of its logarithm on log λ, with an intercept for each η."""
    x, y = np.log(cells["layer_l2"]), logs(cells["late_effective_lr"])
    x, y = (values - values.groupby(cells["lr"]).transform("mean") for values in (x, y))
    return float((x * y).sum(skipna=False) / (x * x).sum())


angle_slope = by_layer(r"slope of the angle in $\eta\lambda$", on_diagonals, angle_in_product, away_from(0.5))
l2_exponent = by_layer(r"exponent of $\lambda$ in $\eta_{\mathrm{eff}}$", with_penalties, rate_in_penalty, lowest)
angle_factor, norm_factor, balance, balance_memoryless, root_balance = (
    by_layer(label, at_equilibrium, column, away_from(0), is_log=True)
    for label, column in [
        ("angle / predicted", "angle_ratio"),
        (r"$\|w\|^4$ / predicted", "norm_ratio_4"),
        ("shrinking by the penalty / growth by steps", "balance"),
        ("the same without the memory", "memoryless"),
        (r"$\|w\|^2$ / $(\eta/4\lambda)\sum\sqrt{\hat s}$", "root_balance"),
    ]
)


@statistic("share of hidden layers with an equilibrium", digits=2)
def equilibrium_share(evidence: Evidence, subject: str) -> Estimate:
    """The share of pairs of a cell and a hidden layer that have an equilibrium: at most one unit in twenty is without a
    gradient. A run that diverged has none."""
    metrics, runs = analysis.settled_runs(evidence.tables["equilibrium"], subject)
    table = analysis.late_layers(metrics, runs)
    table = table[table["layer"] != analysis.CLASSIFIER]
    if table.empty:
        raise Undecidable(analysis.NO_CELL)
    require_numbers(table["late_norm_squared"])
    pairs = table["layer"].nunique() * runs.groupby("seed").size()
    return mean_interval(analysis.is_live(table).groupby(table["seed"]).sum() / pairs)


# C5: diagonals


@statistic("slope of contours", digits=2)
def contour_slope(evidence: Evidence, subject: str) -> Estimate:
    """s of the contours log η = −s·log λ + const of the test error: a regression over cell means, which for cells with
    every seed is the mixed model with effects of cells and seeds."""
    runs = evidence.runs(analysis.PLANES[subject])
    if not analysis.are_enough(cells := analysis.contour_cells(runs)):
        raise Undecidable("fewer than three diagonals or six cells")
    require_numbers(cells["test_error"])
    found = finite(analysis.slope_of_contours(runs))
    return found if runs["seed"].nunique() > 1 else found.shown(NO_INTERVAL)


# C6: growth without a penalty


def growing(evidence: Evidence, subject: str) -> Cells:
    """The runs without a penalty, by live layer."""
    runs = evidence.runs("growth")
    table, note = live(layers_of(evidence, "growth", runs[(runs["optimizer"] == subject) & (runs["l2"] == 0)]))
    return Cells(table.assign(excess=table["measured_slope"] - table["implied_slope"]), note)


def grown(evidence: Evidence, subject: str) -> Cells:
    """The runs without a penalty whose predicted growth 2η²G²T is at least 8‖w₀‖⁴ at a typical G, by live layer."""
    table, note = growing(evidence, subject)
    growth = 2 * table["lr"] ** 2 * TYPICAL_GRADIENT**2 * table["steps"]
    table = table[growth >= 8 * table["initial_norm"] ** 4]
    if table.empty:
        raise Undecidable("no run has grown enough: needs the scale study")
    return Cells(table, note)


@statistic(r"$(\|w_T\|^2-\|w_0\|^2)/\eta^2\sum\|g\|^2$", digits=4)
def growth_balance(evidence: Evidence, subject: str) -> Estimate:
    """The growth of ‖w‖² over that by Pythagoras, in the scale group of each seed that is farthest from 1: mean over
    seeds, and its range, as what is exact has no other spread."""
    table, note = growing(evidence, subject)
    ends = table.set_index("seed")[["growth_ratio_min", "growth_ratio_max"]].stack()
    require_numbers(ends)
    worst = pd.Series({seed: max(values, key=lambda x: abs(x - 1)) for seed, values in ends.groupby("seed")})
    found = Estimate(worst.mean(), worst.min(), worst.max()).noted(note)
    return found if len(worst) > 1 else found.shown(NO_INTERVAL)


# R₄ = (‖w_T‖⁴ − ‖w_1‖⁴)/(2η²⟨G²⟩(T − t₁)) over the late part; slopes are of log η_eff in log t over it.
AT_WORST_LR = (("layer", "lr"), 3)
growth_factor = by_layer(r"growth of $\|w\|^4$ / predicted", growing, "fourth_power_ratio", away_from(1), *AT_WORST_LR)
growth_excess = by_layer(
    r"slope of $\eta_{\mathrm{eff}}$ less that by $\langle G^2\rangle$", growing, "excess", away_from(0), *AT_WORST_LR
)
growth_slope = by_layer(r"slope of $\eta_{\mathrm{eff}}$ in $t$", grown, "measured_slope", highest)


@statistic("the same, median over layers", digits=2)
def growth_slope_of_median(evidence: Evidence, subject: str) -> Estimate:
    """The median over layers of the slope, mean over η."""
    medians = grown(evidence, subject).rows.groupby(["seed", "lr"])["measured_slope"].median()
    return mean_interval(medians.groupby("seed").mean())


@statistic(r"predicted for it, $-1/(2-x)$", digits=2)
def growth_slope_predicted(evidence: Evidence, subject: str) -> Estimate:
    """The slope −1/(2−x) that follows if G² ∝ η_eff^(−x), with x measured at equilibrium: median over layers.

    d‖w‖⁴/dt = 2η²G² with η_eff = η/‖w‖² gives ‖w‖² ∝ t^(1/(2−x)); −½ is the case of a constant G.
    """
    groups = on_diagonals(evidence, subject).rows.groupby(["seed", "layer"])
    exponents = pd.Series({key: slope(cells["effective_lr"], cells["late_g_squared"]) for key, cells in groups})
    return mean_interval((-1 / (2 + exponents)).groupby(level=0).median())


# C8: normalized weights


def projected_runs(evidence: Evidence, subject: str) -> tuple[pd.DataFrame, float, float]:
    """The runs with ‖w‖ = 1, the learning rate that has a penalty, and its critical λ."""
    runs = evidence.runs(f"projection_{subject}")
    runs = runs[runs["projected"]]
    penalized = runs[runs["l2"] > 0]
    if penalized.empty:
        raise Undecidable("no penalty acts on projected weights")
    lr = float(penalized["lr"].iloc[0])
    return runs, lr, float(theory.critical_l2(subject, lr))


@statistic(r"largest change of the error up to $0.1\lambda_{\mathrm{c}}$, points", digits=1)
def projected_change(evidence: Evidence, subject: str) -> Estimate:
    """The largest departure of the test error from that at λ = 0, up to 0.1 λc."""
    runs, lr, critical = projected_runs(evidence, subject)
    runs = runs[(runs["lr"] == lr) & (runs["l2"] <= 0.1 * critical * ROUNDING)]
    return largest_change(runs, percent_error, "l2", 0.0).unsigned()


@statistic(r"error at $\lambda$ less that at $\eta/(1-\lambda/\lambda_{\mathrm{c}})$, points", digits=1)
def projected_match(evidence: Evidence, subject: str) -> Estimate:
    """The test error at each of FRACTIONS of λc less that without a penalty at the learning rate that it amounts to, by
    the two-way layout of all these cells, at the worst fraction."""
    runs, lr, critical = projected_runs(evidence, subject)
    pairs = []
    for fraction in FRACTIONS:
        is_held = (runs["lr"] == lr) & np.isclose(runs["l2"], fraction * critical, rtol=1e-3)
        is_free = (runs["l2"] == 0) & np.isclose(runs["lr"], lr / (1 - fraction), rtol=1e-3)
        if not (is_held.any() and is_free.any()):
            raise Undecidable(f"no pair of runs at {fraction:g} λc")
        pairs += [runs[is_held].assign(arm=f"{fraction:g} held"), runs[is_free].assign(arm=f"{fraction:g} free")]
    cells = pd.concat(pairs)
    table = cells_and_seeds(cells, percent_error(cells), ["arm"])
    return max((contrast(table, f"{f:g} held", f"{f:g} free") for f in FRACTIONS), key=away_from(0))


@statistic(r"error at $1.2\lambda_{\mathrm{c}}$, \%", digits=1)
def projected_beyond(evidence: Evidence, subject: str) -> Estimate:
    """The test error at 1.2 λc."""
    runs, _, critical = projected_runs(evidence, subject)
    beyond = runs[np.isclose(runs["l2"], 1.2 * critical, rtol=1e-3)]
    if beyond.empty:
        raise Undecidable("no run at 1.2 λc")
    found = mean_interval(percent_error(beyond).groupby(beyond["seed"]).mean())
    return found._replace(high=float(np.minimum(found.high, 100.0)))


# C9: γ and β


def with_hidden_penalty(evidence: Evidence, value: Value) -> Estimate:
    runs = evidence.runs("affine_penalty")
    return largest_change(runs[runs["affine_l2"].isin(["none", "hidden"])], value, "affine_l2", "none")


@statistic("change of the error, points", digits=1)
def affine_penalty(evidence: Evidence, subject: str) -> Estimate:
    """The change by a penalty on γ and β of the hidden layers, paired by seed. Of the error."""
    return with_hidden_penalty(evidence, percent_error)


@statistic(r"change of the training loss, \%", digits=1)
def affine_penalty_loss(evidence: Evidence, subject: str) -> Estimate:
    """The change by a penalty on γ and β of the hidden layers, paired by seed. Of the training loss."""
    return with_hidden_penalty(evidence, percent_loss)


# C10: lost units


def scanned(evidence: Evidence, subject: str) -> pd.DataFrame:
    """The scan of θ under Adam or RMSProp, every layer; "rmsprop corrected" has bias-corrected squares."""
    optimizer, *arm = subject.split()
    runs = evidence.runs("lost_units")
    runs = runs[(runs["optimizer"] == optimizer) & (runs["corrected_squares"] == bool(arm))]
    table = analysis.with_angle_scales(layers_of(evidence, "lost_units", runs).rows)
    require_numbers(table["late_without_gradient"])
    return table


@statistic(r"critical $\eta^2\lambda$, next layer over widest", digits=2)
def first_lost_layer(evidence: Evidence, subject: str) -> Estimate:
    """The η²λ at which half the units of a layer are lost: the smallest of the other layers over that of the widest, a
    geometric mean over seeds. Above 1 the widest is the first. A layer that keeps its units counts with the end of the
    scan, which the ratio then exceeds."""
    points = analysis.critical_points(scanned(evidence, subject))
    is_widest = points["group_size"] == points["group_size"].max()
    if not points.loc[is_widest, "is_reached"].all():
        raise Undecidable("the widest layer keeps half its units")
    widest, next_ = (rows.groupby("seed")["critical"].min() for rows in (points[is_widest], points[~is_widest]))
    return log_ratio(next_, widest)


@statistic(r"exponent of $d$ in the critical $\eta^2\lambda$", digits=2)
def lost_exponent(evidence: Evidence, subject: str) -> Estimate:
    """The exponent of d in the η²λ at which half the units of a layer are lost, over the layers that lose half within
    the scan in every seed."""
    points = analysis.critical_points(scanned(evidence, subject))
    points = points[points.groupby("layer")["is_inside"].transform("all")]
    if points["group_size"].nunique() < 2:
        raise Undecidable("fewer than two layers lose half their units within the scan")
    exponents = {seed: slope(layers["group_size"], layers["critical"]) for seed, layers in points.groupby("seed")}
    return mean_interval(pd.Series(exponents))


@statistic("largest share of lost units", digits=3)
def lost_share(evidence: Evidence, subject: str) -> Estimate:
    """The largest share of units without a gradient over layers and cells, where none is to be lost: mean over seeds.

    Adam and RMSProp: up to SAFE_THETA in the widest layer. SGD and AdamW: at every penalty with a small angle.
    """
    if subject in ("sgd", "adamw"):
        experiment = "plane_sgd" if subject == "sgd" else "lost_units"
        runs = evidence.runs(experiment)
        runs = runs[(runs["optimizer"] == subject) & (runs["l2"] > 0)]
        table = layers_of(evidence, experiment, runs[analysis.has_small_angle(runs)] if len(runs) else runs).rows
    else:
        table = scanned(evidence, subject)
        table = table[table["widest_theta"] <= SAFE_THETA * ROUNDING]
    if table.empty:
        raise Undecidable(analysis.NO_CELL)
    return mean_interval(table.groupby("seed")["late_without_gradient"].agg(lambda shares: shares.max(skipna=False)))


@statistic(r"share of lost units of the widest layer, $\theta=0.2$", digits=2)
def lost_share_of_widest(evidence: Evidence, subject: str) -> Estimate:
    """The share of units of the widest layer without a gradient where its θ is LOSING_THETA."""
    table = scanned(evidence, subject)
    if table["steps"].min() < LOSING_STEPS:
        raise Undecidable(f"predicted for {LOSING_STEPS} steps")
    table = table[table["is_widest"] & np.isclose(table["theta"], LOSING_THETA, rtol=1e-2)]
    if table.empty:
        raise Undecidable(f"no cell has θ = {LOSING_THETA}")
    return mean_interval(table.groupby("seed")["late_without_gradient"].mean())


def lost(evidence: Evidence, subject: str) -> Cells:
    """The cells and layers of the scan with lost units in every seed; their norm and angle over what is predicted."""
    table = scanned(evidence, subject)
    seeds = table["seed"].nunique()
    table = complete(table[table["late_without_gradient"] > 0], seeds, ("layer", "lr", "l2"))
    if table.empty:
        raise Undecidable("no unit is lost in every seed")
    norm = np.sqrt(table["lost_norm_squared"]) / (table["lr"] * np.sqrt(table["group_size"]) / 2)
    vanished = int((norm == 0).sum())
    note = f"the norm underflows in {vanished} of {len(norm)} layers of runs, and counts as 0" if vanished else ""
    return Cells(table.assign(norm=norm, angle=np.sqrt(table["lost_angle_squared"]) / np.pi), note)


# Every weight of a lost unit swings between ±η/2. Arithmetic means over cells, as a norm that underflows is 0.
lost_norm = by_layer(r"$\|w\|$ of lost units / $\frac12\eta\sqrt{d}$", lost, "norm", away_from(1))
lost_angle = by_layer(r"angle per step of lost units / $\pi$", lost, "angle", away_from(1))
