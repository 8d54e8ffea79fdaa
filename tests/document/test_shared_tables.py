"""Tables that every study has: verdicts by scale."""

from typing import Any

import pandas as pd

from effective_lr.document.shared_tables import verdicts_by_scale
from effective_lr.document.table import Results
from effective_lr.evidence.tidy import Tables
from shared import STUDY


def claim(verdict: str, bound: float = 1.0) -> dict[str, Any]:
    part = {"subject": "sgd", "statistic": "angle_slope", "within": [0.0, bound]}
    return {"title": "Equilibrium", "verdict": verdict, "parts": [part]}


def results(**more: Any) -> Results:
    claims = {"C4": claim("undecided"), "C10": claim("reproduced")}
    return Results(STUDY, Tables([]), claims, pd.DataFrame(), **more)


PUBLISHED = {
    "study": {"C4": claim("reproduced"), "C10": claim("not reproduced")},
    "laptop": {"C4": claim("undecided", bound=2.0)},
}


def test_scales_stand_side_by_side_from_the_smallest_and_ones_own_run_last() -> None:
    table = verdicts_by_scale(results(scale="laptop", published=PUBLISHED))
    assert table.header == ["", "Claim", "laptop", "study", "laptop, this run"]
    assert table.rows == [
        ["C4", "Equilibrium", "by other rules", "reproduced", "undecided"],
        ["C10", "Equilibrium", "--", "not reproduced", "reproduced"],
    ]


def test_a_redrawn_published_scale_has_no_column_of_its_own() -> None:
    table = verdicts_by_scale(results(published={"study": PUBLISHED["study"]}))
    assert table.header == ["", "Claim", "study"]
    assert [row[2] for row in table.rows] == ["reproduced", "not reproduced"]


def test_where_nothing_is_published_ones_own_run_stands_alone() -> None:
    table = verdicts_by_scale(results(scale="smoke"))
    assert table.header == ["", "Claim", "smoke, this run"]
    assert [row[2] for row in table.rows[:2]] == ["undecided", "reproduced"]
    assert "nothing is published here" in table.latex() and "nothing is published here" in table.html()
