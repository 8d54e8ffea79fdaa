"""What figures, tables and statistics read out of the tidy tables."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from effective_lr.evidence.estimates import Undecidable
from effective_lr.evidence.tidy import Tables
from effective_lr.evidence.verdicts import Evidence
from effective_lr.studies.manifold.bijection import decoupled, matched_angle

MATRICES = ("query", "key", "value", "output", "up", "down")
SETTLED = 0.1  # what may be left of its start, of a squared norm, when the late part begins
ROUNDING = 1e-4  # of activations in float32, against a bound in float64

# Cross-entropy of the validation blocks of the plays, nats per character, given the 0, 1, 2, 3 characters before;
# counted on the training blocks with 0.1 added to each count. A test counts again.
CONTEXT_MODELS = (3.3002, 2.4682, 1.8586, 1.5232)


def derive(metrics: pd.DataFrame, runs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables, with the step at which a run is lost, if no residual stream grew more than its bound (D7): that would
    be a mistake in the code."""
    used = metrics[(metrics["quantity"] == "bound_used") & np.isfinite(metrics["value"])]
    if len(used) and used["value"].max() > 1 + ROUNDING:
        worst = used.loc[used["value"].idxmax()]
        raise AssertionError(
            f"{worst['run_id']}, step {worst['step']}, {worst['layer']}: the residual stream grew {worst['value']:.6g} "
            "times as much as its bound allows; the bound is a theorem, so the network or its measurement is wrong"
        )
    return metrics, runs.assign(lost=lost_steps(metrics, runs))


def lost_steps(metrics: pd.DataFrame, runs: pd.DataFrame) -> pd.Series:
    """The first of two successive evaluations of the late part at which a run is worse than a uniform guess, or the
    step at which it ended; NaN for a run that is not lost. Before the late part every run is once so bad."""
    rows = metrics[metrics["quantity"] == "validation_loss"].merge(runs, on="run_id").sort_values("step")
    late = rows[rows["step"] > (rows["steps"] * (1 - rows["late_fraction"])).round()]
    late = late.assign(above=late["value"] > np.log(late["vocabulary"]))
    twice = late[late["above"] & late.groupby("run_id")["above"].shift(-1, fill_value=False)]
    return runs["diverged"].astype(float).fillna(runs["run_id"].map(twice.groupby("run_id")["step"].min()))


def main(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with the e of the study, without those with a quarter of it."""
    return runs[runs["decay_per_step"] == runs["decay_per_step"].max()]


def on_grid(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs from R with the e of the study and f up to 1: a larger f is a stress test that decides nothing."""
    return main(runs[(runs["lr_factor"] <= 1) & (runs["initial_norm"] == 1)])


def select(runs: pd.DataFrame, **settings: object) -> pd.DataFrame:
    """The runs with these settings; a tuple allows any of its values."""
    for key, value in settings.items():
        runs = runs[runs[key].isin(value if isinstance(value, tuple) else (value,))]
    return runs


def arm(evidence: Evidence, experiment: str, **settings: object) -> pd.DataFrame:
    """The runs of an experiment with these settings, for a statistic. Raises Undecidable where there are none."""
    runs = select(evidence.tables[experiment].runs, **settings)
    if runs.empty:
        raise Undecidable("no such runs at this scale: needs the scale study")
    return runs


def finished(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that are not lost. Raises Undecidable where there are none."""
    runs = runs[runs["lost"].isna()]
    if runs.empty:
        raise Undecidable("all runs are lost")
    return runs


def losses(runs: pd.DataFrame) -> pd.Series:
    """The late validation loss, nats per symbol; a lost run counts as a uniform guess."""
    return runs["late_validation_loss"].where(runs["lost"].isna(), np.log(runs["vocabulary"]))


def angle(run: pd.Series) -> float:
    """θ of a constrained run, and the angle that theory predicts for a decayed one: θ₀√f, in radians."""
    return float(matched_angle(run["decay_per_step"], run["beta1"]) * np.sqrt(run["lr_factor"]))


def measured(tables: Tables, experiment: str, runs: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """run_id, step, layer, value of a quantity of these runs."""
    metrics = tables[experiment].metrics
    found = metrics[metrics["run_id"].isin(runs["run_id"]) & (metrics["quantity"] == quantity)]
    return found[["run_id", "step", "layer", "value"]]


def of_blocks(metrics: pd.DataFrame) -> pd.DataFrame:
    """The rows of block matrices alone: the gradients of embedding and head are sparse."""
    return metrics[metrics["layer"].str.contains(".", regex=False)]


def late_median(tables: Tables, experiment: str, runs: pd.DataFrame, quantity: str) -> pd.Series:
    """The late mean of a quantity, median over the block matrices, by run_id."""
    return of_blocks(measured(tables, experiment, runs, f"late_{quantity}")).groupby("run_id")["value"].median()


def last_block(runs: pd.DataFrame) -> str:
    return f"block{int(runs['layers'].iloc[0])}"


def residual_growths(tables: Tables, runs: pd.DataFrame) -> pd.Series:
    """By run_id without RMSNorm: the RMS of the residual stream after the last block at the last probe, of a lost run
    at the largest one before the loss, over that at the first."""
    rows = measured(tables, "norm_free", runs, "residual_rms").merge(runs[["run_id", "lost"]])
    rows = rows[(rows["layer"] == last_block(runs)) & np.isfinite(rows["value"]) & ~(rows["step"] > rows["lost"])]
    probes = rows.sort_values("step").groupby("run_id")["value"]
    end = probes.last().where(runs.set_index("run_id")["lost"].isna(), probes.max())
    return end / probes.first()


def curve(tables: Tables, experiment: str, runs: pd.DataFrame, quantity: str) -> pd.Series:
    """A quantity by step: median over the block matrices, then mean over the runs."""
    rows = of_blocks(measured(tables, experiment, runs, quantity))
    return rows.groupby(["run_id", "step"])["value"].median().groupby("step").mean()


def arms(runs: pd.DataFrame) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """The runs that differ in their seeds alone, with the settings that tell them apart."""
    keys = ["rms_norm", "optimizer", "decay_per_step", "lr_factor", "initial_norm"]
    for values, group in runs.groupby(keys, sort=False):
        yield dict(zip(keys, values, strict=True)), group


def settled(tables: Tables, experiment: str) -> pd.DataFrame:
    """The runs of AdamW that have forgotten the norm they started from: at the rate 2ef, hardly any of its excess over
    the late norm (median over the block matrices) is left at the beginning of the late part."""
    runs = tables[experiment].runs
    runs = select(runs[runs["lost"].isna()], optimizer="adamw")
    norms = runs["run_id"].map(late_median(tables, experiment, runs, "norm_ratio")).astype(float)
    late_start = runs["steps"] * (1 - runs["late_fraction"])
    left = ((runs["initial_norm"] / norms) ** 2 - 1) * np.exp(
        -2 * runs["decay_per_step"] * runs["lr_factor"] * late_start
    )
    return runs[left.abs() <= SETTLED]


def balances(tables: Tables, experiment: str = "balance") -> pd.DataFrame:
    """AdamW's balance at equilibrium, the left side over the right, by place of RMSNorm, f, kind of matrix and seed,
    and whether e is the smallest (`is_slow`): geometric means over the blocks.

    `with_memory` is 4λ⟨w,√ŝ w⟩ + 2⟨w,g⟩ over η(⟨g,Pg⟩ + 2β₁/(1−β₁)·⟨d,g⟩), of the four means that a run recorded over
    its late steps; `without_memory` leaves out the last term, and `without_radius` the second. NaN where a side is not
    positive.
    """
    runs = settled(tables, experiment)
    names = ("weighted_square", "radial", "noise", "memory")
    columns = {
        name: measured(tables, experiment, runs, f"late_{name}").set_index(["run_id", "layer"])["value"]
        for name in names
    }
    rows = pd.DataFrame(columns).reset_index().merge(runs, on="run_id")
    rows["kind"] = rows["layer"].str.split(".").str[-1]
    rms = 1 / np.sqrt(rows["width"] * np.where(rows["kind"] == "down", 4, 1))
    lr, decay = decoupled(rms, matched_angle(rows["decay_per_step"], rows["beta1"]), rows["beta1"])
    lr = lr * rows["lr_factor"]
    shrinking, radial, noise = 2 * decay * rows["weighted_square"], 2 * rows["radial"], lr * rows["noise"]
    memory = lr * 2 * rows["beta1"] / (1 - rows["beta1"]) * rows["memory"]
    ratios = {
        "with_memory": (shrinking + radial) / (noise + memory),
        "without_memory": (shrinking + radial) / noise,
        "without_radius": shrinking / (noise + memory),
    }
    rows["is_slow"] = rows["decay_per_step"] == tables[experiment].runs["decay_per_step"].min()
    keys = ["rms_norm", "lr_factor", "is_slow", "kind", "seed"]
    logs = rows[keys].assign(**{name: np.log(ratio.where(ratio > 0)) for name, ratio in ratios.items()})
    means = logs.groupby(keys)[list(ratios)].agg(lambda values: values.mean(skipna=False))
    return np.exp(means).reset_index()


def is_invariant(rows: pd.DataFrame) -> pd.Series:
    """Whether the scale of a matrix does not matter: RMSNorm follows it."""
    return (rows["rms_norm"] == "every") | ((rows["rms_norm"] == "pre") & rows["kind"].isin(("query", "key")))


def equilibrium_law(tables: Tables) -> pd.DataFrame:
    """The balances that X7 tests: of the matrices whose scale does not matter, at the smallest e. A row for each
    optimizer, layer (kind of matrix and place of RMSNorm) and seed."""
    rows = balances(tables)
    rows = rows[rows["is_slow"] & is_invariant(rows)]
    rows = rows.assign(optimizer="adamw", layer=rows["kind"] + ", " + rows["rms_norm"])
    return rows[["optimizer", "layer", "seed", "with_memory", "without_memory"]].reset_index(drop=True)
