"""Tables: one content, written as LaTeX and as HTML."""

import html
import re

import pytest

from effective_lr.document.table import MISSING, Span, Table, interval, to_html
from effective_lr.evidence.estimates import NO_VALUE, Estimate

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


def test_both_forms_have_the_same_cells() -> None:
    cells = latex_cells(TABLE)
    assert cells == html_cells(TABLE)
    assert len(cells) == 2 + 3 and {sum(columns for _, columns in row) for row in cells} == {4}


def test_both_forms_have_the_same_rules() -> None:
    assert TABLE.latex().count(r"\midrule") == 2  # under the header, and that of the empty row
    assert TABLE.html().count("class=rule") == 2


@pytest.mark.parametrize(
    ("latex", "expected"),
    [
        ("Heavy ball", "Heavy ball"),
        (r"12\,800 \& 5\,\%", "12\u202f800 &amp; 5\u202f%"),
        (r"\textbf{C1} \emph{new}", "<b>C1</b> <em>new</em>"),
        (r"\texttt{a\_b} -- c", "<code>a_b</code> – c"),
        ("a < b", "a &lt; b"),
    ],
)
def test_text_of_cells(latex: str, expected: str) -> None:
    assert to_html(latex) == expected


def test_formulas_become_mathml() -> None:
    text = to_html(r"\textbf{$\gamma$ and} $[-2, -1]$")
    assert re.fullmatch(r"<b><math.*>.*</math> and</b> <math.*</math>", text)
    assert text.count("<mrow><mo>&#x02212;</mo><mn>") == 2  # signs, not differences
    assert "\\" not in html.unescape(text)


def test_an_unknown_command_is_no_silent_loss() -> None:
    with pytest.raises(ValueError, match="underline"):
        to_html(r"\underline{new}")


def test_an_interval_is_written_with_its_digits_or_as_powers_of_ten() -> None:
    assert interval(Estimate(0.123, 0.1, 0.15), scale=100, digits=1) == "$12.3$ $[10.0, 15.0]$"
    assert interval(Estimate(999999.9999, 1e6, 2.5e7), digits=1) == r"$10^{6}$ $[10^{6}, 2.5\times 10^{7}]$"
    assert interval(Estimate(1.0, float("nan"), float("nan"))) == "$1.00$"
    assert interval(NO_VALUE) == MISSING
