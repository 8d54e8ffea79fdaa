"""The statistics by which the claims of the chapter are decided. Losses are in nats per symbol.

The repetition is the seed: what one seed measured in several matrices, probes or arms is averaged, or its worst taken,
before an interval is drawn. x is the squared angle over that of the study: f, or the decay over e.
"""

import numpy as np
import pandas as pd

from effective_lr.evidence.estimates import Estimate, Undecidable, geometric_mean, mean_interval, require_numbers
from effective_lr.evidence.verdicts import Evidence, statistic
from effective_lr.studies.manifold.analysis import (
    angle,
    arm,
    balances,
    finished,
    is_invariant,
    last_block,
    late_median,
    losses,
    main,
    measured,
    of_blocks,
    on_grid,
    residual_growths,
    select,
    settled,
)
from effective_lr.studies.manifold.bijection import matched_angle

CHECKS = {
    "stuck_gradient": (r"$|\nabla|$ left / closed form", 4),
    "step_slope": (r"slope of $|\nabla|$ in $\eta$", 3),
    "horizon_slope": (r"slope of mean $|\nabla|$ in $T$", 3),
    "noisy_slope": ("the same with noise, last tenth", 3),
}
SENSITIVITY = 0.05  # nats: what a factor of two in the angle must change at least
ANGLES = {"theta_0": 1.0, "half_theta_0": 0.25}  # x by subject
FEWEST_FACTORS = 3  # of a best f, a sensitivity or an exponent of activations
TIME_CONSTANTS = 2  # 1/(2ef) that a norm has had before the late part
FACTORS = {"none": 0.25, "none_f_1": 1.0}  # f by subject, of AdamW without RMSNorm
START_COUNTS = 0.1  # relative difference of a norm from two starts, above which the start decides and no balance


def by_seed(runs: pd.DataFrame, values: pd.Series) -> pd.Series:
    """The mean by seed of values by run_id."""
    return runs.set_index("run_id").assign(value=values).groupby("seed")["value"].mean()


# X1: rotation


@statistic(r"largest $|\mathrm{angle}/\arctan\theta-1|$", digits=None)
def angle_error(evidence: Evidence, subject: str) -> Estimate:
    """Over all probes from the first step, late means and block matrices of a seed, whatever its RMSNorm and f."""
    worst: dict[int, float] = {}
    for experiment, (_, runs) in evidence.tables.items():
        for _, run in select(runs, optimizer=subject).iterrows():
            alone = runs[runs["run_id"] == run["run_id"]]
            rows = pd.concat([measured(evidence.tables, experiment, alone, what) for what in ("angle", "late_angle")])
            error = (of_blocks(rows)["value"] / np.arctan(angle(run)) - 1).abs().max(skipna=False)
            worst[run["seed"]] = float(np.maximum(worst.get(run["seed"], 0.0), error))  # NaN stays
    if not worst:
        raise Undecidable("no such runs at this scale: needs the scale study")
    return mean_interval(pd.Series(worst)).unsigned()  # an error is not below 0, and neither is its interval


@statistic(r"late angle / $k\sqrt{2e}$", digits=3)
def late_angle(evidence: Evidence, subject: str) -> Estimate:
    """AdamW under this RMSNorm, from any norm: RMS angle of the late part, median over the block matrices."""
    experiment = {"pre": "matched", "every": "starts"}[subject]
    runs = finished(main(arm(evidence, experiment, optimizer="adamw", rms_norm=subject, lr_factor=1.0)))
    predicted = runs.set_index("run_id").apply(angle, axis=1)
    return mean_interval(by_seed(runs, late_median(evidence.tables, experiment, runs, "angle") / predicted))


def from_above(evidence: Evidence) -> tuple[pd.DataFrame, float]:
    """AdamW from four times its equilibrium norm, and its e."""
    runs = finished(arm(evidence, "starts", optimizer="adamw", initial_norm=4.0))
    return runs, float(runs["decay_per_step"].iloc[0])


@statistic(r"early angle / $\theta_0$", digits=3)
def early_angle(evidence: Evidence, subject: str) -> Estimate:
    """The mean angle over the steps from 0.2/e to 0.4/e, past Adam's warm-up, median over the block matrices."""
    runs, e = from_above(evidence)
    rows = of_blocks(measured(evidence.tables, "starts", runs, "angle"))
    curves = rows.groupby(["run_id", "step"])["value"].median()
    steps = np.arange(np.ceil(0.2 / e), np.floor(0.4 / e) + 1)
    means = {
        run_id: np.interp(steps, values.index.get_level_values("step"), values).mean()
        for run_id, values in curves.groupby("run_id")
    }
    return mean_interval(by_seed(runs, pd.Series(means)) / matched_angle(e, float(runs["beta1"].iloc[0])))


@statistic(r"rate of $\|W\|^2$ / $2e$", digits=3)
def relaxation_rate(evidence: Evidence, subject: str) -> Estimate:
    """The rate at which ‖W‖² approaches its late value, by log-linear least squares over the steps from 0.2/e to 1/e,
    median over the block matrices."""
    runs, e = from_above(evidence)
    rows = of_blocks(measured(evidence.tables, "starts", runs, "norm_ratio"))
    late = of_blocks(measured(evidence.tables, "starts", runs, "late_norm_ratio"))
    rows = rows.merge(late[["run_id", "layer", "value"]], on=["run_id", "layer"], suffixes=("", "_late"))
    rows = rows[rows["step"].between(0.2 / e, 1 / e)].assign(excess=lambda t: t["value"] ** 2 - t["value_late"] ** 2)
    rows = rows[rows["excess"] > 0]
    if not rows.groupby(["run_id", "layer"]).size().min() >= 3:  # NaN where there is none
        raise Undecidable("fewer than three probes while the norm relaxes")
    rates = rows.groupby(["run_id", "layer"])[["step", "excess"]].apply(
        lambda t: -np.polyfit(t["step"], np.log(t["excess"]), 1)[0] / (2 * e)
    )
    return mean_interval(by_seed(runs, rates.groupby("run_id").median()))


@statistic("slope of the late angle in $t$", digits=2)
def angle_trend(evidence: Evidence, subject: str) -> Estimate:
    """The slope of log angle in log t over the probes of the late part, median over the block matrices, with RMSNorm
    `pre`."""
    runs = finished(arm(evidence, "matched", optimizer=subject))
    rows = of_blocks(measured(evidence.tables, "matched", runs, "angle"))
    steps = int(runs["steps"].iloc[0])
    rows = rows[rows["step"] > steps * (1 - float(runs["late_fraction"].iloc[0]))]
    if rows["step"].nunique() < 3:
        raise Undecidable("fewer than three probes in the late part")
    curves = rows.groupby(["run_id", "step"])["value"].median()
    slopes = {
        run_id: np.polyfit(np.log(values.index.get_level_values("step").to_numpy(float)), np.log(values), 1)[0]
        for run_id, values in curves.groupby("run_id")
    }
    return mean_interval(by_seed(runs, pd.Series(slopes)))


# X2: decay


def loss_by_seed(runs: pd.DataFrame, **settings: object) -> pd.Series:
    """The late validation loss of one arm by seed."""
    runs = select(runs, **settings)
    return pd.Series(losses(runs).to_numpy(), index=runs["seed"].to_numpy(), dtype=float)


def adamh_loss(runs: pd.DataFrame, x: float) -> pd.Series:
    """The loss of AdamH with RMSNorm `pre` at the angle θ₀√x, by seed."""
    return loss_by_seed(on_grid(runs), optimizer="adamh", rms_norm="pre", lr_factor=x)


def paired_difference(runs: pd.DataFrame, x: float) -> pd.Series:
    """Loss of AdamW at equilibrium at (R, θ₀√x), with the decay e·x, minus that of AdamH, by the seeds of both."""
    matched = np.isclose(runs["decay_per_step"], x * runs["decay_per_step"].max(), rtol=1e-6)
    settings = {"optimizer": "adamw", "rms_norm": "pre", "lr_factor": 1.0, "initial_norm": 1.0}
    return (loss_by_seed(runs[matched], **settings) - adamh_loss(runs, x)).dropna()


def angle_effects(runs: pd.DataFrame, x: float) -> dict[float, pd.Series]:
    """Loss of AdamH at half and at twice the angle minus that at the matched one, by 1/4 and 4, then by seed."""
    effects = {factor: adamh_loss(runs, x * factor) - adamh_loss(runs, x) for factor in (0.25, 4.0)}
    return {factor: change.dropna() for factor, change in effects.items() if change.notna().any()}


def sees_the_angle(effects: dict[float, pd.Series]) -> bool:
    """Whether the loss can tell angles apart: some factor of two changes it enough, with one sign in all seeds."""
    return any(
        abs(change.mean()) > SENSITIVITY and (np.sign(change) == np.sign(change.iloc[0])).all()
        for change in effects.values()
    )


@statistic("difference of the loss, nats", digits=3)
def loss_difference(evidence: Evidence, subject: str) -> Estimate:
    """Paired by seed; it decides where the loss sees the angle at all, else it is shown."""
    runs = evidence.runs("matched")
    estimate = mean_interval(paired_difference(runs, ANGLES[subject]))
    if sees_the_angle(angle_effects(runs, ANGLES[subject])):
        return estimate
    return estimate.shown(f"a factor of two in the angle changes the loss by less than {SENSITIVITY} nats")


# X3: knobs


def by_factor(runs: pd.DataFrame, values: pd.Series, fewest: int) -> pd.DataFrame:
    """Values by run_id as a table of seeds (rows) and f (columns). Raises Undecidable with too few f."""
    table = runs.assign(value=runs["run_id"].map(values)).pivot(index="seed", columns="lr_factor", values="value")
    if table.shape[1] < fewest:
        raise Undecidable(f"fewer than {fewest} values of f: needs the scale study")
    return table


def exponent(table: pd.DataFrame) -> Estimate:
    """The exponent in f of positive values, by least squares for each seed."""
    x = np.log(table.columns.to_numpy(float))
    x = x - x.mean()
    return mean_interval(np.log(table) @ x / (x @ x))


@statistic(r"exponent of $f$ in $\|W\|_F$", digits=3)
def norm_exponent(evidence: Evidence, subject: str) -> Estimate:
    """Of the late norm without RMSNorm, median over the block matrices, from √f·R, over the f that leave a norm the
    time to settle. It decides where, at the smallest of them, a control from R comes to the same norm."""
    runs = finished(arm(evidence, "norm_free", optimizer=subject))
    early = 2 * runs["decay_per_step"] * runs["lr_factor"] * runs["steps"] * (1 - runs["late_fraction"])
    runs = runs[(runs["lr_factor"] <= 1) & (early > TIME_CONSTANTS - 1e-6)]
    norms = late_median(evidence.tables, "norm_free", runs, "norm_ratio")
    at_equilibrium = np.isclose(runs["initial_norm"] ** 2, runs["lr_factor"])
    table = by_factor(runs[at_equilibrium], norms, fewest=2)
    lowest = table.columns.min()
    control = by_seed(select(runs, initial_norm=1.0, lr_factor=lowest), norms)
    ratio = geometric_mean((control / table[lowest]).dropna()).value
    estimate = exponent(table)
    if abs(ratio - 1) <= START_COUNTS:
        return estimate
    return estimate.shown(f"at f = {lowest:g} the norm from R is {ratio:.2f} times that from √f·R: the start decides")


@statistic("exponent of $f$ in the residual RMS", digits=3)
def residual_exponent(evidence: Evidence, subject: str) -> Estimate:
    """Of the late RMS of the residual stream after the last block, without RMSNorm; of a run that ended before, the
    largest at any probe."""
    runs = on_grid(arm(evidence, "norm_free", optimizer=subject))
    late, probes = (
        rows[rows["layer"] == last_block(runs)].groupby("run_id")["value"].max()
        for what in ("late_residual_rms", "residual_rms")
        for rows in [measured(evidence.tables, "norm_free", runs, what)]
    )
    return exponent(by_factor(runs, late.reindex(runs["run_id"]).fillna(probes), FEWEST_FACTORS))


@statistic("residual RMS, end / start", digits=1)
def residual_growth(evidence: Evidence, subject: str) -> Estimate:
    """After the last block at f = 1, without RMSNorm: last probe over first; of a lost run, the largest probe before
    the loss over the first."""
    runs = arm(evidence, "norm_free", optimizer=subject, lr_factor=1.0)
    return geometric_mean(by_seed(runs, residual_growths(evidence.tables, runs)))


@statistic("late norm $/R$", digits=3)
def late_norm(evidence: Evidence, subject: str) -> Estimate:
    """Of AdamW without RMSNorm, once it has forgotten its start: geometric mean over seeds of the median over the block
    matrices."""
    runs = select(settled(evidence.tables, "norm_free"), lr_factor=FACTORS[subject])
    if runs.empty:
        raise Undecidable("no such runs that are settled at this scale")
    return geometric_mean(by_seed(runs, late_median(evidence.tables, "norm_free", runs, "norm_ratio")))


# X4: training without RMSNorm


def best(runs: pd.DataFrame) -> tuple[pd.Series, str]:
    """The loss at the f of the smallest mean loss, by seed; and what is wrong with that f, if it is the first or the
    last that was tried. The stress test counts as tried."""
    grid = on_grid(runs)
    require_numbers(losses(grid))
    means = grid.assign(loss=losses(grid)).groupby("lr_factor")["loss"].mean()
    if len(means) < FEWEST_FACTORS:
        raise Undecidable(f"fewer than {FEWEST_FACTORS} values of f: needs the scale study")
    factor = float(means.idxmin())
    is_inside = means.index.min() < factor < runs["lr_factor"].max()
    why = "" if is_inside else f"{runs['optimizer'].iloc[0]} is best at f = {factor:g}, an end of the grid"
    return loss_by_seed(grid, lr_factor=factor), why


def gap(own: pd.DataFrame, others: dict[str, pd.DataFrame]) -> Estimate:
    """Loss of an arm minus that of the best other, each at its best f, by the seeds of both."""
    loss, why = best(own)
    rivals = [best(runs) for runs in others.values() if len(runs)]
    rival, its = min(rivals, key=lambda one: float(one[0].mean()))
    estimate = mean_interval((loss - rival).dropna())
    return estimate.shown("; ".join(filter(None, [why, its]))) if why or its else estimate


@statistic("loss above the best with RMSNorm, nats", digits=3)
def norm_free_gap(evidence: Evidence, subject: str) -> Estimate:
    """Loss without RMSNorm minus that of the better of AdamW and AdamH with it, each at its best f."""
    with_norm = {name: arm(evidence, "matched", optimizer=name) for name in ("adamw", "adamh")}
    return gap(arm(evidence, "norm_free", optimizer=subject), with_norm)


def sensitivity(evidence: Evidence, optimizer: str) -> pd.Series:
    """Learning-rate sensitivity without RMSNorm by seed (Wortsman et al. 2309.14322): the mean over f of the loss,
    that of a uniform guess at most, minus its smallest."""
    runs = on_grid(arm(evidence, "norm_free", optimizer=optimizer))
    values = losses(runs).clip(upper=np.log(runs["vocabulary"])).set_axis(runs["run_id"])
    table = by_factor(runs, values, FEWEST_FACTORS)
    return table.mean(axis=1, skipna=False) - table.min(axis=1)


@statistic("sensitivity minus that of AdamW, nats", digits=3)
def sensitivity_difference(evidence: Evidence, subject: str) -> Estimate:
    """Learning-rate sensitivity minus AdamW's, both without RMSNorm, paired by seed."""
    return mean_interval((sensitivity(evidence, subject) - sensitivity(evidence, "adamw")).dropna())


@statistic("runs that are not lost", digits=0)
def finishing(evidence: Evidence, subject: str) -> Estimate:
    """A count, at every f, from R and without RMSNorm."""
    runs = arm(evidence, "norm_free", optimizer=subject, initial_norm=1.0)
    return Estimate(float(runs["lost"].isna().sum()), np.nan, np.nan, note=f"of {len(runs)}")


# X6: competition


@statistic("loss above the best other, nats", digits=3)
def competitive_gap(evidence: Evidence, subject: str) -> Estimate:
    """Loss of this optimizer minus that of the best of AdamW, AdamH and MuonH, each at its best f, with RMSNorm
    `pre`. It decides on the user's own tokens alone."""
    runs = evidence.runs("matched")
    others = {name: select(runs, optimizer=name) for name in ("adamw", "adamh", "muonh") if name != subject}
    estimate = gap(arm(evidence, "matched", optimizer=subject), others)
    if set(runs["corpus"]) != {"tokens"}:
        return estimate.shown("a few million characters and few rates say little about language models")
    return estimate


# X7: one law of equilibrium


def farthest(evidence: Evidence, subject: str, column: str) -> Estimate:
    """The geometric mean over seeds of a column of the balances, of the kind of matrix that is farthest from 1. The
    subject is a place of RMSNorm, at the smallest e and for the matrices whose scale does not matter; with `_at_e` at
    a larger e, with `_others` for the other matrices. Without RMSNorm it is a factor f (FACTORS)."""
    place, _, which = subject.partition("_")
    if subject in FACTORS:
        rows = select(balances(evidence.tables, "norm_free"), lr_factor=FACTORS[subject])
    else:
        rows = balances(evidence.tables)
        rows = rows[(rows["rms_norm"] == place) & (rows["is_slow"] != (which == "at_e"))]
        rows = rows[is_invariant(rows) != (which == "others")]
    if rows.empty:
        raise Undecidable("no such runs that are settled at this scale")
    return worst_kind(rows, column)


def worst_kind(rows: pd.DataFrame, column: str) -> Estimate:
    """The geometric mean over seeds of the kind of matrix that is farthest from 1."""
    found = {kind: geometric_mean(values) for kind, values in rows.groupby("kind")[column]}
    worst = max(found, key=lambda kind: abs(np.log(found[kind].value)))
    return found[worst].noted(f"farthest from 1: {worst}")


@statistic("balance, left / right", digits=3)
def balance(evidence: Evidence, subject: str) -> Estimate:
    """Decay and radial term over noise and memory (geometric mean over blocks), of the kind of matrix that is farthest
    from 1."""
    return farthest(evidence, subject, "with_memory")


@statistic("balance without memory", digits=3)
def balance_without_memory(evidence: Evidence, subject: str) -> Estimate:
    """Decay and radial term over noise alone, as where successive gradients are independent."""
    return farthest(evidence, subject, "without_memory")


@statistic("balance without the radial term", digits=3)
def balance_without_radius(evidence: Evidence, subject: str) -> Estimate:
    """Decay over noise and memory, as where the scale of a matrix does not matter."""
    return farthest(evidence, subject, "without_radius")
