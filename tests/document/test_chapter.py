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
from effective_lr.document.macros import count_verdicts, macros_of, to_latex
from effective_lr.document.overview import overview
from effective_lr.document.table import MISSING, Results, Span, Table, interval
from effective_lr.evidence.estimates import NO_VALUE, Estimate
from effective_lr.evidence.published import are_alike
from effective_lr.evidence.tidy import Experiment, Tables
from shared import STUDY, claim_of, decided, make_run, part_of, published_layout

TABLE = Table(
    "llrr",
    ["", r"$\eta$", "A", "B"],
    [
        ["SGD", "$0.1$", r"12\,800", r"5\,\%"],
        [],
        [Span(r"\textbf{wide} \& long", 2), "3", "4"],
        ["Adam", r"\texttt{a\_b}", "a < b", "--"],
    ],
    groups=[("both", 3, 4)],
)


def test_a_table_is_a_tabular_with_rules_groups_and_wide_cells() -> None:
    assert TABLE.latex().splitlines() == [
        r"\begin{tabular}{llrr}",
        r"\toprule",
        r"\multicolumn{1}{c}{} & \multicolumn{1}{c}{} & \multicolumn{2}{c}{both} \\",
        r"\cmidrule(lr){3-4}",
        r" & $\eta$ & A & B \\",
        r"\midrule",
        r"SGD & $0.1$ & 12\,800 & 5\,\% \\",
        r"\midrule",
        r"\multicolumn{2}{l}{\textbf{wide} \& long} & 3 & 4 \\",
        r"Adam & \texttt{a\_b} & a < b & -- \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_numbers_are_written_with_their_digits_or_as_powers_of_ten() -> None:
    assert interval(Estimate(0.123, 0.1, 0.15), scale=100, digits=1) == "$12.3$ $[10.0, 15.0]$"
    assert interval(Estimate(999999.9999, 1e6, 2.5e7), digits=1) == r"$10^{6}$ $[10^{6}, 2.5\times 10^{7}]$"
    assert interval(Estimate(1.0, float("nan"), float("nan"))) == "$1.00$"
    assert interval(NO_VALUE) == residuals(NO_VALUE) == MISSING
    assert residuals(Estimate(1e-15, 0.0, 3e-13)) == "$10^{-17}$ to $10^{-13}$"
    assert [tolerance(within) for within in ([0.5, None], [0, 1.5], [-1, 1])] == [
        r"$\geq 0.5$",
        r"$\leq 1.5$",
        "$-1$ to $1$",
    ]


def claim(verdict: str, bound: float = 1.0, **about: Any) -> dict[str, Any]:
    return claim_of(part_of(within=[0.0, bound]), verdict=verdict, **about)


def by_scale(**about: Any) -> Table:
    claims = {"C4": claim("undecided"), "C10": claim("reproduced")}
    return verdicts_by_scale(Results(STUDY, Tables(), claims, pd.DataFrame(), **about))


def test_scales_stand_side_by_side_from_the_smallest_and_the_present_run_last() -> None:
    study = {"C4": claim("reproduced"), "C10": claim("not reproduced", runs=9, seeds=3)}
    laptop = {"C4": claim("undecided", bound=2.0), "C10": claim("reproduced", runs=9, seeds=0)}
    table = by_scale(scale="laptop", published={"study": study, "laptop": laptop, "smoke": {}})
    assert table.header == ["", "Claim", "smoke", "laptop", "study", "laptop, this run"]
    assert table.rows == [
        ["C4", "Equilibrium", "--", "by other rules", "reproduced", "undecided"],
        ["C10", "Equilibrium", "--", "explored", "not reproduced", "reproduced"],  # by seeds seen before the rule
    ]
    redrawn = by_scale(published={"study": study})
    assert redrawn.header == ["", "Claim", "study"]
    assert [row[2] for row in redrawn.rows] == ["reproduced", "not reproduced"]
    alone = by_scale(scale="smoke")
    assert alone.header == ["", "Claim", "smoke, this run"]
    assert [row[2] for row in alone.rows[:2]] == ["undecided", "reproduced"]
    assert "nothing is published here" in alone.latex()


def test_the_overview_has_the_verdicts_in_the_order_of_the_claims() -> None:
    claims = {f"C{number}": claim(("reproduced", "undecided")[number % 2]) for number in range(1, 12)}  # a tenth, too
    rows = [row for row in overview({"normalization": claims}).rows if len(row) == 3]
    assert [(row[0], row[2]) for row in rows] == [(name, claim["verdict"]) for name, claim in claims.items()]


def macros(*changes: dict[str, Any], claims: dict[str, Any] | None = None) -> dict[str, str]:
    """The macros of runs with these settings changed, without those of the study."""
    about = {"diverged": np.nan, "seconds": 1800.0, "finished": "2026-01-02T03:04:05+00:00", "device": "CPU x86_64"}
    runs = [make_run(**settings) for settings in changes]
    lines = [{**run.model_dump(), **about, "torch": "2.14.1", "run_id": run.run_id} for run in runs]
    tables = Tables({"all": Experiment(pd.DataFrame(), pd.DataFrame(lines, columns=None if lines else ["run_id"]))})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(STUDY), "find", lambda *names: None)
        return macros_of(Results(STUDY, tables, claims or {}, pd.DataFrame()), "my_scale")


def test_a_setting_of_several_values_is_a_range_of_numbers_or_no_macro() -> None:
    found = macros({"steps": 5000}, {"steps": 1000, "lr": 2.5e-4, "optimizer": "adam"}, {"steps": 2000})
    assert found["settings/steps"] == r"\ensuremath{1\,000}\text{ to }\ensuremath{5\,000}"
    assert found["settings/lr"] == r"\ensuremath{2.5\times 10^{-4}}\text{ to }\ensuremath{0.05}"
    assert "settings/optimizer" not in found  # a sentence that states it is refused
    assert (found["settings/width"], found["settings/normalization"]) == ("2", STUDY.words.get("batch", "batch"))
    assert found["settings/momentum"] == "0.9"


def test_runs_are_counted_with_their_hours_and_dates() -> None:
    found = macros(*({"seed": seed} for seed in range(4)))
    expected = {"count": "4", "diverged": "0", "hours": "2.00", "first": "2026-01-02", "device": r"CPU x86\_64"}
    assert {key: found[f"runs/{key}"] for key in expected} == expected and found["scale"] == r"my\_scale"
    assert macros()["runs/count"] == "0"


def test_a_statistic_has_its_value_its_interval_and_its_verdict() -> None:
    part = part_of(0.5, 0.4, 0.6)
    check = {**part, "statistic": "symmetry"}  # a power of ten
    claims = {"C4": claim_of(part, check, explored=[{**part, "subject": "adam", "low": None}])}
    found = macros({}, claims=claims)
    assert found["verdict/C4"] == "reproduced" and found["claims/reproduced"] == "1"
    assert found["angle_slope/sgd"] in found["angle_slope/sgd/interval"] and "[" in found["angle_slope/sgd/interval"]
    assert "[" not in found["angle_slope/adam/interval"] and "symmetry/sgd" not in found


def test_verdicts_are_counted() -> None:
    verdicts = ["reproduced", "not reproduced", "reproduced in part", "undecided", "undecided"]
    counts = count_verdicts(*({"C1": {"verdict": verdict}} for verdict in verdicts))
    kinds = {"reproduced": "1", "not_reproduced": "1", "reproduced_in_part": "1", "undecided": "2", "shown": "0"}
    kinds["needs_the_scale_study"] = "0"
    assert counts == {"claims/count": "5", **{f"claims/{kind}": count for kind, count in kinds.items()}}


def test_numbers_are_mathematics_and_words_are_text() -> None:
    numbers = {"a": r"12\,800", "b": "not reproduced", "c": r"3\times 10^{-4}", "d": "2026-01-02"}
    text = to_latex("study", numbers, {"plane": "What $x$ is"})
    assert r"\definenumber{study/a}{\ensuremath{12\,800}}" in text
    assert r"\definenumber{study/b}{not reproduced}" in text
    assert r"\definenumber{study/c}{\ensuremath{" in text
    assert r"\definenumber{study/d}{2026-01-02}" in text
    assert r"\definecaption{study/plane}{What $x$ is}" in text


def test_claims_show_verdict_statistic_and_tolerance() -> None:
    part = part_of(1.0, 0.98, 1.02, definition="of x < y", within=[0.9, None])
    explored = [{**part, "statistic": "seen later"}]
    claim = claim_of({**part, "verdict": "reproduced"}, verdict="not reproduced", explored=explored)
    page = report.claims_to_html({"C5": claim})
    assert '<b class="not">not reproduced</b>' in page and '<b class="reproduced">reproduced</b>' in page
    assert "<td>1 [0.98, 1.02]</td><td>at least 0.9</td>" in page and "<td>of x &lt; y</td>" in page
    [row] = [row for row in re.findall(r"<tr>.*?</tr>", page) if "<td>seen later</td>" in row]
    assert "explored" in row and "reproduced</b>" not in row


def test_provenance_counts_runs_by_code() -> None:
    same = {"study": "normalization", "code_key": "f", "torch": "2", "python": "3", "device": "cpu"}
    columns = ["run_id", "commit", "diverged", "seconds", "finished"]
    lines = [("a", "1", None, 1800.0, "2026-01-01"), ("b", "1", 25.0, 1800.0, "2026-01-02"), ("c", "2", None, 0.0, "")]
    runs = pd.DataFrame(lines, columns=columns).assign(**same)
    page = report.provenance_to_html(runs)
    [first] = re.findall(r"<tr>\s*<td>normalization</td>\s*<td>1</td>.*?</tr>", page, flags=re.DOTALL)
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
