"""HTML pages from the templates of this folder; the claims and the provenance for the workflow's report."""

from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader

from effective_lr.evidence.verdicts import Claims, value_text, within_text

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
)
TEMPLATES.filters |= {"value": value_text, "within": within_text}


def render(template: str, **content: Any) -> str:
    """A template of this folder with its content, escaped where it is no HTML."""
    return TEMPLATES.get_template(template).render(content)


def claims_to_html(claims: Claims) -> str:
    """All claims: first their verdicts at a glance, then each in full."""
    return render("report.html", title="Claims", claims=claims)


def provenance_to_html(runs: pd.DataFrame) -> str:
    """Who trained what, by code, versions and device."""
    groups = runs.groupby(["study", "commit", "code_key", "torch", "python", "device"], dropna=False)
    table = groups.agg(
        runs=("run_id", "size"),
        diverged=("diverged", "count"),
        hours=("seconds", lambda seconds: round(seconds.sum() / 3600, 2)),
        first=("finished", "min"),
        last=("finished", "max"),
    )
    return render("report.html", title="Provenance", table=table.reset_index().to_html(index=False, border=0))
