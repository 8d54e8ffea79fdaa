"""The verdict on each claim: its statistics, their 90 % intervals, and whether these lie within the tolerances.

A statistic is a function of the tidy tables and of the table of float64 checks, for one subject. It returns an
Estimate, or raises Undecidable with the reason; a value without an interval decides nothing.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from effective_lr.engine.contents import Claim, Measurement
from effective_lr.engine.study import Study
from effective_lr.errors import UserError
from effective_lr.evidence.estimates import NO_VALUE, Estimate, Undecidable, finite, t_margin
from effective_lr.evidence.tidy import Tables

REPRODUCED, NOT_REPRODUCED, UNDECIDED = "reproduced", "not reproduced", "undecided"
IN_PART = "reproduced in part"
ONE_SEED = "a single seed gives no interval"


class Evidence:
    """What the statistics read, and what a reader must know of it: whether it rests on a single seed, whether more
    repetitions would shorten its interval, and a note."""

    def __init__(self, tables: Tables, checks: pd.DataFrame) -> None:
        self.tables, self.checks = tables, checks
        self.start()

    def start(self) -> None:
        """Forget what was read for another statistic."""
        self.has_one_seed = False
        self.is_shortened = True
        self.note = ""

    def runs(self, experiment: str) -> pd.DataFrame:
        """The runs of an experiment. Raises Undecidable where there are none."""
        runs = self.tables[experiment].runs
        if runs.empty:
            raise Undecidable(f"no runs in {experiment}")
        self.has_one_seed |= runs["seed"].nunique() < 2
        return runs


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


def checked(evidence: Evidence, check: str, subject: str) -> Estimate:
    """The mean over seeds of a float64 check, and its range: what is exact has no other spread."""
    checks = evidence.checks
    values = checks.loc[(checks["check"] == check) & (checks["subject"] == subject), "value"]
    if values.empty:
        raise Undecidable("no check was run")
    evidence.has_one_seed |= len(values) < 2
    return finite(Estimate(values.mean(), values.min(), values.max()), values)


class Judgement(NamedTuple):
    """The verdict on a part, the reason where it is undecided, and how many times as many repetitions would decide it
    where more of them would."""

    verdict: str
    why: str = ""
    repetitions: int | None = None


def judge(estimate: Estimate, within: tuple[float, float], is_shortened: bool = True) -> Judgement:
    """Whether the interval, which more repetitions shorten or not, lies within the tolerance, outside, or across a
    bound."""
    lowest, highest = within
    if np.isnan(estimate.low) or np.isnan(estimate.high):
        return Judgement(UNDECIDED, "too few values for an interval")
    if lowest <= estimate.low and estimate.high <= highest:
        return Judgement(REPRODUCED)
    if estimate.high < lowest or estimate.low > highest:
        return Judgement(NOT_REPRODUCED)
    why = "the interval crosses the bound of the tolerance"
    if not (is_shortened and estimate.freedom > 0):  # no t interval is the range of a check
        return Judgement(UNDECIDED, why)
    times = repetitions(estimate, within)
    enough = f"about {times} times as many repetitions would decide" if times else "no number in reach would decide"
    return Judgement(UNDECIDED, f"{why}; {enough}", times)


def repetitions(estimate: Estimate, within: tuple[float, float]) -> int | None:
    """How many times as many repetitions would decide where a t interval crosses a bound; None from 1,000 on.

    That is so if the value stays: the interval shrinks with the root of their number, and with Student's quantile.
    """
    share = 1.0  # of its width that is left to the interval
    for bound in within:
        if estimate.low < bound < estimate.high:
            reach = estimate.high - estimate.value if bound > estimate.value else estimate.value - estimate.low
            share = min(share, abs(bound - estimate.value) / reach)
    widest = share * t_margin(1.0, estimate.freedom) * (1 + 1e-6)  # processors differ in the last digit
    enough = (n for n in range(2, 1000) if t_margin(n**-0.5, n * (estimate.freedom + 1) - 1) <= widest)
    return next(enough, None)


def summarize(parts: list[dict[str, Any]]) -> tuple[str, str]:
    """The verdict on a claim from those on its parts: the worst for each subject, then what subjects have in common."""
    subjects: dict[str, str] = {}
    order = [REPRODUCED, UNDECIDED, NOT_REPRODUCED]
    for part in parts:
        worst = max(part["verdict"], subjects.get(part["subject"], REPRODUCED), key=order.index)
        subjects[part["subject"]] = worst
    found = set(subjects.values())
    if len(found) == 1:
        reasons = {part["why"]: None for part in parts if part["why"]}  # each once, in order
        return found.pop(), "; ".join(reasons)
    by = "; ".join(
        f"{kind}: {', '.join(s for s in subjects if subjects[s] == kind)}" for kind in order if kind in found
    )
    return (IN_PART if {REPRODUCED, NOT_REPRODUCED} <= found else UNDECIDED), by


def measure(what: Measurement, evidence: Evidence, statistics: dict[str, Statistic]) -> tuple[Estimate, str]:
    """The statistic, and why it decides nothing where that is so already."""
    evidence.start()
    try:
        estimate = statistics[what.statistic](evidence, what.subject)
    except Undecidable as why:
        return NO_VALUE, str(why)
    if evidence.has_one_seed:
        return Estimate(estimate.value, np.nan, np.nan), ONE_SEED
    return estimate, ""


def as_json(estimate: Estimate) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {key: None if np.isnan(value) else float(value) for key, value in estimate._asdict().items()}


def decide(name: str, claim: Claim, evidence: Evidence, statistics: dict[str, Statistic]) -> dict[str, Any]:
    """The verdict on a claim, with every number that it rests on, and those that are shown without a tolerance.

    Raises UserError for a statistic that there is not.
    """
    for what in [*claim.parts, *claim.explored]:
        if what.statistic not in statistics:
            known = ", ".join(statistics)
            raise UserError(f"claims.yaml: {name}: statistic = '{what.statistic}': expected one of {known}")
    parts = []
    for part in claim.parts:
        estimate, why = measure(part, evidence, statistics)
        judged = Judgement(UNDECIDED, why) if why else judge(estimate, part.within, evidence.is_shortened)
        judged = judged._replace(why="; ".join(filter(None, [judged.why, evidence.note])))
        within = [None if np.isinf(bound) else bound for bound in part.within]
        parts.append({**part.model_dump(), "within": within, **as_json(estimate), **judged._asdict()})
    explored = [{**what.model_dump(), **as_json(measure(what, evidence, statistics)[0])} for what in claim.explored]
    verdict, why = summarize(parts)
    text = claim.model_dump(exclude={"parts", "explored"})
    return {"id": name, **text, "verdict": verdict, "why": why, "parts": parts, "explored": explored}


def rules(claim: dict[str, Any]) -> list[Any]:
    """What has decided a claim: subjects, statistics and tolerances."""
    return [[part["subject"], part["statistic"], part["within"]] for part in claim["parts"]]


def tell(result: dict[str, Any]) -> str:
    """The verdict in a few lines, for a terminal."""
    lines = [f"{result['id']} {result['title']}: {result['verdict'].upper()}{in_brackets(result['why'])}"]
    for part in result["parts"]:
        lines.append(f"  {tell_value(part)}, {tell_within(part)}: {part['verdict']}{in_brackets(part['why'])}")
    lines += [f"  {tell_value(what)}: explored, no part of the verdict" for what in result["explored"]]
    return "\n".join(lines)


def tell_within(part: dict[str, Any]) -> str:
    low, high = part["within"]
    return f"within {'−∞' if low is None else f'{low:g}'} to {'∞' if high is None else f'{high:g}'}"


def in_brackets(text: str) -> str:
    return f" ({text})" if text else ""


def tell_value(measured: dict[str, Any]) -> str:
    value = "no value" if measured["value"] is None else f"{measured['value']:.3g}"
    if measured["low"] is not None:
        value += f" [{measured['low']:.3g}, {measured['high']:.3g}]"
    if measured["freedom"]:
        value += f" df {measured['freedom']:.0f}"
    return f"{measured['subject']}, {measured['statistic']}: {value} {measured['unit']}".rstrip()
