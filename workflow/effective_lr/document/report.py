"""The claims and the provenance as a browser shows them, for the workflow's report: pages without scripts or links."""

import html
from typing import Any

import pandas as pd

from effective_lr.evidence.verdicts import value_text, within_text

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


def verdict(text: str) -> str:
    return f'<b class="{text.split()[0]}">{text}</b>'


def claims_to_html(decided: dict[str, dict[str, Any]]) -> str:
    """All claims: first their verdicts at a glance, then each in full."""
    titles = {
        name: f"{name} {html.escape(claim['title'])}: {verdict(claim['verdict'])}" for name, claim in decided.items()
    }
    glance = "<br>".join(titles.values())
    parts = [f"<h2>{titles[name]}</h2>{evidence_to_html(claim)}" for name, claim in decided.items()]
    return page("Claims", "<h1>Claims</h1>", f"<p>{glance}</p>", *parts)


def evidence_to_html(claim: dict[str, Any]) -> str:
    """The statement of a claim, and every statistic with its interval, tolerance, verdict and definition."""
    facts = {
        "Claim": claim["claim"],
        "In the original": claim["original"],
        "Experiments": ", ".join(claim["experiments"]) or "float64 checks",
        "Shown in": claim["shown"],
        "Reason for the tolerance": claim["reason"],
        "Verdict because": claim["why"],
        "Decided again by": claim["command"],
    }
    terms = [f"<dt>{term}</dt><dd>{html.escape(text)}</dd>" for term, text in facts.items() if text]
    header = ("subject", "statistic", "value, 90 % interval", "tolerance", "verdict", "definition")
    rows = ["".join(f"<th>{name}</th>" for name in header)]
    for part in claim["parts"] + claim["explored"]:
        shown = [part["subject"], part["statistic"], value_text(part), within_text(part), part["definition"]]
        cells = [html.escape(cell) for cell in shown]
        cells.insert(-1, verdict(part["verdict"]) if "verdict" in part else "explored, no part of the verdict")
        rows.append("".join(f"<td>{cell}</td>" for cell in cells))
    return f"<dl>{''.join(terms)}</dl><table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


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
