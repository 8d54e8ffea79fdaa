"""Runs that are asked for by their settings and results: for a terminal, a spreadsheet, or TensorBoard."""

import operator
import re
import shlex
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa

from effective_lr.engine import grid
from effective_lr.engine.code import training_key
from effective_lr.engine.contents import Chapter
from effective_lr.engine.explain import meant
from effective_lr.engine.plan import cache_of
from effective_lr.engine.storage import SCHEMA, Result, read_table, whole_file
from effective_lr.engine.study import Study
from effective_lr.errors import UserError
from effective_lr.evidence.tidy import Experiment, summarize

ORDERED: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
SAME = 1e-9  # relative difference up to which two numbers are one
MOST_VALUES = 12  # of a setting, that are listed


class Condition(NamedTuple):
    """One word of a question: lr=0.009."""

    key: str
    sign: str
    wanted: str

    def holds(self, value: Any) -> bool:
        """Whether a value is what is asked for; a number that is missing is `none`."""
        found, wanted = as_number(value), as_number(self.wanted)
        if self.sign in ORDERED:
            return found is not None and wanted is not None and ORDERED[self.sign](found, wanted)
        if found is not None and wanted is not None:
            is_same = abs(found - wanted) <= SAME * abs(wanted)
        else:
            is_same = ("none" if pd.isna(value) else str(value).lower()) == self.wanted.lower()
        return is_same == (self.sign == "=")


def as_number(value: Any) -> float | None:
    try:
        return None if isinstance(value, bool) or pd.isna(value) else float(value)
    except ValueError:
        return None


def conditions(where: str) -> list[Condition]:
    """The words of a question. Raises UserError for one that is none."""
    found = []
    for word in shlex.split(where):
        match = re.fullmatch(r"(\w+)(!=|<=|>=|=|<|>)(.+)", word)
        if not match:
            raise UserError(f"WHERE: '{word}': expected a key, one of = != < <= > >=, and a value, such as lr=0.009")
        condition = Condition(*match.groups())
        if condition.sign in ORDERED and as_number(condition.wanted) is None:
            raise UserError(f"WHERE: '{word}': {condition.sign} compares numbers; expected one, or = or !=")
        found.append(condition)
    return found


def finished(chapter: Chapter, results: Path, data: Path) -> Experiment:
    """The runs of a chapter that are finished by the present code, and what they measured."""
    key = training_key(chapter.study)
    paths = [
        cache_of(chapter.study, run, results, data, key).table_path(run) for run in grid.unique(chapter.experiments)
    ]
    found: list[Result] = []
    for path in paths:
        try:
            found += [(table, record) for table, [record] in ([read_table(path)] if path.exists() else [])]
        except UserError as error:
            print(error, file=sys.stderr)
    table = pa.concat_tables([SCHEMA.empty_table(), *(rows.replace_schema_metadata(None) for rows, _ in found)])
    metrics = table.to_pandas()
    return Experiment(metrics, summarize(chapter.study, metrics, [record for _, record in found]))


def published(chapter: Chapter, table: Path) -> Experiment:
    """All that is published of a chapter at a scale."""
    rows, records = read_table(table)
    metrics = rows.to_pandas()
    return Experiment(metrics, summarize(chapter.study, metrics, records))


def answer(
    studies: list[Study], tables: dict[str, Experiment], asked: list[Condition], csv: str = "", tensorboard: str = ""
) -> str:
    """The runs for which all conditions hold, and what was exported of them.

    Raises UserError for a key that no study has; a study without one of the keys has no run to show.
    """
    known = list(dict.fromkeys(key for _, runs in tables.values() for key in runs))
    for key in (condition.key for condition in asked):
        if key not in known:
            raise UserError(f"WHERE: {key}: no such key{meant(key, known)} There are {', '.join(known)}")
    if all(runs.empty for _, runs in tables.values()):
        raise UserError(
            "no run is finished at this scale; `make` trains, and METRICS=published asks the published ones"
        )
    lines, found = [], []
    for study in studies:
        metrics, runs = tables[study.name]
        if all(condition.key in runs for condition in asked):
            selected = select(runs, asked)
            lines.append(told(study, runs, selected, asked))
            found.append((study, Experiment(metrics, selected)))
    if csv:
        to_csv(pd.concat([runs for _, (_, runs) in found]), Path(csv))
        lines.append(f"Written: {csv}")
    if tensorboard:
        to_tensorboard(found, Path(tensorboard))
        lines.append(f"Written: {tensorboard}; `tensorboard --logdir {tensorboard}` shows it")
    return "\n\n".join(lines)


def select(runs: pd.DataFrame, asked: Iterable[Condition]) -> pd.DataFrame:
    """The runs for which all conditions hold."""
    for condition in asked:
        runs = runs[[condition.holds(value) for value in runs[condition.key]]]
    return runs


def told(study: Study, runs: pd.DataFrame, selected: pd.DataFrame, asked: list[Condition]) -> str:
    """The runs as a table, those that diverged first, with the settings in which they differ."""
    count = int(selected["diverged"].notna().sum())
    first = f"{study.name}: {len(selected)} of {len(runs)} runs, {count} diverged"
    if selected.empty:
        keys = dict.fromkeys(condition.key for condition in asked) if len(runs) else ()
        return "\n".join([first, *(f"  {key}: {listed(runs[key])}" for key in keys)])
    selected = selected.assign(
        diverged=pd.to_numeric(selected["diverged"])
    )  # without a step it is no column of numbers
    settings = [key for key in study.run.model_fields if selected[key].nunique(dropna=False) > 1]
    ordered = selected.sort_values(["diverged", *settings], na_position="last", key=sortable)
    shown = ordered[["diverged", *settings, *study.summarized, "seconds", "run_id"]]
    return f"{first}\n{shown.to_string(index=False, na_rep='–', float_format='{:.4g}'.format)}"


def sortable(column: pd.Series) -> pd.Series:
    """A column of numbers as it is; one with words, as text."""
    return column if pd.api.types.is_numeric_dtype(column) else column.astype(str)


def listed(column: pd.Series) -> str:
    """The values that there are."""
    values = sorted(column.dropna().unique(), key=lambda value: (isinstance(value, str), value))
    if len(values) <= MOST_VALUES:
        return f"has {', '.join(map(str, values)) or 'no value'}"
    return f"has {len(values)} values from {values[0]} to {values[-1]}"


def to_csv(runs: pd.DataFrame, path: Path) -> None:
    """Settings, provenance and results, one line for each run."""
    with whole_file(path) as partial:
        runs.to_csv(partial, index=False)


def to_tensorboard(found: list[tuple[Study, Experiment]], folder: Path) -> None:
    """All that runs measured, as event files: <study>/<run_id> for each run, a tag for each quantity and layer.

    Raises UserError without the package tensorboard, and where there is something in the folder.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError("TENSORBOARD: needs the package tensorboard; type: pip install tensorboard") from None
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"TENSORBOARD = {folder}: is not empty, and old curves would mix with new ones; name another")
    for study, (metrics, runs) in found:
        measured = dict(list(metrics.groupby("run_id")))
        for run in runs.to_dict("records"):
            with SummaryWriter(str(folder / study.name / run["run_id"])) as writer:
                writer.add_text("settings", "\n".join(f"    {key}: {run[key]}" for key in study.run.model_fields))
                for row in measured[run["run_id"]].itertuples():
                    writer.add_scalar(f"{row.quantity}/{row.layer}" if row.layer else row.quantity, row.value, row.step)
