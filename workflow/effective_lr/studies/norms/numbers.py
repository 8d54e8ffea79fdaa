"""Numbers of sentences that are no statistic of a claim."""

import numpy as np

from effective_lr.document.notation import thousands
from effective_lr.document.table import MISSING, Results, interval
from effective_lr.evidence.estimates import Undecidable
from effective_lr.studies.norms.analysis import arms, by_split, chosen, log_ratios
from effective_lr.studies.norms.settings import parse_arms

REPORTED = ("cooling_full", "cooling_shapes", "diabetes_full", "diabetes_small")


def numbers(results: Results) -> dict[str, str]:
    """networks/count and the settings of `alignment`; reported/<experiment>, the log ratio of CAR to l2;
    leukemia/errors-car0 and -l2 on the original split; alignment/at-end, the share of choices at an end of the grid.
    """
    runs = results.tables.runs()
    trained = runs[runs["kind"].isin(["network", "bridge"])]
    found = {"networks/count": thousands(sum(len(parse_arms(text)) for text in trained["arms"]))}
    simulated = results.tables["alignment"].runs
    for key in ("shrinkage", "momentum", "clip"):
        found[f"networks/{key}"] = f"{simulated[key].iloc[0]:g}" if len(simulated) else MISSING
    for name in REPORTED:
        found[f"reported/{name}"] = reported(results, name)
    found |= {f"leukemia/errors-{penalty}": original_errors(results, penalty) for penalty in ("car0", "l2")}
    best = chosen(arms(results.tables["alignment"]))
    own = best[~best["penalty"].isin(["none"])]
    found["alignment/at-end"] = f"{100 * own['at_end'].mean():.0f}" if len(own) else MISSING
    return found


def reported(results: Results, experiment: str) -> str:
    """The log ratio of CAR to l2 on one data set, with its interval; no claim rests on it."""
    if results.tables[experiment].runs.empty:
        return MISSING
    ratios = log_ratios(chosen(arms(results.tables[experiment])), "car", "l2")
    try:
        return interval(by_split(ratios, "value"), digits=3)
    except Undecidable:
        return MISSING


def original_errors(results: Results, penalty: str) -> str:
    """Errors among the 34 test samples of the original split."""
    experiment = results.tables["leukemia_original"]
    if experiment.runs.empty:
        return MISSING
    best = chosen(arms(experiment))
    mine = best[best["penalty"] == penalty]
    errors = mine["test_error"] * mine["test_size"]
    return f"{errors.iloc[0]:.0f}" if len(mine) and np.isfinite(errors.iloc[0]) else MISSING
