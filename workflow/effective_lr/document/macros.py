r"""The macros of a chapter: every number that a sentence of the paper states; \num{what/of} in the text looks it up.

<statistic>/<subject>            the value of a statistic of a claim; with /interval, its interval too
verdict/<claim>                  claims/count, claims/reproduced, claims/undecided, ...
settings/<key>                   the value of all runs: `a to b` for numbers that differ, not defined for words that do
runs/count, /diverged, /hours, /first, /last, /device, /torch
scale                            and all that the numbers.py of the study adds
"""

import re

import pandas as pd

from effective_lr.document.notation import latex, number, thousands
from effective_lr.document.table import Results, fixed, interval
from effective_lr.evidence.verdicts import VERDICTS, Claims, estimate_of, label_of


def macros_of(results: Results, scale: str) -> dict[str, str]:
    """The numbers of a study by their names."""
    found = {"scale": latex(scale), **count_verdicts(results.claims)}
    for name, claim in results.claims.items():
        found[f"verdict/{name}"] = claim["verdict"]
        for part in claim["parts"] + claim["explored"]:
            _, digits = label_of(results.study, part["statistic"])
            if digits is not None:
                key = f"{part['statistic']}/{part['subject']}"
                found[key] = fixed(estimate_of(part).value, digits)
                found[f"{key}/interval"] = interval(estimate_of(part), digits=digits)
    runs, numbers = results.tables.runs(), results.study.find("numbers", "numbers")
    found["runs/count"] = thousands(len(runs))
    if len(runs):
        found |= {f"settings/{key}": settings_text(runs[key], results) for key in results.study.run.model_fields}
        found |= {
            "runs/diverged": str(runs["diverged"].notna().sum()),
            "runs/hours": f"{runs['seconds'].sum() / 3600:.2f}",
            "runs/first": runs["finished"].min()[:10],
            "runs/last": runs["finished"].max()[:10],
            "runs/device": latex(", ".join(sorted(runs["device"].unique()))),
            "runs/torch": latex(", ".join(sorted(runs["torch"].unique()))),
        }
    return {name: text for name, text in found.items() if text} | (numbers(results) if numbers else {})


def count_verdicts(*claims: Claims) -> dict[str, str]:
    """How many claims there are, and how many of each verdict."""
    verdicts = [claim["verdict"] for decided in claims for claim in decided.values()]
    counts = {f"claims/{kind.replace(' ', '_')}": str(verdicts.count(kind)) for kind in VERDICTS}
    return {"claims/count": str(len(verdicts)), **counts}


def settings_text(column: pd.Series, results: Results) -> str:
    """The one value of a setting, or the range of several numbers; nothing for several words."""
    values = sorted(column.dropna().unique())
    if any(isinstance(value, str) for value in values):
        return results.study.words.get(values[0], latex(values[0])) if len(values) == 1 else ""
    ends = [number(value) if value % 1 else thousands(int(value)) for value in values[:1] + values[1:][-1:]]
    return "".join(ends) if len(ends) < 2 else r"\text{ to }".join(rf"\ensuremath{{{end}}}" for end in ends)


def to_latex(study: str, numbers: dict[str, str], captions: dict[str, str]) -> str:
    """Definitions that \\num and the floats of preamble.tex look up; digits and powers of ten are in mathematics."""
    lines = []
    for name, value in numbers.items():
        is_text = re.search(r"[A-Za-z$]|\d-\d", re.sub(r"\\[a-z]+|\\,", "", value))  # words, formulas, dates
        shown = value if is_text else rf"\ensuremath{{{value}}}"
        lines.append(rf"\definenumber{{{study}/{name}}}{{{shown}}}")
    lines += [rf"\definecaption{{{study}/{name}}}{{{text}}}" for name, text in captions.items()]
    return "\n".join([*lines, ""])
