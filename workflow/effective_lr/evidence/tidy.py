"""Tidy tables of an experiment.

`metrics`: what the runs measured, run_id, step, layer, quantity, value, with what its study derives from that.
`runs`: one line for each run, its settings, its results as means over its rows, its provenance.
"""

import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from effective_lr.engine.contents import Chapter
from effective_lr.engine.storage import SCHEMA, Provenance, read_table
from effective_lr.engine.study import Study, load
from effective_lr.errors import UserError


class Experiment(NamedTuple):
    """The tables of one experiment."""

    metrics: pd.DataFrame
    runs: pd.DataFrame


class Tables(dict[str, Experiment]):
    """The tables of experiments by name."""

    def runs(self, *names: str) -> pd.DataFrame:
        """The runs of these experiments together, each once; of all of them when none is named."""
        return pd.concat([self[name].runs for name in names or self]).drop_duplicates("run_id", ignore_index=True)

    def only(self, names: Iterable[str]) -> "Tables":
        """The tables of these experiments."""
        return Tables({name: self[name] for name in names})


def read(chapter: Chapter, paths: Iterable[Path], experiments: Iterable[str] | None = None) -> Tables:
    """The tables of these experiments of a chapter, or of all, from the tables of their training jobs. Raises UserError
    where a run is in none of them."""
    found = [read_table(path) for path in paths]
    rows = pa.concat_tables([SCHEMA.empty_table(), *(table for table, _ in found)])
    records = {record.run_id: record for _, provenance in found for record in provenance}
    names = chapter.experiments if experiments is None else experiments
    run_ids = {name: [run.run_id for run in chapter.experiments[name]] for name in names}
    return Tables({name: gather(chapter.study, rows, records, own) for name, own in run_ids.items()})


def read_checks(path: Path) -> pd.DataFrame:
    """The float64 checks; an empty table where none were made."""
    return pd.read_parquet(path) if path.exists() else pd.DataFrame(columns=["check", "subject", "value"])


def write_checks(study: str, output: Path) -> str:
    """Evaluate the exact statements of a study, which need not have any, in float64; returns them as text."""
    rows = load(study).find("checks", "rows")
    table = pd.DataFrame(rows() if rows else [], columns=["check", "subject", "holds", "value", "seed"])
    table.to_parquet(output, index=False)
    return table.groupby(["check", "subject"], sort=False)["value"].agg(["min", "max"]).to_string()


def gather(study: Study, rows: pa.Table, records: dict[str, Provenance], run_ids: list[str]) -> Experiment:
    """The metrics and runs of these run_ids. Where all of them lack optional data, both tables are empty."""
    own = [records[run_id] for run_id in run_ids if run_id in records]
    if len(own) < len(run_ids) and (own or not study.optional_data):
        missing = next(run_id for run_id in run_ids if run_id not in records)
        raise UserError(f"{missing}: in none of the tables of its training jobs; run the training again")
    metrics = rows.filter(pc.is_in(rows["run_id"], pa.array(run_ids, pa.string()))).to_pandas()
    runs = summarize(study, metrics, own)
    warn_of_versions(study.name, tuple(sorted({".".join(version.split(".")[:2]) for version in runs["torch"]})))
    derive = study.find("analysis", "derive")
    return Experiment(*derive(metrics, runs)) if derive and len(runs) else Experiment(metrics, runs)


def summarize(study: Study, metrics: pd.DataFrame, records: list[Provenance]) -> pd.DataFrame:
    """One line for each run: settings, provenance, and the means of what the study summarizes.

    A setting that is newer than a run has its default in it.
    """
    defaults = {key: field.default for key, field in study.run.model_fields.items() if not field.is_required()}
    names = [name for name in Provenance.model_fields if name not in ("run", "versions")]
    lines = [
        {**{name: getattr(record, name) for name in names}, **record.versions, **defaults, **record.run}
        for record in records
    ]
    empty = [*study.run.model_fields, "python", "torch", *names]
    runs = pd.DataFrame(lines, columns=None if lines else empty)
    whole = metrics[(metrics["layer"] == "") & metrics["quantity"].isin(study.summarized)]
    means = whole.pivot_table(index="run_id", columns="quantity", values="value")
    means = means.reindex(columns=list(study.summarized))
    return runs.merge(means, left_on="run_id", right_index=True, how="left")


@cache
def warn_of_versions(study: str, versions: tuple[str, ...]) -> None:
    """Warn, once, of runs of several versions of PyTorch, whose numbers may differ."""
    if len(versions) > 1:
        print(
            f"Warning: runs of {study} trained with PyTorch {' and '.join(versions)} are shown together; "
            "if small differences matter, train all with one version.",
            file=sys.stderr,
        )
