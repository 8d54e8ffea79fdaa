"""Tables that every study has: claims with their verdicts, also by scale, settings with their sources, costs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from effective_lr.document.notation import latex, number, thousands
from effective_lr.document.table import MISSING, Results, Table, interval, only_line, wide
from effective_lr.evidence.estimates import Estimate
from effective_lr.evidence.verdicts import estimate_of, label_of, rules


def verdicts(results: Results) -> Table:
    """Claims and verdicts: each statistic with its interval and the degrees of freedom of that, its tolerance and what
    follows; then what was explored."""
    rows: list[list[Any]] = []
    for name, claim in results.claims.items():
        rows += [[]] if rows else []
        title = wide(rf"\textbf{{{latex(claim['title'])}}}", 5)
        rows.append([rf"\textbf{{{name}}}", title, rf"\textbf{{{claim['verdict']}}}"])
        for part in claim["parts"] + claim["explored"]:
            subject = results.study.words.get(part["subject"], latex(part["subject"].replace("_", " ")))
            label, digits = label_of(results.study, part["statistic"])
            found = estimate_of(part)
            value = residuals(found) if digits is None else interval(found, digits=digits)
            freedom = f"{found.freedom:.0f}" if found.freedom > 0 else "--"
            follows = [tolerance(part["within"]), part["verdict"]] if "verdict" in part else ["--", "explored"]
            rows.append(["", subject, label, value, freedom, *follows])
    return Table("llllrll", ["", "Subject", "Statistic", "Value", "df", "Tolerance", "Verdict"], rows)


SIZES = ("smoke", "laptop", "study", "cifar", "paper")  # the usual scales, from the smallest


def verdicts_by_scale(results: Results) -> Table:
    """The verdict on each claim at every published scale, side by side, and that of the user's run."""
    scales = sorted(results.published, key=lambda scale: (SIZES.index(scale) if scale in SIZES else len(SIZES), scale))
    header = ["", "Claim", *(latex(scale) for scale in scales)]
    header += [f"{latex(results.scale)}, this run"] if results.scale else []
    rows: list[list[Any]] = []
    for name, claim in results.claims.items():
        published = [published_verdict(claim, results.published[scale].get(name)) for scale in scales]
        rows.append([name, latex(claim["title"]), *published, *([claim["verdict"]] if results.scale else [])])
    if not scales:
        rows += [[], [wide("nothing is published here", len(header))]]
    return Table("l" * len(header), header, rows)


def published_verdict(claim: dict[str, Any], published: dict[str, Any] | None) -> str:
    """A published verdict, unless it followed from other rules than those of the present claim, or rests on seeds that
    were seen before the rule was made."""
    if published is None:
        return "--"
    if published.get("runs") and not published["seeds"]:
        return "explored"
    return str(published["verdict"]) if rules(published) == rules(claim) else "by other rules"


def residuals(estimate: Estimate) -> str:
    """The range of a residual, to a power of ten."""
    if np.isnan(estimate.value):
        return MISSING
    ends = (estimate.low, estimate.high) if np.isfinite(estimate.low) else (estimate.value, estimate.value)
    low, high = (f"10^{{{round(np.log10(max(value, 1e-17)))}}}" for value in ends)
    return f"${low}$" if low == high else f"${low}$ to ${high}$"


def tolerance(within: list[float | None]) -> str:
    low, high = within
    if high is None:
        return rf"$\geq {number(low or 0)}$"
    return rf"$\leq {number(high)}$" if not low else f"${number(low)}$ to ${number(high)}$"


def costs(results: Results) -> Table:
    """What the trainings cost, by experiment and in all; an experiment may share runs with others."""
    rows = [[latex(name.replace("_", " ")), *cost(runs)] for name, (_, runs) in results.tables.items() if len(runs)]
    header = ["Experiment", "runs", "reused", "diverged", f"{results.study.unit}/s", "hours", "GPU hours", "MB"]
    return Table("lrrrrrrr", header, [*rows, [], ["All, each run once", *cost(results.tables.runs())]])


def cost(runs: pd.DataFrame) -> list[str]:
    """Counts, the median speed, hours summed over processes, the most memory."""
    return [
        thousands(len(runs)),
        thousands(runs["reused"].sum()),
        thousands(runs["diverged"].notna().sum()),
        thousands(round(runs["examples_per_second"].median())),
        f"{runs['seconds'].sum() / 3600:.2f}",
        f"{runs['gpu_seconds'].sum() / 3600:.2f}",
        thousands(runs["peak_memory_mb"].max()),
    ]


def settings(results: Results) -> Table:
    """Every setting of the runs, its values and its source."""
    runs = results.tables.runs()
    rows = []
    for key, field in results.study.run.model_fields.items():
        values = sorted(runs[key].dropna().unique(), key=lambda value: (isinstance(value, str), value))
        extra: Any = field.json_schema_extra or {}
        source = extra.get("source", "ours")
        by_source: dict[str, list[Any]] = {}
        for value in values:
            tag = source.get(value, "ours") if isinstance(source, dict) else str(source)
            by_source.setdefault(tag, []).append(value)
        description = latex((field.description or key).replace("`", ""))
        for tag, tagged in by_source.items():
            rows.append([description, listing(tagged, results.study.words), f"[{tag}]"])
            description = ""  # once, with several sources below each other
    return Table(r"p{0.5\linewidth}p{0.3\linewidth}l", ["Setting", "Values", "Source"], rows)


MOST_LISTED = 12  # whole numbers that are listed one by one
LONGEST_LISTING = 200  # characters of texts, five lines of a cell


def listing(values: list[Any], words: Mapping[str, str]) -> str:
    """A few values one by one, many numbers as a range, and of many long texts the first."""
    if isinstance(values[0], str):
        texts = [words.get(value, latex(value)) for value in values]
        listed = ", ".join(texts)
        return listed if len(listed) <= LONGEST_LISTING else f"{texts[0]}, ... ({len(texts)} values)"
    if isinstance(values[0], bool | np.bool_):
        return ", ".join("yes" if value else "no" for value in values)
    if isinstance(values[0], int | np.integer):
        numbers = [thousands(value) for value in values]
        many = len(numbers) > MOST_LISTED
        return f"{numbers[0]} to {numbers[-1]} ({len(numbers)} values)" if many else ", ".join(numbers)
    if len(values) <= 3:
        return ", ".join(f"${number(value)}$" for value in values)
    return f"${number(values[0])}$ to ${number(values[-1])}$ ({len(values)} values)"


def earlier_verdicts(results: Results, header: list[str]) -> Table:
    """The claims of an earlier registration: how many parts were reproduced, the verdict then, which a committed file
    has, and the verdict now."""
    if results.measured is None:
        return only_line("lllll", header, "nothing is published here")
    rows = []
    for name, claim in results.measured["claims"].items():
        reproduced = sum(part["verdict"] == "reproduced" for part in claim["parts"])
        now = results.claims[name]["verdict"]
        rows.append([name, latex(claim["title"]), f"{reproduced} of {len(claim['parts'])}", claim["verdict"], now])
    return Table("lllll", header, rows)
