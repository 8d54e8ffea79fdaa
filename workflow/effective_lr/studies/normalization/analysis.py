"""What figures, tables and statistics of the chapter take from the tidy tables: masks, slopes, equilibria by layer."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from effective_lr.evidence.estimates import NO_VALUE, Estimate, pooled_mean, t_margin
from effective_lr.evidence.tidy import Experiment
from effective_lr.studies.normalization import theory

USEFUL_ERROR = 0.3  # cells of a grid above it train badly, and scatter far more than those that are compared
CHANCE_ERROR = 0.9  # of ten equally frequent classes; stands for a run that diverged
EFFECTIVE_LR = {"norm_squared": "effective_lr", "late_norm_squared": "late_effective_lr"}


def derive(metrics: pd.DataFrame, runs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Add the effective learning rate to what was measured, and give `affine_lr` its number where it is shared."""
    runs["affine_lr"] = runs["affine_lr"].where(runs["affine_lr"] != "shared", runs["lr"]).astype(float)
    return pd.concat([metrics, _effective_lr(metrics, runs)], ignore_index=True), runs


def _effective_lr(metrics: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """A row of effective learning rate for each row of a norm."""
    norms = metrics[metrics["quantity"].isin(EFFECTIVE_LR)].reset_index(drop=True)
    columns = ["optimizer", "lr", "momentum", "projected", "lr_drop", "steps"]
    settings = runs.set_index("run_id").loc[norms["run_id"], columns].reset_index()
    dropped = norms["step"] > settings["steps"] // 2  # Run.drop_step
    settings["lr"] /= settings["lr_drop"].where(dropped, 1.0)
    for (optimizer, projected), rows in settings.groupby(["optimizer", "projected"]):
        norm = np.sqrt(norms.loc[rows.index, "value"])
        norms.loc[rows.index, "value"] = theory.effective_lr(optimizer, rows["lr"], norm, rows["momentum"], projected)
    return norms.assign(quantity=norms["quantity"].map(EFFECTIVE_LR))


def error_or_chance(runs: pd.DataFrame, split: str = "test") -> pd.Series:
    """The error of each run; a run that diverged counts as chance."""
    return runs[f"{split}_error"].where(runs["diverged"].isna(), CHANCE_ERROR)


# The experiment that holds each optimizer's plane under batch normalization.
PLANES = {
    "sgd": "plane_sgd",
    "nesterov": "plane_nesterov",
    "adam": "plane_adam",
    "rmsprop": "plane_rmsprop",
    "adamw": "small_steps",
}
LARGEST_ANGLE = 0.25  # radians per step, up to which the theory of small steps is asked to hold
DYNAMICS_LR = 0.64  # of the runs that are shown over time


def dynamics(experiment: Experiment) -> Experiment:
    """The runs whose training is shown over time: λ = 0 and every second λ with a small angle, at one learning rate."""
    runs = experiment.runs[(experiment.runs["lr"] == DYNAMICS_LR) & experiment.runs["diverged"].isna()]
    runs = runs[predicted_angle(runs) <= LARGEST_ANGLE]
    penalties = sorted(runs["l2"].unique())
    runs = runs[runs["l2"].isin([0.0, *penalties[1::2]])]
    return Experiment(experiment.metrics[experiment.metrics["run_id"].isin(runs["run_id"])], runs)


def plane(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean test error over seeds, η down and λ across."""
    return runs.assign(error=error_or_chance(runs)).pivot_table(index="lr", columns="l2", values="error")


class BestSetting(NamedTuple):
    """The setting of a grid with the lowest validation error, and its test error."""

    lr: float
    l2: float
    error: Estimate
    seeds: int


def best_setting(runs: pd.DataFrame, only_without_penalty: bool = False) -> BestSetting:
    """Choose (η, λ) by the mean validation error over seeds and report the test error there.

    The t interval of the mean takes its deviation from all cells with a test error below USEFUL_ERROR, pooled,
    because two seeds say little about one cell. With a single seed, or a larger error, there is no interval.
    """
    table = runs.assign(test=error_or_chance(runs), validation=error_or_chance(runs, "validation"))
    cells = table.groupby(["lr", "l2"])[["test", "validation"]].mean().assign(seeds=table.groupby(["lr", "l2"]).size())
    best = (cells[cells.index.get_level_values("l2") == 0] if only_without_penalty else cells)["validation"].idxmin()
    error, seeds = Estimate(cells.loc[best, "test"], np.nan, np.nan), int(cells.loc[best, "seeds"])
    if seeds > 1 and error.value < USEFUL_ERROR:
        means = table.groupby(["lr", "l2"])["test"].transform("mean")
        error = pooled_mean(table[means < USEFUL_ERROR], "test", ["lr", "l2"], best)
    return BestSetting(lr=best[0], l2=best[1], error=error, seeds=seeds)


def in_equilibrium(runs: pd.DataFrame, tolerance: float = 0.2, typical_grad: float = 0.1) -> pd.Series:
    """Whether SGD or its momenta are predicted to be at equilibrium in the late part of a run, from its settings alone.

    |(‖w₀‖/‖w*‖)⁴ − 1|·exp(−8ηλt/(1−μ)) ≤ tolerance at the first late step, with ‖w*‖ predicted for a typical G.
    """
    result = pd.Series(False, index=runs.index)
    for optimizer, rows in runs[runs["l2"] > 0].groupby("optimizer"):
        steps = theory.steps_to_equilibrium(
            optimizer, rows["lr"], rows["l2"], typical_grad, rows["initial_norm"], tolerance, rows["momentum"]
        )
        result[rows.index] = steps <= rows["steps"] * (1 - rows["late_fraction"])
    return result


def predicted_angle(runs: pd.DataFrame) -> pd.Series:
    """The angle per step at equilibrium, in radians, of runs of one optimizer: SGD or one of its momenta."""
    optimizer = runs["optimizer"].iloc[0]
    return theory.equilibrium_angle(optimizer, runs["lr"], runs["l2"], 1.0, 1.0, runs["momentum"])


def on_contours(runs: pd.DataFrame) -> pd.Series:
    """The cells of a plane that a claim about contours may use, chosen by their settings alone.

    SGD and Nesterov: predicted to be at equilibrium, with a predicted angle per step of at most LARGEST_ANGLE.
    Adam and RMSProp: η ≥ 0.003 and η²λ in [5·10⁻⁷, 5·10⁻⁵]. AdamW: the same angle, and 4ηλt ≥ 12 at the first late step
    t, as its second moments remember the larger gradients of smaller weights, which slows its approach three times.
    """
    optimizer = runs["optimizer"].iloc[0]
    if optimizer in ("adam", "rmsprop"):
        invariant = theory.diagonal_invariant(optimizer, runs["lr"], runs["l2"])
        return (runs["lr"] >= 0.003) & (invariant >= 5e-7) & (invariant <= 5e-5)
    if optimizer == "adamw":
        settled = 4 * runs["lr"] * runs["l2"] * runs["steps"] * (1 - runs["late_fraction"]) >= 12
        return settled & (predicted_angle(runs) <= LARGEST_ANGLE)
    return in_equilibrium(runs) & (predicted_angle(runs) <= LARGEST_ANGLE)


def contour_cells(runs: pd.DataFrame) -> pd.DataFrame:
    """The cells that `on_contours` chooses, as means over seeds, without any in which a run diverged.

    With coordinates u = log η + s₀·log λ across the predicted contours, centred, and v = log η − s₀·log λ along them.
    """
    slope = theory.diagonal_slope(runs["optimizer"].iloc[0])
    cells = runs[on_contours(runs)].groupby(["lr", "l2"], as_index=False)[["test_error", "diverged"]].mean()
    cells = cells[cells["diverged"].isna()]
    u = np.log(cells["lr"]) + slope * np.log(cells["l2"])
    return cells.assign(u=u - u.mean(), v=np.log(cells["lr"]) - slope * np.log(cells["l2"]))


def are_enough(cells: pd.DataFrame) -> bool:
    """Whether a slope of contours can be taken from these cells."""
    return bool(cells["u"].round(6).nunique() >= 3 and len(cells) >= 6)


def slope_of_contours(runs: pd.DataFrame) -> Estimate:
    """s of the contours log η = −s·log λ + const of the test error; NaN where the cells are not enough.

    Least squares of logit(error) on u, u² and v (`contour_cells`) give s = s₀(b_u − b_v)/(b_u + b_v), with s₀ the
    predicted slope; its interval is by the delta method. As u is centred, b_u is the slope in the middle of the cells.
    """
    import statsmodels.formula.api as smf  # takes a second, which figures need not wait

    cells = contour_cells(runs)
    if not are_enough(cells):
        return NO_VALUE
    s = theory.diagonal_slope(runs["optimizer"].iloc[0])
    cells = cells.assign(logit=np.log(cells["test_error"] / (1 - cells["test_error"])))
    fit = smf.ols("logit ~ u + I(u**2) + v", cells).fit()
    b_u, b_v = fit.params["u"], fit.params["v"]
    gradient = 2 * s * np.array([b_v, -b_u]) / (b_u + b_v) ** 2
    covariance = fit.cov_params().loc[["u", "v"], ["u", "v"]].to_numpy()
    margin = t_margin(np.sqrt(gradient @ covariance @ gradient), fit.df_resid)
    slope = s * (b_u - b_v) / (b_u + b_v)
    return Estimate(slope, slope - margin, slope + margin)


def late_layers(metrics: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The late means of these runs, one row for each run and layer, with the settings of the run."""
    rows = metrics[metrics["run_id"].isin(runs["run_id"]) & (metrics["layer"] != "")]
    rows = rows[rows["quantity"].str.startswith("late_") | (rows["quantity"] == "group_size")]
    wide = rows.pivot_table(index=["run_id", "layer"], columns="quantity", values="value", dropna=False).reset_index()
    return wide.merge(runs[["run_id", "optimizer", "lr", "l2", "momentum", "seed"]], on="run_id")


FORMS = (("", ""), ("predicted_", ""), ("", "_ratio"))  # how the columns of a quantity begin and end


def equilibrium_by_layer(metrics: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Measured and predicted norm, effective learning rate and angle per step in the late part, for each run and layer.

    For the runs of one optimizer that `on_contours` chooses, without those that diverged. The prediction takes the
    measured G² = ⟨‖∇‖²‖w‖²⟩ of each layer. Columns: those of `late_layers`; norm, effective_lr, angle, each also with
    `predicted_` before it and `_ratio` after it; `has_gradient`, false where the median unit got none in the
    late part: the theory, which balances gradient and penalty, then says nothing about most units of the layer.
    """
    runs = runs[on_contours(runs) & runs["diverged"].isna()]
    table = late_layers(metrics, runs)
    if table.empty:
        names = [f"{before}{what}{after}" for what in ("norm", "effective_lr", "angle") for before, after in FORMS]
        return table.assign(**dict.fromkeys(names, pd.Series(dtype=float)), has_gradient=pd.Series(dtype=bool))
    optimizer, grad = table["optimizer"].iloc[0], np.sqrt(table["late_g_squared"])
    settings = (optimizer, table["lr"], table["l2"], grad, table["group_size"], table["momentum"])
    measured = {
        "norm": np.sqrt(table["late_norm_squared"]),
        "effective_lr": table["late_effective_lr"],
        "angle": np.sqrt(table["late_angle_squared"]),
    }
    predicted = {
        "norm": theory.equilibrium_norm(*settings),
        "effective_lr": theory.equilibrium_effective_lr(*settings),
        "angle": theory.equilibrium_angle(*settings),
    }
    return table.assign(
        **measured,
        **{f"predicted_{what}": value for what, value in predicted.items()},
        **{f"{what}_ratio": value / predicted[what] for what, value in measured.items()},
        has_gradient=table["late_g_squared"] > 0,
    )
