"""Tables as LaTeX; those that every study has; and the overview of the paper."""

from typing import Any

import pandas as pd

from effective_lr.document.common_tables import residuals, tolerance, verdicts_by_scale
from effective_lr.document.overview import overview
from effective_lr.document.table import MISSING, Results, Span, Table, interval
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
    assert "nothing is published here" in alone.latex()


def test_the_overview_has_the_verdicts_in_the_order_of_the_claims() -> None:
    claims = {f"C{number}": claim(("reproduced", "undecided")[number % 2]) for number in range(1, 12)}  # a tenth, too
    rows = [row for row in overview({"normalization": claims}).rows if len(row) == 3]
    assert [(row[0], row[2]) for row in rows] == [(name, claim["verdict"]) for name, claim in claims.items()]
