"""The statistics by which the claims of the chapter are decided. Errors are in points of percent."""

import numpy as np
import pandas as pd
import statsmodels.formula.api as smf
from scipy import stats

from effective_lr.evidence.estimates import (
    CONFIDENCE,
    Estimate,
    Undecidable,
    finite,
    mean_interval,
    pooled_mean,
    require_numbers,
    t_margin,
)
from effective_lr.evidence.verdicts import Evidence, checked, statistic
from effective_lr.studies.normalization import theory
from effective_lr.studies.normalization.analysis import (
    PLANES,
    are_enough,
    contour_cells,
    equilibrium_by_layer,
    error_or_chance,
    slope_of_contours,
)

LAST_LAYER = "linear"
NORM_POWER = {"sgd": 4, "nesterov": 4, "adam": 3, "rmsprop": 3, "adamw": 2}  # in which ‖w*‖ is compared


def at_equilibrium(evidence: Evidence, subject: str) -> pd.DataFrame:
    """Measured and predicted values by run and layer, for the cells of an optimizer's plane at equilibrium."""
    table = equilibrium_by_layer(evidence.tables[PLANES[subject]].metrics, evidence.runs(PLANES[subject]))
    if table.empty:
        raise Undecidable("no cell of the grid reaches equilibrium at small steps")
    has_all = table.groupby("run_id")["has_gradient"].all()
    if not has_all.all():
        evidence.note = f"in {(~has_all).sum()} of {len(has_all)} runs most units of a layer have no gradient"
    return table


def last_layer(evidence: Evidence, subject: str) -> pd.DataFrame:
    """`at_equilibrium` for the classifier alone: no ReLU follows it that could switch off a unit."""
    table = at_equilibrium(evidence, subject)
    evidence.note = ""
    return table[table["layer"] == LAST_LAYER]


def largest(differences: pd.DataFrame, by: str) -> Estimate:
    """The largest absolute mean difference over the cells, with its pooled interval, cut at 0."""
    require_numbers(differences["difference"])
    means = differences.groupby(by)["difference"].mean()
    worst = means.abs().idxmax()
    value, low, high = finite(pooled_mean(differences, "difference", by, worst))
    if value < 0:
        value, low, high = -value, -high, -low
    return Estimate(value, float(np.maximum(low, 0.0)), high)


def differences(runs: pd.DataFrame, value: pd.Series, reference: pd.Series) -> pd.DataFrame:
    """`difference` of a value from that of the reference run of the same seed, for all other runs."""
    table = runs.assign(value=value)
    start = table[reference].set_index("seed")["value"]
    others = table[~reference]
    if start.empty or others.empty:
        raise Undecidable("there is nothing to compare with")
    return others.assign(difference=others["value"] - others["seed"].map(start))


@statistic("residual", digits=None)
def invariance(evidence: Evidence, subject: str) -> Estimate:
    return checked(evidence, "invariance", subject)


@statistic("residual", digits=None)
def affine_invariance(evidence: Evidence, subject: str) -> Estimate:
    return checked(evidence, "affine_invariance", subject)


@statistic(r"exponent of $\|w\|$", digits=3)
def norm_exponent(evidence: Evidence, subject: str) -> Estimate:
    """The exponent of ‖w‖ in the angle per step."""
    return checked(evidence, "norm_exponent", subject)


def family(evidence: Evidence, subject: str) -> pd.DataFrame:
    """The runs of the symmetry family under a normalization, with the smallest ε."""
    runs = evidence.runs("symmetry")
    runs = runs[runs["normalization"] == subject]
    return runs[runs["norm_eps"] == runs["norm_eps"].min()]


@statistic("largest change of the error, points", digits=1)
def symmetry_error(evidence: Evidence, subject: str) -> Estimate:
    """The largest departure of the test error from that at a = 1."""
    runs = family(evidence, subject)
    return largest(differences(runs, 100 * error_or_chance(runs), runs["initial_norm"] == 1), "initial_norm")


@statistic(r"largest change of the loss, \%", digits=1)
def symmetry_loss(evidence: Evidence, subject: str) -> Estimate:
    """The largest departure of the late training loss from that at a = 1, in percent of it."""
    runs = family(evidence, subject)
    return largest(differences(runs, 100 * np.log(runs["late_train_loss"]), runs["initial_norm"] == 1), "initial_norm")


@statistic(r"slope of the angle in $\eta\lambda$", digits=2)
def angle_slope(evidence: Evidence, subject: str) -> Estimate:
    """The slope of log(angle per step) in log(ηλ), over the runs at equilibrium; an angle is the median over layers."""
    runs = at_equilibrium(evidence, subject).groupby("run_id").agg({"angle": "median", "lr": "first", "l2": "first"})
    x, y = np.log(runs["lr"] * runs["l2"]), np.log(runs["angle"])
    if x.round(6).nunique() < 3:
        raise Undecidable("fewer than three values of ηλ")
    fit = stats.linregress(x, y)
    margin = t_margin(fit.stderr, len(x) - 2)
    return finite(Estimate(fit.slope, fit.slope - margin, fit.slope + margin), y)


@statistic("angle / predicted", digits=2)
def angle_factor(evidence: Evidence, subject: str) -> Estimate:
    """The angle per step over the predicted one, median over layers: geometric mean over the runs at equilibrium."""
    ratios = at_equilibrium(evidence, subject).groupby("run_id")["angle_ratio"].median()
    return Estimate(*np.exp(mean_interval(np.log(ratios))))


@statistic(r"$\|w\|^{4,3,2}$ / predicted", digits=2)
def norm_factor(evidence: Evidence, subject: str) -> Estimate:
    """‖w‖⁴ (Adam, RMSProp: ‖w‖³, AdamW: ‖w‖²) over its prediction from the measured G, median over layers: geometric
    mean over the runs at equilibrium."""
    return power_of_ratio(at_equilibrium(evidence, subject), subject)


@statistic("the same in the last layer alone", digits=2)
def norm_factor_of_the_last_layer(evidence: Evidence, subject: str) -> Estimate:
    return power_of_ratio(last_layer(evidence, subject), subject)


def power_of_ratio(table: pd.DataFrame, subject: str) -> Estimate:
    ratios = table.groupby("run_id")["norm_ratio"].median()
    return Estimate(*np.exp(NORM_POWER[subject] * np.array(mean_interval(np.log(ratios.where(ratios > 0))))))


@statistic("slope of contours", digits=2)
def contour_slope(evidence: Evidence, subject: str) -> Estimate:
    """s of the contours log η = −s·log λ + const of the test error."""
    runs = evidence.runs(PLANES[subject])
    cells = contour_cells(runs)
    if not are_enough(cells):
        raise Undecidable("fewer than three diagonals or six cells")
    require_numbers(cells["test_error"])
    return finite(slope_of_contours(runs))


@statistic(r"slope of $\eta_{\mathrm{eff}}$ in $t$", digits=2)
def growth_slope(evidence: Evidence, subject: str) -> Estimate:
    """The slope of log η_eff in log t over the last half of runs without a penalty, median over layers, of those whose
    predicted growth 2η²G²T is at least 8‖w₀‖⁴: mean over runs."""
    runs = evidence.runs("growth")
    runs = runs[(runs["optimizer"] == subject) & runs["diverged"].isna()].set_index("run_id")
    metrics = evidence.tables["growth"].metrics
    metrics = metrics[metrics["run_id"].isin(runs.index) & (metrics["layer"] != "")]
    slopes = {}
    for run_id, rows in metrics.groupby("run_id"):
        run = runs.loc[run_id]
        grad_squared = rows.loc[rows["quantity"] == "g_squared"].groupby("layer")["value"].mean().median()
        if 2 * run["lr"] ** 2 * grad_squared * run["steps"] < 8 * run["initial_norm"] ** 4:
            continue
        late = rows[(rows["quantity"] == "effective_lr") & (rows["step"] >= run["steps"] / 2)]
        layers = [stats.linregress(np.log(k["step"]), np.log(k["value"])).slope for _, k in late.groupby("layer")]
        slopes[run_id] = np.median(layers)
    if not slopes:
        raise Undecidable("no run has grown enough")
    return mean_interval(pd.Series(slopes))


@statistic(r"exponent of $\lambda$ in $\eta_{\mathrm{eff}}$", digits=2)
def l2_exponent(evidence: Evidence, subject: str) -> Estimate:
    """The exponent of λ in η_eff at fixed η: least squares of log η_eff on log λ with an intercept for each η."""
    return exponent_of_l2(at_equilibrium(evidence, subject))


@statistic("the same in the last layer alone", digits=2)
def l2_exponent_of_the_last_layer(evidence: Evidence, subject: str) -> Estimate:
    return exponent_of_l2(last_layer(evidence, subject))


def exponent_of_l2(table: pd.DataFrame) -> Estimate:
    runs = table.groupby("run_id").agg({"effective_lr": "median", "lr": "first", "l2": "first"})
    if (runs.groupby("lr")["l2"].nunique() > 1).sum() < 1:
        raise Undecidable("no η has two λ in equilibrium")
    require_numbers(runs["effective_lr"])
    fit = smf.ols("y ~ C(lr) + x", runs.assign(y=np.log(runs["effective_lr"]), x=np.log(runs["l2"]))).fit()
    low, high = fit.conf_int(1 - CONFIDENCE).loc["x"]
    return finite(Estimate(fit.params["x"], low, high))


def projected_runs(evidence: Evidence, subject: str) -> tuple[pd.DataFrame, float]:
    """The runs with ‖w‖ = 1, with their errors, and the critical λ."""
    runs = evidence.runs(f"projection_{subject}")
    runs = runs[runs["projected"]]
    return runs.assign(error=100 * error_or_chance(runs)), float(theory.critical_l2(subject, runs["lr"].iloc[0]))


@statistic(r"largest change of the error up to $0.1\lambda_{\mathrm{c}}$, points", digits=1)
def projected_change(evidence: Evidence, subject: str) -> Estimate:
    """The largest departure of the test error from that at λ = 0, up to 0.1 λc."""
    runs, critical = projected_runs(evidence, subject)
    runs = runs[runs["l2"] <= 0.1 * critical * (1 + 1e-9)]
    return largest(differences(runs, runs["error"], runs["l2"] == 0), "l2")


@statistic(r"error at $1.2\lambda_{\mathrm{c}}$, \%", digits=1)
def projected_beyond(evidence: Evidence, subject: str) -> Estimate:
    """The test error at 1.2 λc."""
    runs, critical = projected_runs(evidence, subject)
    beyond = runs[runs["l2"] > critical]
    at = beyond["l2"][np.isclose(beyond["l2"], 1.2 * critical)]
    if at.empty:
        raise Undecidable("no run at 1.2 λc")
    value, low, high = finite(pooled_mean(beyond, "error", "l2", at.iloc[0]), beyond["error"])
    return Estimate(value, low, float(np.minimum(high, 100.0)))


@statistic("change of the error, points", digits=1)
def affine_penalty(evidence: Evidence, subject: str) -> Estimate:
    """The change of the test error by a penalty on γ and β of the hidden layers."""
    runs = evidence.runs("affine_penalty")
    runs = runs[runs["affine_l2"].isin(["none", "hidden"])]
    return mean_interval(differences(runs, 100 * error_or_chance(runs), runs["affine_l2"] == "none")["difference"])
