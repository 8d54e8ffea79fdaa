r"""The macros of a chapter: every number that a sentence of the paper states; \num{what/of} in the text looks it up.

<statistic>/<subject>            the value of a statistic of a claim; with /interval, its interval too
verdict/<claim>                  claims/count, claims/reproduced, claims/undecided, ...
settings/<key>                   the value of all runs: `a to b` for numbers that differ, not defined for words that do
runs/count, /diverged, /hours, /first, /last, /device, /torch
scale                            and all that the numbers.py of the study adds
"""

import re
from typing import Any

from effective_lr.document.notation import latex, number, thousands
from effective_lr.document.table import Results, fixed, interval
from effective_lr.evidence.verdicts import VERDICTS, Claims, estimate_of, label_of


def macros_of(results: Results, scale: str) -> dict[str, str]:
    """The numbers of a study by their names."""
    found = {"scale": latex(scale), **_claims(results), **_runs(results)}
    if numbers := results.study.find("numbers", "numbers"):
        found |= numbers(results)
    return found


def count_verdicts(*claims: Claims) -> dict[str, str]:
    """How many claims there are, and how many of each verdict."""
    verdicts = [claim["verdict"] for decided in claims for claim in decided.values()]
    counts = {f"claims/{kind.replace(' ', '_')}": str(verdicts.count(kind)) for kind in VERDICTS}
    return {"claims/count": str(len(verdicts)), **counts}


def _claims(results: Results) -> dict[str, str]:
    found = count_verdicts(results.claims)
    for name, claim in results.claims.items():
        found[f"verdict/{name}"] = claim["verdict"]
        for part in claim["parts"] + claim["explored"]:
            _, digits = label_of(results.study, part["statistic"])
            if digits is not None:
                key = f"{part['statistic']}/{part['subject']}"
                found[key] = fixed(estimate_of(part).value, digits)
                found[f"{key}/interval"] = interval(estimate_of(part), digits=digits)
    return found


def _runs(results: Results) -> dict[str, str]:
    runs = results.tables.runs()
    if runs.empty:
        return {"runs/count": "0"}
    values = {key: runs[key].dropna().unique() for key in results.study.run.model_fields}
    return {
        **{f"settings/{key}": text for key, found in values.items() if (text := _text(sorted(found), results))},
        "runs/count": thousands(len(runs)),
        "runs/diverged": str(int(runs["diverged"].notna().sum())),
        "runs/hours": f"{runs['seconds'].sum() / 3600:.2f}",
        "runs/first": runs["finished"].min()[:10],
        "runs/last": runs["finished"].max()[:10],
        "runs/device": latex(", ".join(sorted(runs["device"].unique()))),
        "runs/torch": latex(", ".join(sorted(runs["torch"].unique()))),
    }


def _text(values: list[Any], results: Results) -> str:
    """A value, or the range of several numbers; nothing for several words."""
    texts = [_one(value, results) for value in values[:1] + values[1:][-1:]]
    if len(texts) < 2:
        return "".join(texts)
    return "" if isinstance(values[0], str) else rf"\ensuremath{{{texts[0]}}}\text{{ to }}\ensuremath{{{texts[1]}}}"


def _one(value: Any, results: Results) -> str:
    if isinstance(value, str):
        return results.study.words.get(value, latex(value))
    if isinstance(value, float) and value % 1:
        return number(value)
    return thousands(int(value))


def to_latex(study: str, numbers: dict[str, str], captions: dict[str, str]) -> str:
    """Definitions that \\num and the floats of preamble.tex look up."""
    lines = [rf"\definenumber{{{study}/{name}}}{{{_typeset(value)}}}" for name, value in numbers.items()]
    lines += [rf"\definecaption{{{study}/{name}}}{{{text}}}" for name, text in captions.items()]
    return "\n".join([*lines, ""])


def _typeset(value: str) -> str:
    """Digits, powers of ten and their like in mathematics, words as text."""
    is_text = re.search(r"[A-Za-z$]|\d-\d", re.sub(r"\\[a-z]+|\\,", "", value))  # words, formulas, dates
    return value if is_text else rf"\ensuremath{{{value}}}"
