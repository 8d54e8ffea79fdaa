"""A user's run beside the published one: which numbers lie where a repetition should, which verdicts differ.

A published number has a prediction interval: where, with CONFIDENCE, a repetition lies that has other seeds.

mean of a cell   t·s·√(1/n + 1/m) to both sides, for n published seeds and m of the user's. s is the deviation between
                 published seeds, pooled over the cells nearest in mean, since cells that train badly scatter far more.
part of a claim  its own interval, √(1 + n/m) times as wide: the variance of a difference is that of both. This is √2
                 where both have the same number of seeds.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from effective_lr.engine.contents import Chapter, published_table
from effective_lr.engine.storage import read_provenance
from effective_lr.engine.study import Study
from effective_lr.errors import UserError
from effective_lr.evidence import tidy
from effective_lr.evidence.estimates import CONFIDENCE, Estimate, t_margin
from effective_lr.evidence.published import read_checks, read_claims
from effective_lr.evidence.verdicts import decide_all, rules

Claims = dict[str, dict[str, Any]]  # decided, by name; those published with their number of seeds
POOLED_FREEDOM = 20  # degrees of freedom that the deviation of a cell is pooled from, where there are as many


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


# Cells


def cells(study: Study, runs: pd.DataFrame) -> pd.DataFrame:
    """Mean, number of seeds and variance of the study's first summarized quantity, for each setting. Runs that diverged
    do not count. A setting that is newer than the runs has its default in them.
    """
    fields = study.run.model_fields
    newer = {key: field.default for key, field in fields.items() if key not in runs}
    values = runs.assign(value=runs[study.summarized[0]].where(runs["diverged"].isna()), **newer)
    settings = [key for key in fields if key != "seed"]
    return values.groupby(settings, dropna=False)["value"].agg(mean="mean", seeds="count", variance="var")


def deviations(published: pd.DataFrame) -> pd.DataFrame:
    """The deviation between seeds of each cell and its degrees of freedom, pooled over the cells nearest in mean."""
    several = published[published["seeds"] > 1]
    found = []
    for mean in published["mean"]:
        nearest = several.iloc[np.argsort(np.abs(several["mean"] - mean), kind="stable")]
        freedom = nearest["seeds"] - 1
        chosen = freedom.cumsum().shift(fill_value=0) < POOLED_FREEDOM
        total = freedom[chosen].sum()
        squares = (nearest["variance"] * freedom)[chosen].sum()
        found.append((np.sqrt(squares / total) if total else np.nan, total))
    return pd.DataFrame(found, index=published.index, columns=["deviation", "freedom"])


def predicted_cells(study: Study, mine: pd.DataFrame, published: pd.DataFrame) -> list[Prediction]:
    """The mean of every cell that both have, for runs with any seeds."""
    ours, theirs = cells(study, mine), cells(study, published)
    both = theirs.join(deviations(theirs)).merge(ours, left_index=True, right_index=True, suffixes=("", "_mine"))
    both = both[both["seeds"] + both["seeds_mine"] > 0].reset_index()
    usual = {key: usual_value(both[key]) for key in study.run.model_fields if key in both}
    predictions = []
    for _, cell in both.iterrows():
        spread = cell["deviation"] * np.sqrt(1 / max(cell["seeds"], 1) + 1 / max(cell["seeds_mine"], 1))
        margin, mean = t_margin(spread, cell["freedom"]), cell["mean"]
        name = ", ".join(f"{key} {cell[key]}" for key, value in usual.items() if cell[key] != value)
        predictions.append(Prediction(name, Estimate(mean, mean - margin, mean + margin), cell["mean_mine"]))
    return predictions


def usual_value(column: pd.Series) -> Any:
    """What more than half of the cells have, which need not be named; None where there is no such value."""
    counts = column.value_counts()
    return counts.index[0] if len(counts) and counts.iloc[0] > len(column) / 2 else None


# Claims


def predicted_parts(mine: Claims, published: Claims) -> list[Prediction]:
    """Every part of every claim that both have."""
    predictions = []
    for name in (name for name in published if name in mine):
        theirs, ours = published[name], mine[name]["seeds"]
        wider = np.sqrt(1 + theirs["seeds"] / ours) if ours else np.sqrt(2)
        found = {(part["subject"], part["statistic"]): part["value"] for part in mine[name]["parts"]}
        for part in theirs["parts"]:
            value, low, high = (np.nan if part[key] is None else part[key] for key in ("value", "low", "high"))
            interval = Estimate(value, value - wider * (value - low), value + wider * (high - value))
            measured = found.get((part["subject"], part["statistic"]))
            title = f"{name} {part['subject']}, {part['statistic'].replace('_', ' ')}"
            predictions.append(Prediction(title, interval, np.nan if measured is None else measured))
    return predictions


# Both


def compared_numbers(of_cells: list[Prediction], of_parts: list[Prediction]) -> list[str]:
    """How many of the numbers lie in their intervals, and each that does not."""
    known = [[one for one in kind if one.is_known()] for kind in (of_cells, of_parts)]
    inside = [sum(one.holds() for one in kind) for kind in known]
    count, hits = sum(map(len, known)), sum(inside)
    if not count:
        return ["No number is in both: another scale can be compared by its verdicts alone."]
    lines = [
        f"{hits} of {count} numbers lie in their {CONFIDENCE:.0%} prediction intervals: "
        f"{inside[0]} of {len(known[0])} means of cells, {inside[1]} of {len(known[1])} parts of claims. "
        f"Other seeds alone would leave about {(1 - CONFIDENCE) * count:.0f} outside."
    ]
    left = len(of_cells) + len(of_parts) - count
    lines += [f"{left} others have no interval, or no value in one of the two."] if left else []
    outside = [one for kind in known for one in kind if not one.holds()]
    return [*lines, *(["Outside:"] if outside else []), *(f"  {one}" for one in outside)]


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


def compared_seeds(mine: pd.DataFrame, published: pd.DataFrame) -> str:
    """The seeds of both, and what that means for the intervals."""
    ours, theirs = (sorted(runs["seed"].unique()) for runs in (mine, published))
    texts = [", ".join(map(str, found)) if len(found) < 9 else f"{found[0]} to {found[-1]}" for found in (ours, theirs)]
    same = " The same seeds should lie well inside." if ours == theirs else ""
    return f"Seeds: {texts[0]} here, {texts[1]} published.{same}"


def compare_with_published(root: Path, chapter: Chapter, scale: str) -> tuple[str, bool]:
    """A scale, as far as it is trained, beside its published results; and whether all verdicts agree."""
    results = Path("results") / scale / chapter.name
    paths = {name: path for name in chapter.jobs if (path := results / "jobs" / f"{name}.parquet").exists()}
    if not paths:
        raise UserError(f"{results}/jobs: no training of this scale; run it first")
    trained = {record.run_id for path in paths.values() for record in read_provenance(path)}
    whole = [name for name, runs in chapter.experiments.items() if trained.issuperset(run.run_id for run in runs)]
    tables = tidy.read(chapter, paths.values(), whole)
    mine = decide_all(chapter, tables, read_checks(results / "checks.parquet"), "") if whole else {}
    published = read_claims(root, chapter.name, scale)
    ours = runs_in(chapter.study, list(paths.values()))
    theirs = runs_in(chapter.study, [published_table(root, chapter.name, scale)])
    parts = predicted_parts(mine, published)
    lines, agree = compared_verdicts(mine, published)
    numbers = compared_numbers(predicted_cells(chapter.study, ours, theirs), parts)
    return "\n".join([f"{chapter.name}:", compared_seeds(ours, theirs), *numbers, "", *lines]), agree


def runs_in(study: Study, paths: list[Path]) -> pd.DataFrame:
    """All runs in these tables, one line each."""
    return tidy.gather(study, paths, [record.run_id for path in paths for record in read_provenance(path)]).runs
