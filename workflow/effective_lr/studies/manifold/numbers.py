"""The numbers of the chapter's sentences, beside those of its claims."""

import numpy as np
import pandas as pd

from effective_lr.document.notation import number, thousands
from effective_lr.document.table import MISSING, Results, fixed
from effective_lr.evidence.estimates import Undecidable
from effective_lr.evidence.verdicts import Evidence
from effective_lr.studies.manifold.analysis import (
    CONTEXT_MODELS,
    losses,
    main,
    on_grid,
    residual_growths,
    select,
)
from effective_lr.studies.manifold.bijection import matched_angle, smoothing
from effective_lr.studies.manifold.statistics import (
    ANGLES,
    SENSITIVITY,
    angle_effects,
    best,
    paired_difference,
    sees_the_angle,
    sensitivity,
)
from effective_lr.studies.manifold.theory import growth_without_decay
from effective_lr.studies.manifold.words import ARMS

FACTORS = (0.015625, 0.0625, 0.25, 1.0, 4.0)


def numbers(results: Results) -> dict[str, str]:
    """In LaTeX, by what they are and of what."""
    runs = main(results.tables.runs("matched", "starts", "norm_free"))
    first = runs.iloc[0]
    e, beta1, steps = float(first["decay_per_step"]), float(first["beta1"]), int(first["steps"])
    seen = steps * int(first["batch_size"]) * int(first["context"])
    weights = 12 * int(first["layers"]) * int(first["width"]) ** 2
    found = {
        "theory/k": number(float(smoothing(beta1))),
        "theory/e": number(e),
        "theory/theta": number(float(matched_angle(e, beta1))),
        "theory/norm_steps": f"{0.5 / e:.0f}",
        "theory/direction_steps": f"{1 / e:.0f}",
        "theory/memory_steps": f"{1 / (1 - first['beta2']):.0f}",
        "theory/growth_without_decay": fixed(float(growth_without_decay(steps, e)), 1),
        "model/block_weights": thousands(weights),
        "model/uniform_guess": fixed(float(np.log(first["vocabulary"])), 2),
        "training/symbols": thousands(seen),
        "sensitivity/tolerance": number(SENSITIVITY),
        "measured/bound_used": bound_used(results),
        "measured/largest_residual": largest_residual(results),
    }
    found |= {f"counts/{order}": fixed(loss, 2) for order, loss in enumerate(CONTEXT_MODELS)}
    return found | angles(results) | arms_over_factors(results)


def angles(results: Results) -> dict[str, str]:
    """What half and twice the angle do to the loss of AdamH, at both angles of X2; and how many seeds pair there."""
    runs = results.tables["matched"].runs
    found = {}
    for subject, x in ANGLES.items():
        effects = angle_effects(runs, x)
        found[f"pairs/{subject}"] = str(len(paired_difference(runs, x)))
        found[f"sensitivity/{subject}"] = "is" if sees_the_angle(effects) else "is not"
        for factor, name in [(0.25, "half"), (4.0, "twice")]:
            value = float(effects[factor].mean()) if factor in effects else np.nan
            found[f"sensitivity/{subject}/{name}"] = fixed(value, 3)
    return found


def arms_over_factors(results: Results) -> dict[str, str]:
    """Of each arm with and without RMSNorm: its best f and loss there, and its loss at f = 1. Without it: learning-rate
    sensitivity, runs that are lost at each f, and how much their residual stream had grown, by geometric mean."""
    found: dict[str, str] = {}
    evidence = Evidence(results.tables, results.checks)
    for experiment, place in [("matched", "pre"), ("norm_free", "none")]:
        for name in ARMS:
            runs = select(results.tables[experiment].runs, optimizer=name)
            found |= best_of(runs, f"{name}_{place}")
    for name in ARMS:
        runs = select(results.tables["norm_free"].runs, optimizer=name, initial_norm=1.0)
        try:
            found[f"lr_sensitivity/{name}"] = fixed(float(sensitivity(evidence, name).mean()), 3)
        except Undecidable:
            found[f"lr_sensitivity/{name}"] = MISSING
        for factor in FACTORS:
            some = select(runs, lr_factor=factor)
            gone = some[some["lost"].notna()]
            growth = np.exp(np.log(residual_growths(results.tables, gone)).mean()) if len(gone) else np.nan
            found[f"lost/{name}_{factor:g}"] = f"{len(gone)} of {len(some)}"
            found[f"lost_growth/{name}_{factor:g}"] = MISSING if np.isnan(growth) else number(float(f"{growth:.2g}"))
    return found


def best_of(runs: pd.DataFrame, arm: str) -> dict[str, str]:
    """The best f of an arm, its mean loss there, and that at f = 1."""
    at_one = losses(select(on_grid(runs), lr_factor=1.0)).mean() if len(runs) else np.nan
    found = {f"loss/{arm}": fixed(float(at_one), 3), f"best_f/{arm}": MISSING, f"best_loss/{arm}": MISSING}
    if len(runs):
        try:
            loss, _ = best(runs)
        except Undecidable:
            return found
        grid = on_grid(runs)
        factor = grid.assign(loss=losses(grid)).groupby("lr_factor")["loss"].mean().idxmin()
        found |= {f"best_f/{arm}": number(factor), f"best_loss/{arm}": fixed(float(loss.mean()), 3)}
    return found


def bound_used(results: Results) -> str:
    """The most that any block of any run without RMSNorm used of its bound, in percent."""
    metrics = results.tables["norm_free"].metrics
    used = metrics.loc[metrics["quantity"] == "bound_used", "value"]
    return f"{100 * used.max():.0f}" if len(used) else MISSING


def largest_residual(results: Results) -> str:
    """The largest RMS of the residual stream of AdamW without decay and RMSNorm at f = 1, at any probe."""
    metrics, runs = results.tables["norm_free"]
    ids = select(runs, optimizer="adam0", lr_factor=1.0)["run_id"]
    values = metrics.loc[metrics["run_id"].isin(ids) & (metrics["quantity"] == "residual_rms"), "value"]
    values = values[np.isfinite(values)]
    return number(float(f"{values.max():.2g}")) if len(values) else MISSING
