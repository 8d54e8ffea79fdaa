"""A user's run beside the published one: which numbers lie where a repetition should, which verdicts differ.

The prediction interval of a published number is its own interval, √(1 + n/m) times as wide, for n published seeds and m
of the user's: the variance of a difference is that of both.
"""

from typing import NamedTuple

import numpy as np

from effective_lr.engine.inputs import Layout
from effective_lr.errors import UserError
from effective_lr.evidence.estimates import CONFIDENCE, Estimate
from effective_lr.evidence.published import decide_whole, read_claims
from effective_lr.evidence.verdicts import Claims, estimate_of, rules


class Prediction(NamedTuple):
    """A published number with the interval of its repetition, and the number that was found."""

    name: str
    published: Estimate
    mine: float

    def holds(self) -> bool:
        return bool(self.published.low <= self.mine <= self.published.high)

    def is_known(self) -> bool:
        """Whether there is an interval and a number to look for in it."""
        return bool(np.isfinite([self.published.low, self.published.high, self.mine]).all())

    def __str__(self) -> str:
        published = f"{self.published.value:.4g} [{self.published.low:.4g}, {self.published.high:.4g}]"
        return f"{self.name}: {self.mine:.4g} against {published}"


def predictions(mine: Claims, published: Claims) -> list[Prediction]:
    """Every part of every claim that both have."""
    found = []
    for name in (name for name in published if name in mine):
        theirs, ours = published[name], mine[name]["seeds"]
        wider = np.sqrt(1 + theirs["seeds"] / ours) if ours else np.sqrt(2)  # checks have no seeds
        values = {(part["subject"], part["statistic"]): estimate_of(part).value for part in mine[name]["parts"]}
        for part in theirs["parts"]:
            value, low, high = estimate_of(part)[:3]
            interval = Estimate(value, value - wider * (value - low), value + wider * (high - value))
            title = f"{name} {part['subject']}, {part['statistic'].replace('_', ' ')}"
            found.append(Prediction(title, interval, values.get((part["subject"], part["statistic"]), np.nan)))
    return found


def compared_numbers(found: list[Prediction]) -> list[str]:
    """How many of the numbers lie in their intervals, and each that does not."""
    known = [one for one in found if one.is_known()]
    outside = [one for one in known if not one.holds()]
    lines = [
        f"{len(known) - len(outside)} of {len(known)} numbers lie in their {CONFIDENCE:.0%} prediction intervals. "
        f"With other seeds, about {(1 - CONFIDENCE) * len(known):.0f} would lie outside by chance."
    ]
    if len(known) < len(found):
        lines.append(f"{len(found) - len(known)} others have no interval, or no value in one of the two results.")
    return [*lines, *(f"  outside: {one}" for one in outside)]


def compared_verdicts(mine: Claims, published: Claims) -> tuple[list[str], bool]:
    """Both verdicts on each claim, and whether all that are published were found again."""
    lines, agree = [f"{'claim':<44}  {'mine':<20}  published"], True
    for name, theirs in published.items():
        ours = mine.get(name)
        verdict = ours["verdict"] if ours else "not decided"
        remark = ""
        if ours and rules(ours) != rules(theirs):
            remark = "  by other rules"
        elif verdict != theirs["verdict"]:
            remark, agree = "  DIFFERS", False
        lines.append(f"{name + ' ' + theirs['title']:<44}  {verdict:<20}  {theirs['verdict']}{remark}")
    return lines, agree


def compare(layout: Layout, study: str) -> int:
    """Print a scale, as far as it is trained, beside its published results; 1 where a verdict differs."""
    if not layout.published(study).exists():
        print(f"{study}: not compared, since nothing is published at the scale {layout.config.scale_name}")
        return 0
    if not any(path.exists() for path in layout.tables(study)):
        raise UserError(f"{layout.results(study)}/jobs: no finished training at this scale; train it first")
    mine, published = decide_whole(layout, study), read_claims(layout, study)
    verdicts, agree = compared_verdicts(mine, published)
    print("\n".join([f"{study}:", *compared_numbers(predictions(mine, published)), "", *verdicts, ""]))
    return int(not agree)
