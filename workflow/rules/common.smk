# The checked config, where things lie, and the chapters: studies at one scale. Never imports torch.

import json
import os
import sys
from functools import cache
from pathlib import Path

# Sources are found from the place of this file, what is made lies in the working directory. So the workflow runs with
# `snakemake -s …/Snakefile --directory elsewhere`, and as a module of another one. A folder config/<study> in the working
# directory, such as snakedeploy makes, goes before the repository's own. The place is relative, since Snakemake compares
# the names of inputs: a folder that was moved is as finished as before.
ROOT = Path(os.path.relpath(Path(str(workflow.current_basedir)).parents[1]))
if not (ROOT / "workflow" / "effective_lr").is_dir():
    raise SystemExit(
        f"{ROOT}: not a folder on this machine; clone the repository, and name workflow/Snakefile by its path"
    )
sys.path.insert(0, str(ROOT.resolve() / "workflow"))

from effective_lr.engine import code, contents, grid, mends
from effective_lr.engine.explain import read_yaml
from effective_lr.document import manuscript
from effective_lr.errors import UserError

try:
    CONFIG = grid.load_config({**read_yaml(ROOT / "config" / "config.yaml", "keys of the config"), **config})
    CHAPTERS = contents.load_chapters(ROOT, CONFIG)
    MANUSCRIPT = manuscript.scan(ROOT / "paper", list(CHAPTERS), ROOT)
except UserError as error:
    raise SystemExit(str(error))

mends.mend()
code.remember(Path(".snakemake/code.json"))

PUBLISHED = CONFIG.metrics == "published"
RESULTS = f"results/{CONFIG.results}"
BUILD = f"paper/build/{CONFIG.results}"

# What reaches the jobs this way changes no result, so Snakemake must not compare it: where the code is, the device and
# how many jobs share it, how often to save, whether to ignore the run cache, and an allocator that keeps its memory
# between steps, which is faster.
os.environ.update(
    PATH=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
    PYTHONPATH=str(ROOT.resolve() / "workflow"),
    EFFECTIVE_LR_DEVICE=CONFIG.device,
    EFFECTIVE_LR_GPU_SLOTS=str(CONFIG.gpu_slots),
    EFFECTIVE_LR_CHECKPOINT_SECONDS=str(CONFIG.checkpoint_seconds),
    EFFECTIVE_LR_RETRAIN="yes" if CONFIG.retrain else "",
    MALLOC_MMAP_THRESHOLD_="4000000000",
    MALLOC_TRIM_THRESHOLD_="8000000000",
)


wildcard_constraints:
    study="|".join(CHAPTERS),


@cache  # every target lists its shards
def shard_ids(study, experiment):
    return {run.shard_id for run in CHAPTERS[study].experiments[experiment]}


def shards_of(study, experiments):
    """The tables of the shards that these experiments of a study rest on. Every target lists them: without that, a failed
    training would leave an old figure that Snakemake takes for new. Published runs are in one table of the same form.
    """
    if PUBLISHED:
        return [str(contents.published_table(ROOT, study, CONFIG.scale_name))]
    names = set().union(*(shard_ids(study, name) for name in experiments))
    return [f"{RESULTS}/{study}/shards/{name}.parquet" for name in sorted(names)]


def all_shards():
    return [path for study, chapter in CHAPTERS.items() for path in shards_of(study, chapter.experiments)]


def tables_of(study, experiments):
    kinds = ("metrics", "runs")
    return [f"{RESULTS}/{study}/experiments/{name}.{kind}.parquet" for name in experiments for kind in kinds]


def claims_of(study, names):
    return [f"{RESULTS}/{study}/claims/{name}.json" for name in names]


def checks_of(study):
    published = contents.published_table(ROOT, study, CONFIG.scale_name).with_name("checks.parquet")
    return str(published) if PUBLISHED else f"{RESULTS}/{study}/checks.parquet"


def prepared_data(name):
    """Prepared data. Its record is compared by content; the tensors are too large for that, and the job checks them
    against the record. Nothing where no data is needed."""
    return {"record": f"results/data/{name}.json", "tensors": ancient(f"results/data/{name}.pt")} if name else {}
