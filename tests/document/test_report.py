"""The pages of the report, and all that a chapter writes."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from effective_lr.document import chapter, report
from effective_lr.evidence.published import are_alike
from shared import decided, published_layout


def test_claims_show_verdict_statistic_and_tolerance() -> None:
    part = {
        "subject": "sgd",
        "statistic": "slope",
        "value": 1.0,
        "low": 0.98,
        "high": 1.02,
        "freedom": 3,
        "unit": "",
        "definition": "of x < y",
    }
    texts = {key: key for key in ("title", "claim", "original", "shown", "reason", "why", "command")}
    claim = {**texts, "experiments": [], "verdict": "not reproduced"}
    claim["parts"] = [{**part, "within": [0.9, None], "verdict": "reproduced"}]
    claim["explored"] = [{**part, "statistic": "seen later"}]
    html = report.claims_to_html({"C5": claim})
    assert '<b class="not">not reproduced</b>' in html and '<b class="reproduced">reproduced</b>' in html
    assert "<td>1 [0.98, 1.02]</td><td>at least 0.9</td>" in html and "<td>of x &lt; y</td>" in html
    [row] = [row for row in re.findall(r"<tr>.*?</tr>", html) if "<td>seen later</td>" in row]
    assert "explored" in row and "reproduced</b>" not in row


def test_provenance_counts_runs_by_code() -> None:
    same = {"study": "normalization", "code_key": "f", "torch": "2", "python": "3", "device": "cpu"}
    columns = ["run_id", "commit", "diverged", "seconds", "finished"]
    lines = [("a", "1", None, 1800.0, "2026-01-01"), ("b", "1", 25.0, 1800.0, "2026-01-02"), ("c", "2", None, 0.0, "")]
    runs = pd.DataFrame(lines, columns=columns).assign(**same)
    html = report.provenance_to_html(runs)
    [first] = re.findall(r"<tr>\s*<td>normalization</td>\s*<td>1</td>.*?</tr>", html, flags=re.DOTALL)
    assert re.findall(r"<td>(.*?)</td>", first)[-5:] == ["2", "1", "1.0", "2026-01-01", "2026-01-02"]


def test_a_chapter_writes_claims_runs_macros_and_every_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claims, study = decided("manifold", "study"), "manifold"  # made once for all tests
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(chapter, "decide_all", lambda *given: claims)
    layout = published_layout()
    chapter.write_chapter(layout, study)
    build, one = layout.build / study, layout.chapters[study]
    assert are_alike(json.loads(layout.claims(study).read_text()), claims)
    runs = pd.read_csv(layout.results(study) / "runs.csv")
    assert set(runs["run_id"]) <= {run.run_id for run in one.runs} and set(one.study.run.model_fields) <= set(runs)
    page = (layout.results(study) / "verdicts.html").read_text()
    assert all(f"<h2>{name} " in page for name in claims)
    assert one.study.name in (layout.results(study) / "provenance.html").read_text()
    tables = {path.stem: path.read_text() for path in (build / "tables").glob("*.tex")}
    assert tables.keys() == one.contents.tables.keys() and all("tabular" in text for text in tables.values())
    macros = (build / "numbers.tex").read_text()
    assert all(rf"\definecaption{{{study}/{name}}}" in macros for name in one.contents.shown)
    assert rf"\definenumber{{{study}/runs/count}}{{\ensuremath{{{len(runs)}}}}}" in macros
