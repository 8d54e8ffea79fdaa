"""What the explorer shows of the study: the (λ, η) planes, and the curves of a run, by layer, beside the theory."""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.colors import LogNorm, to_hex

from effective_lr.document.explorer import Axis, Curves, Mark, Panel, Quantity, View, rows_of_runs
from effective_lr.document.notation import number, plain
from effective_lr.evidence.tidy import Tables
from effective_lr.studies.normalization import theory
from effective_lr.studies.normalization.analysis import first_late_step, is_live, late_layers, on_contours, settled
from effective_lr.studies.normalization.analysis import plane as plane_of
from effective_lr.studies.normalization.figures import (
    ERROR_COLORS,
    columns_of,
    diagonals,
    lowest_error,
    named_columns,
    plane_title,
    planes,
)

QUANTITIES = (
    Quantity("train_loss", "training loss", log=True),
    Quantity("test_error", "test error"),
    Quantity("norm", "norm ‖w‖", log=True),
    Quantity("effective_lr", "effective learning rate", log=True),
    Quantity("angle", "angle per step (rad)", log=True),
)
ROOTS = {"norm_squared": "norm", "angle_squared": "angle"}


def view(tables: Tables) -> View:
    """Test error over each (λ, η) plane, with the lines of equal effective learning rate."""
    found = planes(tables)
    scale = LogNorm(lowest_error(found), 90)
    note = (
        "Test error in percent, mean over seeds; the darker, the larger. Lines: where theory says that the effective "
        "learning rate is the same. Prediction: the error changes across the lines and not along them."
    )
    return View(note, [panel(runs, scale) for runs in found])


def panel(runs: pd.DataFrame, scale: LogNorm) -> Panel:
    """One plane; a cell has the mean over seeds."""
    errors = 100 * plane_of(runs)
    rates, penalties = errors.index.to_numpy(), errors.columns.to_numpy()
    columns, colors = columns_of(penalties), plt.get_cmap(ERROR_COLORS)
    marks = []
    for (lr, l2), cell in runs.groupby(["lr", "l2"]):
        i, j = list(rates).index(lr), list(penalties).index(l2)
        error = errors.iloc[i, j]
        label = f"λ = {l2:g}, η = {lr:g}: test error {error:.1f} %, {len(cell)} {'run' if len(cell) == 1 else 'runs'}"
        color = to_hex(colors(scale(min(error, 90))))
        ids = cell.sort_values("seed")["run_id"].to_list()
        marks.append(Mark(label, ids, color, float(columns[j]), float(i), text=f"{error:.0f}"))
    return Panel(
        "cells",
        plane_title(runs),
        Axis(
            "penalty λ",
            [(float(columns[k]), plain(number(penalties[k]))) for k in named_columns(penalties)],
            (float(columns[0]) - 0.5, float(columns[-1]) + 0.5),
        ),
        Axis("learning rate η", [(float(i), f"{lr:g}") for i, lr in enumerate(rates)], (-0.5, len(rates) - 0.5)),
        marks,
        [list(zip(map(float, x), map(float, y), strict=True)) for x, y in diagonals(runs, rates, penalties)],
    )


def curves(tables: Tables) -> Curves:
    """What a run measured, and what is predicted of that."""
    rows = rows_of_runs(tables)
    rows = rows[rows["quantity"].isin([*(one.name for one in QUANTITIES), *ROOTS])]
    is_square = rows["quantity"].isin(ROOTS)
    measured = rows.assign(
        value=np.sqrt(rows["value"]).where(is_square, rows["value"]), quantity=rows["quantity"].replace(ROOTS)
    )
    return Curves(QUANTITIES, measured, predicted(tables))


def predicted(tables: Tables) -> pd.DataFrame:
    """By layer: the equilibrium where a penalty leads to it, and growth over the late part where there is none.

    Both take the measured G of the layer, and leave out layers that have lost units. The planes of Adam and RMSProp do
    not start near their equilibrium, which their claim does not rest on: it is drawn in the cells of that claim.
    """
    found = []
    for metrics, runs in tables.values():
        theirs = runs[(runs["normalization"] != "none") & ~runs["projected"].astype(bool) & (runs["replay"] == "none")]
        theirs = theirs[(theirs["lr_drop"] == 1) & theirs["diverged"].isna()]
        starts = first_late_step(theirs).set_axis(theirs["run_id"])
        for optimizer, some in theirs[theirs["l2"] > 0].groupby("optimizer"):
            is_drawn = settled(some) | (on_contours(some) if optimizer in ("adam", "rmsprop") else False)
            table = late_layers(metrics, some[is_drawn])
            table = table[is_live(table)]
            grad = np.sqrt(table["late_g_squared"])
            settings = (optimizer, table["lr"], table["layer_l2"], grad, table["group_size"], table["momentum"])
            for quantity in ("norm", "effective_lr", "angle"):
                level = getattr(theory, f"equilibrium_{quantity}")(*settings)
                line = table[["run_id", "layer"]].assign(quantity=quantity, value=level)
                found += [line.assign(step=1), line.assign(step=table["steps"])]
        growing = late_layers(metrics, theirs[(theirs["optimizer"] == "sgd") & (theirs["l2"] == 0)])
        squares = metrics[metrics["quantity"] == "late_start_norm_squared"][["run_id", "layer", "value"]]
        growing = growing[is_live(growing)].merge(squares, on=["run_id", "layer"])
        begin = growing["run_id"].map(starts).astype(float)  # of no run, too
        for share in np.linspace(0, 1, 12):
            step = (begin + share * (growing["steps"] - begin)).round()
            grad, start = np.sqrt(growing["late_g_squared"]), np.sqrt(growing["value"])
            norm = theory.growth_norm(growing["lr"], grad, step - begin, start)
            at = growing[["run_id", "layer"]].assign(step=step)
            found.append(at.assign(quantity="norm", value=norm))
            found.append(at.assign(quantity="effective_lr", value=theory.effective_lr("sgd", growing["lr"], norm)))
    return pd.concat(found).drop_duplicates(["run_id", "layer", "quantity", "step"])
