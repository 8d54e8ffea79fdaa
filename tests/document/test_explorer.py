"""The explorer: its numbers are those of the tables, and what can be chosen leads to its runs."""

import base64
import html
import json
import re
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from effective_lr.document import explorer
from effective_lr.engine.storage import write_json
from effective_lr.evidence import tidy
from effective_lr.evidence.tidy import Tables
from effective_lr.studies.normalization import explorer as planes
from effective_lr.studies.normalization import theory
from effective_lr.studies.normalization.analysis import error_or_chance
from shared import decided, published_layout

PUBLISHED = published_layout()
STABILITY = PUBLISHED.chapters["stability"]


@pytest.fixture(scope="module")
def stability() -> Tables:
    return tidy.read(STABILITY, PUBLISHED.tables("stability"))


@pytest.fixture(scope="module")
def normalization() -> Tables:
    names = ("plane_sgd", "plane_adam", "normalizations", "growth", "equilibrium")
    return tidy.read(PUBLISHED.chapters["normalization"], PUBLISHED.tables("normalization"), names)


def rows_of(data: dict[str, Any], predicted: bool) -> pd.DataFrame:
    """The points of all measured, or predicted, curves as tidy rows."""
    parts = [
        pd.DataFrame({"step": curve["x"], "shown": curve["y"]}, dtype=float).assign(
            run_id=run["id"], layer=curve["line"], quantity=curve["quantity"]
        )
        for run, curves in zip(data["runs"], data["curves"], strict=True)
        for curve in curves
        if curve["predicted"] == predicted
    ]
    return pd.concat(parts)


def test_the_page_holds_the_curves_of_the_tables_every_run_and_every_claim(
    stability: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    claims = decided("stability", "study")
    write_json(claims, PUBLISHED.claims("stability"))
    explorer.write(replace(PUBLISHED, chapters={"stability": STABILITY}), tmp_path / "explorer.html")
    page = (tmp_path / "explorer.html").read_text()
    [packed] = re.findall(r'<script type="text/plain">([^<]*)</script>', page)
    data = json.loads(zlib.decompress(base64.b64decode(packed)))

    shown, of_study = rows_of(data, predicted=False), explorer.rows_of_runs(stability)
    of_study["value"] = of_study["value"].abs().where(of_study["quantity"] == "displacement", of_study["value"])
    both = shown.merge(of_study, on=["run_id", "step", "layer", "quantity"], how="left")
    assert len(both) == len(shown) > 10_000
    np.testing.assert_allclose(both["shown"], both["value"], rtol=1e-6, equal_nan=True)
    assert set(shown["quantity"]) >= {"edge_ratio", "train_loss", "degree"}
    edges = rows_of(data, predicted=True)
    assert (edges.loc[edges["quantity"] == "edge_ratio", "shown"] == 1).all() and len(edges)

    runs = stability.runs().set_index("run_id")
    assert {run["id"] for run in data["runs"]} == set(runs.index)
    for run in data["runs"]:
        line = runs.loc[run["id"]]
        assert STABILITY.study.run(**run["settings"]).run_id == run["id"]
        assert (run["seed"], run["commit"], run["finished"]) == (line["seed"], line["commit"], line["finished"])
        assert all(run["id"] in set(stability[name].runs["run_id"]) for name in run["experiments"])
    assert re.findall(r'<tr[^>]*><td><a href="#stability/([^"]+)"', page) == [run["id"] for run in data["runs"]]

    for name, claim in claims.items():
        evidence = page.partition(f'<details id="stability-{name}">')[2].partition("</details>")[0]
        for part in [*claim["parts"], *claim["explored"]]:
            assert f"<td>{part['subject']}</td><td>{part['statistic']}</td>" in evidence
            assert html.escape(part["definition"]) in html.escape(html.unescape(evidence))
        assert f"snakemake claim_{name}" in evidence
        assert re.findall(r'data-experiment="(\w+)"', evidence) == claim["experiments"]


def test_runs_that_diverged_come_first(stability: Tables) -> None:
    runs = stability["cnn"].runs.copy()
    runs.loc[runs.index[-1], "diverged"] = 25
    described = explorer.describe(STABILITY, Tables({"cnn": stability["cnn"]._replace(runs=runs)}))
    assert described[0]["id"] == runs["run_id"].iloc[-1] and "25" in described[0]["result"]
    assert not any(run["has_diverged"] for run in described[1:])


def test_long_curves_are_thinned_and_keep_their_ends_and_what_diverged_is_left_out() -> None:
    steps = np.arange(1, 1001)
    long = pd.DataFrame({"run_id": "a", "step": steps, "layer": "w", "quantity": "norm", "value": steps / 7.0})
    short = long.iloc[:3].assign(layer="v", value=[1.0, 1e60, np.nan])
    curves = explorer.Curves([explorer.Quantity("norm", "norm")], pd.concat([long, short]))
    second, first = explorer.curves_by_run(curves)["a"]
    assert (second["line"], second["x"], second["y"]) == ("v", [1, 2, 3], [1.0, None, None])
    assert len(first["x"]) == explorer.POINTS and (first["x"][0], first["x"][-1]) == (1, 1000)
    assert np.diff(first["x"]).max() <= 2 * 1000 / explorer.POINTS
    np.testing.assert_allclose(first["y"], np.array(first["x"]) / 7, rtol=1e-6)


def test_a_study_without_an_explorer_shows_all_it_measured(stability: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(STABILITY.study), "find", lambda *names: None)
    found = explorer.data_of(STABILITY, stability)
    assert found["panels"] == [] and any(found["curves"])
    assert {"sharpness", "train_loss"} <= {one["name"] for one in found["quantities"]}
    assert explorer.data_of(STABILITY, Tables())["runs"] == []  # no run was trained


def test_a_cell_of_the_plane_is_the_mean_of_its_runs(normalization: Tables) -> None:
    shown = Tables({name: normalization[name] for name in ("plane_sgd", "plane_adam", "normalizations")})
    panels = planes.view(shown).panels
    assert [panel.title for panel in panels] == ["Batch, SGD", "Batch, Adam", "Weight, SGD", "Layer, SGD", "None, SGD"]
    runs = shown.runs().set_index("run_id")
    errors = 100 * error_or_chance(runs)
    for panel in panels:
        rates = dict(panel.y.ticks)
        for mark in panel.marks:
            cell = runs.loc[mark.runs]
            assert cell["l2"].nunique() == 1 and {f"{lr:g}" for lr in cell["lr"]} == {rates[mark.y]}
            assert f"{errors[mark.runs].mean():.1f} %" in mark.label and mark.text == f"{errors[mark.runs].mean():.0f}"
    assert sorted(run for panel in panels for mark in panel.marks for run in mark.runs) == sorted(runs.index)


def test_the_lines_of_the_plane_have_one_effective_rate(normalization: Tables) -> None:
    for optimizer in ("sgd", "adam"):
        [panel] = planes.view(Tables({optimizer: normalization[f"plane_{optimizer}"]})).panels
        runs = normalization[f"plane_{optimizer}"].runs
        penalties, rates = np.sort(runs["l2"].unique()), np.sort(runs["lr"].unique())
        positive = penalties[penalties > 0]
        assert len(panel.lines) == -(-len(positive) // 2)
        for line in panel.lines:
            x, y = np.array(line).T
            l2 = positive[0] * (positive[1] / positive[0]) ** (x - (len(penalties) - len(positive)))
            lr = rates[0] * (rates[1] / rates[0]) ** y
            invariant = theory.diagonal_invariant(optimizer, lr, l2)
            assert x[0] != x[1] and invariant[0] == pytest.approx(invariant[1])


def test_predictions_stand_beside_what_they_predict(normalization: Tables) -> None:
    drawn = planes.curves(normalization)
    assert drawn.predicted is not None
    last = {
        name: rows.sort_values("step").groupby(["run_id", "layer", "quantity"])["value"].last()
        for name, rows in (("measured", drawn.measured), ("predicted", drawn.predicted))
    }
    both = pd.concat(last, axis=1).dropna().reset_index()
    both = both.merge(normalization.runs()[["run_id", "optimizer", "l2"]], on="run_id")
    ratios = (both["measured"] / both["predicted"]).groupby([both["optimizer"], both["l2"] > 0]).median()
    assert {("sgd", False), ("sgd", True), ("adam", True)} <= set(ratios.index)
    assert ratios.between(1 / 1.3, 1.3).all(), ratios
