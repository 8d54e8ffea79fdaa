"""Tidy tables of an experiment.

`metrics`: what the runs measured, run_id, step, layer, quantity, value, with what its study derives from that.
`runs`: one line for each run, its settings, its results as means over its rows, its provenance.
"""

from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow as pa

from effective_lr.engine.storage import Provenance, read_table
from effective_lr.engine.study import Study
from effective_lr.errors import UserError

# What a table of runs calls the fields of provenance whose plain words are names for settings.
COLUMNS = {"code": "code_key", "data": "data_sha256"}


class Experiment(NamedTuple):
    """The tables of one experiment."""

    metrics: pd.DataFrame
    runs: pd.DataFrame


def gather(study: Study, shards: list[Path], run_ids: list[str]) -> Experiment:
    """The metrics and runs of these run_ids from the tables of their shards. Raises UserError when one is missing.

    Where all shards are empty, since optional data cannot be had, so are both tables.
    """
    tables, provenances = zip(*[read_table(path) for path in shards], strict=True)
    records = {record.run_id: record for provenance in provenances for record in provenance}
    missing = [run_id for run_id in run_ids if run_id not in records]
    if missing and not (study.optional_data and not any(provenances)):
        raise UserError(f"{missing[0]}: in none of the {len(shards)} shards given; run the training again")
    metrics = pa.concat_tables(tables).to_pandas()
    metrics = metrics[metrics["run_id"].isin(run_ids)]
    runs = summarize(study, metrics, [records[run_id] for run_id in run_ids if run_id in records])
    derive = study.find("analysis", "derive")
    return Experiment(*derive(metrics, runs)) if derive and len(runs) else Experiment(metrics, runs)


def summarize(study: Study, metrics: pd.DataFrame, records: list[Provenance]) -> pd.DataFrame:
    """One line for each run: settings, provenance, and the means of what the study summarizes."""
    settings = list(study.run.model_fields)
    names = {name: COLUMNS.get(name, name) for name in Provenance.model_fields if name not in ("run", "versions")}
    lines = [
        {**{column: getattr(record, name) for name, column in names.items()}, **record.versions, **record.run}
        for record in records
    ]
    runs = pd.DataFrame(lines, columns=None if lines else [*settings, "python", "torch", *names.values()])
    whole = metrics[(metrics["layer"] == "") & metrics["quantity"].isin(study.summarized)]
    means = whole.pivot_table(index="run_id", columns="quantity", values="value")
    means = means.reindex(columns=list(study.summarized))
    return runs.merge(means, left_on="run_id", right_index=True, how="left")


class Tables(dict[str, Experiment]):
    """The tables of experiments by name, from files `<experiment>.metrics.parquet` and `<experiment>.runs.parquet`."""

    def __init__(self, paths: list[Path]) -> None:
        files = {path.name: pd.read_parquet(path) for path in paths}
        names = sorted({name.split(".")[0] for name in files})
        super().__init__(
            {name: Experiment(files[f"{name}.metrics.parquet"], files[f"{name}.runs.parquet"]) for name in names}
        )

    @classmethod
    def of(cls, experiments: dict[str, Experiment]) -> "Tables":
        """Tables that are in memory."""
        tables = cls([])
        tables.update(experiments)
        return tables

    def runs(self, *names: str) -> pd.DataFrame:
        """The runs of these experiments together, each once; of all of them when none is named."""
        return pd.concat([self[name].runs for name in names or self]).drop_duplicates("run_id", ignore_index=True)
