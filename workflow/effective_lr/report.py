"""The paper's figures and tables, the claims and the provenance as a browser shows them, for the workflow's report.

Each page stands alone: no script, no link to a file. Formulas become MathML, which browsers show by themselves.
"""

import argparse
import html
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effective_lr.notation import mathml

if TYPE_CHECKING:  # seconds of imports that most pages do not need
    import pandas as pd

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


def text_to_html(latex: str) -> str:
    """A cell of a LaTeX table: formulas, bold, and the few characters that LaTeX escapes or writes in its own way."""
    pieces = re.split(r"(?<!\\)\$", latex)  # formulas are every second one
    text = html.escape("\0".join(pieces[::2]).replace(r"\,", "\u202f").replace("--", "–").replace(r"\^{}", "^"))
    text = re.sub(r"\\([&%$#_{}])", r"\1", text)
    text = re.sub(r"\\textbf\{([^{}]*)\}", r"<b>\1</b>", text)
    text = re.sub(r"\\texttt\{([^{}]*)\}", r"<code>\1</code>", text)
    if "\\" in text:
        raise ValueError(f"{latex}: a command that pages do not know; add it to text_to_html")
    for formula in pieces[1::2]:
        text = text.replace("\0", mathml(formula), 1)
    return text.strip()


def cells(row: str, tag: str, style: str = "") -> str:
    """A row of a LaTeX table."""
    found = []
    for cell in re.split(r"(?<!\\)&", row):
        wide = re.fullmatch(r"\s*\\multicolumn\{(\d+)\}\{\w\}\{(.*)\}\s*", cell)
        span, content = (f' colspan="{wide[1]}"', wide[2]) if wide else ("", cell)
        found.append(f"<{tag}{span}>{text_to_html(content)}</{tag}>")
    return f"<tr{style}>{''.join(found)}</tr>"


def table_to_html(latex: str) -> str:
    """A booktabs tabular (tables.py) as an HTML table."""
    head, body = latex.split("\\toprule\n")[1].split("\\bottomrule")[0].split("\\midrule\n", 1)
    rows = [cells(line.removesuffix(r" \\"), "th") for line in head.splitlines() if not line.startswith(r"\cmidrule")]
    for group in body.split("\\midrule\n"):
        lines = [line.removesuffix(r" \\") for line in group.splitlines()]
        rows += [cells(line, "td", ' class="rule"' if not k else "") for k, line in enumerate(lines)]
    return "\n".join(["<table>", *rows, "</table>"])


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
        parts.append(f"<h2>{name} {html.escape(claim['title'])}: {verdict(claim['verdict'])}</h2>")
        facts = [("Claim", claim["claim"]), ("In the original", claim["original"])]
        facts += [("Experiments", ", ".join(claim["experiments"]) or "float64 checks"), ("Shown in", claim["shown"])]
        facts += [("Reason for the tolerance", claim["reason"]), ("Verdict because", claim["why"])]
        parts.append(definitions((term, html.escape(text)) for term, text in facts if text))
        parts.append("<table><tr><th>subject</th><th>statistic</th><th>value</th><th>90 % interval</th>"
                     "<th>tolerance</th><th>verdict</th></tr>")  # fmt: skip
        for part in claim["parts"]:
            shown = [part["subject"], part["statistic"], number(part["value"]), ends(part["low"], part["high"])]
            shown.append(ends(*part["within"]))
            parts.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in shown))
            parts.append(f"<td>{verdict(part['verdict'])}</td></tr>")
        for part in claim["explored"]:
            shown = [part["subject"], part["statistic"], number(part["value"]), ends(part["low"], part["high"]), "–"]
            shown.append("explored after the results were seen")
            parts.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in shown) + "</tr>")
        parts.append("</table>")
    return page("Claims", *parts)


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def ends(low: float | None, high: float | None) -> str:
    """An interval; no number stands for infinity in tolerances, and for no interval in statistics."""
    if low is None and high is None:
        return "–"
    return f"≥ {number(low)}" if high is None else f"[{number(low)}, {number(high)}]"


def provenance_to_html(runs: "pd.DataFrame") -> str:
    """Who trained what, by code, versions and device."""
    keys = ["commit", "code", "torch", "python", "device"]
    groups = runs.groupby([key for key in keys if key in runs], dropna=False)
    table = groups.agg(
        runs=("run_id", "size"),
        diverged=("diverged", lambda steps: steps.notna().sum()),
        hours=("seconds", lambda seconds: round(seconds.sum() / 3600, 2)),
        first=("finished", "min"),
        last=("finished", "max"),
    ).reset_index()
    about = (
        "<p>Commit and fingerprint of the training code, versions, device, and how many runs each trained, in how many "
        "hours summed over processes. Every run keeps its own record in the table of its shard.</p>"
    )
    return page("Provenance", "<h1>Provenance</h1>", about, table.to_html(index=False, border=0))


def picture(figure: Path, output: Path, dots_per_inch: int = 200) -> None:
    """A figure of the paper as PNG."""
    import pypdfium2

    with pypdfium2.PdfDocument(figure) as document:
        document[0].render(scale=dots_per_inch / 72).to_pil().save(output)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["figure", "table", "claims", "provenance"])
    parser.add_argument("--input", type=Path, nargs="+", required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    inputs, output = arguments.input, arguments.output
    match arguments.kind:
        case "figure":
            picture(inputs[0], output)
        case "table":
            output.write_text(page(inputs[0].stem.replace("_", " "), table_to_html(inputs[0].read_text())))
        case "claims":
            output.write_text(claims_to_html({path.stem: json.loads(path.read_text()) for path in inputs}))
        case "provenance":
            from effective_lr.analysis import Tables

            output.write_text(provenance_to_html(Tables(inputs).runs()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
