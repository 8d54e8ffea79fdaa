"""Tables that are written as LaTeX for the paper and as HTML for pages. Their cells are LaTeX of a few commands."""

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from effective_lr.document.notation import mathml, number
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


class Span(NamedTuple):
    """A cell as wide as several columns."""

    text: str
    columns: int


Cell = str | Span


@dataclass(frozen=True)
class Table:
    """`columns` aligns them as tabular does; an empty row is a rule; `groups` stand over columns of the header."""

    columns: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    groups: Sequence[tuple[str, int, int]] = field(default=())  # title, first and last column, counted from 1

    def latex(self) -> str:
        """A booktabs tabular."""
        lines = [rf"\begin{{tabular}}{{{self.columns}}}", r"\toprule"]
        if self.groups:
            cells = [rf"\multicolumn{{{last - first + 1}}}{{c}}{{{title}}}" for title, first, last in self._filled()]
            lines.append(" & ".join(cells) + r" \\")
            lines.append("".join(rf"\cmidrule(lr){{{first}-{last}}}" for _, first, last in self.groups))
        lines += [" & ".join(self.header) + r" \\", r"\midrule"]
        for row in self.rows:
            cells = [rf"\multicolumn{{{c.columns}}}{{l}}{{{c.text}}}" if isinstance(c, Span) else c for c in row]
            lines.append(" & ".join(cells) + r" \\" if row else r"\midrule")
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])

    def _filled(self) -> list[tuple[str, int, int]]:
        """The groups, with empty ones over the columns between them."""
        filled, column = [], 1
        for title, first, last in self.groups:
            filled += [("", k, k) for k in range(column, first)] + [(title, first, last)]
            column = last + 1
        return filled + [("", k, k) for k in range(column, len(self.header) + 1)]

    def html(self) -> str:
        """An HTML table."""
        rows = []
        if self.groups:
            cells = [f'<th colspan="{last - first + 1}">{to_html(title)}</th>' for title, first, last in self._filled()]
            rows.append(f"<tr>{''.join(cells)}</tr>")
        rows.append("<tr>" + "".join(f"<th>{to_html(cell)}</th>" for cell in self.header) + "</tr>")
        is_after_rule = True
        for row in self.rows:
            cells = [
                f'<td colspan="{cell.columns}">{to_html(cell.text)}</td>'
                if isinstance(cell, Span)
                else f"<td>{to_html(cell)}</td>"
                for cell in row
            ]
            if row:
                rows.append(f"<tr{' class=rule' if is_after_rule else ''}>{''.join(cells)}</tr>")
            is_after_rule = not row
        return "\n".join(["<table>", *rows, "</table>"])


def to_html(latex: str) -> str:
    """A cell or a caption: formulas, bold, and the few characters that LaTeX escapes or writes in its own way.

    Raises ValueError for a command that pages do not know.
    """
    pieces = re.split(r"(?<!\\)\$", latex)  # formulas are every second one
    text = html.escape("\0".join(pieces[::2]).replace(r"\,", "\u202f").replace("--", "–").replace(r"\^{}", "^"))
    text = text.replace(r"\ ", " ").replace("~", "\u00a0")
    text = re.sub(r"\\(&amp;|[%$#_{}])", r"\1", text)
    for command, tag in {"textbf": "b", "texttt": "code", "emph": "em"}.items():
        text = re.sub(rf"\\{command}\{{([^{{}}]*)\}}", rf"<{tag}>\1</{tag}>", text)
    if "\\" in text:
        raise ValueError(f"{latex}: a command that pages do not know; add it to to_html")
    for formula in pieces[1::2]:
        text = text.replace("\0", mathml(formula), 1)
    return text.strip()


def only_line(columns: str, header: Sequence[str], text: str) -> Table:
    """A table that has nothing to show but why."""
    return Table(columns, header, [[Span(text, len(header))]])


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
