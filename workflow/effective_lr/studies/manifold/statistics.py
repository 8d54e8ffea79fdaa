"""The statistics by which the claims of the chapter are decided. Losses are in nats per symbol.

The repetition is the seed: what one seed measured in several matrices, probes or arms is averaged, or its worst taken,
before an interval is drawn.
"""

import numpy as np
import pandas as pd

from effective_lr.evidence.estimates import Estimate, Undecidable, geometric_mean, mean_interval
from effective_lr.evidence.verdicts import Evidence, statistic
from effective_lr.studies.manifold.analysis import (
    angle,
    arm,
    balances,
    finished,
    is_invariant,
    late_median,
    losses,
    measured,
    of_blocks,
    residual_growths,
    select,
)
from effective_lr.studies.manifold.bijection import matched_angle

CHECKS = {
    "stuck_gradient": (r"$|\nabla|$ left / closed form", 4),
    "step_slope": (r"slope of $|\nabla|$ in $\eta$", 3),
    "horizon_slope": (r"slope of mean $|\nabla|$ in $T$", 3),
    "noisy_slope": ("the same with noise, last tenth", 3),
}
PAIRS = 5  # seeds from which a difference of losses is decided
SENSITIVITY = 0.05  # nats: what a factor of two in the angle must change at least


def by_seed(runs: pd.DataFrame, values: pd.Series) -> pd.Series:
    """The mean by seed of values by run_id."""
    return runs.set_index("run_id").assign(value=values).groupby("seed")["value"].mean()


# X1: rotation


@statistic(r"largest $|\mathrm{angle}/\arctan\theta-1|$", digits=None)
def angle_error(evidence: Evidence, subject: str) -> Estimate:
    """Over all probes from the first step, late means and block matrices of a seed, whatever its RMSNorm and f."""
    worst: dict[int, float] = {}
    for experiment, (_, runs) in evidence.tables.items():
        for _, run in finished(select(runs, optimizer=subject)).iterrows() if subject in set(runs["optimizer"]) else ():
            alone = runs[runs["run_id"] == run["run_id"]]
            rows = pd.concat([measured(evidence.tables, experiment, alone, what) for what in ("angle", "late_angle")])
            error = (of_blocks(rows)["value"] / np.arctan(angle(run)) - 1).abs().max()
            worst[run["seed"]] = max(worst.get(run["seed"], 0.0), float(error))
    if not worst:
        raise Undecidable("no such runs at this scale")
    return mean_interval(pd.Series(worst))


@statistic(r"late angle / $k\sqrt{2e}$", digits=3)
def late_angle(evidence: Evidence, subject: str) -> Estimate:
    """AdamW under this RMSNorm, from any norm: RMS angle of the late part, median over the block matrices."""
    experiment = {"pre": "matched", "every": "starts"}[subject]
    runs = finished(arm(evidence, experiment, optimizer="adamw", rms_norm=subject, lr_factor=1.0))
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
    if rows.groupby(["run_id", "layer"]).size().min() < 3:
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


def paired_difference(runs: pd.DataFrame) -> pd.Series:
    """Loss of AdamW minus that of AdamH at the matched angle, by the seeds that both have, with RMSNorm `pre`."""
    pair = [loss_by_seed(runs, optimizer=name, rms_norm="pre", lr_factor=1.0) for name in ("adamw", "adamh")]
    return (pair[0] - pair[1]).dropna()


def angle_effects(runs: pd.DataFrame) -> dict[float, pd.Series]:
    """Loss of AdamH at half and at twice the angle (f = 1/4, 4) minus that at the matched one, by seed."""
    matched = loss_by_seed(runs, optimizer="adamh", rms_norm="pre", lr_factor=1.0)
    other = {f: loss_by_seed(runs, optimizer="adamh", rms_norm="pre", lr_factor=f) for f in (0.25, 4.0)}
    return {f: difference for f, loss in other.items() if len(difference := (loss - matched).dropna())}


def sees_the_angle(effects: dict[float, pd.Series]) -> bool:
    """Whether the loss can tell angles apart: some factor of two changes it enough, with one sign in all seeds."""
    return any(
        abs(change.mean()) > SENSITIVITY and (np.sign(change) == np.sign(change.iloc[0])).all()
        for change in effects.values()
    )


@statistic("difference of the loss, nats", digits=3)
def loss_difference(evidence: Evidence, subject: str) -> Estimate:
    """Paired by seed; it decides where there are enough seeds and the loss sees the angle at all, else it is shown."""
    runs = evidence.tables["matched"].runs
    difference = paired_difference(runs)
    estimate = mean_interval(difference)
    reasons = []
    if len(difference) < PAIRS:
        reasons.append(f"{len(difference)} seeds, of {PAIRS} that it takes")
    if not sees_the_angle(angle_effects(runs)):
        reasons.append(f"a factor of two in the angle changes the loss by less than {SENSITIVITY} nats")
    return estimate.shown("; ".join(reasons)) if reasons else estimate


# X3: knobs


def exponent(values: dict[float, pd.Series]) -> Estimate:
    """The exponent in f of values by seed, from the smallest to the largest f at which runs finish: two points, no test
    of fit."""
    if len(values) < 2:
        raise Undecidable("fewer than two values of f with finished runs")
    low, high = min(values), max(values)
    exponents = np.log(values[high] / values[low]) / np.log(high / low)
    return mean_interval(exponents.dropna().round(6) + 0.0)  # no -0.000 for what is constant up to rounding


def late_by_factor(evidence: Evidence, subject: str, quantity: str, layer: str) -> dict[float, pd.Series]:
    """A late mean without RMSNorm by f, then by seed: of one layer, or the median over block matrices for layer ''."""
    runs = arm(evidence, "norm_free", optimizer=subject, initial_norm=1.0)
    found = {}
    for factor, group in finished(runs).groupby("lr_factor"):
        if layer:
            rows = measured(evidence.tables, "norm_free", group, f"late_{quantity}")
            values = rows[rows["layer"] == layer].set_index("run_id")["value"]
        else:
            values = late_median(evidence.tables, "norm_free", group, quantity)
        found[float(factor)] = by_seed(group, values)
    return found


@statistic(r"exponent of $f$ in $\|W\|_F$", digits=3)
def norm_exponent(evidence: Evidence, subject: str) -> Estimate:
    """Of the late norm, median over the block matrices."""
    return exponent(late_by_factor(evidence, subject, "norm_ratio", ""))


@statistic("exponent of $f$ in the residual RMS", digits=3)
def residual_exponent(evidence: Evidence, subject: str) -> Estimate:
    """Of the late RMS of the residual stream after the last block."""
    last = f"block{int(evidence.tables['norm_free'].runs['layers'].iloc[0])}"
    return exponent(late_by_factor(evidence, subject, "residual_rms", last))


@statistic("residual RMS, end / start", digits=1)
def residual_growth(evidence: Evidence, subject: str) -> Estimate:
    """After the last block at f = 1, last probe over first; of a lost run, the largest probe before the loss over the
    first: geometric mean."""
    runs = arm(evidence, "norm_free", optimizer=subject, lr_factor=1.0)
    return geometric_mean(by_seed(runs, residual_growths(evidence.tables, runs)))


# X4: training without RMSNorm


@statistic("share of runs that finish", digits=2)
def finishing(evidence: Evidence, subject: str) -> Estimate:
    """At every f, without RMSNorm."""
    share = float(arm(evidence, "norm_free", optimizer=subject)["diverged"].isna().mean())
    return Estimate(share, share, share)


def best_factor(runs: pd.DataFrame) -> float:
    """The f of the smallest mean loss."""
    return float(runs.assign(loss=losses(runs)).groupby("lr_factor")["loss"].mean().idxmin())


@statistic("loss above the best with RMSNorm, nats", digits=3)
def norm_free_gap(evidence: Evidence, subject: str) -> Estimate:
    """Loss at the best f without RMSNorm minus that of the better of AdamW and AdamH with it, at f = 1, by seed."""
    runs = arm(evidence, "norm_free", optimizer=subject)
    own = loss_by_seed(runs, lr_factor=best_factor(runs))
    matched = evidence.tables["matched"].runs
    others = [loss_by_seed(matched, optimizer=name, lr_factor=1.0).reindex(own.index) for name in ("adamw", "adamh")]
    best = min(others, key=lambda loss: float(loss.mean()))
    return mean_interval((own - best).dropna())


def loss_ranges(runs: pd.DataFrame, optimizer: str) -> pd.Series:
    """By seed, by how much the loss varies over f."""
    runs = select(runs, optimizer=optimizer)
    if runs["lr_factor"].nunique() < 2:
        raise Undecidable(f"{optimizer} has fewer than two values of f")
    by = runs.assign(loss=losses(runs)).groupby("seed")["loss"]
    return by.max() - by.min()


@statistic("range over $f$ minus that without decay, nats", digits=3)
def range_difference(evidence: Evidence, subject: str) -> Estimate:
    """Of the loss without RMSNorm; a diverged run counts as the loss at which it was stopped."""
    arm(evidence, "norm_free", optimizer=subject)
    runs = evidence.tables["norm_free"].runs
    return mean_interval((loss_ranges(runs, subject) - loss_ranges(runs, "adam0")).dropna())


# X6: competition


@statistic("loss above the best other, nats", digits=3)
def competitive_gap(evidence: Evidence, subject: str) -> Estimate:
    """Loss of this optimizer minus that of the best of AdamW, AdamH and MuonH, each at its best f, with RMSNorm
    `pre`. It decides on the user's own tokens alone."""
    runs = select(evidence.tables["matched"].runs, rms_norm="pre")
    best: dict[str, pd.Series] = {}
    for name in (subject, "adamw", "adamh", "muonh"):
        own = select(runs, optimizer=name)
        if len(own):
            best[name] = loss_by_seed(own, lr_factor=best_factor(own))
    if subject not in best or len(best) < 2:
        raise Undecidable("no such runs at this scale")
    rival = min((name for name in best if name != subject), key=lambda name: float(best[name].mean()))
    estimate = mean_interval((best[subject] - best[rival]).dropna())
    if set(runs["corpus"]) != {"tokens"}:
        return estimate.shown("a few million characters and few rates say little about language models")
    return estimate


# X7: one law of equilibrium


def farthest(evidence: Evidence, subject: str, column: str) -> Estimate:
    """The geometric mean over seeds of a column of the balances, of the kind of matrix that is farthest from 1. The
    subject is a place of RMSNorm, at the smallest e and for the matrices whose scale does not matter; with `_at_e` at
    a larger e, with `_others` for the other matrices."""
    place, _, which = subject.partition("_")
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
