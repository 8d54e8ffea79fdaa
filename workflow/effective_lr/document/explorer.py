"""The explorer: one HTML file, opened from disk, with every run, its curves beside the theory, and all claims.

A study may have these functions in its explorer.py; without the second, all that was measured is drawn:

    view(tables)     the first view, from the tables of the figure that contents.yaml names as `first_view`
    curves(tables)   what is drawn of a run, and what theory predicts of that
"""

import base64
import html
import json
import shlex
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from effective_lr.document import style
from effective_lr.document.report import evidence_to_html, verdict
from effective_lr.engine.contents import Chapter
from effective_lr.engine.inputs import Layout, data_of
from effective_lr.engine.storage import read_json
from effective_lr.engine.study import BaseRun
from effective_lr.evidence import tidy
from effective_lr.evidence.tidy import Tables

POINTS = 80  # of a curve at most; probes of longer ones are thinned evenly
ROW = ["run_id", "step", "layer", "quantity", "value"]
CURVE = ["run", "predicted", "quantity", "line"]  # by which curves differ


class Axis(NamedTuple):
    """An axis of a panel. Without `ticks` or `ends` the page chooses them."""

    label: str
    ticks: Sequence[tuple[float, str]] = ()
    ends: tuple[float, float] | None = None
    log: bool = False


class Mark(NamedTuple):
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


class Panel(NamedTuple):
    """Marks in one system of axes. `lines` are those of the theory, each by its points; curves are of one quantity."""

    kind: Literal["cells", "curves", "intervals"]
    title: str
    x: Axis
    y: Axis
    marks: list[Mark]
    lines: Sequence[Sequence[tuple[float, float]]] = ()
    legend: Sequence[tuple[str, str]] = ()  # text and color
    quantity: str = ""


class View(NamedTuple):
    """The first view of a study: panels, and a note on what they show and what is predicted."""

    note: str
    panels: list[Panel]


class Quantity(NamedTuple):
    """A quantity that is drawn of a run, under its name in the table of `Curves`."""

    name: str
    label: str
    log: bool = False


class Curves(NamedTuple):
    """What is drawn of runs: tidy rows run_id, step, layer, quantity, value, measured and predicted.

    `x` and `line` name the columns step and layer; `colors` are those of lines that have one in the paper.
    """

    quantities: Sequence[Quantity]
    measured: pd.DataFrame
    predicted: pd.DataFrame | None = None
    x: Axis = Axis("training step", log=True)
    line: str = "layer"
    colors: Mapping[str, str] = MappingProxyType({})


def rows_of_runs(tables: Tables, experiments: Sequence[str] = ()) -> pd.DataFrame:
    """All that the runs of these experiments measured, or of all of them, each run once."""
    seen: set[str] = set()
    found = []
    for name in experiments or tables:
        metrics, runs = tables[name]
        found.append(metrics[metrics["run_id"].isin(set(runs["run_id"]) - seen)])
        seen |= set(runs["run_id"])
    return pd.concat(found, ignore_index=True)


def all_curves(tables: Tables) -> Curves:
    """Every quantity that was measured at several steps."""
    rows = rows_of_runs(tables)
    steps = rows.groupby("quantity")["step"].nunique()
    names = [str(name) for name in steps.index[steps > 1] if name != "diverged"]
    return Curves([Quantity(name, name.replace("_", " ")) for name in names], rows)


# The data of the page


def columns(curves: Curves, runs: list[str]) -> tuple[list[str], dict[str, NDArray[Any]]]:
    """The names of lines, and the columns of all curves.

    `run`, `quantity`, `line`, `predicted` and `length` have a value for each curve, the first three as places in their
    lists; `x` and `y` have its points, one curve after another, as float32.
    """
    parts = [curves.measured.assign(predicted=0)]
    if curves.predicted is not None:
        parts.append(curves.predicted.assign(predicted=1))
    tidy = pd.concat(parts, ignore_index=True)
    lines = curves.measured["layer"].unique().tolist()
    names = [one.name for one in curves.quantities]
    with np.errstate(over="ignore"):  # of a run that diverged
        rows = pd.DataFrame(
            {
                "run": pd.Categorical(tidy["run_id"], runs).codes,
                "predicted": tidy["predicted"].astype("u1"),
                "quantity": pd.Categorical(tidy["quantity"], names).codes,
                "line": pd.Categorical(tidy["layer"], lines).codes,
                "x": tidy["step"].astype("f4"),
                "y": tidy["value"].astype("f4"),
            }
        )
    rows = rows[(rows[["run", "quantity", "line"]] >= 0).all(axis=1)].sort_values([*CURVE, "x"])
    count = rows.groupby(CURVE)["x"]
    place, length = count.cumcount().to_numpy(), count.transform("size").to_numpy()
    share = (POINTS - 1) / np.maximum(length - 1, 1)
    rows = rows[(length <= POINTS) | (place == 0) | (np.floor(place * share) > np.floor((place - 1) * share))]
    each = rows.groupby(CURVE, sort=False).size().rename("length").reset_index()
    types = {"run": "<u2", "quantity": "u1", "line": "<u2", "predicted": "u1", "length": "<u2"}
    points = {name: rows[name].to_numpy("<f4") for name in ("x", "y")}
    return lines, {**{name: each[name].to_numpy(kind) for name, kind in types.items()}, **points}


def describe(chapter: Chapter, tables: Tables, scale: str) -> list[dict[str, Any]]:
    """The finished runs, those that diverged first: settings, provenance, result, how to train each again."""
    table = tables.runs().set_index("run_id")
    members = {name: set(runs["run_id"]) for name, (_, runs) in tables.items()}
    found = []
    for run in chapter.runs:
        if run.run_id not in table.index:
            continue  # its optional data are not here
        line = table.loc[run.run_id]
        step = None if pd.isna(line["diverged"]) else int(line["diverged"])
        means = {name: line[name] for name in chapter.study.summarized}
        found.append(
            {
                "id": run.run_id,
                "experiments": [name for name, ids in members.items() if run.run_id in ids],
                "settings": run.model_dump(),
                "diverged": step,
                "result": chapter.study.outcome(means) if step is None else f"diverged at step {step:,}",
                "seed": run.seed,
                "host": line["host"] or "not published",
                "seconds": float(line["seconds"]),
                **{name: line[name] for name in ("commit", "device", "finished")},
                "command": train_alone(chapter, run, scale),
            }
        )
    return sorted(found, key=lambda one: one["diverged"] is None)


def train_alone(chapter: Chapter, run: BaseRun, scale: str) -> str:
    """The command that trains this run anew, and no other, into a file of its own."""
    words = ["python", "-m", "effective_lr", "train", "--study", chapter.name, "--scale", scale, "--run", run.run_id]
    command = f"PYTHONPATH=workflow {shlex.join(words)} --output results/alone/{run.run_id}.parquet"
    data = data_of(chapter.study, run)
    return f"snakemake {data.record} --cores 1 && {command}" if data else command


def embed(content: bytes, **about: str) -> str:
    """Bytes in the page, which unpacks them when a study is opened."""
    data = "".join(f' data-{name}="{value}"' for name, value in about.items())
    return f'<script type="text/plain"{data}>{base64.b64encode(zlib.compress(content, 9)).decode()}</script>'


# The page


def fill(template: str, **content: str) -> str:
    """The template with each <!--name--> replaced by the content of that name."""
    for name, text in content.items():
        template = template.replace(f"<!--{name}-->", text)
    return template


def write(layout: Layout, output: Path) -> None:
    """Write the page: explorer.html, whose part between two marks is that of one study."""
    page = Path(__file__).with_name("explorer.html").read_text(encoding="utf-8")
    before, template, after = page.split("<!--study-->\n")
    titles = {name: html.escape(chapter.study.title) for name, chapter in layout.chapters.items()}
    links = [f'<a href="#{name}" title="{title}">{name}</a>' for name, title in titles.items()]
    scale = f"{'published' if layout.is_published else 'own'} results, scale {layout.config.scale_name}"
    colors = zip("abcdefghij", style.PALETTE, strict=True)
    head = fill(
        before,
        scale=html.escape(scale),
        links="\n".join(links),
        colors="".join(f"--{name}: {color};" for name, color in colors),
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    sections = [section(layout, chapter, template) for chapter in layout.chapters.values()]
    output.write_text("".join([head, *sections, after]), encoding="utf-8")


def section(layout: Layout, chapter: Chapter, template: str) -> str:
    """A study: its claims and runs, which are seen without JavaScript, and the data of its curves."""
    study, name = chapter.study, chapter.contents.first_view
    tables = tidy.read(chapter, layout.tables(chapter.name))
    claims = read_json(layout.claims(chapter.name))
    runs = describe(chapter, tables, layout.config.scale_name) if tables else []
    ids = [run["id"] for run in runs]
    curves = (study.find("explorer", "curves") or all_curves)(tables) if ids else Curves([], pd.DataFrame(columns=ROW))
    item = chapter.contents.figures[name] if name else None
    make = study.find("explorer", "view")
    view = make(tables.only(chapter.experiments_of(item))) if make and item and ids else View("", [])
    lines, packed = columns(curves, ids)
    data = {
        "runs": runs,
        "panels": [panel_data(panel, {one: place for place, one in enumerate(ids)}) for panel in view.panels],
        "quantities": [one._asdict() for one in curves.quantities],
        "x": curves.x._asdict(),
        "line": curves.line,
        "lines": lines,
        "colors": dict(curves.colors),
    }
    return fill(
        template,
        id=study.name,
        title=html.escape(study.title),
        follows=html.escape(study.follows),
        view=html.escape(item.title) if item else "",
        note=html.escape(view.note),
        claims="\n".join(claim_html(study.name, one, claim) for one, claim in claims.items()),
        count=f"{len(runs):,}",
        runs="\n".join(run_row(study.name, run) for run in runs),
        data=embed(json.dumps(data, allow_nan=False).encode(), part="table")
        + "".join(embed(one.tobytes(), part=part, type=one.dtype.str) for part, one in packed.items()),
    )


def panel_data(panel: Panel, places: dict[str, int]) -> dict[str, Any]:
    """A panel for JSON, its runs as places in the table of runs."""
    marks = [{**mark._asdict(), "runs": [places[run] for run in mark.runs]} for mark in panel.marks]
    return {**panel._asdict(), "x": panel.x._asdict(), "y": panel.y._asdict(), "marks": marks}


def claim_html(study: str, name: str, claim: dict[str, Any]) -> str:
    """A claim that opens its evidence."""
    links = [f'<a href="#{study}" data-experiment="{one}">{one}</a>' for one in claim["experiments"]]
    runs = f'<p class="needs-script">Its runs: {", ".join(links)}</p>' if links else ""
    title = f"{name} {html.escape(claim['title'])}: {verdict(claim['verdict'])}"
    return f'<details id="{study}-{name}"><summary>{title}</summary>{runs}{evidence_to_html(claim)}</details>'


def run_row(study: str, run: dict[str, Any]) -> str:
    """A line of the table of runs."""
    finished, link = run["finished"][:16].replace("T", " "), f'<a href="#{study}/{run["id"]}">{run["id"]}</a>'
    cells = [link, html.escape(run["result"]), " ".join(run["experiments"]), str(run["seed"]), run["commit"][:10]]
    cells += [html.escape(run["host"]), finished, f"{run['seconds']:.1f}"]
    kind = "" if run["diverged"] is None else ' class="diverged"'
    return f"<tr{kind}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
