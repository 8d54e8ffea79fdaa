"""The pages of the report: claims and provenance; and what the frame of the paper counts."""

import re
from typing import Any

import pandas as pd

from effective_lr.document import report
from effective_lr.document.frame import origins, overview
from effective_lr.document.numbers import count_verdicts, to_latex


def decided(verdict: str, **more: Any) -> dict[str, Any]:
    """A claim as its verdict is written."""
    texts = {key: key for key in ("title", "claim", "original", "shown", "reason", "why")}
    return {**texts, "experiments": [], "verdict": verdict, "parts": [], "explored": [], **more}


def test_claims_show_verdict_statistic_and_tolerance() -> None:
    part = {"subject": "sgd", "statistic": "slope", "value": 1.0, "low": 0.98, "high": 1.02, "within": [0.9, None]}
    claim = decided("not reproduced", parts=[{**part, "verdict": "reproduced"}])
    explored = {key: value for key, value in part.items() if key != "within"}
    claim["explored"] = [{**explored, "statistic": "seen later"}]
    html = report.claims_to_html({"C5": claim})
    assert '<b class="not">not reproduced</b>' in html and '<b class="reproduced">reproduced</b>' in html
    assert "<td>[0.98, 1.02]</td><td>≥ 0.9</td>" in html
    [row] = [row for row in re.findall(r"<tr>.*?</tr>", html) if "<td>seen later</td>" in row]
    assert "explored" in row and "reproduced</b>" not in row


def test_provenance_counts_runs_by_code() -> None:
    runs = pd.DataFrame(
        {
            "study": "normalization",
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
    [first] = re.findall(r"<tr>\s*<td>normalization</td>\s*<td>1</td>.*?</tr>", html, flags=re.DOTALL)
    assert re.findall(r"<td>(.*?)</td>", first)[-5:] == ["2", "1", "1.0", "2026-01-01", "2026-01-02"]


def test_verdicts_are_counted_and_shown_in_the_order_of_the_claims() -> None:
    names = [f"C{number}" for number in range(1, 12)]  # a tenth claim, too
    verdicts = ["reproduced", "not reproduced", "reproduced in part", "undecided"]
    claims = {name: decided(verdicts[number % 4]) for number, name in enumerate(names)}
    counts = count_verdicts([claim["verdict"] for claim in claims.values()])
    assert counts["claims/count"] == "11"
    assert sum(int(count) for name, count in counts.items() if name != "claims/count") == 11
    assert (counts["claims/reproduced"], counts["claims/undecided"]) == ("3", "2")
    rows = [row for row in overview({"normalization": claims}).rows if len(row) == 3]
    assert [(row[0], row[2]) for row in rows] == [(name, claim["verdict"]) for name, claim in claims.items()]


def test_origins_name_command_and_runs_and_each_statistic_links_once() -> None:
    measured = [{"statistic": name, "subject": subject} for name in ("slope_of_x", "late") for subject in ("a", "b")]
    claims = {"C1": decided("undecided", parts=measured), "C2": decided("reproduced", explored=measured[:1])}
    text, statistics = origins({"normalization": claims}, {"normalization": {"C1": 12, "C2": 0}})
    assert statistics == ["normalization/slope_of_x", "normalization/late"]
    assert r"\textbf{C1} \texttt{make claim\_C1}, 12 runs:" in text and r"\texttt{make claim\_C2}, float64" in text
    assert text.count(r"\origin{normalization/slope_of_x}{slope\_of\_x}") == 1 and text.count(r"slope\_of\_x") == 2


def test_numbers_are_mathematics_and_words_are_text() -> None:
    text = to_latex(
        "study", {"a": r"12\,800", "b": "not reproduced", "c": r"3\times 10^{-4}"}, {"plane": "What $x$ is"}
    )
    assert r"\definenumber{study/a}{\ensuremath{12\,800}}" in text
    assert r"\definenumber{study/b}{not reproduced}" in text
    assert r"\definenumber{study/c}{\ensuremath{" in text
    assert r"\definecaption{study/plane}{What $x$ is}" in text
