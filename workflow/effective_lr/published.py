"""Published results: written from the run cache, taken into one, compared with runs of one's own, and their verdicts.

They are one table of all runs of the published scale, in the form of a shard (jobs.py): tidy rows, with the provenance
of each run and a checksum inside. So whatever reads shards reads them too.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from effective_lr import grid
from effective_lr.analysis import Experiment, Tables, error_or_chance, gather
from effective_lr.config import Run, UserError
from effective_lr.grid import PUBLISHED_SCALE, PUBLISHED_TABLE
from effective_lr.runs import cache_of
from effective_lr.storage import read_table, with_provenance, write_table


def publish(runs: list[Run], results: Path, output: Path, partial: bool) -> str:
    """Write the finished runs of a scale as one table. Unless `partial`, every run must be there."""
    found = [finished for run in runs if (finished := cache_of(results, run).finished(run)) is not None]
    if len(found) < len(runs) and not partial:
        raise UserError(
            f"{results / 'runs'}: {len(runs) - len(found)} of {len(runs)} runs are not trained by the present code; "
            "train them first, or give --partial"
        )
    if not found:
        raise UserError(f"{results / 'runs'}: no finished run of the present code; train some first")
    tables, provenances = zip(*found, strict=True)
    provenance = [{**record, "reused": False} for record in provenances]
    write_table(with_provenance(pa.concat_tables(tables), provenance), output)
    dirty = sum("dirty" in record["commit"] for record in provenance)
    note = f"; {dirty} of them were trained with uncommitted changes" * bool(dirty)
    return f"{output}: {len(found)} of {len(runs)} runs, {output.stat().st_size / 1e6:.1f} MB{note}"


def reuse(published: Path, results: Path) -> str:
    """Put the published runs into the run cache of a scale, where the runs of the present code find them."""
    table, provenance = read_table(published)
    names = table["run_id"].to_numpy()
    ends = np.flatnonzero(np.append(names[1:] != names[:-1], True)) + 1  # each run's rows stand together
    starts = dict(zip(names[ends - 1], zip(np.append(0, ends[:-1]), ends, strict=True), strict=True))
    count = 0
    for record in provenance:
        start, end = starts[record["run_id"]]
        path = results / "runs" / f"{record['fingerprint']}.parquet"
        if not path.exists():
            write_table(with_provenance(table.slice(start, end - start), [record]), path)
            count += 1
    return f"{results / 'runs'}: {count} published runs added, {len(provenance) - count} were there"


SETTINGS = [key for key in Run.model_fields if key != "seed"]


def cells(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean test error in percent, and number of seeds, of each setting."""
    table = runs.assign(error=100 * error_or_chance(runs))
    return table.groupby(SETTINGS, dropna=False)["error"].agg(["mean", "size", "var"])


def compare_cells(mine: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """The settings that both have: both means, and their difference in deviations between seeds, pooled over both."""
    ours, theirs = cells(mine), cells(published)
    both = ours.merge(theirs, left_index=True, right_index=True, suffixes=("_mine", "_published"))
    several = pd.concat([ours, theirs])
    several = several[several["size"] > 1]
    freedom = (several["size"] - 1).sum()
    deviation = np.sqrt((several["var"] * (several["size"] - 1)).sum() / freedom) if freedom else np.nan
    spread = deviation * np.sqrt(1 / both["size_mine"] + 1 / both["size_published"])
    return both.assign(deviations=(both["mean_mine"] - both["mean_published"]) / spread).reset_index()


def compare(
    mine: Tables, published: Tables, my_claims: dict[str, Any], their_claims: dict[str, Any]
) -> tuple[str, bool]:
    """A text that puts both side by side, and whether all verdicts agree."""
    table = compare_cells(mine.runs(), published.runs())
    lines = []
    if table.empty:
        lines.append("No setting is in both: another scale can be compared by its verdicts alone.")
    else:
        far = table[table["deviations"].abs() > 3]
        lines.append(
            f"{len(table)} settings are in both; the difference in test error is "
            f"{table['deviations'].abs().median():.1f} deviations between seeds in the median, "
            f"{table['deviations'].abs().max():.1f} at most, and more than 3 in {len(far)}."
        )
        lines += [
            f"  {row.normalization}, {row.optimizer}, lr {row.lr:g}, l2 {row.l2:g}, norm {row.initial_norm:g}: "
            f"{row.mean_mine:.1f} % against {row.mean_published:.1f} % ({row.deviations:+.1f})"
            for row in far.itertuples()
        ]
    lines += ["", f"{'claim':<44}  {'mine':<20}  published"]
    agree = True
    for name, theirs in their_claims.items():
        ours = my_claims[name]
        same = ours["verdict"] == theirs["verdict"]
        agree &= same
        title = f"{name} {theirs['title']}"
        lines.append(f"{title:<44}  {ours['verdict']:<20}  {theirs['verdict']}" + "  DIFFERS" * (not same))
    return "\n".join(lines), agree


def decide_published() -> tuple[Tables, dict[str, Any]]:
    """The published tables, and the verdicts that they give."""
    from effective_lr import claims  # statsmodels takes a second to import

    experiments = grid.load_scale(Path("config/scales"), PUBLISHED_SCALE).runs()
    tables = tables_of([PUBLISHED_TABLE], experiments)
    evidence = claims.Evidence(tables, pd.read_parquet(PUBLISHED_TABLE.with_name("checks.parquet")))
    stated = grid.load_claims(Path("paper/claims.yaml"))
    return tables, {name: claims.decide(name, claim, evidence) for name, claim in stated.items()}


def tables_of(shards: list[Path], experiments: dict[str, list[Run]]) -> Tables:
    """The tidy tables of these experiments, gathered from shards."""
    tables = Tables([])
    for name, runs in experiments.items():
        tables[name] = Experiment(*gather(shards, [run.run_id for run in runs]))
    return tables


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["publish", "reuse", "compare"])
    parser.add_argument("--scale", default=PUBLISHED_SCALE)
    parser.add_argument("--partial", action="store_true", help="publish what is finished")
    arguments = parser.parse_args()
    results = Path("results") / arguments.scale
    try:
        if arguments.command == "reuse":
            print(reuse(PUBLISHED_TABLE, results))
            return 0
        experiments = grid.load_scale(Path("config/scales"), arguments.scale).runs()
        if arguments.command == "publish":
            runs = list({run.run_id: run for runs in experiments.values() for run in runs}.values())
            print(publish(runs, results, PUBLISHED_TABLE, arguments.partial))
            shutil.copy("results/checks.parquet", PUBLISHED_TABLE.with_name("checks.parquet"))
            return 0
        return print_comparison(results, experiments)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1


def print_comparison(results: Path, experiments: dict[str, list[Run]]) -> int:
    """Compare a scale with the published one; 1 when a verdict differs."""
    verdicts = {path.stem: json.loads(path.read_text()) for path in (results / "claims").glob("*.json")}
    missing = sorted(grid.load_claims(Path("paper/claims.yaml")).keys() - verdicts.keys())
    if missing:
        raise UserError(f"{results}/claims/{missing[0]}.json: missing; run the scale to its end first")
    published, decided = decide_published()
    mine = tables_of(sorted((results / "shards").glob("*.parquet")), experiments)
    text, agree = compare(mine, published, verdicts, decided)
    print(text)
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
