"""What the explorer shows of the study: losses and norms by optimizer, and the curves of a run beside the theory."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex

from effective_lr.document.explorer import Axis, Curves, Mark, Panel, Quantity, View, rows_of_runs
from effective_lr.evidence.tidy import Tables
from effective_lr.studies.manifold import theory
from effective_lr.studies.manifold.analysis import angle, of_blocks
from effective_lr.studies.manifold.bijection import Values
from effective_lr.studies.manifold.figures import COLORS
from effective_lr.studies.manifold.settings import FREE
from effective_lr.studies.manifold.words import NAMES

QUANTITIES = (
    Quantity("train_loss", "training loss (nats)"),
    Quantity("validation_loss", "validation loss (nats)"),
    Quantity("norm_ratio", "norm over R", log=True),
    Quantity("angle", "angle per step (rad)", log=True),
    Quantity("residual_rms", "RMS of the residual stream", log=True),
)
MEDIAN = "median of the block matrices"


def view(tables: Tables) -> View:
    """Validation loss and norm over training of every arm with RMSNorm, all seeds."""
    runs = pd.concat([some for _, some in tables.values()]).drop_duplicates("run_id")
    marks = [
        Mark(
            f"{NAMES[run['optimizer']]}, f = {run['lr_factor']:g}, seed {run['seed']}",
            [run["run_id"]],
            to_hex(COLORS[run["optimizer"]]),
            dashes="" if run["lr_factor"] == 1 else "2 2" if run["lr_factor"] < 1 else "6 3",
        )
        for _, run in runs.sort_values(["optimizer", "lr_factor", "seed"]).iterrows()
    ]
    legend = [(NAMES[name], to_hex(COLORS[name])) for name in COLORS if name in set(runs["optimizer"])]
    steps = Axis("training step", log=True)
    loss, norm = Axis("nats"), Axis("over R", log=True)
    panels = [
        Panel("curves", "Validation loss", steps, loss, marks, legend=legend, quantity="validation_loss"),
        Panel("curves", "Median norm of the block matrices", steps, norm, marks, legend=legend, quantity="norm_ratio"),
    ]
    note = (
        "RMSNorm before branches, all seeds; dotted: f below 1, dashed: above. Prediction: "
        "AdamW and AdamH coincide at the matched angle, another angle gives another loss, constraints hold the norm."
    )
    return View(note, panels)


def curves(tables: Tables) -> Curves:
    """What a run measured of each matrix, their median first, and what theory predicts of it."""
    rows = rows_of_runs(tables)
    rows = rows[rows["quantity"].isin([one.name for one in QUANTITIES])]
    blocks = of_blocks(rows)
    medians = blocks.groupby(["run_id", "step", "quantity"], as_index=False)["value"].median().assign(layer=MEDIAN)
    runs = tables.runs()
    layers = [MEDIAN, *blocks["layer"].unique()]
    predicted = [
        pd.DataFrame({"step": steps, "value": values}).assign(run_id=run["run_id"], layer=layer, quantity=quantity)
        for _, run in runs[(runs["rms_norm"] != "none") & (runs["lr_factor"] == 1)].iterrows()
        for quantity, steps, values in predictions(run)
        for layer in layers
    ]
    none = pd.DataFrame(columns=["run_id", "step", "layer", "quantity", "value"])
    return Curves(QUANTITIES, pd.concat([medians, rows]), pd.concat([none, *predicted]), line="matrix or place")


def predictions(run: pd.Series) -> Iterator[tuple[str, np.ndarray, Values]]:
    """Quantity, steps and values of what theory says of a block matrix whose scale does not matter, at factor 1."""
    steps = np.unique(np.geomspace(1, run["steps"], 40).round())
    if run["optimizer"] == "adamw":
        e, start = run["decay_per_step"], run["initial_norm"]
        yield "norm_ratio", steps, theory.adamw_norm(steps - 1, e, start)
        yield "angle", steps, theory.adamw_angle(steps, e, start, run["beta1"], run["warm_up"])
    elif run["optimizer"] not in FREE:
        ends = steps[[0, -1]]
        yield "norm_ratio", ends, np.ones(2)
        yield "angle", ends, np.full(2, theory.constrained_angle(angle(run)))
