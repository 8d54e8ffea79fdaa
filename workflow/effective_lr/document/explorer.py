"""The explorer: one HTML file, opened from disk, with every run, its curves beside the theory, and all claims.

A study may have these functions in its explorer.py; without the second, all that was measured is drawn:

    view(tables)     the first view, from the tables of the figure that contents.yaml names as `first_view`
    curves(tables)   what is drawn of a run, and what theory predicts of that
"""

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from effective_lr.document import style
from effective_lr.document.report import render
from effective_lr.engine.contents import Chapter
from effective_lr.engine.inputs import Layout
from effective_lr.engine.storage import read_json
from effective_lr.evidence import tidy
from effective_lr.evidence.tidy import Tables

POINTS = 80  # of a curve at most; those of longer ones are thinned evenly


@dataclass(frozen=True)
class Axis:
    """An axis of a panel. Without `ticks` or `ends` the page chooses them."""

    label: str
    ticks: Sequence[tuple[float, str]] = ()
    ends: tuple[float, float] | None = None
    log: bool = False


@dataclass(frozen=True)
class Mark:
    """What can be chosen in a panel: a cell, a curve, or a point with its interval. A click opens the first run."""

    label: str  # read aloud when it has the focus
    runs: list[str]
    color: str
    x: float = 0.0
    y: float = 0.0
    low: float | None = None
    high: float | None = None
    text: str = ""  # in the cell
    dashes: str = ""  # of the curve


@dataclass(frozen=True)
class Panel:
    """Marks in one system of axes. `lines` are those of the theory, each by its points; curves are of one quantity."""

    kind: Literal["cells", "curves", "intervals"]
    title: str
    x: Axis
    y: Axis
    marks: list[Mark]
    lines: Sequence[Sequence[tuple[float, float]]] = ()
    legend: Sequence[tuple[str, str]] = ()  # text and color
    quantity: str = ""


@dataclass(frozen=True)
class View:
    """The first view of a study: panels, and a note on what they show and what is predicted."""

    note: str
    panels: list[Panel]


@dataclass(frozen=True)
class Quantity:
    """A quantity that is drawn of a run, under its name in the table of `Curves`."""

    name: str
    label: str
    log: bool = False


@dataclass(frozen=True)
class Curves:
    """What is drawn of runs: tidy rows run_id, step, layer, quantity, value, measured and predicted.

    `x` and `line` name the columns step and layer; `colors` are those of lines that have one in the paper.
    """

    quantities: Sequence[Quantity]
    measured: pd.DataFrame
    predicted: pd.DataFrame | None = None
    x: Axis = Axis("training step", log=True)
    line: str = "layer"
    colors: Mapping[str, str] = field(default_factory=dict)


def rows_of_runs(tables: Tables) -> pd.DataFrame:
    """All that the runs measured, each run once."""
    rows = pd.concat([metrics for metrics, _ in tables.values()], ignore_index=True)
    return rows.drop_duplicates(["run_id", "step", "layer", "quantity"], ignore_index=True)


def all_curves(tables: Tables) -> Curves:
    """Every quantity that was measured at several steps."""
    rows = rows_of_runs(tables)
    steps = rows.groupby("quantity")["step"].nunique()
    names = [str(name) for name in steps.index[steps > 1] if name != "diverged"]
    return Curves([Quantity(name, name.replace("_", " ")) for name in names], rows)


# The data of the page


def describe(chapter: Chapter, tables: Tables) -> list[dict[str, Any]]:
    """The finished runs, those that diverged first: settings, provenance, result."""
    members = {name: set(runs["run_id"]) for name, (_, runs) in tables.items()}
    settings = {run.run_id: run.model_dump() for run in chapter.runs}
    found = []
    for _, run in tables.runs().sort_values("diverged", key=pd.isna, kind="stable").iterrows():
        has_diverged = pd.notna(run["diverged"])
        found.append(
            {
                "id": run["run_id"],
                "experiments": [name for name, ids in members.items() if run["run_id"] in ids],
                "settings": settings[run["run_id"]],
                "has_diverged": has_diverged,
                "result": f"diverged at step {run['diverged']:,.0f}" if has_diverged else chapter.study.outcome(run),
                "host": run["host"] or "not published",
                **{name: run[name] for name in ("seed", "seconds", "commit", "device", "finished")},
            }
        )
    return found


def curves_by_run(curves: Curves) -> dict[str, list[dict[str, Any]]]:
    """The curves of each run, thinned. Values have seven digits; what float32 cannot hold, of a run that diverged, is
    None."""
    tables = [curves.measured.assign(predicted=False)]
    if curves.predicted is not None:
        tables.append(curves.predicted.assign(predicted=True))
    rows = pd.concat(tables).sort_values("step")
    rows = rows[rows["quantity"].isin([one.name for one in curves.quantities])]
    found: dict[str, list[dict[str, Any]]] = {}
    points = rows.groupby(["run_id", "predicted", "quantity", "layer"])[["step", "value"]].agg(list)
    for (run, predicted, quantity, line), steps, values in points.itertuples():
        places = np.unique(np.linspace(0, len(steps) - 1, POINTS).astype(int))
        shown = [float(f"{values[k]:.7g}") if abs(values[k]) < 3e38 else None for k in places]
        curve = {"quantity": quantity, "line": line, "predicted": predicted, "x": [steps[k] for k in places]}
        found.setdefault(run, []).append({**curve, "y": shown})
    return found


def data_of(chapter: Chapter, tables: Tables) -> dict[str, Any]:
    """The runs of a study with their curves, and its first view, as the page reads them."""
    runs = describe(chapter, tables) if tables else []
    if not runs:
        return {"runs": runs, "curves": [], "panels": []}
    item = chapter.contents.figures.get(chapter.contents.first_view or "")
    view, curves = chapter.study.find("explorer", "view"), chapter.study.find("explorer", "curves") or all_curves
    shown: View = view(tables.only(chapter.experiments_of(item))) if view and item else View("", [])
    drawn: Curves = curves(tables)
    of_runs = curves_by_run(drawn)
    return {
        "runs": runs,
        "curves": [of_runs.get(run["id"], []) for run in runs],
        "title": item.title if item else "",
        **asdict(shown),
        "quantities": [asdict(one) for one in drawn.quantities],
        "x": asdict(drawn.x),
        "line": drawn.line,
        "lines": drawn.measured["layer"].unique().tolist(),
        "colors": drawn.colors,
    }


def write(layout: Layout, output: Path) -> None:
    """Write the page: the claims and runs of every study, and the packed data of its curves."""
    studies = []
    for name, chapter in layout.chapters.items():
        data = data_of(chapter, tidy.read(chapter, layout.tables(name)))
        packed = base64.b64encode(zlib.compress(json.dumps(data, allow_nan=False).encode())).decode()
        studies.append({**data, "about": chapter.study, "claims": read_json(layout.claims(name)), "packed": packed})
    scale = f"{'published' if layout.is_published else 'own'} results, scale {layout.config.scale_name}"
    colors = dict(zip("abcdefghij", style.PALETTE, strict=True))
    output.write_text(render("explorer.html", scale=scale, colors=colors, studies=studies), encoding="utf-8")
