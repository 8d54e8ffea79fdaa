# The checked config, and the studies at one scale with the places of their files. Never imports torch, pandas or seaborn.

import os
import sys
import time
from functools import cache
from pathlib import Path

# The place is relative, since Snakemake compares the names of inputs: a folder that was moved is as finished as before.
ROOT = Path(os.path.relpath(Path(str(workflow.current_basedir)).parents[1]))
if not (ROOT / "workflow" / "effective_lr").is_dir():
    raise SystemExit(f"{ROOT}: not on this machine; clone the repository, and name its Snakefile by its path")
sys.path.insert(0, str(ROOT.resolve() / "workflow"))

from effective_lr.document import manuscript
from effective_lr.engine import code, contents, grid, machine, resources
from effective_lr.engine.inputs import Layout, data_of
from effective_lr.errors import UserError

try:
    LAYOUT = Layout.load(ROOT, **config)
    CONFIG, CHAPTERS = LAYOUT.config, LAYOUT.chapters
    MANUSCRIPT = manuscript.scan(ROOT / "paper", list(CHAPTERS), ROOT)
    for one in MANUSCRIPT.floats:
        known = getattr(CHAPTERS[one.study].contents, f"{one.kind}s") if one.study in CHAPTERS else [one.item]
        if one.item not in known:
            raise UserError(
                f"{one.where}: nothing makes {one.item}; paper/{one.study}/contents.yaml has the {one.kind}s {', '.join(known)}"
            )
except UserError as error:
    raise SystemExit(str(error))

RESULTS, BUILD = Path("results", CONFIG.results), LAYOUT.build
Path(".snakemake").mkdir(exist_ok=True)
if note := os.environ.get("EFFECTIVE_LR_BUILD"):
    Path(note).write_text(f"{BUILD}\n")  # for `make`, which prints it

notes = [machine.shield(os.environ, Path(".snakemake").resolve())]
if workflow.is_main_process:  # jobs on a cluster read this, too, while others write results
    folders = [ROOT / "paper", ROOT / "notebooks", ROOT / "workflow", Path("results")]
    notes.append(machine.correct_times(folders, time.time()))
    sys.stderr.writelines(f"{note}\n" for note in notes if note)

# The allocator keeps its memory between steps.
os.environ.update(
    PATH=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
    PYTHONPATH=str(ROOT.resolve() / "workflow"),
    **{grid.JOB_CONFIG: CONFIG.model_dump_json(include={"device", "gpu_slots", "checkpoint_seconds", "retrain"})},
    MALLOC_MMAP_THRESHOLD_="4000000000",
    MALLOC_TRIM_THRESHOLD_="8000000000",
)


wildcard_constraints:
    study="|".join(CHAPTERS),


hash_of = cache(lambda *modules: code.sources(modules))


def code_of(*modules, **names):
    """For params: a hash of the code that a job runs, which is planned again when that changes. `modules` are names as for
    `expand`; {study} is that of the job, or every one for a job of none."""
    return lambda wildcards: hash_of(*expand(modules, study=wildcards.get("study", list(CHAPTERS)), **names))


def command(words, log="2>&1 | tee -i {log:q}"):
    """The shell command of a job that depends on the scale."""
    return f"python -m effective_lr {words} --scale {CONFIG.scale_name} --metrics {CONFIG.metrics} {log}"


def prepared(files):
    """Prepared data. Its record is compared by content; the tensors are too large for that, and the job checks them
    against the record. Nothing where no data is needed."""
    return {"record": files.record, "tensors": ancient(files.tensors)} if files else {}


def job_of(wildcards):
    """The study and the runs of a training job."""
    return CHAPTERS[wildcards.study].study, CHAPTERS[wildcards.study].jobs[wildcards.job]
