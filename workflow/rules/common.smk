# What every rule shares: the checked config, the runs of the scale, where things lie. Never imports torch.

import json
import os
import shlex
import sys
from pathlib import Path

# The package is found by path, here and in every job.
PACKAGE_ROOT = Path(workflow.basedir) / "workflow"
sys.path.insert(0, str(PACKAGE_ROOT))
os.environ["PYTHONPATH"] = str(PACKAGE_ROOT)

from effective_lr import grid, manuscript
from effective_lr.config import UserError

try:
    CONFIG = grid.load_config(config)
    SCALE = grid.load_scale(Path("config/scales"), CONFIG.scale)
except UserError as error:
    raise SystemExit(str(error))

PYTHON = shlex.quote(sys.executable)
RESULTS = f"results/{CONFIG.scale}"
BUILD = f"paper/build/{CONFIG.scale}"

EXPERIMENTS = SCALE.runs()
SHARDS = grid.shards([run for runs in EXPERIMENTS.values() for run in runs])
DATA = "results/data/{0.dataset}-{0.resolution}"


def shards_of(experiments):
    """The tables of the shards that these experiments rest on. Every target lists them: without that, a failed
    training would leave an old figure that Snakemake takes for new."""
    names = {run.shard_id for name in experiments for run in EXPERIMENTS[name]}
    return [f"{RESULTS}/shards/{name}.parquet" for name in sorted(names)]


def sources(*modules):
    """The fingerprint of modules of the package, as a param: an edit that changes what they do reruns their jobs."""
    return grid.code_fingerprint([grid.PACKAGE / f"{module}.py" for module in modules])
