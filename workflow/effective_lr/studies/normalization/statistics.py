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
    mean_interval,
    require_numbers,
)
from effective_lr.evidence.verdicts import NO_INTERVAL, Evidence, statistic
from effective_lr.studies.normalization import theory
from effective_lr.studies.normalization.analysis import (
    LARGEST_LOST_SHARE,
    PLANES,
    are_enough,
    complete,
    contour_cells,
    critical_points,
    equilibrium_by_layer,
    error_or_chance,
    first_late_step,
    has_small_angle,
    late_layers,
    settled,
    slope_of_contours,
    with_angle_scales,
)
from effective_lr.studies.normalization.settings import TYPICAL_GRADIENT

NORM_POWER = {"sgd": 4, "nesterov": 4, "adamw": 2}  # in which ‖w*‖ is compared: linear in G² η/λ, or in η/λ
EQUILIBRIA = {"sgd": "plane_sgd", "nesterov": "small_steps", "adamw": "small_steps"}  # the experiments of C4 a and b
BETA1 = 0.9  # of AdamW's first moment, PyTorch's usual value
SMALL_MEMORY = 0.25  # of memory × angle, radians: how far weights turn while a step is remembered
DIAGONALS = 4  # values of ηλ that a limit of small steps takes
LARGEST_THETA = 0.075  # of the widest layer, up to which the theory of Adam and RMSProp is asked to hold
RELAXATIONS = 3  # relaxation times of a layer, at 1.5θ² per step, before the late part
PENALTY_ACTS = 1.5  # points of error, by which a penalty must act for its replay to be a test
FRACTIONS = (0.25, 0.5, 0.8, 0.9)  # of the critical λ, at which projected training has a partner without a penalty
SAFE_THETA, LOSING_THETA = 0.05, 0.2  # of the widest layer, at which no unit is lost, and most are
LOSING_STEPS = 5000  # for which the losses at LOSING_THETA are predicted: γ needs time to shrink
ROUNDING = 1 + 1e-3  # of a θ in the configuration, where λ has a few digits


Worst = Callable[[Estimate], float]  # the larger, the farther an interval reaches from what is predicted

# Means over seeds, and the worst of several


def away_from(middle: float) -> Worst:
    return lambda one: float(np.nanmax([abs(x - middle) for x in (one.value, one.low, one.high)]))


def highest(one: Estimate) -> float:
    return float(np.nanmax([one.value, one.high]))


def lowest(one: Estimate) -> float:
    return -float(np.nanmin([one.value, one.low]))


def worst_layer(
    table: pd.DataFrame, measure: Callable[[pd.DataFrame], float], worst: Worst, by: str | list[str] = "layer"
) -> Estimate:
    """For each layer `measure` of the cells of each seed, and its mean over seeds; the worst layer's."""
    layers = [
        pd.Series({seed: measure(cells) for seed, cells in rows.groupby("seed")}, dtype=float)
        for _, rows in table.groupby(by)
    ]
    return max((mean_interval(seeds) for seeds in layers), key=worst)


def mean_log(column: str) -> Callable[[pd.DataFrame], float]:
    """The mean of the logarithm of a column; NaN where a value has none."""
    return lambda cells: float(logs(cells[column]).mean(skipna=False))


def logs(values: pd.Series) -> pd.Series:
    """Logarithms; NaN, without a warning, of what has none."""
    return np.log(values.where(values > 0))


def slope(x: pd.Series, y: pd.Series) -> float:
    """Of least squares of log y on log x; NaN where a value has no logarithm."""
    return line(np.log(x), logs(y))[0]


def line(x: pd.Series, y: pd.Series) -> tuple[float, float]:
    """Slope and intercept of least squares; NaN where a y is."""
    if y.isna().any():
        return np.nan, np.nan
    first, second = np.polyfit(x, y, 1)
    return float(first), float(second)


def cells_and_seeds(runs: pd.DataFrame, value: pd.Series, by: list[str]) -> pd.DataFrame:
    """A value with a row for each cell and a column for each seed."""
    return runs.assign(value=value).groupby([*by, "seed"])["value"].mean().unstack("seed")


def changes(runs: pd.DataFrame, value: pd.Series, by: str, reference: float | str) -> list[Estimate]:
    """The change of a value from the cell by = reference in every other cell, by the two-way layout."""
    table = cells_and_seeds(runs, value, [by])
    if reference not in table.index or len(table) < 2:
        raise Undecidable("there is nothing to compare with")
    return [contrast(table, cell, reference) for cell in table.index if cell != reference]


def largest_change(runs: pd.DataFrame, value: pd.Series, by: str, reference: float) -> Estimate:
    """The largest of `changes`, without its sign."""
    return max(changes(runs, value, by, reference), key=away_from(0)).unsigned()


def percent_error(runs: pd.DataFrame) -> pd.Series:
    return 100 * error_or_chance(runs)


def percent_loss(runs: pd.DataFrame) -> pd.Series:
    """100 times the logarithm of the late training loss: its differences are changes in percent."""
    return 100 * logs(runs["late_train_loss"])


# Cells by layer


def add_note(evidence: Evidence, text: str) -> None:
    evidence.notes.append(text)


def layers_of(evidence: Evidence, experiment: str, runs: pd.DataFrame) -> pd.DataFrame:
    """`late_layers` of these runs of an experiment, of cells in which every seed has finished."""
    table = late_layers(evidence.tables[experiment].metrics, finished(evidence, runs))
    return complete(table, runs["seed"].nunique())


def finished(evidence: Evidence, runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that did not diverge; the others are counted in the note."""
    diverged = int(runs["diverged"].notna().sum())
    if diverged == len(runs):
        raise Undecidable("every run diverged" if diverged else "no cell counts at this scale")
    if diverged:
        add_note(evidence, f"{diverged} of {len(runs)} runs diverged, and their cells are left out")
    return runs[runs["diverged"].isna()]


def live(evidence: Evidence, table: pd.DataFrame) -> pd.DataFrame:
    """The rows of cells and layers that have an equilibrium in every seed; the others are named in the note."""
    if table.empty:
        raise Undecidable("no cell counts at this scale")
    require_numbers(table["late_norm_squared"])
    has_lost = table.groupby(["layer", "lr", "l2"])["late_without_gradient"].transform("max") > LARGEST_LOST_SHARE
    count, lost = count_cells(table), count_cells(table[has_lost])
    if lost:
        named = ", ".join(f"{layer} in {lost[layer]} of {count[layer]} cells" for layer in lost)
        add_note(evidence, f"without equilibrium: {named}")
    if has_lost.all():
        raise Undecidable("no layer has an equilibrium")
    return table[~has_lost]


def count_cells(table: pd.DataFrame) -> dict[str, int]:
    """How many cells there are of each layer."""
    return {layer: len(rows[["lr", "l2"]].drop_duplicates()) for layer, rows in table.groupby("layer")}


def at_equilibrium(evidence: Evidence, experiment: str, optimizer: str) -> pd.DataFrame:
    """Measured and predicted values of the cells of an experiment that have settled, by live layer."""
    runs = evidence.runs(experiment)
    runs = runs[runs["optimizer"] == optimizer]
    if runs.empty:
        raise Undecidable(f"no runs of {optimizer} in {experiment}")
    seeds, runs = runs["seed"].nunique(), runs[settled(runs)]
    table = equilibrium_by_layer(evidence.tables[experiment].metrics, finished(evidence, runs))
    return live(evidence, complete(table, seeds))


def with_diagonals(evidence: Evidence, table: pd.DataFrame, fewest: int) -> pd.DataFrame:
    """The layers whose cells have so many values of ηλ; the others are named in the note."""
    diagonals = np.log(table["lr"] * table["l2"]).round(2).groupby(table["layer"]).transform("nunique")
    too_few = table.loc[diagonals < fewest, "layer"].unique()
    if len(too_few) == table["layer"].nunique():
        raise Undecidable(f"fewer than {fewest} values of ηλ")
    if len(too_few):
        add_note(evidence, f"fewer than {fewest} values of ηλ: {', '.join(too_few)}")
    return table[diagonals >= fewest]


# Float64 checks


# Labels and digits of those that are not residuals.
CHECKS = {"norm_exponent": (r"exponent of $\|w\|$", 3)}


# C2: the family of one function, and a penalty replayed


def family(evidence: Evidence, subject: str) -> pd.DataFrame:
    """The runs of the symmetry family under a normalization, with the smallest ε."""
    runs = evidence.runs("symmetry")
    runs = runs[runs["normalization"] == subject]
    return runs[runs["norm_eps"] == runs["norm_eps"].min()]


@statistic("largest change of the error, points", digits=1)
def symmetry_error(evidence: Evidence, subject: str) -> Estimate:
    """The largest departure of the test error from that at a = 1."""
    runs = family(evidence, subject)
    return largest_change(runs, percent_error(runs), "initial_norm", 1.0)


@statistic(r"largest change of the loss, \%", digits=1)
def symmetry_loss(evidence: Evidence, subject: str) -> Estimate:
    """The largest departure of the late training loss from that at a = 1, in percent of it."""
    runs = family(evidence, subject)
    return largest_change(runs, percent_loss(runs), "initial_norm", 1.0)


def memorizing(evidence: Evidence, normalization: str, replays: tuple[str, ...]) -> pd.DataFrame:
    """The runs on few images with noisy labels: λ = 0 and every λ, without and with these ways to replay a penalty."""
    runs = evidence.runs("memorization")
    return runs[(runs["normalization"] == normalization) & runs["replay"].isin(replays)]


@statistic(r"largest change of the error by $\lambda$, points", digits=1)
def penalty_change(evidence: Evidence, subject: str) -> Estimate:
    """The largest change of the test error from that at λ = 0: whether there is something to regularize."""
    runs = memorizing(evidence, subject, ("none",))
    return largest_change(runs, percent_error(runs), "l2", 0.0)


def replay_change(evidence: Evidence, subject: str, value: Callable[[pd.DataFrame], pd.Series]) -> Estimate:
    """The largest difference, over λ, of a replay from the penalty itself, by the two-way layout of both arms.

    Raises Undecidable where the penalty changes the error by less than PENALTY_ACTS: its replay is no test then.
    """
    penalized = memorizing(evidence, "batch", ("none",))
    effects = [one.unsigned() for one in changes(penalized, percent_error(penalized), "l2", 0.0)]
    if not any(np.isnan(one.low) or one.low > PENALTY_ACTS for one in effects):  # NaN: one seed, which decides nothing
        raise Undecidable(f"no penalty changes the error by more than {PENALTY_ACTS} points, so none is to be replayed")
    kind = subject.split()[0]
    runs = memorizing(evidence, "batch", ("none", kind))
    seeds = runs.loc[runs["replay"] == kind, "seed"]  # the penalty may have others, too
    runs = runs[(runs["l2"] > 0) & runs["seed"].isin(seeds)]
    table = cells_and_seeds(runs, value(runs), ["l2", "replay"])
    penalties = [l2 for l2, replay in table.index if replay == kind and (l2, "none") in table.index]
    if not penalties:
        raise Undecidable(f"no {subject}")
    return max((contrast(table, (l2, kind), (l2, "none")) for l2 in penalties), key=away_from(0))


@statistic("error, replay less penalty, points", digits=1)
def replay_error(evidence: Evidence, subject: str) -> Estimate:
    """The test error of a replay (subject: closed or open replay) less that of the penalty, at the worst λ."""
    return replay_change(evidence, subject, percent_error)


@statistic(r"loss, replay over penalty, \%", digits=0)
def replay_loss(evidence: Evidence, subject: str) -> Estimate:
    """The late training loss of a replay over that of the penalty, as 100·log, at the worst λ."""
    return replay_change(evidence, subject, percent_loss)


@statistic(r"error at $\lambda=0$ less that at the best $\lambda$, points", digits=1)
def penalty_gain(evidence: Evidence, subject: str) -> Estimate:
    """What the λ > 0 with the lowest mean validation error gains over λ = 0 in test error."""
    runs = memorizing(evidence, subject, ("none",))
    table = cells_and_seeds(runs, percent_error(runs), ["l2"])
    if 0.0 not in table.index or len(table) < 2:
        raise Undecidable("there is nothing to compare with")
    validation = error_or_chance(runs, "validation")
    require_numbers(validation)
    best = validation[runs["l2"] > 0].groupby(runs["l2"]).mean().idxmin()
    return contrast(table, 0.0, best)


# C4: equilibrium


@statistic(r"slope of the angle in $\eta\lambda$", digits=2)
def angle_slope(evidence: Evidence, subject: str) -> Estimate:
    """The slope of log(angle per step) in log(ηλ) over the cells at equilibrium, in the layer farthest from ½."""
    table = with_diagonals(evidence, at_equilibrium(evidence, EQUILIBRIA[subject], subject), 3)
    return worst_layer(table, lambda cells: slope(cells["lr"] * cells["l2"], cells["angle"]), away_from(0.5))


@statistic("angle / predicted", digits=2)
def angle_factor(evidence: Evidence, subject: str) -> Estimate:
    """The angle per step over the predicted one: geometric mean over cells, in the worst layer."""
    table = at_equilibrium(evidence, EQUILIBRIA[subject], subject)
    return worst_layer(table, mean_log("angle_ratio"), away_from(0)).map(np.exp)


@statistic(r"$\|w\|^4$ / predicted", digits=2)
def norm_factor(evidence: Evidence, subject: str) -> Estimate:
    """‖w‖⁴ over its prediction from the measured G: geometric mean over cells, in the worst layer."""
    table = at_equilibrium(evidence, EQUILIBRIA[subject], subject)
    ratio = worst_layer(table, mean_log("norm_ratio"), away_from(0))
    return ratio.map(lambda log: np.exp(NORM_POWER[subject] * log))


def small_steps(evidence: Evidence, subject: str) -> pd.DataFrame:
    """The cells at equilibrium whose weights turn little while a step is remembered: β/(1−β)·angle ≤ SMALL_MEMORY."""
    table = at_equilibrium(evidence, "small_steps", subject)
    beta = table["momentum"] if subject == "nesterov" else BETA1
    table = table[beta / (1 - beta) * table["predicted_angle"] <= SMALL_MEMORY]
    if table.empty:
        raise Undecidable("no cell has small steps")
    return with_diagonals(evidence, table, DIAGONALS)


def line_of_norm(cells: pd.DataFrame) -> tuple[float, float]:
    """Slope and intercept of log(‖w‖⁴, or for AdamW ‖w‖², over predicted) in the predicted angle."""
    return line(cells["predicted_angle"], NORM_POWER[cells["optimizer"].iloc[0]] * logs(cells["norm_ratio"]))


@statistic(r"$\|w\|^{4,2}$ / predicted, as the angle goes to 0", digits=2)
def small_step_limit(evidence: Evidence, subject: str) -> Estimate:
    """‖w‖⁴ (AdamW: ‖w‖²) over its prediction in the limit of small steps, where the derivation is exact: the intercept
    at angle 0 of its logarithm on the predicted angle, in the worst layer."""
    return worst_layer(small_steps(evidence, subject), lambda cells: line_of_norm(cells)[1], away_from(0)).map(np.exp)


@statistic("slope of its logarithm in the angle, 1/rad", digits=1)
def small_step_slope(evidence: Evidence, subject: str) -> Estimate:
    """How `small_step_limit` departs as steps grow, in the layer that departs most: successive gradients are
    anticorrelated."""
    return worst_layer(small_steps(evidence, subject), lambda cells: line_of_norm(cells)[0], away_from(0))


def balanced_layers(evidence: Evidence, experiment: str, optimizer: str) -> pd.DataFrame:
    """The cells of Adam or RMSProp in the window of the theory, by live layer, with `balance`.

    A cell counts where θ ≤ LARGEST_THETA in its widest layer, a layer in it where 1.5θ²t₁ ≥ RELAXATIONS.
    """
    runs = evidence.runs(experiment)
    runs = runs[(runs["optimizer"] == optimizer) & (runs["l2"] > 0)]
    table = with_angle_scales(layers_of(evidence, experiment, runs))
    require_numbers(table["theta"])
    relaxed = 1.5 * table["theta"] ** 2 * first_late_step(table)
    table = table[(table["widest_theta"] <= LARGEST_THETA * ROUNDING) & (relaxed * ROUNDING >= RELAXATIONS)]
    table = live(evidence, table)
    return table.assign(balance=table["late_norm_to_root"] * 4 * table["layer_l2"] / table["lr"])


@statistic(r"$\|w\|^2$ / $(\eta/4\lambda)\sum\sqrt{\hat s}$", digits=2)
def balance(evidence: Evidence, subject: str) -> Estimate:
    """‖w‖² over the exact balance (η/4λ)·Σ√ŝ of Adam or RMSProp: geometric mean over cells, in the worst layer.

    With one θ in all layers; the subjects that end in "long" have one λ, and four times the steps.
    """
    optimizer, *arm = subject.split()
    table = balanced_layers(evidence, "long" if arm else "layer_penalty", optimizer)
    return worst_layer(table, mean_log("balance"), away_from(0)).map(np.exp)


# C5: diagonals


@statistic("slope of contours", digits=2)
def contour_slope(evidence: Evidence, subject: str) -> Estimate:
    """s of the contours log η = −s·log λ + const of the test error: a regression over cell means, which for cells with
    every seed is the mixed model with effects of cells and seeds."""
    runs = evidence.runs(PLANES[subject])
    cells = contour_cells(runs)
    if not are_enough(cells):
        raise Undecidable("fewer than three diagonals or six cells")
    require_numbers(cells["test_error"])
    found = finite(slope_of_contours(runs))
    return found if runs["seed"].nunique() > 1 else found.shown(NO_INTERVAL)


# C6: growth without a penalty


def growing(evidence: Evidence, subject: str) -> pd.DataFrame:
    """The runs without a penalty, by live layer."""
    runs = evidence.runs("growth")
    return live(evidence, layers_of(evidence, "growth", runs[(runs["optimizer"] == subject) & (runs["l2"] == 0)]))


EVERY_LR = ["layer", "lr"]  # judged at each η


@statistic(r"$(\|w_T\|^2-\|w_0\|^2)/\eta^2\sum\|g\|^2$", digits=4)
def growth_balance(evidence: Evidence, subject: str) -> Estimate:
    """The growth of ‖w‖² over that by Pythagoras, in the scale group of each seed that is farthest from 1: mean over
    seeds, and its range, as what is exact has no other spread."""
    table = growing(evidence, subject)
    ends = table.set_index("seed")[["growth_ratio_min", "growth_ratio_max"]].stack()
    require_numbers(ends)
    worst = pd.Series({seed: max(values, key=lambda x: abs(x - 1)) for seed, values in ends.groupby("seed")})
    found = Estimate(worst.mean(), worst.min(), worst.max())
    return found if len(worst) > 1 else found.shown(NO_INTERVAL)


@statistic(r"growth of $\|w\|^4$ / predicted", digits=3)
def growth_factor(evidence: Evidence, subject: str) -> Estimate:
    """R₄ = (‖w_T‖⁴ − ‖w_1‖⁴)/(2η²⟨G²⟩(T − t₁)) over the late part, at the worst η and layer."""
    table = growing(evidence, subject)
    return worst_layer(table, lambda cells: cells["fourth_power_ratio"].mean(), away_from(1), EVERY_LR)


@statistic(r"slope of $\eta_{\mathrm{eff}}$ less that by $\langle G^2\rangle$", digits=3)
def growth_excess(evidence: Evidence, subject: str) -> Estimate:
    """The slope of log η_eff in log t over the late part, less that which its own ⟨G²⟩ implies, at the worst η and
    layer."""
    table = growing(evidence, subject)
    table = table.assign(excess=table["measured_slope"] - table["implied_slope"])
    return worst_layer(table, lambda cells: cells["excess"].mean(), away_from(0), EVERY_LR)


def grown(evidence: Evidence, subject: str) -> pd.DataFrame:
    """The runs without a penalty whose predicted growth 2η²G²T is at least 8‖w₀‖⁴ at a typical G, by live layer."""
    table = growing(evidence, subject)
    growth = 2 * table["lr"] ** 2 * TYPICAL_GRADIENT**2 * table["steps"]
    table = table[growth >= 8 * table["initial_norm"] ** 4]
    if table.empty:
        raise Undecidable("no run has grown enough")
    return table


@statistic(r"slope of $\eta_{\mathrm{eff}}$ in $t$", digits=2)
def growth_slope(evidence: Evidence, subject: str) -> Estimate:
    """The slope of log η_eff in log t over the late part, mean over η, in the layer where it is flattest."""
    return worst_layer(grown(evidence, subject), lambda cells: cells["measured_slope"].mean(), highest)


@statistic("the same, median over layers", digits=2)
def growth_slope_of_median(evidence: Evidence, subject: str) -> Estimate:
    """The median over layers of the slope, mean over η."""
    medians = grown(evidence, subject).groupby(["seed", "lr"])["measured_slope"].median()
    return mean_interval(medians.groupby("seed").mean())


@statistic(r"predicted for it, $-1/(2-x)$", digits=2)
def growth_slope_predicted(evidence: Evidence, subject: str) -> Estimate:
    """The slope −1/(2−x) that follows if G² ∝ η_eff^(−x), with x measured at equilibrium: median over layers.

    d‖w‖⁴/dt = 2η²G² with η_eff = η/‖w‖² gives ‖w‖² ∝ t^(1/(2−x)); −½ is the case of a constant G.
    """
    table = with_diagonals(evidence, at_equilibrium(evidence, EQUILIBRIA[subject], subject), 3)
    slopes = [
        (seed, -1 / (2 + slope(cells["effective_lr"], cells["late_g_squared"])))
        for (seed, _), cells in table.groupby(["seed", "layer"])
    ]
    return mean_interval(pd.DataFrame(slopes, columns=["seed", "slope"]).groupby("seed")["slope"].median())


# C7: what remains of λ under Adam and RMSProp


def slope_within_lr(cells: pd.DataFrame) -> float:
    """The exponent of λ in η_eff: least squares of its logarithm on log λ, with an intercept for each η."""
    x, y = np.log(cells["layer_l2"]), logs(cells["late_effective_lr"])
    x, y = (values - values.groupby(cells["lr"]).transform("mean") for values in (x, y))
    return float((x * y).sum(skipna=False) / (x * x).sum())


@statistic(r"exponent of $\lambda$ in $\eta_{\mathrm{eff}}$", digits=2)
def l2_exponent(evidence: Evidence, subject: str) -> Estimate:
    """The exponent of λ in η_eff at fixed η, over the cells of `balance`, in the layer where it is lowest."""
    table = balanced_layers(evidence, "layer_penalty", subject)
    penalties = table.groupby(["layer", "lr"])["l2"].nunique().groupby("layer").max()
    table = table[table["layer"].map(penalties) > 1]
    if table.empty:
        raise Undecidable("no η has two λ in the window")
    return worst_layer(table, slope_within_lr, lowest)


# C8: normalized weights


def projected_runs(evidence: Evidence, subject: str) -> tuple[pd.DataFrame, float, float]:
    """The runs with ‖w‖ = 1 and their errors, the learning rate that has a penalty, and its critical λ."""
    runs = evidence.runs(f"projection_{subject}")
    runs = runs[runs["projected"]]
    penalized = runs[runs["l2"] > 0]
    if penalized.empty:
        raise Undecidable("no penalty acts on projected weights")
    lr = float(penalized["lr"].iloc[0])
    return runs.assign(error=percent_error(runs)), lr, float(theory.critical_l2(subject, lr))


@statistic(r"largest change of the error up to $0.1\lambda_{\mathrm{c}}$, points", digits=1)
def projected_change(evidence: Evidence, subject: str) -> Estimate:
    """The largest departure of the test error from that at λ = 0, up to 0.1 λc."""
    runs, lr, critical = projected_runs(evidence, subject)
    runs = runs[(runs["lr"] == lr) & (runs["l2"] <= 0.1 * critical * ROUNDING)]
    return largest_change(runs, runs["error"], "l2", 0.0)


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
    table = cells_and_seeds(cells, cells["error"], ["arm"])
    return max((contrast(table, f"{f:g} held", f"{f:g} free") for f in FRACTIONS), key=away_from(0))


@statistic(r"error at $1.2\lambda_{\mathrm{c}}$, \%", digits=1)
def projected_beyond(evidence: Evidence, subject: str) -> Estimate:
    """The test error at 1.2 λc."""
    runs, _, critical = projected_runs(evidence, subject)
    beyond = runs[np.isclose(runs["l2"], 1.2 * critical, rtol=1e-3)]
    if beyond.empty:
        raise Undecidable("no run at 1.2 λc")
    found = mean_interval(beyond.groupby("seed")["error"].mean())
    return found._replace(high=float(np.minimum(found.high, 100.0)))


# C9: γ and β


def affine_change(evidence: Evidence, value: Callable[[pd.DataFrame], pd.Series]) -> Estimate:
    """The change of a value by a penalty on γ and β of the hidden layers, paired by seed."""
    runs = evidence.runs("affine_penalty")
    runs = runs[runs["affine_l2"].isin(["none", "hidden"])]
    [change] = changes(runs, value(runs), "affine_l2", "none")
    return change


@statistic("change of the error, points", digits=1)
def affine_penalty(evidence: Evidence, subject: str) -> Estimate:
    """The change of the test error by a penalty on γ and β of the hidden layers."""
    return affine_change(evidence, percent_error)


@statistic(r"change of the training loss, \%", digits=1)
def affine_penalty_loss(evidence: Evidence, subject: str) -> Estimate:
    """The same of the late training loss, as 100·log: the penalty changes the effective learning rate of γ and β."""
    return affine_change(evidence, percent_loss)


# C10: lost units


def scanned(evidence: Evidence, optimizer: str) -> pd.DataFrame:
    """The scan of θ under Adam or RMSProp, every layer."""
    runs = evidence.runs("lost_units")
    table = with_angle_scales(layers_of(evidence, "lost_units", runs[runs["optimizer"] == optimizer]))
    require_numbers(table["late_without_gradient"])
    return table


@statistic(r"critical $\eta^2\lambda$, next layer over widest", digits=2)
def first_lost_layer(evidence: Evidence, subject: str) -> Estimate:
    """The η²λ at which half the units of a layer are lost: the smallest of the other layers over that of the widest.

    Above 1 the widest is the first. Geometric mean over seeds. A layer that keeps its units counts with the end of the
    scan, which the ratio then exceeds.
    """
    points = critical_points(scanned(evidence, subject))
    is_widest = points["group_size"] == points["group_size"].max()
    if not points.loc[is_widest, "is_reached"].all():
        raise Undecidable("the widest layer keeps half its units")
    widest, next_ = (rows.groupby("seed")["critical"].min() for rows in (points[is_widest], points[~is_widest]))
    return mean_interval(np.log(next_ / widest)).map(np.exp)


@statistic(r"exponent of $d$ in the critical $\eta^2\lambda$", digits=2)
def lost_exponent(evidence: Evidence, subject: str) -> Estimate:
    """The exponent of d in the η²λ at which half the units of a layer are lost, over the layers that lose half within
    the scan in every seed."""
    points = critical_points(scanned(evidence, subject))
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
    if subject in ("adam", "rmsprop"):
        table = scanned(evidence, subject)
        table = table[table["widest_theta"] <= SAFE_THETA * ROUNDING]
    else:
        runs = evidence.runs(EQUILIBRIA[subject])
        runs = runs[(runs["optimizer"] == subject) & (runs["l2"] > 0)]
        runs = runs[has_small_angle(runs)] if len(runs) else runs
        table = layers_of(evidence, EQUILIBRIA[subject], runs)
    if table.empty:
        raise Undecidable("no cell counts at this scale")
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


def lost(evidence: Evidence, subject: str) -> pd.DataFrame:
    """The cells and layers of the scan with lost units in every seed; their norm and angle over what is predicted."""
    table = scanned(evidence, subject)
    seeds = table["seed"].nunique()
    table = complete(table[table["late_without_gradient"] > 0], seeds, ("layer", "lr", "l2"))
    if table.empty:
        raise Undecidable("no unit is lost in every seed")
    return table.assign(
        norm=np.sqrt(table["lost_norm_squared"]) / (table["lr"] * np.sqrt(table["group_size"]) / 2),
        angle=np.sqrt(table["lost_angle_squared"]) / np.pi,
    )


@statistic(r"$\|w\|$ of lost units / $\frac12\eta\sqrt{d}$", digits=2)
def lost_norm(evidence: Evidence, subject: str) -> Estimate:
    """‖w‖ of a lost unit over η√d/2: every weight swings between ±η/2. Geometric mean over cells, worst layer."""
    return worst_layer(lost(evidence, subject), mean_log("norm"), away_from(0)).map(np.exp)


@statistic(r"angle per step of lost units / $\pi$", digits=2)
def lost_angle(evidence: Evidence, subject: str) -> Estimate:
    """The angle per step of a lost unit over π. Geometric mean over cells, worst layer."""
    return worst_layer(lost(evidence, subject), mean_log("angle"), away_from(0)).map(np.exp)
