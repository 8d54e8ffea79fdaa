"""The data of the explorer: its numbers are those of the tables, and what can be chosen leads to its runs."""

import base64
import contextlib
import html
import json
import re
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

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
TEMPLATE = Path(explorer.__file__).with_suffix(".html").read_text().split("<!--study-->")[1]


@pytest.fixture(scope="module")
def stability() -> Tables:
    return tidy.read(STABILITY, PUBLISHED.tables("stability"))


@pytest.fixture(scope="module")
def normalization() -> Tables:
    names = ("plane_sgd", "plane_adam", "normalizations", "growth", "equilibrium")
    return tidy.read(PUBLISHED.chapters["normalization"], PUBLISHED.tables("normalization"), names)


class Section(NamedTuple):
    """A study in the page: its text, its table, and its columns of curves, read as the page reads them."""

    text: str
    table: dict[str, Any]
    columns: dict[str, Any]

    @classmethod
    def of(cls, folder: Path, chapter: Any) -> "Section":
        with contextlib.chdir(folder):
            write_json(decided(chapter.name, "study"), PUBLISHED.claims(chapter.name))
            text = explorer.section(PUBLISHED, chapter, TEMPLATE)
        table, columns = {}, {}
        for about, packed in re.findall(r'<script type="text/plain"([^>]*)>([^<]*)</script>', text):
            content = zlib.decompress(base64.b64decode(packed))
            given = dict(re.findall(r'data-(\w+)="([^"]*)"', about))
            if "type" in given:
                columns[given["part"]] = np.frombuffer(content, given["type"])
            else:
                table = json.loads(content)
        return cls(text, table, columns)

    def rows(self, predicted: int) -> pd.DataFrame:
        """The points of all measured, or predicted, curves as tidy rows."""

        def repeat(name: str) -> Any:
            return np.repeat(self.columns[name], self.columns["length"])

        rows = pd.DataFrame(
            {
                "run_id": np.array([run["id"] for run in self.table["runs"]])[repeat("run")],
                "step": self.columns["x"].astype(float),
                "layer": np.array(self.table["lines"], dtype=object)[repeat("line")],
                "quantity": np.array([one["name"] for one in self.table["quantities"]])[repeat("quantity")],
                "shown": self.columns["y"].astype(float),
            }
        )
        return rows[repeat("predicted") == predicted]


@pytest.fixture(scope="module")
def section(tmp_path_factory: pytest.TempPathFactory) -> Section:
    return Section.of(tmp_path_factory.mktemp("explorer"), STABILITY)


def test_the_curves_are_those_of_the_tables(section: Section, stability: Tables) -> None:
    shown = section.rows(predicted=0)
    of_study = explorer.rows_of_runs(stability)
    of_study["value"] = of_study["value"].abs().where(of_study["quantity"] == "displacement", of_study["value"])
    both = shown.merge(of_study, on=["run_id", "step", "layer", "quantity"], how="left")
    assert len(both) == len(shown) > 10_000
    np.testing.assert_allclose(both["shown"], both["value"], rtol=1e-6, equal_nan=True)
    assert set(shown["quantity"]) >= {"edge_ratio", "train_loss", "degree"}
    whole = of_study[of_study["quantity"] == "edge_ratio"].groupby("run_id")["step"].agg(["min", "max"])
    ends = shown[shown["quantity"] == "edge_ratio"].groupby("run_id")["step"].agg(["min", "max"])
    pd.testing.assert_frame_equal(whole, ends, check_dtype=False)
    edges = section.rows(predicted=1)
    assert (edges.loc[edges["quantity"] == "edge_ratio", "shown"] == 1).all() and len(edges)


def test_every_run_has_its_settings_its_provenance_and_its_line(section: Section, stability: Tables) -> None:
    runs, of_study = section.table["runs"], stability.runs().set_index("run_id")
    assert {run["id"] for run in runs} == set(of_study.index)
    for run in runs:
        line = of_study.loc[run["id"]]
        assert STABILITY.study.run(**run["settings"]).run_id == run["id"]
        assert (run["seed"], run["commit"], run["finished"]) == (line["seed"], line["commit"], line["finished"])
        assert all(run["id"] in set(stability[name].runs["run_id"]) for name in run["experiments"])
        assert f"train --study stability --scale study --run {run['id']} --output" in run["command"]
    links = re.findall(r'<tr(?: class="diverged")?><td><a href="#stability/([^"]+)"', section.text)
    assert links == [run["id"] for run in runs]


def test_runs_that_diverged_come_first(stability: Tables) -> None:
    runs = stability["cnn"].runs.copy()
    runs.loc[runs.index[-1], "diverged"] = 25
    described = explorer.describe(STABILITY, Tables({"cnn": stability["cnn"]._replace(runs=runs)}), "study")
    assert described[0]["id"] == runs["run_id"].iloc[-1] and "25" in described[0]["result"]
    assert all(run["diverged"] is None for run in described[1:])


def test_long_curves_are_thinned_and_keep_their_ends() -> None:
    steps = np.arange(1, 1001)
    long = pd.DataFrame({"run_id": "a", "step": steps, "layer": "w", "quantity": "norm", "value": steps / 7.0})
    short = long.iloc[:5].assign(layer="v")
    curves = explorer.Curves([explorer.Quantity("norm", "norm")], pd.concat([long, short]))
    lines, columns = explorer.columns(curves, ["b", "a"])
    assert lines == ["w", "v"] and list(columns["run"]) == [1, 1]
    length = dict(zip(columns["line"], columns["length"], strict=True))
    assert length[1] == 5 and explorer.POINTS - 2 <= length[0] <= explorer.POINTS
    start = 0 if columns["line"][0] == 0 else 5
    x = columns["x"][start : start + length[0]]
    assert (x[0], x[-1]) == (1, 1000) and np.diff(x).max() <= 2 * 1000 / explorer.POINTS
    np.testing.assert_allclose(columns["y"], columns["x"] / 7, rtol=1e-6)


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
            assert list(cell["seed"]) == sorted(cell["seed"])
    assert sorted(run for panel in panels for mark in panel.marks for run in mark.runs) == sorted(runs.index)


def test_the_lines_of_the_plane_have_one_effective_rate(normalization: Tables) -> None:
    for optimizer in ("sgd", "adam"):
        [panel] = planes.view(Tables({optimizer: normalization[f"plane_{optimizer}"]})).panels
        runs = normalization[f"plane_{optimizer}"].runs
        penalties, rates = np.sort(runs["l2"].unique()), np.sort(runs["lr"].unique())
        positive = penalties[penalties > 0]
        left = len(penalties) - len(positive)
        assert len(panel.lines) == -(-len(positive) // 2)
        for line in panel.lines:
            x, y = np.array(line).T
            l2 = positive[0] * (positive[1] / positive[0]) ** (x - left)
            lr = rates[0] * (rates[1] / rates[0]) ** y
            invariant = theory.diagonal_invariant(optimizer, lr, l2)
            assert x[0] != x[1] and invariant[0] == pytest.approx(invariant[1])


def test_predictions_stand_beside_what_they_predict(normalization: Tables) -> None:
    drawn = planes.curves(normalization)
    assert drawn.predicted is not None
    keys = ["run_id", "layer", "quantity"]
    last = drawn.measured.sort_values("step").groupby(keys)["value"].last()
    predicted = drawn.predicted.sort_values("step").groupby(keys)["value"].last()
    both = pd.concat({"measured": last, "predicted": predicted}, axis=1).dropna().reset_index()
    both = both.merge(normalization.runs()[["run_id", "optimizer", "l2"]], on="run_id")
    ratio = both["measured"] / both["predicted"]
    for kind, rows in ratio.groupby([both["optimizer"], both["l2"] > 0]):
        assert 1 / 1.3 < rows.median() < 1.3, kind
    assert {("sgd", False), ("sgd", True), ("adam", True)} <= set(zip(both["optimizer"], both["l2"] > 0, strict=True))
    for plane in ("plane_sgd", "plane_adam"):
        assert drawn.predicted["run_id"].isin(normalization[plane].runs["run_id"]).any(), plane


def test_a_claim_opens_its_evidence() -> None:
    claim = decided("normalization", "study")["C4"]
    text = explorer.claim_html("normalization", "C4", claim)
    assert text.count("<details") == 1 and claim["reason"].split(".")[0] in text
    for part in [*claim["parts"], *claim["explored"]]:
        assert f"<td>{part['subject']}</td><td>{part['statistic']}</td>" in text
        assert html.escape(part["definition"]) in text
    assert "snakemake claim_C4" in text and f'data-experiment="{claim["experiments"][0]}"' in text


def test_a_study_without_an_explorer_shows_all_it_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    decided(STABILITY.name, "study")  # with all of its code
    monkeypatch.setattr(type(STABILITY.study), "find", lambda *names: None)
    found = Section.of(tmp_path, STABILITY)
    assert found.table["panels"] == [] and len(found.columns["run"])
    assert {"sharpness", "train_loss"} <= {one["name"] for one in found.table["quantities"]}
    contents = STABILITY.contents.model_copy(update={"first_view": None})
    monkeypatch.setattr(explorer.tidy, "read", lambda *arguments: Tables())  # no run was trained
    assert Section.of(tmp_path, replace(STABILITY, contents=contents)).table["runs"] == []
