"""Tables of the paper, whose cells are LaTeX."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from effective_lr.document.notation import number
from effective_lr.engine.study import Study
from effective_lr.evidence.estimates import Estimate
from effective_lr.evidence.tidy import Tables
from effective_lr.evidence.verdicts import estimate_of

MISSING = "n/a"  # what cannot be computed at a scale that is too small


class Results(NamedTuple):
    """What tables and macros are made of: tidy tables of experiments, verdicts on claims by id, float64 checks, and the
    content of the JSON file that an item names, if it exists; the scale of the user's run, empty where what is
    published is redrawn; and the verdicts of published scales.
    """

    study: Study
    tables: Tables
    claims: dict[str, dict[str, Any]]
    checks: pd.DataFrame
    measured: dict[str, Any] | None = None
    scale: str = ""
    published: Mapping[str, dict[str, dict[str, Any]]] = MappingProxyType({})

    def estimates(self, statistic: str) -> dict[str, Estimate]:
        """A statistic of the claims by subject."""
        parts = [part for claim in self.claims.values() for part in claim["parts"] if part["statistic"] == statistic]
        return {part["subject"]: estimate_of(part) for part in parts}


@dataclass(frozen=True)
class Table:
    """`columns` aligns them as tabular does; an empty row is a rule; `groups` stand over columns of the header."""

    columns: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    groups: Sequence[tuple[str, int, int]] = ()  # title, first and last column, counted from 1

    def latex(self) -> str:
        """A booktabs tabular."""
        lines = [rf"\begin{{tabular}}{{{self.columns}}}", r"\toprule"]
        if self.groups:
            titles = [wide("", 1, "c")] * len(self.header)
            for title, first, last in reversed(self.groups):
                titles[first - 1 : last] = [wide(title, last - first + 1, "c")]
            lines.append(" & ".join(titles) + r" \\")
            lines.append("".join(rf"\cmidrule(lr){{{first}-{last}}}" for _, first, last in self.groups))
        if any(self.header):
            lines += [" & ".join(self.header) + r" \\", r"\midrule"]
        lines += [" & ".join(row) + r" \\" if row else r"\midrule" for row in self.rows]
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def wide(text: str, columns: int, align: str = "l") -> str:
    """A cell as wide as several columns."""
    return rf"\multicolumn{{{columns}}}{{{align}}}{{{text}}}"


def only_line(columns: str, header: Sequence[str], text: str) -> Table:
    """A table that has nothing to show but why."""
    return Table(columns, header, [[wide(text, len(header))]])


NOT_MEASURED = r"not measured here: \texttt{make bench}"


def percent(error: float) -> str:
    return MISSING if np.isnan(error) else f"{100 * error:.1f}"


def fixed(value: float, digits: int = 2) -> str:
    return MISSING if np.isnan(value) else f"{value:.{digits}f}"


def interval(estimate: Estimate, scale: float = 1.0, digits: int = 2) -> str:
    """The value, and its interval in brackets where there is one; numbers of many digits as powers of ten."""
    parts = [scale * part for part in estimate[:3]]
    value, low, high = (number(part) if abs(part) >= 1e5 else f"{part:.{digits}f}" for part in parts)
    if np.isnan(estimate.value):
        return MISSING
    return f"${value}$" if np.isnan(estimate.low) else f"${value}$ $[{low}, {high}]$"
