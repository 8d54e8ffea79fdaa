"""Checks that changed training code of a study gives the same results, so that trained runs keep their key.

The runs of a scale that were trained with the last certified code are compared with the same runs, trained again with
the present code; both stay in the run cache, each under its key. Where all rows are equal bit for bit, but for
quantities that the certified code does not record, the new syntax tree gets its key, in `code.lock` beside the code.
"""

import platform
from datetime import UTC, datetime

import pandas as pd

from effective_lr.engine import code
from effective_lr.engine.inputs import Layout, data_of, recorded
from effective_lr.engine.jobs import RunCache
from effective_lr.engine.storage import Result
from effective_lr.engine.study import STUDIES
from effective_lr.errors import UserError


def certify(layout: Layout, study: str) -> str:
    """Compare a scale that was trained with the training code before a change and after it, and add the changed code to
    the lock of its study; returns a line about the comparison.

    Raises UserError, and leaves the lock as it is, where a result differs, or there is nothing to compare with.
    """
    chapter, lock = layout.chapters[study], STUDIES / study / "code.lock"
    tree, known = code.training_tree(chapter.study), code.read_lock(lock)
    if tree in known:
        return f"{study}: {tree} is already certified, with the key {known[tree]}"
    if not known:
        raise UserError(f"{lock}: no code is certified; write a line with the tree of that which trained, twice")
    *_, key = known.values()
    before, after = [], []
    for run in chapter.runs:
        data = recorded(data_of(chapter.study, run), "sha256")
        former, present = (RunCache(layout.results(study) / "runs", one, data).finished(run) for one in (key, tree))
        if former:
            before.append(former)
            after += [present] if present else []
    scale = layout.config.scale_name
    if not before or len(before) > len(after):
        raise UserError(
            f"{study}: {len(before)} runs of the scale {scale} are trained with the certified code ({key}), and "
            f"{len(after)} of them with the present one ({tree}); train the scale with both"
        )
    if different := first_difference(rows(before), rows(after)):
        raise UserError(f"{study}: the training code gives other results: {different}; not certified")
    how = (
        f"{datetime.now(UTC):%Y-%m-%d} equal, bit for bit, in all rows of {len(before)} of {len(chapter.runs)} runs of "
        f"the scale {scale}, on {platform.machine()} with Python {platform.python_version()}"
    )
    with lock.open("a", encoding="utf-8") as file:
        file.write(f"{tree} {key} {how}\n")
    return f"{study}: {tree} has the key {key}: {how}"


def rows(results: list[Result]) -> pd.DataFrame:
    return pd.concat([table.to_pandas() for table, _ in results])


def first_difference(before: pd.DataFrame, after: pd.DataFrame) -> str:
    """The first row that differs, with both values, if any does; quantities that only `after` has are left out."""
    place = ["run_id", "step", "layer", "quantity"]
    after = after[after["quantity"].isin(before["quantity"])]
    both = before.merge(after, on=place, how="outer", suffixes=("_before", "_after"))
    one, other = both["value_before"], both["value_after"]
    different = both[(one != other) & ~(one.isna() & other.isna())]
    return "" if different.empty else str(different.iloc[0].to_dict())
