"""Published results: written from the run cache, taken into one, and their verdicts.

Those of a study at one scale are one table of all its runs in the form of a job's (jobs.py), so whatever reads those
reads it too. Beside it lies what it decides, <scale>.claims.json.
"""

import math
import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from effective_lr.engine.inputs import Layout
from effective_lr.engine.plan import caches
from effective_lr.engine.storage import read_json, read_provenance, read_table, write_json, write_table
from effective_lr.errors import UserError
from effective_lr.evidence import tidy
from effective_lr.evidence.verdicts import Claims, decide_all


def publish(layout: Layout, study: str, partial: bool = False) -> str:
    """Write the finished runs of a scale as one table. Unless `partial`, every run must be there."""
    output, runs = layout.published(study), caches(layout, study)
    found = [result for run, cache in runs.items() if (result := cache.finished(run)) is not None]
    if not found or (len(found) < len(runs) and not partial):
        raise UserError(
            f"{layout.results(study)}/runs: {len(runs) - len(found)} of {len(runs)} runs are not trained by the "
            "present code; train them first, or add --partial to publish the others"
        )
    tables, provenances = zip(*found, strict=True)
    provenance = [record.model_copy(update={"reused": False, "host": ""}) for record in provenances]
    write_table(pa.concat_tables(tables), provenance, output)
    if layout.checks(study).exists():
        shutil.copy(layout.checks(study), output.with_name("checks.parquet"))
    write_claims(layout, study)
    text = f"{output}: {len(found)} of {len(runs)} runs, {output.stat().st_size / 1e6:.1f} MB"
    dirty = sum("dirty" in record.commit for record in provenance)
    return f"{text}; {dirty} of them were trained with uncommitted changes" if dirty else text


def reuse(layout: Layout, study: str) -> str:
    """Put the published runs into the run cache of their scale, where the runs of the present code find them."""
    if not layout.published(study).exists():
        return f"{study}: nothing is published at the scale {layout.config.scale_name}"
    table, provenance = read_table(layout.published(study))
    names, folder = table["run_id"].to_numpy(), layout.results(study) / "runs"
    ends = np.flatnonzero(np.append(names[1:] != names[:-1], True)) + 1  # each run's rows stand together
    starts = dict(zip(names[ends - 1], zip(np.append(0, ends[:-1]), ends, strict=True), strict=True))
    count = 0
    for record in provenance:
        start, end = starts[record.run_id]
        path = folder / f"{record.run_key}.parquet"
        if not path.exists():
            write_table(table.slice(start, end - start), [record], path)
            count += 1
    return f"{folder}: {count} published runs added, {len(provenance) - count} were there"


def write_claims(layout: Layout, study: str) -> None:
    """Write what the published table of a scale decides. Committed beside it: it takes seconds."""
    path = layout.published_claims(study)
    decided = decide_published(layout, study)
    if not (path.exists() and are_alike(read_json(path), decided)):
        write_json(decided, path)


def decide_published(layout: Layout, study: str) -> Claims:
    """The verdicts on the claims all of whose runs are published at this scale."""
    return decide_whole(replace(layout, config=layout.config.model_copy(update={"metrics": "published"})), study)


def decide_whole(layout: Layout, study: str) -> Claims:
    """The verdicts on the claims all of whose runs are there."""
    chapter, paths = layout.chapters[study], [path for path in layout.tables(study) if path.exists()]
    there = {record.run_id for path in paths for record in read_provenance(path)}
    whole = [name for name, runs in chapter.experiments.items() if there.issuperset(run.run_id for run in runs)]
    checks = tidy.read_checks(layout.checks(study))
    return decide_all(chapter, tidy.read(chapter, paths, whole), checks, layout.options)


def are_alike(one: Any, other: Any) -> bool:
    """Whether two claims are the same but for the last digits, which processors round in different ways."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-12)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and are_alike(list(one.values()), [other[key] for key in one])
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(are_alike, one, other))
    return bool(one == other)


def read_claims(layout: Layout, study: str) -> Claims:
    """What the published table of a scale decides, by claim. Raises UserError where it stands alone."""
    path = layout.published_claims(study)
    if not path.exists():
        raise UserError(f"{path}: missing; `make docs` writes it from the published tables")
    found: Claims = read_json(path)
    return found
