"""Published results: written from the run cache, taken into one, compared with runs of one's own, and their verdicts.

Those of a study at one scale are one table of all its runs in the form of a shard (jobs.py): tidy rows, with the
provenance of each run and a checksum inside. So whatever reads shards reads them too.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from effective_lr.engine import grid
from effective_lr.engine.code import training_key
from effective_lr.engine.contents import Chapter, published_table
from effective_lr.engine.plan import cache_of
from effective_lr.engine.storage import read_table, with_provenance, write_table
from effective_lr.engine.study import Study
from effective_lr.errors import UserError
from effective_lr.evidence import verdicts
from effective_lr.evidence.tidy import Tables, gather


def publish(root: Path, chapter: Chapter, scale: str, partial: bool) -> str:
    """Write the finished runs of a scale as one table. Unless `partial`, every run must be there."""
    results, output = Path("results") / scale / chapter.name, published_table(root, chapter.name, scale)
    key, data = training_key(chapter.study), Path("results/data")
    runs = grid.unique(chapter.experiments)
    caches = [cache_of(chapter.study, run, results, data, key) for run in runs]
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
        path = results / "runs" / f"{record.fingerprint}.parquet"
        if not path.exists():
            write_table(with_provenance(table.slice(start, end - start), [record]), path)
            count += 1
    return f"{results / 'runs'}: {count} published runs added, {len(provenance) - count} were there"


def cells(study: Study, runs: pd.DataFrame) -> pd.DataFrame:
    """Mean, number of seeds and variance of the study's first summarized quantity, for each setting."""
    settings = [key for key in study.run.model_fields if key != "seed"]
    grouped = runs[runs["diverged"].isna()].groupby(settings, dropna=False)
    return grouped[study.summarized[0]].agg(["mean", "size", "var"])


def compare_cells(study: Study, mine: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """The settings that both have: both means, and their difference in deviations between seeds, pooled over both."""
    ours, theirs = cells(study, mine), cells(study, published)
    both = ours.merge(theirs, left_index=True, right_index=True, suffixes=("_mine", "_published"))
    several = pd.concat([ours, theirs])
    several = several[several["size"] > 1]
    freedom = (several["size"] - 1).sum()
    deviation = np.sqrt((several["var"] * (several["size"] - 1)).sum() / freedom) if freedom else np.nan
    spread = deviation * np.sqrt(1 / both["size_mine"] + 1 / both["size_published"])
    return both.assign(deviations=(both["mean_mine"] - both["mean_published"]) / spread).reset_index()


def compare(
    study: Study, mine: Tables, published: Tables, my_claims: dict[str, Any], their_claims: dict[str, Any]
) -> tuple[str, bool]:
    """A text that puts both side by side, and whether all verdicts agree."""
    table = compare_cells(study, mine.runs(), published.runs())
    lines = [f"{study.name}:"]
    if table.empty:
        lines.append("No setting is in both: another scale can be compared by its verdicts alone.")
    else:
        far = table[table["deviations"].abs() > 3]
        lines.append(
            f"{len(table)} settings are in both; the difference in {study.summarized[0].replace('_', ' ')} is "
            f"{table['deviations'].abs().median():.1f} deviations between seeds in the median, "
            f"{table['deviations'].abs().max():.1f} at most, and more than 3 in {len(far)}."
        )
        varied = [key for key in study.run.model_fields if key in far and far[key].nunique() > 1]
        lines += [
            f"  {', '.join(f'{key} {getattr(row, key)}' for key in varied)}: "
            f"{row.mean_mine:.4g} against {row.mean_published:.4g} ({row.deviations:+.1f})"
            for row in far.itertuples()
        ]
    lines += ["", f"{'claim':<44}  {'mine':<20}  published"]
    agree = True
    for name, theirs in their_claims.items():
        same = my_claims[name]["verdict"] == theirs["verdict"]
        agree &= same
        line = f"{name + ' ' + theirs['title']:<44}  {my_claims[name]['verdict']:<20}  {theirs['verdict']}"
        lines.append(line if same else f"{line}  DIFFERS")
    return "\n".join(lines), agree


def decide_published(root: Path, chapter: Chapter, scale: str) -> tuple[Tables, dict[str, Any]]:
    """The published tables, and the verdicts that they give."""
    shard = published_table(root, chapter.name, scale)
    tables = tables_of(chapter, [shard])
    evidence = verdicts.Evidence(tables, pd.read_parquet(shard.with_name("checks.parquet")))
    statistics = verdicts.statistics_of(chapter.study)
    return tables, {name: verdicts.decide(name, claim, evidence, statistics) for name, claim in chapter.claims.items()}


def tables_of(chapter: Chapter, shards: list[Path]) -> Tables:
    """The tidy tables of all experiments, gathered from shards."""
    return Tables.of(
        {
            name: gather(chapter.study, shards, [run.run_id for run in runs])
            for name, runs in chapter.experiments.items()
        }
    )


def compare_with_published(root: Path, chapter: Chapter, scale: str) -> tuple[str, bool]:
    """A scale beside its published results, and whether all verdicts agree."""
    results = Path("results") / scale / chapter.name
    mine = {path.stem: json.loads(path.read_text()) for path in (results / "claims").glob("*.json")}
    missing = sorted(chapter.claims.keys() - mine.keys())
    if missing:
        raise UserError(f"{results}/claims/{missing[0]}.json: missing; run the scale to its end first")
    published, decided = decide_published(root, chapter, scale)
    tables = tables_of(chapter, sorted((results / "shards").glob("*.parquet")))
    return compare(chapter.study, tables, published, mine, decided)
