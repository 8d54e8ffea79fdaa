"""The numbers of the chapter's sentences, beside those of its claims."""

import numpy as np
import pandas as pd

from effective_lr.document.notation import number, thousands
from effective_lr.document.table import MISSING, Results, fixed, percent
from effective_lr.evidence.tidy import Tables
from effective_lr.studies.normalization import theory
from effective_lr.studies.normalization.analysis import (
    SETTLED_ANGLE,
    contour_cells,
    dynamics,
    equilibrium_by_layer,
    error_or_chance,
    median_error,
    slope_of_contours,
)


def numbers(results: Results) -> dict[str, str]:
    """In LaTeX, by what they are and of what."""
    tables = results.tables
    shared = tables["shared_affine_lr"].runs
    own = tables["plane_sgd"].runs.merge(shared[["lr", "l2", "seed"]])
    return {
        **symmetry(tables),
        **equilibrium(tables),
        **projection(tables),
        **memorization(tables),
        "equilibrium/largest": f"{SETTLED_ANGLE:g}",
        **{
            f"contour_cells/{name}": str(len(contour_cells(tables[f"plane_{name}"].runs)))
            for name in ("sgd", "nesterov", "adam", "rmsprop")
        },
        "contour_slope/own_affine_lr": fixed(slope_of_contours(own).value),
        "contour_slope/shared_affine_lr": fixed(slope_of_contours(shared).value),
        "drop/factor": number(tables["lr_drop"].runs["lr_drop"].iloc[0]),
    }


def symmetry(tables: Tables) -> dict[str, str]:
    """How far runs that should be one function are apart, in points of test error from the one with a = 1."""
    runs = tables["symmetry"].runs
    runs = runs.assign(error=median_error(tables["symmetry"], runs))
    smallest = runs["norm_eps"].min()

    def spread(kind: pd.DataFrame) -> str:
        start = kind[kind["initial_norm"] == 1].set_index("seed")["error"]
        change = (kind["error"] - kind["seed"].map(start)).groupby(kind["initial_norm"]).mean()
        return percent(change.abs().max())

    batch, none = runs[runs["normalization"] == "batch"], runs[runs["normalization"] == "none"]
    exact = batch[batch["norm_eps"] == smallest]
    return {
        "symmetry/runs": str(len(runs)),
        "symmetry/l2_min": number(exact["l2"].min()),
        "symmetry/l2_max": number(exact["l2"].max()),
        "symmetry/decades": f"{np.log10(exact['l2'].max() / exact['l2'].min()):.1f}",
        "symmetry/spread": spread(exact),
        "symmetry/spread_usual_eps": spread(batch[batch["norm_eps"] > smallest]),
        "symmetry/spread_without": spread(none),
        "symmetry/eps": number(smallest),
        "symmetry/usual_eps": number(batch["norm_eps"].max()),
    }


def memorization(tables: Tables) -> dict[str, str]:
    """The task of the memorization experiment, and the training error without a penalty, in percent."""
    runs = tables["memorization"].runs
    free = runs[(runs["normalization"] == "batch") & (runs["l2"] == 0)]
    return {
        "memorization/train_size": thousands(int(runs["train_size"].iloc[0])),
        "memorization/label_noise": number(runs["label_noise"].iloc[0]),
        "memorization/train_error": percent(free["late_train_error"].mean()),
    }


def projection(tables: Tables) -> dict[str, str]:
    """SGD with and without ‖w‖ = 1, in percent of test error."""
    runs = tables.runs("projection_sgd", "plane_sgd")
    held = tables["projection_sgd"].runs
    lr = held.loc[held["l2"] > 0, "lr"].iloc[0]
    runs = runs[runs["lr"] == lr].assign(error=error_or_chance(runs))
    critical = float(theory.critical_l2("sgd", lr))
    held = runs[runs["projected"]].groupby("l2")["error"].mean()
    free = runs[~runs["projected"]].groupby("l2")["error"].mean()
    below = held[(held.index > 0) & (held.index <= 0.1 * critical)]
    return {
        "projected/lr": number(lr),
        "projected/critical_l2": number(critical),
        "projected/error_without_penalty": percent(held[0]),
        "projected/error_at_a_tenth": percent(below.iloc[-1]) if len(below) else MISSING,
        "projected/error_beyond": percent(held[held.index >= 1.2 * critical].min()),
        "free/error_without_penalty": percent(free[0]),
        "free/best_error": percent(free.min()),
        "free/best_l2": number(free.idxmin()),
    }


def equilibrium(tables: Tables) -> dict[str, str]:
    """The measured over the predicted effective learning rate of the runs that figure 1 shows."""
    table = equilibrium_by_layer(*dynamics(tables["plane_sgd"]))
    ratios = table.groupby(["l2", "run_id"])["effective_lr_ratio"].median().groupby("l2").mean()
    return {
        "dynamics/smallest_ratio": fixed(ratios.min()),
        "dynamics/largest_ratio": fixed(ratios.max()),
        "dynamics/penalties": str(len(ratios)),
    }
