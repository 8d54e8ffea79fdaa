"""Tables: one content, written as LaTeX and as HTML; those that every study has; and the overview of the paper."""

import html
import re
from typing import Any

import pandas as pd
import pytest

from effective_lr.document.common_tables import residuals, tolerance, verdicts_by_scale
from effective_lr.document.overview import overview
from effective_lr.document.table import MISSING, Results, Span, Table, interval, to_html
from effective_lr.evidence.estimates import NO_VALUE, Estimate
from effective_lr.evidence.tidy import Tables
from shared import STUDY

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


def latex_cells(table: Table) -> list[list[tuple[str, int]]]:
    """Rows of cells, as text in HTML and the columns that they take."""
    rows = []
    for line in table.latex().splitlines():
        if line.endswith(r" \\"):
            cells = re.split(r"(?<!\\)& ?", line.removesuffix(r" \\"))
            spans = [re.fullmatch(r"\\multicolumn\{(\d+)\}\{\w\}\{(.*)\} ?", cell) for cell in cells]
            pairs = [(s[2], int(s[1])) if s else (cell, 1) for cell, s in zip(cells, spans, strict=True)]
            rows.append([(to_html(text), columns) for text, columns in pairs])
    return rows


def html_cells(table: Table) -> list[list[tuple[str, int]]]:
    rows = re.findall(r"<tr.*?>(.*?)</tr>", table.html(), flags=re.DOTALL)
    cells = [re.findall(r'<t[hd](?: colspan="(\d+)")?>(.*?)</t[hd]>', row) for row in rows]
    return [[(text, int(columns or 1)) for columns, text in row] for row in cells]


def test_both_forms_have_the_same_cells_and_rules() -> None:
    cells = latex_cells(TABLE)
    assert cells == html_cells(TABLE)
    assert len(cells) == 2 + 3 and {sum(columns for _, columns in row) for row in cells} == {4}
    assert TABLE.latex().count(r"\midrule") == 2  # under the header, and that of the empty row
    assert TABLE.html().count("class=rule") == 2


def test_cells_become_html_and_an_unknown_command_is_no_silent_loss() -> None:
    for latex, expected in {
        "Heavy ball": "Heavy ball",
        r"12\,800 \& 5\,\%": "12\u202f800 &amp; 5\u202f%",
        r"\textbf{C1} \emph{new}": "<b>C1</b> <em>new</em>",
        r"\texttt{a\_b} -- c": "<code>a_b</code> – c",
        "a < b": "a &lt; b",
    }.items():
        assert to_html(latex) == expected
    text = to_html(r"\textbf{$\gamma$ and} $[-2, -1]$")
    assert re.fullmatch(r"<b><math.*>.*</math> and</b> <math.*</math>", text)
    assert text.count("<mrow><mo>&#x02212;</mo><mn>") == 2  # signs, not differences
    assert "\\" not in html.unescape(text)
    with pytest.raises(ValueError, match="underline"):
        to_html(r"\underline{new}")


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


# Verdicts


def claim(verdict: str, bound: float = 1.0, **about: Any) -> dict[str, Any]:
    part = {"subject": "sgd", "statistic": "angle_slope", "within": [0.0, bound]}
    return {"title": "Equilibrium", "verdict": verdict, "parts": [part], **about}


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
    assert "nothing is published here" in alone.latex() and "nothing is published here" in alone.html()


def test_the_overview_has_the_verdicts_in_the_order_of_the_claims() -> None:
    claims = {f"C{number}": claim(("reproduced", "undecided")[number % 2]) for number in range(1, 12)}  # a tenth, too
    rows = [row for row in overview({"normalization": claims}).rows if len(row) == 3]
    assert [(row[0], row[2]) for row in rows] == [(name, claim["verdict"]) for name, claim in claims.items()]
