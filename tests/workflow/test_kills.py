"""Training for real under `make` and Snakemake: what a kill leaves, two at once, and every target made alone."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from checkouts import Checkout
from effective_lr.engine import contents, storage


class Making:
    """`make`, which trains one job of the checkout, in a process group of its own."""

    def __init__(self, checkout: Checkout, job: str) -> None:
        self.checkout = checkout
        results = checkout.root / "results/smoke/normalization"
        self.output, self.log = results / f"jobs/{job}.parquet", results / f"logs/{job}.log"
        self.cache = results / "runs"
        (checkout.root / "workflow/setup.sh").write_text("")  # the environment is there
        self.item = str(self.output.relative_to(checkout.root))

    def start(self) -> "subprocess.Popen[str]":
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "SCALE")}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        words = ["make", "only", f"ITEM={self.item}", "CORES=1", f"VENV={sys.prefix}"]
        return subprocess.Popen(
            words, cwd=self.checkout.root, env=environment, start_new_session=True, text=True, **pipes
        )

    def finish(self) -> str:
        process = self.start()
        printed, _ = process.communicate(timeout=300)
        assert process.returncode == 0, printed
        return printed

    def start_until(self, condition: Callable[[], object]) -> "subprocess.Popen[str]":
        process = self.start()
        while process.poll() is None and not condition():
            time.sleep(0.01)
        return process

    @property
    def finished(self) -> int:
        """How many runs are in the run cache."""
        return len(list(self.cache.glob("*.parquet")))


@pytest.fixture
def making(real: Checkout) -> Making:
    jobs = real.chapters()["normalization"].jobs
    return Making(real, min(jobs, key=lambda name: (len(jobs[name]) < 6, len(jobs[name]))))  # of several runs, but few


def test_kills_lose_no_finished_run(making: Making) -> None:
    """Of the trainer alone, then of everything; `make` starts again without a message about locks."""
    process = making.start_until(lambda: making.finished)
    for one in psutil.Process(process.pid).children(recursive=True):
        if "train" in one.cmdline() and one.name().startswith("python"):
            one.kill()
    printed, _ = process.communicate(timeout=60)
    first = making.finished
    assert process.returncode != 0 and not making.output.exists(), printed

    process = making.start_until(lambda: making.finished > first)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    second = making.finished
    assert 1 <= first < second and not making.output.exists()
    locked = making.checkout.snakemake(making.item, "--cores", "1")
    assert "cannot be locked" in locked.stderr + locked.stdout  # plain Snakemake keeps its own locks

    making.finish()
    runs = storage.read_provenance(making.output)
    assert sum(run.reused for run in runs) == second < len(runs) == making.finished


def test_two_at_once_in_one_folder(making: Making) -> None:
    first = making.start_until(making.log.exists)
    os.killpg(first.pid, signal.SIGSTOP)  # or a short training might be over before the second has looked
    second = making.start()
    printed, _ = second.communicate(timeout=60)
    plain = making.checkout.snakemake(making.item, "--cores", "1")
    os.killpg(first.pid, signal.SIGCONT)
    assert second.returncode != 0
    assert [line for line in printed.splitlines() if str(making.checkout.root) in line and "another run" in line]
    assert plain.returncode == 1 and "cannot be locked" in plain.stdout + plain.stderr
    printed, _ = first.communicate(timeout=300)
    assert first.returncode == 0, printed
    assert making.output.exists()


@pytest.mark.slow
def test_every_target_can_be_made_alone(smoke: Checkout, tmp_path: Path) -> None:
    checkout = smoke.copy(tmp_path / "copy")
    chapters = checkout.chapters()
    claims = {f"claim_{name}": (study, name) for study, chapter in chapters.items() for name in chapter.claims}
    items = {target: place for place, target in contents.target_names(chapters).items()}
    shutil.rmtree(checkout.root / "paper/build")
    for target, (study, name) in {**items, **claims}.items():
        # When it is made, only the tables that it asks for are there. Trained runs stay.
        results = checkout.root / "results/smoke" / study
        shutil.rmtree(results / "jobs")
        checkout.build(target)
        build = checkout.root / "paper/build/smoke" / study
        paths = (build / f"{name}.pdf", build / f"tables/{name}.tex", results / f"claims/{name}.json")
        assert any(path.exists() for path in paths), target
    assert json.loads((results / "claims.json").read_text())
