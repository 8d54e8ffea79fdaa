"""The verdict on each claim: its statistics, their 90 % intervals, and whether these lie within the tolerances.

A statistic is a function of the tidy tables and of the table of float64 checks, for one subject. It returns an
Estimate, or raises Undecidable with the reason; a value without an interval decides nothing.
"""

import ast
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from effective_lr.engine.contents import Chapter, Claim, Measurement
from effective_lr.engine.study import STUDIES, Study
from effective_lr.errors import UserError
from effective_lr.evidence.estimates import NO_VALUE, Estimate, Undecidable, require_numbers
from effective_lr.evidence.tidy import Experiment, Tables

Claims = dict[str, dict[str, Any]]  # decided, by name: the content of claims.json
REPRODUCED, NOT_REPRODUCED, UNDECIDED = "reproduced", "not reproduced", "undecided"
IN_PART = "reproduced in part"
NEEDS_STUDY = "needs the scale study"  # where a statistic, whose reason ends so, has no value at a smaller scale
SHOWN = "shown"  # numbers of a claim without tests
VERDICTS = (REPRODUCED, IN_PART, NOT_REPRODUCED, NEEDS_STUDY, UNDECIDED, SHOWN)
NO_INTERVAL = "too few values for an interval"
ONE_SEED = "one seed"


class RecordedTables(Tables):
    """Tables that know the seeds of those that were read."""

    def __init__(self, tables: Tables) -> None:
        super().__init__(tables)
        self.seeds: set[int] = set()

    def __getitem__(self, name: str) -> Experiment:
        found = super().__getitem__(name)
        self.seeds.update(found.runs["seed"])
        return found


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the statistics read: tidy tables, and the table of float64 checks."""

    tables: Tables
    checks: pd.DataFrame

    def runs(self, experiment: str) -> pd.DataFrame:
        """The runs of an experiment. Raises Undecidable where there are none."""
        runs = self.tables[experiment].runs
        if runs.empty:
            raise Undecidable(f"no runs in {experiment}")
        return runs


@lru_cache(maxsize=4)  # the claims of a study start at few seeds
def since(evidence: Evidence, seed: int) -> Evidence:
    """The evidence of this seed and later ones alone: earlier ones were seen before the rule was made."""
    if seed == 0:
        return evidence
    fresh = Tables()
    for name, (metrics, runs) in evidence.tables.items():
        chosen = runs[runs["seed"] >= seed]
        fresh[name] = Experiment(metrics[metrics["run_id"].isin(chosen["run_id"])], chosen)
    return Evidence(fresh, evidence.checks)


class Statistic(NamedTuple):
    """A statistic with how tables write it: its label in LaTeX, and its digits, None for a power of ten."""

    measure: Callable[[Evidence, str], Estimate]
    label: str
    digits: int | None

    def __call__(self, evidence: Evidence, subject: str) -> Estimate:
        return self.measure(evidence, subject)


def statistic(label: str, digits: int | None) -> Callable[[Callable[[Evidence, str], Estimate]], Statistic]:
    """Make a function of statistics.py one that claims can name."""
    return lambda function: Statistic(function, label, digits)


def statistics_of(study: Study) -> dict[str, Statistic]:
    """The statistics of a study by their names."""
    found = vars(study.module("statistics")).items()
    return {name: value for name, value in found if isinstance(value, Statistic)}


def definitions_of(study: Study) -> dict[str, str]:
    """What the statistics and the float64 checks of a study are, by the docstrings of their functions.

    The file of the checks is read, and not imported: that would import PyTorch.
    """
    file = STUDIES / study.name / "checks.py"
    functions = ast.parse(file.read_text(encoding="utf-8")).body if file.exists() else []
    checks = {one.name: ast.get_docstring(one) for one in functions if isinstance(one, ast.FunctionDef)}
    statistics = {name: one.measure.__doc__ for name, one in statistics_of(study).items()}
    return {name: " ".join(text.split()) for name, text in {**checks, **statistics}.items() if text}


def label_of(study: Study, name: str) -> tuple[str, int | None]:
    """How tables write a statistic or a check: its label in LaTeX, and its digits, None for a power of ten.

    A check whose label is not among the CHECKS of statistics.py is a residual.
    """
    known = statistics_of(study).get(name)
    checks: dict[str, tuple[str, int | None]] = getattr(study.module("statistics"), "CHECKS", {})
    return (known.label, known.digits) if known else checks.get(name, ("residual", None))


def checked(evidence: Evidence, check: str, subject: str) -> Estimate:
    """The mean over seeds of a float64 check, and its range: what is exact has no other spread."""
    checks = evidence.checks
    values = checks.loc[(checks["check"] == check) & (checks["subject"] == subject), "value"]
    if values.empty:
        raise Undecidable("no check was run")
    require_numbers(values)
    estimate = Estimate(values.mean(), values.min(), values.max())
    return estimate if len(values) > 1 else estimate.shown(NO_INTERVAL)


def judge(estimate: Estimate, within: tuple[float, float]) -> tuple[str, str]:
    """Whether the interval lies within the tolerance, outside, or across a bound; and why it is undecided."""
    lowest, highest = within
    if estimate.note.endswith(NEEDS_STUDY):
        return NEEDS_STUDY, ""
    if np.isnan(estimate.low) or np.isnan(estimate.high):
        return UNDECIDED, "" if estimate.note else NO_INTERVAL
    if lowest <= estimate.low and estimate.high <= highest:
        return REPRODUCED, ""
    if estimate.high < lowest or estimate.low > highest:
        return NOT_REPRODUCED, ""
    return UNDECIDED, "the interval crosses the bound of the tolerance"


def summarize(parts: list[dict[str, Any]]) -> tuple[str, str]:
    """The verdict on a claim from those on its parts, the worst for each subject, then what subjects have in common.

    And why: the reasons of the parts that have this verdict."""
    if not parts:
        return SHOWN, ""
    subjects: dict[str, str] = {}
    order = [REPRODUCED, NEEDS_STUDY, UNDECIDED, NOT_REPRODUCED]
    for part in parts:
        so_far = subjects.get(part["subject"], REPRODUCED)
        subjects[part["subject"]] = max(so_far, part["verdict"], key=order.index)
    found = set(subjects.values())
    if len(found) == 1:
        verdict = found.pop()
        reasons = dict.fromkeys(part["why"] for part in parts if part["why"] and part["verdict"] == verdict)
        return verdict, "; ".join(reasons)
    by = "; ".join(
        f"{kind}: {', '.join(s for s in subjects if subjects[s] == kind)}" for kind in order if kind in found
    )
    if {REPRODUCED, NOT_REPRODUCED} <= found:
        return IN_PART, by
    return (UNDECIDED if found - {REPRODUCED, NEEDS_STUDY} else NEEDS_STUDY), by


def measure(what: Measurement, evidence: Evidence, statistics: dict[str, Statistic]) -> Estimate:
    """The statistic or check; without a value, and with the reason as its note, where it has none.

    A statistic of runs of one seed has no interval: its cells or folds say nothing about other seeds.
    """
    if what.statistic and what.statistic not in statistics:
        known = ", ".join(statistics)
        raise UserError(f"claims.yaml: statistic = '{what.statistic}': expected one of {known}")
    tables = RecordedTables(evidence.tables)
    try:
        if what.check:
            return checked(evidence, what.check, what.subject)
        estimate = statistics[what.statistic](Evidence(tables, evidence.checks), what.subject)
    except Undecidable as why:
        return NO_VALUE.noted(str(why))
    is_one = len(tables.seeds) == 1 and not what.one_seed and np.isfinite(estimate.low)
    return estimate.shown(ONE_SEED) if is_one else estimate


def as_json(what: Measurement, estimate: Estimate) -> dict[str, Any]:
    """What was measured. JSON has no NaN."""
    numbers = {key: value for key, value in estimate._asdict().items() if key != "note"}
    found = {key: None if np.isnan(value) else float(value) for key, value in numbers.items()}
    return {"subject": what.subject, "statistic": what.name, "unit": what.unit, **found}


def estimate_of(part: dict[str, Any]) -> Estimate:
    """The other way round: what a part of a claim has measured."""
    keys = ("value", "low", "high", "freedom")
    numbers: list[Any] = [np.nan if part[key] is None else part[key] for key in keys]
    return Estimate(*numbers)


def decide(name: str, claim: Claim, evidence: Evidence, statistics: dict[str, Statistic]) -> dict[str, Any]:
    """The verdict on a claim, with every number that it rests on, and those that are shown without a tolerance.

    A part reads the seeds from its first deciding one on, and no others. Raises UserError for an unknown statistic.
    """
    parts = []
    for part in claim.parts:
        fresh = since(evidence, claim.seeds_from if part.seeds_from is None else part.seeds_from)
        estimate = measure(part, fresh, statistics)
        verdict, why = judge(estimate, part.within)
        if verdict == UNDECIDED and part.planned:
            seeds = max(fresh.tables[name].runs["seed"].nunique() for name in claim.experiments)
            if 0 < seeds < part.planned.seeds:
                verdict, why = NEEDS_STUDY, f"{seeds} of {part.planned.seeds} planned seeds: {NEEDS_STUDY}"
        within = [None if np.isinf(bound) else bound for bound in part.within]
        why = "; ".join(filter(None, [why, estimate.note]))
        parts.append({**as_json(part, estimate), "within": within, "verdict": verdict, "why": why})
    fresh = since(evidence, claim.seeds_from)
    explored = []
    for what in claim.explored:
        estimate = measure(what, fresh, statistics)
        explored.append({**as_json(what, estimate), "why": estimate.note})
    verdict, why = summarize(parts)
    text = claim.model_dump(exclude={"parts", "explored"})
    return {"id": name, **text, "verdict": verdict, "why": why, "parts": parts, "explored": explored}


def decide_all(chapter: Chapter, tables: Tables, checks: pd.DataFrame, options: str) -> Claims:
    """The claims of a chapter that rest on experiments in `tables`, with their verdicts.

    Each with the definition of its numbers, how many runs and seeds it rests on, and the command that decides it again.
    """
    evidence, statistics = Evidence(tables, checks), statistics_of(chapter.study)
    found, definitions = {}, definitions_of(chapter.study)
    for name, claim in chapter.claims.items():
        if not set(claim.experiments) <= tables.keys():
            continue
        decided = decide(name, claim, evidence, statistics)
        for part in [*decided["parts"], *decided["explored"]]:
            what = part["statistic"]
            part["definition"] = definitions.get(what) or label_of(chapter.study, what)[0]
        about = {"runs": len(chapter.runs_of(claim.experiments)), "seeds": chapter.seeds(name)}
        found[name] = {**decided, **about, "command": f"snakemake claim_{name} {options}"}
    return found


def worst_part(claim: dict[str, Any]) -> dict[str, Any] | None:
    """The part that decided a claim: of those with its verdict (not reproduced, where it is so in part), the one whose
    interval is nearest to a bound of its tolerance, or reaches farthest beyond it. None where it has no tests."""
    wanted = NOT_REPRODUCED if claim["verdict"] == IN_PART else claim["verdict"]
    parts = [part for part in claim["parts"] if part["verdict"] == wanted]
    return min(parts, key=margin, default=None)


def margin(part: dict[str, Any]) -> float:
    """How far the interval of a part is inside its tolerance, in units of half its width, or of its only bound, or of 1
    where that is 0; negative beyond a bound, and −∞ without a value."""
    low, high = part["within"]
    value, *ends = estimate_of(part)[:3]
    if np.isnan(value):
        return -np.inf
    lowest, highest = (value if np.isnan(end) else end for end in ends)
    inside = min(np.inf if low is None else lowest - low, np.inf if high is None else high - highest)
    unit = (high - low) / 2 if None not in (low, high) else abs(high or low or 0)
    return float(inside / (unit or 1.0))


def rules(claim: dict[str, Any]) -> list[Any]:
    """What has decided a claim: subjects, statistics and tolerances."""
    return [[part["subject"], part["statistic"], part["within"]] for part in claim["parts"]]


def as_text(claim: dict[str, Any]) -> str:
    """The verdict in a few lines, for a terminal."""
    lines = [(f"{claim['id']} {claim['title']}: {claim['verdict'].upper()}", claim["why"])]
    lines += [(f"  {part_text(part)}: {part['verdict']}", part["why"]) for part in claim["parts"]]
    lines += [(f"  {part_text(part)}: exploratory, not part of the verdict", "") for part in claim["explored"]]
    return "\n".join(f"{line} ({why})" if why else line for line, why in lines)


def part_text(part: dict[str, Any], form: str = ".3g") -> str:
    """What a test has measured, and its tolerance; `form` is how its numbers are written."""
    texts = (f"{part['subject']}, {part['statistic']}: {value_text(part, form)}", within_text(part))
    return ", ".join(filter(None, texts))


def value_text(part: dict[str, Any], form: str = ".3g") -> str:
    """Value, interval and unit."""
    found = estimate_of(part)
    interval = "(no interval)" if np.isnan(found.low) else f"[{found.low:{form}}, {found.high:{form}}]"
    return f"{found.value:{form}} {interval} {part['unit']}".rstrip() if np.isfinite(found.value) else "no value"


def within_text(part: dict[str, Any]) -> str:
    """The tolerance; empty for what was explored."""
    low, high = part.get("within", (None, None))
    if low is not None and high is not None:
        return f"within {low:g} to {high:g}"
    return f"at most {high:g}" if high is not None else f"at least {low:g}" if low is not None else ""
