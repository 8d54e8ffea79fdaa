# The checked config, the runs of the scale, where things lie, and the functions of all other files. Never imports torch.

import json
import os
import re
import sys
import time
from pathlib import Path

# The package is found by path, here and in every job, by the Python that runs Snakemake.
PACKAGE_ROOT = Path(workflow.basedir) / "workflow"
sys.path.insert(0, str(PACKAGE_ROOT))

from effective_lr import costs, grid, manuscript
from effective_lr.config import UserError

try:
    CONFIG = grid.load_config(config)
    PUBLISHED = CONFIG.metrics == "published"
    SCALE_NAME = grid.PUBLISHED_SCALE if PUBLISHED else CONFIG.scale
    SCALE = grid.load_scale(Path("config/scales"), SCALE_NAME)
    CLAIMS = grid.load_claims(Path("paper/claims.yaml"))
    MANUSCRIPT = manuscript.scan(Path("paper/main.tex"))
except UserError as error:
    raise SystemExit(str(error))

# What reaches the jobs this way changes no result, so Snakemake must not compare it: where the code is, the device and
# how many jobs share it, how often to save, whether to ignore the run cache, and an allocator that keeps its memory
# between steps, which is faster.
os.environ.update(
    PATH=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
    PYTHONPATH=str(PACKAGE_ROOT),
    EFFECTIVE_LR_DEVICE=CONFIG.device,
    EFFECTIVE_LR_GPU_SLOTS=str(CONFIG.gpu_slots),
    EFFECTIVE_LR_CHECKPOINT_SECONDS=str(CONFIG.checkpoint_seconds),
    EFFECTIVE_LR_RETRAIN="yes" if CONFIG.retrain else "",
    MALLOC_MMAP_THRESHOLD_="4000000000",
    MALLOC_TRIM_THRESHOLD_="8000000000",
)

START = time.time()

RESULTS = "results/redrawn" if PUBLISHED else f"results/{CONFIG.scale}"
BUILD = f"paper/build/{CONFIG.metrics if PUBLISHED else CONFIG.scale}"
CHECKS = "results/published/checks.parquet" if PUBLISHED else "results/checks.parquet"

EXPERIMENTS = SCALE.runs()
SHARDS = grid.shards([run for runs in EXPERIMENTS.values() for run in runs])


def sources(*modules):
    """The fingerprint of modules of the package, as a param: an edit that changes what they do reruns their jobs."""
    return grid.code_fingerprint([grid.PACKAGE / f"{module}.py" for module in modules])


def shards_of(experiments):
    """The tables of the shards that these experiments rest on. Every target lists them: without that, a failed
    training would leave an old figure that Snakemake takes for new. Published runs are in one table of the same form.
    """
    if PUBLISHED:
        return [str(grid.PUBLISHED_TABLE)]
    names = {run.shard_id for name in experiments for run in EXPERIMENTS[name]}
    return [f"{RESULTS}/shards/{name}.parquet" for name in sorted(names)]


def tables_of(experiments):
    return [f"{RESULTS}/experiments/{name}.{kind}.parquet" for name in experiments for kind in ("metrics", "runs")]


def prepared_data(run):
    """The data of a run. Its record is compared by content; the tensors are too large for that, and the job checks
    them against the record."""
    data = f"results/data/{run.dataset}-{run.resolution}"
    return {"record": f"{data}.json", "tensors": ancient(f"{data}.pt")}


def shard_data(wildcards):
    return prepared_data(SHARDS[wildcards.shard][0])


def shard_runs(wildcards):
    return grid.to_json(SHARDS[wildcards.shard])


def shard_minutes(wildcards, attempt):
    return costs.time_limit(SHARDS[wildcards.shard], CONFIG.device == "cuda", attempt)


def shard_megabytes(wildcards, attempt):
    return costs.memory_limit(SHARDS[wildcards.shard][0], attempt)


def experiment_shards(wildcards):
    return shards_of([wildcards.experiment])


def experiment_runs(wildcards):
    return json.dumps([run.run_id for run in EXPERIMENTS[wildcards.experiment]])


def figure_tables(wildcards):
    return tables_of(FIGURES[wildcards.figure])


def claim_tables(wildcards):
    return tables_of(CLAIMS[wildcards.claim].experiments)


def claim_text(wildcards):
    return CLAIMS[wildcards.claim].model_dump_json()


def table_tables(wildcards):
    return tables_of(TABLES[wildcards.table])


def table_claims(wildcards):
    return [f"{RESULTS}/claims/{claim}.json" for claim in TABLE_CLAIMS.get(wildcards.table, [])]


def table_checks(wildcards):
    return [CHECKS] if wildcards.table == "table_4" else []


def table_shards(table):
    """The shards that a table rests on, through its own experiments and those of its claims."""
    claims = [experiment for claim in TABLE_CLAIMS.get(table, []) for experiment in CLAIMS[claim].experiments]
    return shards_of([*TABLES[table], *claims])


def labels_of(target, experiments):
    """What the report says beside an item: its number and name in the paper, its normalizations and optimizers."""
    kind, _, number = target.partition("_")
    label = re.search(rf"\{{{target}\}}.*?\\label\{{\w+:(.*?)\}}", Path("paper/main.tex").read_text(), flags=re.DOTALL)
    runs = [run for name in experiments for run in EXPERIMENTS[name]]
    return {
        kind: f"{number} {label[1]}",
        "normalization": ", ".join(dict.fromkeys(run.normalization for run in runs)) or "–",
        "optimizer": ", ".join(dict.fromkeys(run.optimizer for run in runs)) or "–",
    }


def figure_labels(wildcards):
    return labels_of(wildcards.figure, FIGURES[wildcards.figure])


def table_labels(wildcards):
    experiments = TABLES.get(wildcards.page, [])
    claims = [name for claim in TABLE_CLAIMS.get(wildcards.page, []) for name in CLAIMS[claim].experiments]
    return labels_of(wildcards.page, [*experiments, *claims])


def notebook_inputs(wildcards):
    """What a notebook reads: nothing, the data, or all tables and verdicts."""
    match wildcards.notebook:
        case "2_one_run":
            return prepared_data(EXPERIMENTS["plane_sgd"][0])
        case "3_results":
            return {"tables": tables_of(EXPERIMENTS), "claims": [f"{RESULTS}/claims/{claim}.json" for claim in CLAIMS]}
    return {}


def notebook_parameters(wildcards, input):
    """The values for its cell of parameters."""
    match wildcards.notebook:
        case "2_one_run":
            return json.dumps({"scale": SCALE_NAME, "record": input.record, "tensors": input.tensors})
        case "3_results":
            return json.dumps({"scale": SCALE_NAME, "results": RESULTS})
    return "{}"


def notebook_scale(wildcards):
    """The scale, where a notebook reads it: another grid is another tour. Comments in its file do not count."""
    return "" if wildcards.notebook == "1_theory" else SCALE.model_dump_json()


def notebook_code(wildcards):
    return sources("notebooks", *NOTEBOOKS[wildcards.notebook])


def tell_what_was_trained():
    shards = [path for path in map(Path, shards_of(EXPERIMENTS)) if path.exists() and path.stat().st_mtime >= START]
    if shards:
        from effective_lr import runs  # its reader of tables would slow down every other call

        print(runs.summary(shards, START))


def require_experiments():
    """Refuse a scale without an experiment that a figure, table or claim rests on."""
    claims = {name: claim.experiments for name, claim in CLAIMS.items()}
    files = {"workflow/rules/figures.smk": FIGURES, "workflow/rules/tables.smk": TABLES, "paper/claims.yaml": claims}
    for file, needs in files.items():
        for name, experiments in needs.items():
            for experiment in experiments:
                if experiment not in EXPERIMENTS:
                    raise SystemExit(
                        f"config/scales/{SCALE_NAME}.yaml: experiments.{experiment}: missing; "
                        f"{name} in {file} rests on it"
                    )


def require_producers():
    """Refuse a paper that includes a file that no rule makes."""
    made = {f"{name}.pdf" for name in FIGURES} | {f"{name}.tex" for name in [*TABLES, "table_6"]}
    for name, where in MANUSCRIPT.generated.items():
        if name not in made:
            raise SystemExit(f"{where}: no rule makes {name}; see workflow/rules/figures.smk and tables.smk")
