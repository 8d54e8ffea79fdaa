"""The tables, the claims and the provenance as a browser shows them, for the workflow's report.

Each page stands alone: no script, no link to a file. Formulas become MathML, which browsers show by themselves.
"""

import html
from collections.abc import Iterable
from typing import Any

import pandas as pd

from effective_lr.document.table import Table, to_html

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 1.5em; color: #222; background: white; max-width: 75em; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { padding: .25em .8em; text-align: left; vertical-align: top; }
th { border-bottom: 1px solid #222; }
table { border-top: 2px solid #222; border-bottom: 2px solid #222; }
tr.rule td { border-top: 1px solid #bbb; }
.reproduced { color: #00735c; } .not { color: #b3400e; } .undecided { color: #666; }
dt { font-weight: bold; } dd { margin: 0 0 .5em 1.5em; }
"""


def page(title: str, *body: str) -> str:
    """A whole HTML page."""
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    return "\n".join(["<!DOCTYPE html>", f'<html lang="en"><head>{head}</head><body>', *body, "</body></html>", ""])


def table_page(table: Table, title: str, caption: str) -> str:
    """A table of the paper, with its caption."""
    return page(title, f"<h1>{html.escape(title)}</h1>", table.html(), f"<p>{to_html(caption)}</p>")


def verdict(text: str) -> str:
    return f'<b class="{text.split()[0]}">{text}</b>'


def definitions(pairs: Iterable[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{term}</dt><dd>{text}</dd>" for term, text in pairs) + "</dl>"


def claims_to_html(decided: dict[str, dict[str, Any]]) -> str:
    """All claims: first their verdicts at a glance, then each in full."""
    rows = [f"<tr><td>{name} {html.escape(claim['title'])}</td><td>{verdict(claim['verdict'])}</td></tr>"
            for name, claim in decided.items()]  # fmt: skip
    parts = ["<h1>Claims</h1>", "<table><tr><th>claim</th><th>verdict</th></tr>", *rows, "</table>"]
    for name, claim in decided.items():
        title = f"{name} {html.escape(claim['title'])}: {verdict(claim['verdict'])}"
        parts += [f"<h2>{title}</h2>", evidence_to_html(claim)]
    return page("Claims", *parts)


def evidence_to_html(claim: dict[str, Any]) -> str:
    """The statement of a claim, and every statistic with its interval, tolerance, verdict and definition."""
    facts = [("Claim", claim["claim"]), ("In the original", claim["original"])]
    facts += [("Experiments", ", ".join(claim["experiments"]) or "float64 checks"), ("Shown in", claim["shown"])]
    facts += [
        ("Reason for the tolerance", claim["reason"]),
        ("Verdict because", claim["why"]),
        ("Decided again by", claim["command"]),
    ]
    header = ("subject", "statistic", "value", "90 % interval", "tolerance", "verdict", "definition")
    rows = ["".join(f"<th>{name}</th>" for name in header)]
    for part in claim["parts"] + claim["explored"]:
        is_explored = "within" not in part
        shown = [part["subject"], part["statistic"], short_number(part["value"]), ends(part["low"], part["high"])]
        shown.append("–" if is_explored else ends(*part["within"]))
        cells = [html.escape(cell) for cell in shown]
        cells.append("explored, no part of the verdict" if is_explored else verdict(part["verdict"]))
        cells.append(html.escape(part["definition"]))
        rows.append("".join(f"<td>{cell}</td>" for cell in cells))
    table = "<table>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"
    return definitions((term, html.escape(text)) for term, text in facts if text) + table


def short_number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def ends(low: float | None, high: float | None) -> str:
    """An interval; no number stands for infinity in tolerances, and for no interval in statistics."""
    if low is None and high is None:
        return "–"
    return f"≥ {short_number(low)}" if high is None else f"[{short_number(low)}, {short_number(high)}]"


def provenance_to_html(runs: pd.DataFrame) -> str:
    """Who trained what, by code, versions and device."""
    keys = ["study", "commit", "code_key", "torch", "python", "device"]
    groups = runs.groupby([key for key in keys if key in runs], dropna=False)
    table = groups.agg(
        runs=("run_id", "size"),
        diverged=("diverged", lambda steps: steps.notna().sum()),
        hours=("seconds", lambda seconds: round(seconds.sum() / 3600, 2)),
        first=("finished", "min"),
        last=("finished", "max"),
    ).reset_index()
    about = (
        "<p>Commit and key of the training code, versions, device, and how many runs each trained, in how many "
        "hours summed over processes. Every run keeps its own record in the table of its job.</p>"
    )
    return page("Provenance", "<h1>Provenance</h1>", about, table.to_html(index=False, border=0))
