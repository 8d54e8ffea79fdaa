"""What figures, tables and statistics read out of the tidy tables."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from effective_lr.evidence.estimates import Undecidable
from effective_lr.evidence.tidy import Tables
from effective_lr.evidence.verdicts import Evidence
from effective_lr.studies.manifold.bijection import matched_angle

LOST_LOSS = 20.0  # nats: what a diverged run counts as, the loss at which a run is stopped
ROUNDING = 1e-4  # of activations in float32, against a bound in float64

# Cross-entropy of the validation blocks of the plays, nats per character, given the 0, 1, 2, 3 characters before;
# counted on the training blocks with 0.1 added to each count. A test counts again.
CONTEXT_MODELS = (3.3002, 2.4682, 1.8586, 1.5232)


def derive(metrics: pd.DataFrame, runs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables as they are, if no residual stream grew more than its bound (D7): that would be a mistake in the
    code."""
    used = metrics[metrics["quantity"] == "bound_used"]
    if len(used) and used["value"].max() > 1 + ROUNDING:
        worst = used.loc[used["value"].idxmax()]
        raise AssertionError(
            f"{worst['run_id']}, step {worst['step']}, {worst['layer']}: the residual stream grew {worst['value']:.6g} "
            "times as much as its bound allows; the bound is a theorem, so the network or its measurement is wrong"
        )
    return metrics, runs


def select(runs: pd.DataFrame, **settings: object) -> pd.DataFrame:
    """The runs with these settings; a tuple allows any of its values."""
    for key, value in settings.items():
        runs = runs[runs[key].isin(value if isinstance(value, tuple) else (value,))]
    return runs


def arm(evidence: Evidence, experiment: str, **settings: object) -> pd.DataFrame:
    """The runs of an experiment with these settings, for a statistic. Raises Undecidable where there are none."""
    runs = select(evidence.tables[experiment].runs, **settings)
    if runs.empty:
        raise Undecidable("no such runs at this scale")
    return runs


def finished(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that did not diverge. Raises Undecidable where there are none."""
    runs = runs[runs["diverged"].isna()]
    if runs.empty:
        raise Undecidable("all runs diverged")
    return runs


def losses(runs: pd.DataFrame) -> pd.Series:
    """The late validation loss, nats per symbol, with a diverged run counted as the loss at which it was stopped."""
    return runs["late_validation_loss"].where(runs["diverged"].isna(), LOST_LOSS)


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


def curve(tables: Tables, experiment: str, runs: pd.DataFrame, quantity: str) -> pd.Series:
    """A quantity by step: median over the block matrices, then mean over the runs."""
    rows = of_blocks(measured(tables, experiment, runs, quantity))
    return rows.groupby(["run_id", "step"])["value"].median().groupby("step").mean()


def arms(runs: pd.DataFrame) -> Iterator[tuple[dict[str, object], pd.DataFrame]]:
    """The runs that differ in their seeds alone, with the settings that tell them apart."""
    for (rms_norm, optimizer, factor, start), group in runs.groupby(
        ["rms_norm", "optimizer", "lr_factor", "initial_norm"], sort=False
    ):
        names = {"rms_norm": rms_norm, "optimizer": optimizer, "lr_factor": factor, "initial_norm": start}
        yield names, group
