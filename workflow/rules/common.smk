# The checked config, and the studies at one scale with the places of their files. Never imports torch, pandas or seaborn.

import os
import sys
from pathlib import Path

# The place is relative, since Snakemake compares the names of inputs: a folder that was moved is as finished as before.
ROOT = Path(os.path.relpath(Path(str(workflow.current_basedir)).parents[1]))
if not (ROOT / "workflow" / "effective_lr").is_dir():
    raise SystemExit(
        f"{ROOT}: not a folder on this machine; clone the repository, and name workflow/Snakefile by its path"
    )
sys.path.insert(0, str(ROOT.resolve() / "workflow"))

from effective_lr.document import manuscript
from effective_lr.engine import code, contents, grid, machine, resources
from effective_lr.engine.inputs import Layout, data_of
from effective_lr.errors import UserError

try:
    LAYOUT = Layout.load(ROOT, **config)
    CONFIG, CHAPTERS = LAYOUT.config, LAYOUT.chapters
    MANUSCRIPT = manuscript.scan(ROOT / "paper", list(CHAPTERS), ROOT)
except UserError as error:
    raise SystemExit(str(error))

RESULTS, BUILD = Path("results", CONFIG.results), LAYOUT.build
Path(".snakemake").mkdir(exist_ok=True)
if note := os.environ.get("EFFECTIVE_LR_BUILD"):
    Path(note).write_text(f"{BUILD}\n")  # for `make`, which prints it

SCALE = f"--scale {CONFIG.scale_name} --metrics {CONFIG.metrics}"

kept = machine.shield(os.environ, Path(".snakemake").resolve())
if kept and workflow.is_main_process:  # jobs on a cluster read this, too
    print(kept, file=sys.stderr)

# The allocator keeps its memory between steps.
os.environ.update(
    PATH=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
    PYTHONPATH=str(ROOT.resolve() / "workflow"),
    **{grid.JOB_CONFIG: CONFIG.model_dump_json(include={"device", "gpu_slots", "checkpoint_seconds", "retrain"})},
    MALLOC_MMAP_THRESHOLD_="4000000000",
    MALLOC_TRIM_THRESHOLD_="8000000000",
)

# The code that a job of a study runs, as one hash: the job is planned again when that changes.
CODE = {
    study: {
        "checks": code.sources([f"studies.{study}.checks"]),
        "figure": code.sources(["document.figures", f"studies.{study}.figures", f"studies.{study}.analysis"]),
        "chapter": code.sources(
            [
                "document.chapter",
                *(f"studies.{study}.{name}" for name in ("analysis", "statistics", "tables", "numbers")),
            ]
        ),
    }
    for study in CHAPTERS
}


wildcard_constraints:
    study="|".join(CHAPTERS),
    job="[a-z0-9._-]+",
    dataset="[a-z0-9_-]+",
    claim="[A-Z]+[0-9]+",
    figure="[a-z0-9_]+",
    notebook="[a-z0-9_]+",


def prepared(files):
    """Prepared data. Its record is compared by content; the tensors are too large for that, and the job checks them
    against the record. Nothing where no data is needed."""
    return {"record": files.record, "tensors": ancient(files.tensors)} if files else {}


def trained_by(wildcards):
    """The study and the runs of a training job."""
    return CHAPTERS[wildcards.study].study, CHAPTERS[wildcards.study].jobs[wildcards.job]
