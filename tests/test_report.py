"""The pages of the report: LaTeX tables as HTML, claims, provenance."""

import re
from pathlib import Path

import pandas as pd
import pytest
from effective_lr.tables import tabular

from effective_lr import report

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("latex", "html"),
    [
        ("Heavy ball", "Heavy ball"),
        (r"12\,800 \& 5\,\%", "12\u202f800 &amp; 5\u202f%"),
        (r"\textbf{C1}", "<b>C1</b>"),
        (r"\texttt{a\_b} -- c", "<code>a_b</code> – c"),
        ("a < b", "a &lt; b"),
    ],
)
def test_text(latex: str, html: str) -> None:
    assert report.text_to_html(latex) == html


def test_formulas_become_mathml() -> None:
    html = report.text_to_html(r"\textbf{$\gamma$ and} $[-2, -1]$")
    assert re.fullmatch(r"<b><math.*>.*</math> and</b> <math.*</math>", html)
    assert html.count("<mrow><mo>&#x02212;</mo><mn>") == 2  # signs, not differences


def test_an_unknown_command_is_no_silent_loss() -> None:
    with pytest.raises(ValueError, match="a command that pages do not know"):
        report.text_to_html(r"\emph{new}")


def test_a_table_keeps_its_rows_groups_and_wide_cells() -> None:
    latex = tabular("lr", ["A", "B"], [["x", "1"], [], [r"\multicolumn{2}{l}{wide \& long}"], ["y", "2"]])
    html = report.table_to_html(latex)
    assert html.count("<tr") == 4 and html.count("<th>") == 2 and html.count("<td") == 5
    assert '<td colspan="2">wide &amp; long</td>' in html
    assert html.count('class="rule"') == 2


def test_claims_show_verdict_statistic_and_tolerance() -> None:
    part = {
        "subject": "sgd",
        "statistic": "contour_slope",
        "value": 1.0,
        "low": 0.98,
        "high": 1.02,
        "within": [0.9, None],
    }
    claim = {key: key for key in ("title", "claim", "original", "shown", "reason", "why")}
    claim |= {"experiments": [], "verdict": "not reproduced", "parts": [{**part, "verdict": "reproduced"}]}  # type: ignore[dict-item]
    claim["explored"] = [{**part, "statistic": "seen later"}]  # type: ignore[dict-item]
    html = report.claims_to_html({"C5": claim})
    assert '<b class="not">not reproduced</b>' in html and '<b class="reproduced">reproduced</b>' in html
    assert "<td>[0.98, 1.02]</td><td>≥ 0.9</td>" in html
    assert "<td>seen later</td>" in html and "<td>explored after the results were seen</td>" in html
    assert "float64 checks" in html


def test_provenance_counts_runs_by_code() -> None:
    runs = pd.DataFrame(
        {
            "run_id": ["a", "b", "c"],
            "commit": ["1", "1", "2"],
            "code": "f",
            "torch": "2",
            "python": "3",
            "device": "cpu",
            "diverged": [None, 25.0, None],
            "seconds": [1800.0, 1800.0, 0.0],
            "finished": ["2026-01-01", "2026-01-02", "2026-01-03"],
        }
    )
    html = report.provenance_to_html(runs)
    [first] = re.findall(r"<tr>\s*<td>1</td>.*?</tr>", html, flags=re.DOTALL)
    assert re.findall(r"<td>(.*?)</td>", first)[-5:] == ["2", "1", "1.0", "2026-01-01", "2026-01-02"]


@pytest.mark.parametrize(("kind", "last"), [("figure", 8), ("table", 9)])
def test_every_item_has_a_caption(kind: str, last: int) -> None:
    captions = re.findall(
        rf'^"({kind}_\d)": "(.+)",$', (ROOT / f"workflow/report/{kind}.rst").read_text(), flags=re.MULTILINE
    )
    assert [name for name, _ in captions] == [f"{kind}_{number}" for number in range(1, last + 1)]
