"""What the explorer shows of the study: the sharpness over the edge by λ, and the curves of a run beside the theory."""

import pandas as pd
from matplotlib.colors import to_hex

from effective_lr.document.explorer import Axis, Curves, Mark, Panel, Quantity, View, rows_of_runs
from effective_lr.evidence.tidy import Tables
from effective_lr.studies.stability import theory
from effective_lr.studies.stability.figures import SHOWN, penalty_colors
from effective_lr.studies.stability.statistics import EXPERIMENTS

QUANTITIES = (
    Quantity("edge_ratio", "sharpness over the edge, R"),
    Quantity("sharpness", "sharpness S of the data loss"),
    Quantity("train_loss", "training loss", log=True),
    Quantity("test_error", "test error"),
    Quantity("displacement", "displacement |x| along u", log=True),
    Quantity("pressure", "pressure (β/2)x² of the top direction", log=True),
    Quantity("edge_pressure", "pressure of all directions at the edge", log=True),
    Quantity("edge_directions", "directions at the edge"),
    Quantity("degree", "degree A"),
    Quantity("weight_norm_squared", "|w|²"),
)


def view(tables: Tables) -> View:
    """R over training for each network and λ, all seeds; the line is the edge."""
    colors = penalty_colors(sorted(tables.runs(*(EXPERIMENTS[name] for name in SHOWN))["l2"].unique()))
    panels = []
    for name in SHOWN:
        runs = tables[EXPERIMENTS[name]].runs.sort_values(["l2", "seed"])
        last = float(runs["steps"].max())
        marks = [
            Mark(f"{name}, λ = {run['l2']:g}, seed {run['seed']}", [run["run_id"]], to_hex(colors[run["l2"]]))
            for _, run in runs.iterrows()
        ]
        legend = [(f"λ = {l2:g}", to_hex(colors[l2])) for l2 in sorted(runs["l2"].unique())]
        x, y = Axis("training step", ends=(0, last)), Axis("R")
        panels.append(Panel("curves", name, x, y, marks, [[(0, 1), (last, 1)]], legend, "edge_ratio"))
    note = (
        "R, the sharpness over the edge 2/η, over training, all seeds; the line is the edge. Prediction: without "
        "normalization (MLP, CNN) the penalty delays the edge, and enough of it holds the MLP below; with batch (BN) "
        "or weight normalization (WN) it brings the edge forward."
    )
    return View(note, panels)


def curves(tables: Tables) -> Curves:
    """What a run measured; the edge for R and S, the force that a pressure should hold, the degree by invariance."""
    rows = rows_of_runs(tables)
    measured = rows[rows["quantity"].isin([one.name for one in QUANTITIES])]
    sizes = measured["value"].abs().where(measured["quantity"] == "displacement", measured["value"])
    runs = tables.runs().set_index("run_id")

    def of(quantity: str) -> pd.DataFrame:
        return rows[rows["quantity"] == quantity].join(runs[["lr", "l2", "normalization"]], on="run_id")

    share = of("u_weight_share")
    ratio = of("edge_ratio")
    invariant = share[share["normalization"] != "none"]
    predicted = [
        ratio.assign(value=1.0),
        share.assign(quantity="sharpness", value=theory.edge(share["lr"], share["l2"], share["value"])),
        *(
            force[force["value"] > 0].assign(quantity=pressure)
            for pressure, force in [("pressure", of("alpha_eff")), ("edge_pressure", of("edge_force"))]
        ),
        invariant.assign(quantity="degree", value=theory.invariant_degree(invariant["value"])),
    ]
    columns = ["run_id", "step", "layer", "quantity", "value"]
    axis = Axis("training step")
    return Curves(QUANTITIES, measured.assign(value=sizes), pd.concat(predicted)[columns], axis)
