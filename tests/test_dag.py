"""What Snakemake plans after which change, in copies of the repository.

Plans depend on files, times and records alone, so the jobs behind them are stand-ins that write their outputs and
nothing else: a whole "paper" takes seconds. The last tests train for real, to be killed.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pytest
import torch
from effective_lr.config import VALIDATION_SIZE

from effective_lr import data, grid

ROOT = Path(__file__).parent.parent
SCALES = ROOT / "config" / "scales"
# What can be asked for by name, and the experiments that it rests on; none named: all.
TARGETS = {
    "all": [],
    "paper": [],
    "notebooks": [],
    "figure_1": ["plane_sgd"],
    "figure_2": ["plane_sgd", "plane_nesterov", "plane_adam", "rmsprop", "normalizations"],
    "figure_3": [
        f"{kind}_{optimizer}" for kind in ("plane", "projection") for optimizer in ("sgd", "nesterov", "adam")
    ],
    **{f"figure_{number}": ["plane_sgd", "plane_nesterov", "plane_adam", "rmsprop", "adamw"] for number in (4, 5)},
    "figure_6": ["plane_sgd", "normalizations", "symmetry"],
    "figure_7": ["growth"],
    "figure_8": ["lr_drop"],
    "table_1": ["plane_sgd", "plane_nesterov", "plane_adam", "rmsprop"],
    "table_2": ["plane_sgd", "plane_nesterov", "plane_adam", "rmsprop", "normalizations"],
    "table_7": [],
    "table_5": ["plane_sgd", "plane_nesterov", "plane_adam", "rmsprop", "adamw"],
    "claim_C2": ["symmetry"],
    "claim_C5": ["plane_sgd", "plane_nesterov", "plane_adam", "rmsprop"],
    "claim_C8": ["projection_sgd"],
}

# Python imports a sitecustomize from PYTHONPATH at its start, which in a job is the folder of the package.
STAND_IN = """
import os, pathlib, sys

OUTPUTS = {
    "data": ["--tensors", "--record"], "jobs": ["--output"], "analysis": ["--metrics", "--runs"],
    "checks": ["--output"], "claims": ["--output"],
    "figures": ["--output"], "tables": ["--output"], "benchmark": ["--output"], "manuscript": ["--build"],
    "notebooks": ["--executed", "--notebook", "--page"],
}
words = sys.orig_argv
module = words[words.index("-m") + 1].removeprefix("effective_lr.") if "-m" in words else ""
if module in OUTPUTS:
    if os.environ.get("BROKEN") == module:
        os._exit(1)
    for option in OUTPUTS[module]:
        path = pathlib.Path(words[words.index(option) + 1])
        (path / "main.pdf" if module == "manuscript" else path).write_text(module)
    os._exit(0)
"""

Plan = dict[str, set[str]]  # rule: the wildcards of its jobs


@dataclass
class Checkout:
    """A copy of the repository, whose config asks for the smoke scale."""

    root: Path

    def snakemake(self, *words: str, broken: str = "") -> subprocess.CompletedProcess[str]:
        """Run it on one core; `broken` names a module whose stand-in fails."""
        return subprocess.run(
            [sys.executable, "-m", "snakemake", *words],
            cwd=self.root,
            env={**os.environ, "BROKEN": broken},
            capture_output=True,
            text=True,
        )

    def build(self, *words: str) -> None:
        result = self.snakemake(*words, "--cores", "1")
        assert result.returncode == 0, result.stdout + result.stderr

    def planned(self, *words: str) -> Plan:
        """The jobs of a dry run."""
        result = self.snakemake(*words, "--dry-run", "--workflow-profile", "none")
        assert result.returncode == 0, result.stdout + result.stderr
        plan: Plan = {}
        for block in re.split(r"^(?:local)?rule ", result.stdout, flags=re.MULTILINE)[1:]:
            wildcards = re.search(r"^    wildcards: (.*)$", block, flags=re.MULTILINE)
            values = re.findall(r"=([^,]+)", wildcards[1]) if wildcards else []
            plan.setdefault(block.partition(":")[0], set()).add("-".join(values))
        assert ("Nothing to be done" in result.stdout) == (not plan)
        return plan

    def edit(self, path: str, old: str, new: str, times: int = 1) -> None:
        text = (self.root / path).read_text()
        assert text.count(old) == times
        (self.root / path).write_text(text.replace(old, new))

    def append(self, path: str, text: str) -> None:
        with (self.root / path).open("a") as file:
            file.write(text)

    def shards(self, *experiments: str) -> set[str]:
        """The shards of these experiments, or of all."""
        runs = grid.load_scale(self.root / "config" / "scales", "smoke").runs()
        return set(grid.shards([run for name in experiments or runs for run in runs[name]]))


def copy_of_repository(root: Path) -> Checkout:
    root.mkdir()
    for name in ("Snakefile", "environment.yml"):
        shutil.copy2(ROOT / name, root)
    skip = shutil.ignore_patterns("__pycache__", ".*", "build")
    for folder in ("config", "notebooks", "paper", "profiles", "workflow", "results/published"):
        shutil.copytree(ROOT / folder, root / folder, ignore=skip)
    checkout = Checkout(root)
    checkout.edit("config/config.yaml", "scale: laptop", "scale: smoke")
    return checkout


@pytest.fixture
def fresh(tmp_path: Path) -> Checkout:
    """A copy in which nothing was made yet."""
    return copy_of_repository(tmp_path / "fresh")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = copy_of_repository(tmp_path_factory.mktemp("dag") / "built")
    (checkout.root / "workflow" / "sitecustomize.py").write_text(STAND_IN)
    checkout.build()
    return checkout


@pytest.fixture
def finished(built: Checkout, tmp_path: Path) -> Checkout:
    """A copy in which everything was made."""
    return Checkout(Path(shutil.copytree(built.root, tmp_path / "finished")))


# Nothing made yet


def test_plain_snakemake_plans_everything_from_the_data_to_the_paper(fresh: Checkout) -> None:
    plan = fresh.planned()
    experiments = grid.load_scale(SCALES, "smoke").experiments
    assert plan == {
        "data": {"fashion-mnist-14"},
        "train": fresh.shards(),
        "aggregate": set(experiments),
        "checks": {""},
        "claim": {f"C{number}" for number in range(1, 10)},
        "figure": {f"figure_{number}" for number in range(1, 9)},
        "table": {*(f"table_{number}" for number in (1, 2, 3, 4, 5, 7, 8, 9)), "macros"},
        "benchmark_table": {""},
        "pdf": {""},
        "notebook": {"1_theory", "2_one_run", "3_results"},
        "all": {""},
    }


def test_a_figure_plans_only_the_shards_of_its_experiments(fresh: Checkout) -> None:
    assert fresh.planned("figure_2") == {
        "data": {"fashion-mnist-14"},
        "train": fresh.shards(*TARGETS["figure_2"]),
        "aggregate": set(TARGETS["figure_2"]),
        "figure": {"figure_2"},
        "figure_2": {""},
    }


@pytest.mark.parametrize("scale", ["laptop", "study", "paper"])
def test_every_scale_plans_its_own_runs(finished: Checkout, scale: str) -> None:
    plan = finished.planned("--config", f"scale={scale}")
    runs = [run for runs in grid.load_scale(SCALES, scale).runs().values() for run in runs]
    assert plan["train"] == set(grid.shards(runs))
    assert plan.get("data", set()) == ({"cifar10-32"} if scale == "paper" else set())


def test_published_metrics_are_redrawn_without_training(finished: Checkout) -> None:
    for name in ("study", "checks"):
        (finished.root / "results" / "published" / f"{name}.parquet").write_text("published")
    plan = finished.planned("--config", "metrics=published")
    assert {"train", "data", "checks"}.isdisjoint(plan)
    assert plan["aggregate"] == set(grid.load_scale(SCALES, "study").experiments)
    assert len(plan["claim"]) == 9 and len(plan["figure"]) == 8
    finished.build("--config", "metrics=published")
    assert (finished.root / "paper/build/published/main.pdf").exists()
    assert (finished.root / "results/published/study.parquet").read_text() == "published"


def test_the_snakefile_loads_no_torch(fresh: Checkout) -> None:
    # Every cluster job reads the Snakefile again.
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "snakemake", "--dry-run", "--quiet"],
        cwd=fresh.root,
        capture_output=True,
        text=True,
    )
    imported = set(re.findall(r"\| +(\S+)$", result.stderr, flags=re.MULTILINE))
    assert result.returncode == 0
    assert "effective_lr.grid" in imported
    assert "torch" not in imported


# Changes after everything was made


def test_a_finished_paper_plans_nothing(finished: Checkout) -> None:
    assert finished.planned() == {}


def test_new_time_stamps_plan_nothing(finished: Checkout) -> None:
    folders = ("config", "notebooks", "paper", "profiles", "workflow", "results/data")
    for folder in ("Snakefile", "environment.yml", *folders):
        for path in [finished.root / folder, *(finished.root / folder).rglob("*")]:
            path.touch()
    assert finished.planned() == {}


def test_comments_docstrings_and_formatting_plan_nothing(finished: Checkout) -> None:
    training = (finished.root / "workflow/effective_lr/training.py").read_text()
    text = re.sub(r'"""', '"""Edited. ', training, count=1).replace("\n\n\n", "\n\n\n\n# Edited.\n")
    assert len(text) > len(training) + 20
    (finished.root / "workflow/effective_lr/training.py").write_text(text)
    assert finished.planned() == {}


# The rules that an edit of a source reruns, without those that follow from them.
EDITS = {
    "workflow/effective_lr/__init__.py": set(),
    "workflow/effective_lr/config.py": {"data", "train", "table", "checks", "notebook"},
    "workflow/effective_lr/costs.py": set(),
    "workflow/effective_lr/grid.py": {"notebook"},
    "workflow/effective_lr/data.py": {"data", "train"},
    "workflow/effective_lr/networks.py": {"train", "checks"},
    "workflow/effective_lr/optimizers.py": {"train", "checks"},
    "workflow/effective_lr/training.py": {"train", "checks"},
    "workflow/effective_lr/storage.py": {"train", "notebook"},
    "workflow/effective_lr/devices.py": {"train"},
    "workflow/effective_lr/jobs.py": {"train"},
    "workflow/effective_lr/runs.py": set(),
    "workflow/effective_lr/published.py": set(),
    "workflow/effective_lr/pages.py": set(),
    "workflow/effective_lr/report.py": set(),  # of the target report alone
    "workflow/effective_lr/benchmark.py": {"benchmark_table"},
    "workflow/effective_lr/theory.py": {"aggregate", "claim", "figure", "table", "notebook"},
    "workflow/effective_lr/checks.py": {"checks"},
    "workflow/effective_lr/analysis.py": {"aggregate", "claim", "figure", "table"},
    "workflow/effective_lr/claims.py": {"claim"},
    "workflow/effective_lr/notation.py": {"figure", "table", "notebook"},
    "workflow/effective_lr/figures.py": {"figure", "notebook"},
    "workflow/effective_lr/style.mplstyle": {"figure", "notebook"},
    "workflow/effective_lr/tables.py": {"table", "benchmark_table"},
    "workflow/effective_lr/manuscript.py": {"pdf"},
    "workflow/effective_lr/notebooks.py": {"notebook"},
    "paper/claims.yaml": set(),  # a comment: what counts are the claims
    "paper/main.tex": {"pdf"},
    "paper/references.bib": {"pdf"},
    "notebooks/1_theory.py": {"notebook"},
    "notebooks/2_one_run.py": {"notebook"},
    "notebooks/3_results.py": {"notebook"},
}
FOLLOWS = {
    "data": {"train", "notebook"},
    "train": {"aggregate"},
    "checks": {"claim", "table"},
    "aggregate": {"claim", "figure", "table", "notebook"},
    "claim": {"table", "notebook"},
    "figure": {"pdf"},
    "table": {"pdf"},
    "benchmark_table": {"pdf"},
    "pdf": {"all"},
    "notebook": {"all"},
    "all": set(),
}


def with_followers(rules: set[str]) -> set[str]:
    return rules.union(*(with_followers(FOLLOWS[rule]) for rule in rules))


def test_every_source_has_a_line_in_this_table() -> None:
    folders = [ROOT / "workflow" / "effective_lr", ROOT / "paper", ROOT / "notebooks"]
    files = {str(path.relative_to(ROOT)) for folder in folders for path in folder.iterdir() if path.is_file()}
    assert files == set(EDITS)


def edit(checkout: Checkout, source: str) -> None:
    edits = {
        ".py": "EDITED = 1\n",
        ".tex": "% edited\n",
        ".bib": "edited\n",
        ".mplstyle": "lines.linewidth: 9\n",
        ".yaml": "# edited\n",
    }
    checkout.append(source, edits[Path(source).suffix])


def test_edits_of_what_no_result_rests_on_rerun_nothing(finished: Checkout) -> None:
    for source in (source for source, rules in EDITS.items() if not rules):
        edit(finished, source)
    assert finished.planned() == {}


@pytest.mark.parametrize("source", [source for source, rules in EDITS.items() if rules])
def test_an_edit_reruns_what_rests_on_it_and_nothing_else(finished: Checkout, source: str) -> None:
    edit(finished, source)
    plan = finished.planned()
    assert set(plan) == with_followers(EDITS[source])
    if "train" in plan:
        assert plan["train"] == finished.shards()


def test_an_edit_with_an_old_time_stamp_is_seen(finished: Checkout) -> None:
    networks = finished.root / "workflow/effective_lr/networks.py"
    finished.append("workflow/effective_lr/networks.py", "EDITED = 1\n")
    os.utime(networks, (0, 0))
    assert finished.planned()["train"] == finished.shards()


def test_an_edit_undone_plans_nothing(finished: Checkout) -> None:
    finished.append("workflow/effective_lr/networks.py", "EDITED = 1\n")
    finished.edit("workflow/effective_lr/networks.py", "EDITED = 1\n", "")
    assert finished.planned() == {}


def test_how_jobs_are_run_is_no_reason_to_train_again(finished: Checkout) -> None:
    for setting in ("device=cpu", "device=cuda", "gpu_slots=3", "checkpoint_seconds=5"):
        assert finished.planned("--config", setting) == {}, setting


def test_retrain_with_forcerun_plans_every_shard(finished: Checkout) -> None:
    plan = finished.planned("--forcerun", "train", "--config", "retrain=true")
    assert plan["train"] == finished.shards()


RMSPROP = "l2: [0.00081, 0.00729]\n      seed: [100]\n  normalizations"


def test_an_added_penalty_trains_one_shard(finished: Checkout) -> None:
    finished.edit("config/scales/smoke.yaml", RMSPROP, RMSPROP.replace("0.00729]", "0.00729, 0.02]"))
    plan = finished.planned()
    assert plan["train"] == finished.shards("rmsprop")
    assert len(plan["train"]) == 1
    assert plan["aggregate"] == {"rmsprop"}
    assert plan["figure"] == {"figure_2", "figure_4", "figure_5"}  # the others do not show it


def test_an_added_seed_trains_its_new_shard_alone(finished: Checkout) -> None:
    before = finished.shards("rmsprop")
    finished.edit("config/scales/smoke.yaml", RMSPROP, RMSPROP.replace("[100]", "[100, 101]"))
    assert finished.planned()["train"] == finished.shards("rmsprop") - before
    assert len(finished.shards("rmsprop") - before) == 1


def test_swapped_values_are_seen(finished: Checkout) -> None:
    # Snakemake compares params as a set of values: as params of their own, swapped numbers would look the same. The
    # shard does not tell them apart either: neither the penalty nor the starting norm is in its name.
    case, swapped = "initial_norm: 0.0625, lr: 0.000625, l2: 1.024", "initial_norm: 1.024, lr: 0.000625, l2: 0.0625"
    before = finished.shards()
    finished.edit("config/scales/smoke.yaml", case, swapped, times=3)
    assert finished.shards() == before
    assert len(finished.planned()["train"]) == 3


def test_swapped_learning_rate_and_penalty_are_seen(finished: Checkout) -> None:
    case, swapped = "lr: 0.000625, l2: 1.024", "lr: 1.024, l2: 0.000625"
    before = finished.shards()
    finished.edit("config/scales/smoke.yaml", case, swapped, times=3)
    assert finished.planned()["train"] == finished.shards() - before
    assert len(finished.shards() - before) == 3


def test_the_order_in_a_scale_trains_nothing(finished: Checkout) -> None:
    finished.edit("config/scales/smoke.yaml", RMSPROP, "seed: [100]\n      l2: [0.00729, 0.00081]\n  normalizations")
    finished.edit("config/scales/smoke.yaml", "initial_norm: [1, 4]", "initial_norm: [4, 1]")
    assert "train" not in finished.planned()


def test_after_a_failed_training_every_target_still_asks_for_it(finished: Checkout) -> None:
    # Snakemake removes the output of a failed job and forgets it; the old figures stay and look new.
    finished.append("workflow/effective_lr/networks.py", "EDITED = 1\n")
    assert finished.snakemake("--cores", "1", "--keep-going", broken="jobs").returncode == 1
    assert (finished.root / "paper/build/smoke/main.pdf").exists()
    assert finished.planned("figure_7")["train"] == finished.shards("growth")
    # One plan for all of them: what a target lists, and has not, is made.
    plan = finished.snakemake(*TARGETS, "--dry-run", "--workflow-profile", "none").stdout
    for target, experiments in TARGETS.items():
        listed = re.search(rf"^(?:local)?rule {target}:\n    input: (.*)$", plan, flags=re.MULTILINE)
        assert listed, target
        assert set(re.findall(r"/shards/(\S+)\.parquet", listed[1])) == finished.shards(*experiments), target


# Mistakes: one sentence, exit code 1, nothing made


@pytest.fixture
def refusal(fresh: Checkout) -> Callable[..., str]:
    def refused(*words: str) -> str:
        result = fresh.snakemake("--cores", "1", *words)
        assert result.returncode == 1
        assert [path.name for path in (fresh.root / "results").iterdir()] == ["published"]
        assert "Traceback" not in result.stderr
        said = result.stderr.splitlines()
        return "\n".join(line for line in said if not line.startswith(("Using workflow specific", "Config file")))

    return refused


def test_an_unknown_key_on_the_command_line(refusal: Callable[..., str]) -> None:
    assert refusal("--config", "scael=smoke") == "config: scael: unknown key; did you mean 'scale'?"


def test_an_unknown_key_in_a_scale(fresh: Checkout, refusal: Callable[..., str]) -> None:
    fresh.edit("config/scales/smoke.yaml", "steps: 40", "step: 40")
    said = refusal()
    assert said == "config/scales/smoke.yaml: defaults.step: unknown key; did you mean 'steps'?"


def test_a_scale_without_an_experiment_that_the_paper_shows(fresh: Checkout, refusal: Callable[..., str]) -> None:
    fresh.edit("config/scales/laptop.yaml", "\n  adamw:\n", "\n  adamv:\n")
    fresh.edit("config/scales/smoke.yaml", "\n  adamw:\n", "\n  adamv:\n")
    assert refusal() == (
        "config/scales/smoke.yaml: experiments.adamw: missing; figure_4 in workflow/rules/figures.smk rests on it"
    )


@pytest.mark.parametrize(
    ("inclusion", "file"),
    [
        (r"\includegraphics{figure_9}", "figure_9.pdf"),
        (r"\input{table_0}", "table_0.tex"),
        (r"\input{figure_1}", "figure_1.tex"),  # there is a figure_1.pdf
        (r"\includegraphics{table_1.png}", "table_1.png"),
    ],
)
def test_a_file_of_the_paper_that_no_rule_makes(
    fresh: Checkout, refusal: Callable[..., str], inclusion: str, file: str
) -> None:
    line = len((fresh.root / "paper/main.tex").read_text().splitlines()) + 1
    fresh.append("paper/main.tex", inclusion + "\n")
    assert refusal() == (
        f"paper/main.tex:{line}: {inclusion}: no rule makes {file}; see workflow/rules/figures.smk and tables.smk"
    )


def test_a_section_of_the_paper_that_is_not_there(fresh: Checkout, refusal: Callable[..., str]) -> None:
    line = len((fresh.root / "paper/main.tex").read_text().splitlines()) + 1
    fresh.append("paper/main.tex", "\\input{sections/theory}\n")
    assert refusal() == (
        f"paper/main.tex:{line}: \\input{{sections/theory}}: no such source file: paper/sections/theory.tex"
    )


# For real


@pytest.fixture
def real(fresh: Checkout) -> Checkout:
    """A fresh copy with prepared data of noise, and no stand-ins."""
    generator = torch.Generator().manual_seed(0)
    tensors = {
        f"{split}_{what}": torch.randn(n, 1, 14, 14, generator=generator) if what == "images" else torch.arange(n) % 10
        for split, n in [("train", 640 + VALIDATION_SIZE), ("test", 200)]
        for what in ("images", "labels")
    }
    prepared = fresh.root / "results" / "data"
    prepared.mkdir(parents=True)
    torch.save(tensors, prepared / "fashion-mnist-14.pt")
    (prepared / "fashion-mnist-14.json").write_text(json.dumps({"sha256": data._sha256(tensors)}))
    return fresh


def test_after_a_kill_finished_runs_are_reused(real: Checkout) -> None:
    runs = grid.load_scale(SCALES, "smoke").runs()
    shard, members = max(grid.shards(list(chain(*runs.values()))).items(), key=lambda item: len(item[1]))
    output = f"results/smoke/shards/{shard}.parquet"
    everything = subprocess.Popen(
        [sys.executable, "-m", "snakemake", output, "--cores", "1"],
        cwd=real.root,
        start_new_session=True,  # a process group of its own
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    cache = real.root / "results" / "smoke" / "runs"
    while everything.poll() is None and not list(cache.glob("*.parquet")):
        time.sleep(0.01)
    os.killpg(everything.pid, signal.SIGKILL)
    everything.wait()
    kept = len(list(cache.glob("*.parquet")))
    assert 1 <= kept < len(members)

    locked = real.snakemake(output, "--cores", "1")
    assert locked.returncode == 1
    assert "Directory cannot be locked" in locked.stderr + locked.stdout  # what the Makefile looks for
    assert real.snakemake("--unlock").returncode == 0
    real.build(output)
    log = (real.root / "results" / "smoke" / "logs" / f"{shard}.log").read_text().splitlines()
    log = [line for line in log if "test error" in line or "diverged" in line]
    assert ["reused" in line for line in log] == [True] * kept + [False] * (len(members) - kept)
    assert (real.root / output).exists()


@pytest.mark.slow
def test_every_target_can_be_made_alone(real: Checkout) -> None:
    for target in sorted(TARGETS.keys() - {"all", "paper", "notebooks"}):
        # When it is drawn, only the tables that it asks for are there. Trained shards stay.
        shutil.rmtree(real.root / "results" / "smoke" / "experiments", ignore_errors=True)
        real.build(target)
        claims = (real.root / "results/smoke/claims").glob(f"{target.removeprefix('claim_')}.json")
        assert [*(real.root / "paper" / "build" / "smoke").glob(f"{target}.*"), *claims]


def test_a_scale_without_a_watermark_passes_an_empty_one(fresh: Checkout) -> None:
    fresh.edit("config/scales/smoke.yaml", "watermark: 'smoke scale: not a result'\n", "")
    for target in ("table_1", "paper"):
        result = fresh.snakemake(target, "--dry-run", "--printshellcmds", "--quiet", "progress")
        commands = [line for line in (result.stdout + result.stderr).splitlines() if "effective_lr.tables" in line]
        assert commands
        for command in commands:
            assert "--watermark=" in shlex.split(command)
