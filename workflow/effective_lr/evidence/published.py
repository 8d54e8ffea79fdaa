"""Published results: written from the run cache, taken into one, and their verdicts.

Those of a study at one scale are one table of all its runs in the form of a job's (jobs.py): tidy rows, with the
provenance of each run and a checksum inside. So whatever reads the tables of jobs reads them too. Beside it lies what
it decides, <scale>.claims.json.
"""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from effective_lr.engine.code import training_key
from effective_lr.engine.contents import Chapter, published_claims, published_table
from effective_lr.engine.plan import cache_of
from effective_lr.engine.storage import read_provenance, read_table, with_provenance, write_json, write_table
from effective_lr.errors import UserError
from effective_lr.evidence import tidy
from effective_lr.evidence.verdicts import decide_all


def publish(root: Path, chapter: Chapter, scale: str, partial: bool) -> str:
    """Write the finished runs of a scale as one table. Unless `partial`, every run must be there."""
    results, output = Path("results") / scale / chapter.name, published_table(root, chapter.name, scale)
    key, runs = training_key(chapter.study), chapter.runs
    caches = [cache_of(chapter.study, run, results, key) for run in runs]
    found = [result for run, cache in zip(runs, caches, strict=True) if (result := cache.finished(run)) is not None]
    if len(found) < len(runs) and not partial:
        raise UserError(
            f"{results / 'runs'}: {len(runs) - len(found)} of {len(runs)} runs are not trained by the present code; "
            "train them first, or give --partial"
        )
    if not found:
        raise UserError(f"{results / 'runs'}: no finished run of the present code; train some first")
    tables, provenances = zip(*found, strict=True)
    provenance = [record.model_copy(update={"reused": False, "host": ""}) for record in provenances]
    write_table(with_provenance(pa.concat_tables(tables), provenance), output)
    checks = results / "checks.parquet"
    if checks.exists():
        shutil.copy(checks, output.with_name("checks.parquet"))
    write_claims(root, chapter, scale)
    text = f"{output}: {len(found)} of {len(runs)} runs, {output.stat().st_size / 1e6:.1f} MB"
    dirty = sum("dirty" in record.commit for record in provenance)
    return f"{text}; {dirty} of them were trained with uncommitted changes" if dirty else text


def reuse(published: Path, results: Path) -> str:
    """Put the published runs into the run cache of a scale, where the runs of the present code find them."""
    table, provenance = read_table(published)
    names = table["run_id"].to_numpy()
    ends = np.flatnonzero(np.append(names[1:] != names[:-1], True)) + 1  # each run's rows stand together
    starts = dict(zip(names[ends - 1], zip(np.append(0, ends[:-1]), ends, strict=True), strict=True))
    count = 0
    for record in provenance:
        start, end = starts[record.run_id]
        path = results / "runs" / f"{record.run_key}.parquet"
        if not path.exists():
            write_table(with_provenance(table.slice(start, end - start), [record]), path)
            count += 1
    return f"{results / 'runs'}: {count} published runs added, {len(provenance) - count} were there"


def write_claims(root: Path, chapter: Chapter, scale: str) -> Path:
    """Write what the published tables of a scale decide. Committed beside them: it takes seconds."""
    path = published_claims(root, chapter.name, scale)
    decided = decide_published(root, chapter, scale)
    if not (path.exists() and are_alike(json.loads(path.read_text()), decided)):
        write_json(decided, path)
    return path


def are_alike(one: Any, other: Any) -> bool:
    """Whether two claims are the same but for the last digits, which processors round in different ways."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(are_alike(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(are_alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-12) or (math.isnan(one) and math.isnan(other))
    return bool(one == other)


def read_claims(root: Path, study: str, scale: str) -> dict[str, Any]:
    """What the published tables of a scale decide, by claim. Raises UserError where they stand alone."""
    path = published_claims(root, study, scale)
    if not path.exists():
        raise UserError(f"{path}: missing; type `make docs`, which decides on the published tables")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def decide_published(root: Path, chapter: Chapter, scale: str) -> dict[str, Any]:
    """The verdicts on the claims all of whose runs are published."""
    table = published_table(root, chapter.name, scale)
    there = {record.run_id for record in read_provenance(table)}
    whole = [name for name, runs in chapter.experiments.items() if there.issuperset(run.run_id for run in runs)]
    checks = read_checks(table.with_name("checks.parquet"))
    command = f"--cores all --config scale={scale} metrics=published"
    return decide_all(chapter, tidy.read(chapter, [table], whole), checks, command)


def read_checks(path: Path) -> pd.DataFrame:
    """The float64 checks; an empty table where none were made."""
    return pd.read_parquet(path) if path.exists() else pd.DataFrame(columns=["check", "subject", "value"])
