"""What a chapter is made of: tables, the numbers that sentences state, and its pages of the report."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from effective_lr.document import chapter, report
from effective_lr.document.common_tables import residuals, tolerance, verdicts_by_scale
from effective_lr.document.macros import macros_of, to_latex
from effective_lr.document.overview import overview
from effective_lr.document.table import MISSING, Results, Table, interval, wide
from effective_lr.evidence.estimates import NO_VALUE, Estimate
from effective_lr.evidence.published import are_alike
from effective_lr.evidence.tidy import Experiment, Tables
from shared import STUDY, claim_of, decided, make_run, part_of, published_layout


def test_a_table_is_a_tabular_with_rules_groups_and_wide_cells() -> None:
    rows = [["SGD", "$0.1$", "a < b", r"5\,\%"], [], [wide(r"\textbf{wide}", 2), "3", "--"]]
    assert Table("llrr", ["", r"$\eta$", "A", "B"], rows, groups=[("both", 3, 4)]).latex().splitlines() == [
        r"\begin{tabular}{llrr}",
        r"\toprule",
        r"\multicolumn{1}{c}{} & \multicolumn{1}{c}{} & \multicolumn{2}{c}{both} \\",
        r"\cmidrule(lr){3-4}",
        r" & $\eta$ & A & B \\",
        r"\midrule",
        r"SGD & $0.1$ & a < b & 5\,\% \\",
        r"\midrule",
        r"\multicolumn{2}{l}{\textbf{wide}} & 3 & -- \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_numbers_are_written_with_their_digits_or_as_powers_of_ten() -> None:
    assert interval(Estimate(0.123, 0.1, 0.15), scale=100, digits=1) == "$12.3$ $[10.0, 15.0]$"
    assert interval(Estimate(999999.9999, 1e6, 2.5e7), digits=1) == r"$10^{6}$ $[10^{6}, 2.5\times 10^{7}]$"
    assert interval(Estimate(1.0, float("nan"), float("nan"))) == "$1.00$"
    assert interval(NO_VALUE) == residuals(NO_VALUE) == MISSING
    assert residuals(Estimate(1e-15, 0.0, 3e-13)) == "$10^{-17}$ to $10^{-13}$"
    shown = [tolerance(within) for within in ([0.5, None], [0, 1.5], [-1, 1])]
    assert shown == [r"$\geq 0.5$", r"$\leq 1.5$", "$-1$ to $1$"]


def claim(verdict: str, bound: float = 1.0, **about: Any) -> dict[str, Any]:
    return claim_of(part_of(within=[0.0, bound]), verdict=verdict, **about)


def test_scales_stand_side_by_side_from_the_smallest_and_the_present_run_last() -> None:
    def by_scale(**about: Any) -> Table:
        claims = {"C4": claim("undecided"), "C10": claim("reproduced")}
        return verdicts_by_scale(Results(STUDY, Tables(), claims, pd.DataFrame(), **about))

    study = {"C4": claim("reproduced"), "C10": claim("not reproduced", runs=9, seeds=3)}
    laptop = {"C4": claim("undecided", bound=2.0), "C10": claim("reproduced", runs=9, seeds=0)}
    table = by_scale(scale="laptop", published={"study": study, "laptop": laptop, "smoke": {}})
    assert table.header == ["", "Claim", "smoke", "laptop", "study", "laptop, this run"]
    assert table.rows == [
        ["C4", "Equilibrium", "--", "by other rules", "reproduced", "undecided"],
        ["C10", "Equilibrium", "--", "explored", "not reproduced", "reproduced"],  # by seeds seen before the rule
    ]
    assert by_scale(published={"study": study}).header == ["", "Claim", "study"]
    assert "nothing is published here" in by_scale(scale="smoke").latex()


def test_the_overview_has_the_verdicts_in_the_order_of_the_claims() -> None:
    claims = {f"C{number}": claim(("reproduced", "undecided")[number % 2]) for number in range(1, 12)}  # a tenth, too
    rows = [row for row in overview({"normalization": claims}).rows if len(row) == 3]
    assert [(row[0], row[2]) for row in rows] == [(name, claim["verdict"]) for name, claim in claims.items()]


def test_macros_are_the_numbers_of_claims_runs_and_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(STUDY), "find", lambda *names: None)  # without those of the study
    about = {"diverged": np.nan, "seconds": 1800.0, "finished": "2026-01-02T03:04:05+00:00", "device": "CPU x86_64"}
    settings = ({"steps": 5000}, {"steps": 1000, "lr": 2.5e-4, "optimizer": "adam"}, {"steps": 2000})
    runs = [make_run(**changes) for changes in settings]
    lines = [{**run.model_dump(), **about, "torch": "2.14.1", "run_id": run.run_id} for run in runs]
    part = part_of(0.5, 0.4, 0.6)
    check = {**part, "statistic": "symmetry"}  # a power of ten
    claims = {"C4": claim_of(part, check, explored=[{**part, "subject": "adam", "low": None}])}
    for name, verdict in {"C1": "undecided", "C2": "undecided", "C3": "not reproduced"}.items():
        claims[name] = claim_of(part_of(subject="other"), verdict=verdict)

    def macros(table: pd.DataFrame) -> dict[str, str]:
        tables = Tables({"all": Experiment(pd.DataFrame(), table)})
        return macros_of(Results(STUDY, tables, claims, pd.DataFrame()), "my_scale")

    found = macros(pd.DataFrame(lines))
    expected = {
        "scale": r"my\_scale",
        "settings/steps": r"\ensuremath{1\,000}\text{ to }\ensuremath{5\,000}",
        "settings/lr": r"\ensuremath{2.5\times 10^{-4}}\text{ to }\ensuremath{0.05}",
        "settings/width": "2",
        "settings/normalization": STUDY.words["batch"],
        "settings/momentum": "0.9",
        "runs/count": "3",
        "runs/diverged": "0",
        "runs/hours": "1.50",
        "runs/first": "2026-01-02",
        "runs/device": r"CPU x86\_64",
        "verdict/C4": "reproduced",
        "claims/count": "4",
        "claims/reproduced": "1",
        "claims/not_reproduced": "1",
        "claims/undecided": "2",
        "claims/needs_the_scale_study": "0",
    }
    assert {name: found.get(name) for name in expected} == expected
    assert "settings/optimizer" not in found  # of two: a sentence that states it is refused
    assert found["angle_slope/sgd"] in found["angle_slope/sgd/interval"] and "[" in found["angle_slope/sgd/interval"]
    assert "[" not in found["angle_slope/adam/interval"] and "symmetry/sgd" not in found
    assert macros(pd.DataFrame(columns=["run_id"]))["runs/count"] == "0"


def test_numbers_are_mathematics_and_words_are_text() -> None:
    values = {"a": r"12\,800", "b": "not reproduced", "c": r"3\times 10^{-4}", "d": "2026-01-02"}
    shown = {"a": r"\ensuremath{12\,800}", "c": r"\ensuremath{3\times 10^{-4}}"}
    expected = [rf"\definenumber{{study/{name}}}{{{shown.get(name, text)}}}" for name, text in values.items()]
    text = to_latex("study", values, {"plane": "What $x$ is"})
    assert text.splitlines() == [*expected, r"\definecaption{study/plane}{What $x$ is}"]


def test_pages_show_verdict_statistic_and_tolerance_and_count_runs_by_code() -> None:
    part = part_of(1.0, 0.98, 1.02, definition="of x < y", within=[0.9, None])
    explored = [{**part, "statistic": "seen later"}]
    page = report.claims_to_html(
        {"C5": claim_of({**part, "verdict": "reproduced"}, verdict="not reproduced", explored=explored)}
    )
    assert '<b class="not">not reproduced</b>' in page and '<b class="reproduced">reproduced</b>' in page
    assert "<td>1 [0.98, 1.02]</td><td>at least 0.9</td>" in page and "<td>of x &lt; y</td>" in page
    [row] = [row for row in re.findall(r"<tr>.*?</tr>", page, re.DOTALL) if "<td>seen later</td>" in row]
    assert "explored" in row and "reproduced</b>" not in row

    same = {"study": "normalization", "code_key": "f", "torch": "2", "python": "3", "device": "cpu"}
    columns = ["run_id", "commit", "diverged", "seconds", "finished"]
    lines = [("a", "1", None, 1900.0, "2026-01-01"), ("b", "1", 25.0, 1800.0, "2026-01-02"), ("c", "2", None, 0.0, "")]
    page = report.provenance_to_html(pd.DataFrame(lines, columns=columns).assign(**same))
    [first] = re.findall(r"<tr>\s*<td>normalization</td>\s*<td>1</td>.*?</tr>", page, flags=re.DOTALL)
    assert re.findall(r"<td>(.*?)</td>", first)[-5:] == ["2", "1", "1.03", "2026-01-01", "2026-01-02"]


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
    numbers = (build / "numbers.tex").read_text()
    assert all(rf"\definecaption{{{study}/{name}}}" in numbers for name in one.contents.shown)
    assert rf"\definenumber{{{study}/runs/count}}{{\ensuremath{{{len(runs)}}}}}" in numbers
