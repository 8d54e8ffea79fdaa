"""Published results: written from the run cache, taken into one, their verdicts, and a user's run beside them.

Those of a study at one scale are one table of all its runs in the form of a job's (jobs.py), so whatever reads those
reads it too. Beside it lies what it decides, <scale>.claims.json.
"""

import json
import shutil
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from effective_lr.engine.inputs import Layout
from effective_lr.engine.plan import caches
from effective_lr.engine.storage import read_json, read_provenance, read_table, write_json, write_table
from effective_lr.errors import UserError
from effective_lr.evidence import tidy
from effective_lr.evidence.estimates import CONFIDENCE
from effective_lr.evidence.verdicts import Claims, decide_all, estimate_of


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
    folder, lengths = layout.results(study) / "runs", Counter(table["run_id"].to_pylist())
    start = count = 0
    for record in provenance:  # in the order of their rows
        rows = table.slice(start, lengths[record.run_id])
        start += len(rows)
        path = folder / f"{record.run_key}.parquet"
        if not path.exists():
            write_table(rows, [record], path)
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

    def rounded(number: str) -> float:
        return round(float(f"{float(number):.6g}"), 12)

    first, second = (json.loads(json.dumps(claims), parse_float=rounded) for claims in (one, other))
    return bool(first == second)


def compare(layout: Layout, study: str) -> int:
    """Print a scale, as far as it is trained, beside its published results, both decided by the present claims.yaml; 1
    where a verdict differs."""
    if not layout.published(study).exists():
        print(f"{study}: not compared, since nothing is published at the scale {layout.config.scale_name}")
        return 0
    if not any(path.exists() for path in layout.tables(study)):
        raise UserError(f"{layout.results(study)}/jobs: no finished training at this scale; train it first")
    mine, published = decide_whole(layout, study), decide_published(layout, study)
    verdicts, agree = compared_verdicts(mine, published)
    print("\n".join([f"{study}:", *compared_numbers(mine, published), "", *verdicts, ""]))
    return int(not agree)


def compared_numbers(mine: Claims, published: Claims) -> list[str]:
    """How many numbers of the claims that both have lie where a repetition should, and each that does not.

    The prediction interval of a published number is its own interval, √(1 + n/m) times as wide, for n published seeds
    and m of the user's: the variance of a difference is that of both.
    """
    inside, outside, unknown = 0, [], 0
    for name in (name for name in published if name in mine):
        theirs, ours = published[name], mine[name]
        wider = np.sqrt(1 + theirs["seeds"] / ours["seeds"]) if ours["seeds"] else np.sqrt(2)  # checks have no seeds
        values = {(part["subject"], part["statistic"]): estimate_of(part).value for part in ours["parts"]}
        for part in theirs["parts"]:
            found = values.get((part["subject"], part["statistic"]), np.nan)
            value, low, high = estimate_of(part)[:3]
            low, high = value - wider * (value - low), value + wider * (high - value)
            if not np.isfinite([low, high, found]).all():
                unknown += 1
            elif low <= found <= high:
                inside += 1
            else:
                title = f"{name} {part['subject']}, {part['statistic'].replace('_', ' ')}"
                outside.append(f"  outside: {title}: {found:.4g} against {value:.4g} [{low:.4g}, {high:.4g}]")
    known = inside + len(outside)
    lines = [
        f"{inside} of {known} numbers lie in their {CONFIDENCE:.0%} prediction intervals. "
        f"With other seeds, about {(1 - CONFIDENCE) * known:.0f} would lie outside by chance."
    ]
    if unknown:
        lines.append(f"{unknown} others have no interval, or no value in one of the two results.")
    return lines + outside


def compared_verdicts(mine: Claims, published: Claims) -> tuple[list[str], bool]:
    """Both verdicts on each claim, and whether all that are published were found again."""
    lines, agree = [f"{'claim':<44}  {'mine':<20}  published"], True
    for name, theirs in published.items():
        verdict = mine[name]["verdict"] if name in mine else "not decided"
        remark = "" if verdict == theirs["verdict"] else "  DIFFERS"
        agree = agree and not remark
        lines.append(f"{name + ' ' + theirs['title']:<44}  {verdict:<20}  {theirs['verdict']}{remark}")
    return lines, agree
