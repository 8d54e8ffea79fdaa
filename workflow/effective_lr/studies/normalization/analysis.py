"""What figures, tables and statistics of the chapter take from the tidy tables: masks, slopes, equilibria by layer."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from effective_lr.evidence.estimates import NO_VALUE, Estimate, Undecidable, pooled_mean, require_numbers, t_estimate
from effective_lr.evidence.tidy import Experiment, Tables
from effective_lr.studies.normalization import theory
from effective_lr.studies.normalization.settings import TYPICAL_GRADIENT

USEFUL_ERROR = 0.3  # cells of a grid above it train badly, and scatter far more than those that are compared
CHANCE_ERROR = 0.9  # of ten equally frequent classes; stands for a run that diverged
EFFECTIVE_LR = {"norm_squared": "effective_lr", "late_norm_squared": "late_effective_lr"}
NO_CELL = "no cell counts at this scale: needs the scale study"
LARGEST_LOST_SHARE = 0.05  # of the scale groups of a layer without a gradient, up to which the layer has an equilibrium


def derive(metrics: pd.DataFrame, runs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Add the effective learning rate to what was measured, and give `affine_lr` its number where it is a word."""
    rates = runs["affine_lr"].where(runs["affine_lr"] != "shared", runs["lr"])
    runs["affine_lr"] = rates.where(rates != "frozen", 0.0).astype(float)
    for setting in ("starts_at_equilibrium", "corrected_squares"):  # which the oldest runs did not have
        runs[setting] = runs.get(setting, pd.Series(False, runs.index)).eq(True)
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


def median_error(experiment: Experiment, runs: pd.DataFrame) -> pd.Series:
    """The median test error of the late evaluations of each run; a run that diverged counts as chance."""
    rows = experiment.metrics[experiment.metrics["quantity"] == "test_error"]
    errors = runs["run_id"].map(rows.groupby("run_id")["value"].median())
    return errors.where(runs["diverged"].isna(), CHANCE_ERROR)


def error_or_chance(runs: pd.DataFrame, split: str = "test") -> pd.Series:
    """The error of each run; a run that diverged counts as chance."""
    return runs[f"{split}_error"].where(runs["diverged"].isna(), CHANCE_ERROR)


# The experiment that holds each optimizer's plane under batch normalization.
PLANES = {"sgd": "plane_sgd", "nesterov": "plane_nesterov", "adam": "plane_adam", "rmsprop": "plane_rmsprop"}
BALANCED = ("sgd", "nesterov", "adam", "adamw", "rmsprop")  # the optimizers of the experiment `equilibrium`
BETA1 = 0.9  # of the first moment of Adam and AdamW, PyTorch's usual value
LARGEST_ANGLE = 0.25  # radians per step, up to which contours and the absence of lost units are predicted
SETTLED_ANGLE = 0.15  # of memory × angle, radians, up to which the equilibrium is asked to be that of theory
SETTLED_EXCESS = 0.05  # that is left of the start when the late part begins, of ‖w*‖⁴ or ‖w*‖²
LARGEST_THETA = 0.05  # of the widest layer, up to which Adam and RMSProp are asked to have an equilibrium (C10)
RELAXATIONS = 3  # relaxation times before the late part, of runs that start near their equilibrium
FAR_RELAXATIONS = 12  # of AdamW from afar: its second moments remember the larger gradients of smaller weights
ROUNDING = 1 + 1e-3  # of a θ in the configuration, where λ has a few digits
DYNAMICS_LR = 0.64  # of the runs that are shown over time


def dynamics(experiment: Experiment) -> Experiment:
    """The runs whose training is shown over time, at one learning rate: λ = 0, and every second λ from the largest one
    with a small angle down, as small ones have not settled."""
    runs = experiment.runs[(experiment.runs["lr"] == DYNAMICS_LR) & experiment.runs["diverged"].isna()]
    runs = runs[has_small_angle(runs)]
    penalties = sorted(runs["l2"].unique(), reverse=True)
    runs = runs[runs["l2"].isin([0.0, *penalties[::2]])]
    return Experiment(experiment.metrics[experiment.metrics["run_id"].isin(runs["run_id"])], runs)


def geometric_mean(values: pd.Series) -> float:
    return float(np.exp(np.log(values).mean()))


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


def complete(table: pd.DataFrame, seeds: int, cell: Sequence[str] = ("lr", "l2")) -> pd.DataFrame:
    """The rows of cells that have all seeds: in a plane the others have a single one, and no interval."""
    return table[table.groupby(list(cell))["seed"].transform("nunique") == seeds]


def first_late_step(runs: pd.DataFrame) -> pd.Series:
    """t₁, after which the late part of a run begins (Training.late_start)."""
    return np.minimum((runs["steps"] * (1 - runs["late_fraction"])).round(), runs["steps"] - 1)


def in_equilibrium(runs: pd.DataFrame, tolerance: float = 0.2, typical_grad: float = TYPICAL_GRADIENT) -> pd.Series:
    """Whether SGD or its momenta are predicted to be at equilibrium in the late part of a run, from its settings alone.

    |(‖w₀‖/‖w*‖)⁴ − 1|·exp(−8ηλt/(1−μ)) ≤ tolerance at the first late step, with ‖w*‖ predicted for a typical G.
    """
    result = pd.Series(False, index=runs.index)
    for optimizer, rows in runs[runs["l2"] > 0].groupby("optimizer"):
        steps = theory.steps_to_equilibrium(
            optimizer, rows["lr"], rows["l2"], typical_grad, rows["initial_norm"], tolerance, rows["momentum"]
        )
        result[rows.index] = steps <= first_late_step(rows)
    return result


def predicted_angle(runs: pd.DataFrame) -> pd.Series:
    """The angle per step at equilibrium, in radians, of runs of one optimizer: SGD, one of its momenta, or AdamW."""
    [optimizer] = runs["optimizer"].unique()
    return theory.equilibrium_angle(optimizer, runs["lr"], runs["l2"], 1.0, 1.0, runs["momentum"])


def has_small_angle(runs: pd.DataFrame) -> pd.Series:
    """Whether steps are predicted to be small at equilibrium; for all but Adam and RMSProp."""
    return predicted_angle(runs) <= LARGEST_ANGLE


def settled(runs: pd.DataFrame) -> pd.Series:
    """The runs that count as at equilibrium in their late part, by their settings alone; of one optimizer.

    SGD and its momenta: `in_equilibrium` to 5 %, so a far start must be forgotten too. AdamW: 4ηλt₁ ≥ 3 from its
    predicted norm, 12 from elsewhere. These: memory × angle per step of at most SETTLED_ANGLE, the memory μ/(1−μ) or
    β₁/(1−β₁), for SGD 1. Adam and RMSProp: θ ≤ LARGEST_THETA in the widest layer and 1.5θ²t₁ ≥ 3 there, from their
    predicted norm; their `layer_l2` gives the other layers the same θ.
    """
    [optimizer] = runs["optimizer"].unique()
    penalized = runs["l2"].where(runs["l2"] > 0)
    if optimizer in ("adam", "rmsprop"):
        theta = theory.angle_scale(runs["lr"], penalized, TYPICAL_GRADIENT, widest_size(runs))
        is_over = 1.5 * theta**2 * first_late_step(runs) * ROUNDING >= RELAXATIONS
        return is_over & (theta <= LARGEST_THETA * ROUNDING) & runs["starts_at_equilibrium"]
    if optimizer == "adamw":
        times = np.where(runs["starts_at_equilibrium"], RELAXATIONS, FAR_RELAXATIONS)
        is_over = 4 * runs["lr"] * penalized * first_late_step(runs) * ROUNDING >= times
    else:
        is_over = in_equilibrium(runs, SETTLED_EXCESS)
    beta = {"sgd": 0.5, "adamw": BETA1}.get(optimizer, runs["momentum"])  # SGD has no memory: its angle alone counts
    return is_over & (beta / (1 - beta) * predicted_angle(runs) <= SETTLED_ANGLE)


def widest_size(runs: pd.DataFrame) -> pd.Series:
    """The weights of a unit of the third convolution, the most that any has in this network (networks.Conv4)."""
    return 9 * 2 * runs["width"]


def on_contours(runs: pd.DataFrame) -> pd.Series:
    """The cells of a plane that a claim about contours may use, chosen by their settings alone.

    SGD and Nesterov: predicted to be at equilibrium, with a predicted angle per step of at most LARGEST_ANGLE.
    Adam and RMSProp: η ≥ 0.003 and η²λ in [5·10⁻⁷, 5·10⁻⁵].
    """
    [optimizer] = runs["optimizer"].unique()
    if optimizer in ("adam", "rmsprop"):
        invariant = theory.diagonal_invariant(optimizer, runs["lr"], runs["l2"])
        return (runs["lr"] >= 0.003) & (invariant >= 5e-7) & (invariant <= 5e-5)
    return in_equilibrium(runs) & has_small_angle(runs)


def contour_cells(runs: pd.DataFrame) -> pd.DataFrame:
    """The cells that `on_contours` chooses and that have every seed, as means over seeds, without any in which a run
    diverged.

    With coordinates u = log η + s₀·log λ across the predicted contours, centred, and v = log η − s₀·log λ along them.
    """
    slope = theory.diagonal_slope(runs["optimizer"].iloc[0])
    chosen = complete(runs[on_contours(runs)], runs["seed"].nunique())
    cells = chosen.groupby(["lr", "l2"], as_index=False)[["test_error", "diverged"]].mean()
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
    Every cell has every seed, so a regression over cell means is the mixed model with effects of cells (the residual
    of the regression, which scatters independently) and of seeds (which shift all cells alike, and no slope).
    """
    if runs.empty or not are_enough(cells := contour_cells(runs)):
        return NO_VALUE
    s = theory.diagonal_slope(runs["optimizer"].iloc[0])
    columns = np.column_stack([cells["u"], cells["v"], cells["u"] ** 2, np.ones(len(cells))])
    logit = np.log(cells["test_error"] / (1 - cells["test_error"])).to_numpy()
    fit, *_ = np.linalg.lstsq(columns, logit)
    freedom = len(cells) - columns.shape[1]
    variance = ((logit - columns @ fit) ** 2).sum() / freedom
    covariance = variance * np.linalg.inv(columns.T @ columns)[:2, :2]
    b_u, b_v = fit[:2]
    gradient = 2 * s * np.array([b_v, -b_u]) / (b_u + b_v) ** 2
    return t_estimate(s * (b_u - b_v) / (b_u + b_v), np.sqrt(gradient @ covariance @ gradient), freedom)


# What the last step records by layer (training.py): time means over the late part, and what is known of the layer.
LATE = (
    *("late_norm_squared", "late_g_squared", "late_gradient_squared", "late_angle_squared", "late_effective_lr"),
    *("late_update_squared", "late_momentum_cosine", "late_root_sum", "late_norm_to_root", "late_live_inputs"),
    *("late_without_gradient", "late_gamma", "late_beta", "lost_norm_squared", "lost_angle_squared", "lost_gamma"),
    *("balance_norm", "balance_rooted_norm", "balance_gradient", "balance_memory"),
    *("growth_ratio_min", "growth_ratio_max", "fourth_power_ratio", "implied_slope", "measured_slope"),
    *("layer_l2", "group_size"),
)
SETTINGS = ["run_id", "optimizer", "lr", "l2", "momentum", "seed", "steps", "late_fraction", "initial_norm"]
CLASSIFIER = "linear"  # the layer that is not hidden


def late_layers(metrics: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The values of LATE, one row for each run and layer, NaN where a run has none, with settings of the run."""
    rows = metrics[metrics["run_id"].isin(runs["run_id"]) & metrics["quantity"].isin(LATE) & (metrics["layer"] != "")]
    wide = rows.set_index(["run_id", "layer", "quantity"])["value"].unstack("quantity")
    table = wide.reindex(columns=LATE).reset_index().merge(runs[SETTINGS], on="run_id")
    # The first study recorded no penalty by layer: its layers had that of the run.
    return table.assign(layer_l2=table["layer_l2"].fillna(table["l2"]))


def is_live(table: pd.DataFrame) -> pd.Series:
    """Whether a layer has an equilibrium: the theory balances gradient and penalty, so nearly all groups need both."""
    return ~(table["late_without_gradient"] > LARGEST_LOST_SHARE)


FORMS = (("", ""), ("predicted_", ""), ("", "_ratio"))  # how the columns of a quantity begin and end


def equilibrium_by_layer(metrics: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Measured and predicted norm, effective learning rate and angle per step in the late part, for each run and layer.

    For the runs of one optimizer that have `settled`, without those that diverged. The prediction takes the
    measured G² = ⟨‖∇‖²‖w‖²⟩ of each layer. Columns: those of `late_layers`; norm, effective_lr, angle, each also with
    `predicted_` before it and `_ratio` after it; those of `balances`; `has_gradient`, which is `is_live`.
    """
    runs = runs[settled(runs) & runs["diverged"].isna()]
    table = late_layers(metrics, runs)
    if table.empty:
        names = [f"{before}{what}{after}" for what in ("norm", "effective_lr", "angle") for before, after in FORMS]
        names += ["balance", "memoryless", "root_balance"]
        return table.assign(**dict.fromkeys(names, pd.Series(dtype=float)), has_gradient=pd.Series(dtype=bool))
    optimizer, grad = table["optimizer"].iloc[0], np.sqrt(table["late_g_squared"])
    settings = (optimizer, table["lr"], table["layer_l2"], grad, table["group_size"], table["momentum"])
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
        **balances(table, optimizer),
        has_gradient=is_live(table),
    )


def balances(table: pd.DataFrame, optimizer: str) -> dict[str, pd.Series]:
    """The shrinking of each layer by the penalty over its growth by the steps (theory.equilibrium_growth).

    `balance` with the memory of the optimizer, `memoryless` without; `root_balance` of Adam and RMSProp takes Σ√ŝ for
    ⟨g, Pg⟩, without memory.
    """
    lr, beta = table["lr"], BETA1 if theory.NORM_EXPONENT[optimizer] == -1 else table["momentum"]
    shrinking = 4 * table["layer_l2"] * table["balance_rooted_norm" if optimizer == "adamw" else "balance_norm"]
    gradient, memory = table["balance_gradient"], table["balance_memory"].fillna(0.0)
    return {
        "balance": shrinking / theory.equilibrium_growth(optimizer, lr, gradient, memory, beta),
        "memoryless": shrinking / theory.equilibrium_growth(optimizer, lr, gradient, 0.0, beta),
        "root_balance": table["late_norm_to_root"] * 4 * table["layer_l2"] / lr,
    }


class Cells(NamedTuple):
    """Rows for each run and layer, and what a reader must know of those that are left out."""

    rows: pd.DataFrame
    note: str = ""


def finished(runs: pd.DataFrame) -> Cells:
    """The runs that did not diverge; the note counts the others."""
    diverged = int(runs["diverged"].notna().sum())
    if diverged == len(runs):
        raise Undecidable("every run diverged" if diverged else NO_CELL)
    note = f"{diverged} of {len(runs)} runs diverged, and their cells are left out" if diverged else ""
    return Cells(runs[runs["diverged"].isna()], note)


def live(cells: Cells) -> Cells:
    """The rows of cells and layers that have an equilibrium in every seed; the note names the others."""
    table = cells.rows
    if table.empty:
        raise Undecidable(NO_CELL)
    require_numbers(table["late_norm_squared"])
    cell = ["layer", "lr", "l2"]
    has_lost = ~is_live(table).groupby([table[key] for key in cell]).transform("all")
    if has_lost.all():
        raise Undecidable("no layer has an equilibrium")
    count, lost = (rows.drop_duplicates(cell).groupby("layer").size() for rows in (table, table[has_lost]))
    named = ", ".join(f"{layer} in {lost[layer]} of {count[layer]} cells" for layer in lost.index)
    return Cells(table[~has_lost], "; ".join(filter(None, [cells.note, named and f"without equilibrium: {named}"])))


def settled_runs(equilibrium: Experiment, optimizer: str) -> Experiment:
    """With the runs of one optimizer that count as at equilibrium, by their settings."""
    metrics, runs = equilibrium
    runs = runs[runs["optimizer"] == optimizer]
    if runs.empty:
        raise Undecidable(f"no runs of {optimizer}")
    return Experiment(metrics, runs[settled(runs)])


def at_equilibrium(equilibrium: Experiment, optimizer: str) -> Cells:
    """Measured and predicted values of the cells of one optimizer that have settled, by live layer."""
    metrics, runs = settled_runs(equilibrium, optimizer)
    chosen, note = finished(runs)
    table = equilibrium_by_layer(metrics, chosen)
    table = table.assign(norm_ratio_4=table["norm_ratio"] ** 4)  # ‖w*‖⁴ is linear in G²η/λ
    return live(Cells(complete(table, runs["seed"].nunique()), note))


def equilibrium_law(tables: Tables) -> pd.DataFrame:
    """The balance by optimizer, layer and seed, with and without the memory of the optimizer: shrinking by the penalty
    over growth by the steps (`balances`). Geometric means over the cells that are judged; 1 where it holds.

    Columns: optimizer, layer, seed, with_memory, without_memory.
    """
    law = {"balance": "with_memory", "memoryless": "without_memory"}
    found = []
    for optimizer in BALANCED:
        try:
            cells = at_equilibrium(tables["equilibrium"], optimizer).rows
        except Undecidable:  # no cell of this scale, or no layer
            continue
        logs = np.log(cells[[*law]]).groupby([cells[key] for key in ("optimizer", "layer", "seed")], sort=False).mean()
        found.append(np.exp(logs).dropna().rename(columns=law).reset_index())
    return pd.concat(found) if found else pd.DataFrame(columns=["optimizer", "layer", "seed", *law.values()])


def equilibria(tables: Tables) -> Iterator[tuple[str, pd.DataFrame]]:
    """For each optimizer, `equilibrium_by_layer` of its runs in the experiment `equilibrium`."""
    metrics, runs = tables["equilibrium"]
    for optimizer in BALANCED:
        chosen = runs[runs["optimizer"] == optimizer]
        if len(chosen):
            yield optimizer, equilibrium_by_layer(metrics, chosen)


def with_angle_scales(table: pd.DataFrame) -> pd.DataFrame:
    """`late_layers` with θ of each layer (theory.angle_scale, at a typical G), and that of the widest layer of the run,
    the one with the most weights in a scale group."""
    table = table.assign(
        theta=theory.angle_scale(table["lr"], table["layer_l2"], TYPICAL_GRADIENT, table["group_size"]),
        is_widest=table["group_size"] == table.groupby("run_id")["group_size"].transform("max"),
    )
    of_widest = table["theta"].where(table["is_widest"])
    return table.assign(widest_theta=of_widest.groupby(table["run_id"]).transform("max"))


def lost_by_cause(metrics: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """What became of the widest layer under each activation and learning rate of γ and β, at each of its θ: the share
    of units without a gradient, the median |γ|, and the angle per step in radians; means over seeds.

    Under a leaky activation every unit has a gradient: there a unit that is lost shows in γ and in the angle alone.
    """
    table = with_angle_scales(late_layers(metrics, runs[runs["diverged"].isna()]))
    table = table[table["is_widest"]].merge(runs[["run_id", "leak", "affine_lr"]], on="run_id")
    found = table.assign(
        theta=table["theta"].round(3),
        lost=table["late_without_gradient"],
        gamma=table["late_gamma"],
        angle=np.sqrt(table["late_angle_squared"]),
    )
    return found.groupby(["theta", "leak", "affine_lr"])[["lost", "gamma", "angle"]].mean()


def critical_points(table: pd.DataFrame) -> pd.DataFrame:
    """For each seed and layer the η²λ at which half of its units are lost.

    Interpolated in log(η²λ) between points of a scan (`late_layers` of one optimizer) where the share first reaches ½.

    Columns: seed, layer, group_size, critical; `is_reached`, whether a point has lost half; `is_inside`, whether it is
    not the first one. Where it is not inside, `critical` is that end of the scan, a bound.
    """
    invariant = theory.diagonal_invariant("adam", table["lr"], table["l2"])
    scan = table.assign(log=np.log(invariant).round(3))
    rows = []
    for (seed, layer, size), points in scan.groupby(["seed", "layer", "group_size"]):
        shares = points.groupby("log")["late_without_gradient"].mean()
        lost = np.flatnonzero(shares >= 0.5)
        is_reached, place = bool(lost.size), lost[0] if lost.size else -1
        is_inside = is_reached and place > 0
        critical = shares.index[place]
        if is_inside:
            critical = np.interp(0.5, shares.iloc[place - 1 : place + 1], shares.index[place - 1 : place + 1])
        rows.append((seed, layer, size, np.exp(critical), is_reached, is_inside))
    return pd.DataFrame(rows, columns=["seed", "layer", "group_size", "critical", "is_reached", "is_inside"])
