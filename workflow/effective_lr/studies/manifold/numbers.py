"""The numbers of the chapter's sentences, beside those of its claims."""

import numpy as np

from effective_lr.document.notation import number, thousands
from effective_lr.document.table import MISSING, Results, fixed, interval
from effective_lr.evidence.estimates import Estimate, Undecidable, mean_interval
from effective_lr.studies.manifold.analysis import CONTEXT_MODELS, arms, losses, main, residual_growths, select
from effective_lr.studies.manifold.bijection import matched_angle, smoothing
from effective_lr.studies.manifold.statistics import SENSITIVITY, angle_effects, paired_difference, sees_the_angle
from effective_lr.studies.manifold.theory import growth_without_decay
from effective_lr.studies.manifold.words import ARMS


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
        "theory/time_constants": number(e * steps),
        "theory/growth_without_decay": fixed(float(growth_without_decay(steps, e)), 1),
        "model/block_weights": thousands(weights),
        "training/symbols": thousands(seen),
        "sensitivity/tolerance": number(SENSITIVITY),
        "measured/bound_used": bound_used(results),
        "measured/largest_residual": largest_residual(results),
    }
    for order, loss in enumerate(CONTEXT_MODELS):
        found[f"counts/{order}"] = fixed(loss, 2)
    found |= {f"loss/{name}_pre_1_1": MISSING for name in ARMS}
    for names, group in arms(runs):
        key = f"{names['optimizer']}_{names['rms_norm']}_{names['lr_factor']:g}_{names['initial_norm']:g}"
        found[f"loss/{key}"] = fixed(float(losses(group).mean()), 3)
    return found | differences(results) | lost(results)


def differences(results: Results) -> dict[str, str]:
    """Of losses paired by seed: AdamW minus AdamH with its half-width, and what other angles do to AdamH."""
    runs = results.tables["matched"].runs
    effects = angle_effects(runs, 1.0)
    difference = paired_difference(runs, 1.0)
    try:
        pair = mean_interval(difference)
    except Undecidable:
        pair = Estimate(np.nan, np.nan, np.nan)
    found = {
        "matched/difference": interval(pair, digits=3),
        "matched/half_width": fixed((pair.high - pair.low) / 2, 3),
        "matched/seeds": str(len(difference)),
        "sensitivity/met": "is" if sees_the_angle(effects) else "is not",
    }
    for factor, name in [(0.25, "half"), (4.0, "twice")]:
        found[f"sensitivity/{name}"] = fixed(float(effects[factor].mean()), 3) if factor in effects else MISSING
    return found


def lost(results: Results) -> dict[str, str]:
    """How many runs of an arm without RMSNorm are lost, and the growth of their residual stream before: geometric
    mean."""
    found = {}
    for name in ("adam0", "adamh", "macro-F"):
        for factor in (1.0, 4.0):
            runs = select(results.tables["norm_free"].runs, optimizer=name, lr_factor=factor)
            gone = runs[runs["lost"].notna()]
            growth = np.exp(np.log(residual_growths(results.tables, gone)).mean()) if len(gone) else np.nan
            found[f"lost/{name}_{factor:g}"] = f"{len(gone)} of {len(runs)}"
            found[f"lost_growth/{name}_{factor:g}"] = MISSING if np.isnan(growth) else number(float(f"{growth:.2g}"))
    return found


def bound_used(results: Results) -> str:
    """The most that any block of any run without RMSNorm used of its bound, in percent."""
    metrics = results.tables["norm_free"].metrics
    used = metrics.loc[metrics["quantity"] == "bound_used", "value"]
    return f"{100 * used.max():.0f}" if len(used) else MISSING


def largest_residual(results: Results) -> str:
    """The largest RMS of the residual stream of AdamW without decay and RMSNorm, at any probe."""
    metrics, runs = results.tables["norm_free"]
    ids = runs.loc[runs["optimizer"] == "adam0", "run_id"]
    values = metrics.loc[metrics["run_id"].isin(ids) & (metrics["quantity"] == "residual_rms"), "value"]
    return number(float(f"{values.max():.2g}")) if len(values) else MISSING
