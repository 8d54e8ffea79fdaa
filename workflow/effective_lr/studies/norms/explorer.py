"""What the explorer shows of the study: the forest of test losses, and what a run measured over its strengths.

A run holds many arms, which are all trained to the end: its curves go over the strength of a penalty, not over steps.
"""

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex

from effective_lr.document.explorer import Axis, Curves, Mark, Panel, Quantity, View, rows_of_runs
from effective_lr.document.notation import plain
from effective_lr.evidence.tidy import Tables
from effective_lr.studies.norms.figures import COLORS, COMPARED, FOREST_LABEL, forest_groups, forest_points
from effective_lr.studies.norms.words import NAMES

QUANTITIES = (
    Quantity("validation_rmse", "validation RMSE"),
    Quantity("test_rmse", "test RMSE"),
    Quantity("train_rmse", "training RMSE"),
    Quantity("cv_loss", "held-out loss", log=True),
    Quantity("top_share", "share of the top components"),
    Quantity("nonzeros", "nonzero weights"),
    Quantity("w1_squared", "squared norm of W₁", log=True),
    Quantity("angle_squared", "mean angle² per step (rad²)", log=True),
)


def view(tables: Tables) -> View:
    """Log ratios of losses to that of the best standard penalty: mean and interval over the runs of a line."""
    groups = forest_groups(tables)
    marks = []
    for place, y, penalty, ratios, estimate in forest_points(groups):
        has_interval = np.isfinite(estimate.low)
        name = f"{plain(groups[place][0])}: {plain(NAMES[penalty])}"
        interval = f" [{estimate.low:.3f}, {estimate.high:.3f}]" if has_interval else ""
        low, high = (estimate.low, estimate.high) if has_interval else (None, None)
        ids = ratios.sort_values("seed")["run_id"].to_list()
        label = f"{name}: {estimate.value:.3f}{interval}, {len(ids)} runs"
        marks.append(Mark(label, ids, to_hex(COLORS[penalty]), estimate.value, -y, low, high))
    ends = [end for mark in marks for end in (mark.x, mark.low, mark.high) if end is not None]
    limits = (min(ends, default=0.0) - 0.02, max(ends, default=0.0) + 0.02)
    ticks = [(-float(place), plain(title)) for place, (title, _) in enumerate(groups)]
    legend = [(plain(NAMES[penalty]), to_hex(COLORS[penalty])) for penalty in COMPARED]
    heights = (0.5 - len(groups), 0.5)
    lines = [[(0.0, heights[0]), (0.0, heights[1])]]
    title, x, y_axis = "Against the best standard penalty", Axis(FOREST_LABEL, ends=limits), Axis("", ticks, heights)
    note = (
        "Penalties as they are reported, tuned by cross-validation: the log ratio of the loss to that of the best of "
        "none, ridge and lasso with 25 strengths, and elastic net, on the same samples; 90 % intervals. Prediction: "
        "in the linear cells Covridge is left of zero nowhere but by tuning."
    )
    return View(note, [Panel("intervals", title, x, y_axis, marks, lines, legend)])


def curves(tables: Tables) -> Curves:
    """The measurements of every arm over its strength; for the angle, what the penalty alone predicts.

    An arm of strength 0 is drawn as the line `none` over all strengths of its run.
    """
    rows = rows_of_runs(tables)
    is_predicted = rows["quantity"] == "predicted_angle_squared"
    rows = rows.assign(quantity=rows["quantity"].where(~is_predicted, "angle_squared"), predicted=is_predicted)
    rows = rows[rows["quantity"].isin([one.name for one in QUANTITIES]) & (rows["layer"].str.count("/") == 1)]
    penalty = rows["layer"].str.partition("/")
    rows = rows.assign(layer=penalty[0], step=penalty[2].astype(float))
    free = rows[rows["step"] == 0].assign(layer="none").drop_duplicates(["run_id", "quantity", "predicted"])
    rows = rows[rows["step"] > 0]
    ends = rows.groupby("run_id")["step"].agg(["min", "max"])
    both = [free.assign(step=free["run_id"].map(ends[end])).dropna(subset="step") for end in ("min", "max")]
    found = pd.concat([rows, *both])
    colors = {penalty: to_hex(color) for penalty, color in COLORS.items()} | {"none": "#555555"}
    shown = {True: found[found["predicted"]], False: found[~found["predicted"]]}
    return Curves(QUANTITIES, shown[False], shown[True], Axis("strength λ", log=True), "penalty", colors)
