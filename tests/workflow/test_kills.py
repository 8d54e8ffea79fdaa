"""Training for real under `make` and Snakemake: what a kill leaves, two at once, and every target made alone."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from checkouts import Checkout
from effective_lr.engine import contents, storage


class Making:
    """`make`, which trains one job of the checkout."""

    def __init__(self, checkout: Checkout) -> None:
        self.checkout, jobs = checkout, checkout.chapters()["normalization"].jobs
        self.job = min(jobs, key=lambda name: (len(jobs[name]) < 6, len(jobs[name])))  # of several runs, but few
        self.results = checkout.root / "results/smoke/normalization"
        self.output = self.results / f"jobs/{self.job}.parquet"
        self.item = str(self.output.relative_to(checkout.root))

    def start(self, until: Callable[[], object] = lambda: True) -> "subprocess.Popen[str]":
        process = self.checkout.start(*self.checkout.make("only", f"ITEM={self.item}", "CORES=1"))
        while process.poll() is None and not until():
            time.sleep(0.01)
        return process

    @property
    def finished(self) -> int:
        """How many runs are in the run cache."""
        return len(list((self.results / "runs").glob("*.parquet")))


@pytest.fixture
def making(real: Checkout) -> Making:
    return Making(real)


def ended(process: "subprocess.Popen[str]") -> str:
    """What it printed until its end."""
    printed, _ = process.communicate(timeout=300)
    return printed


def test_kills_lose_no_finished_run(making: Making) -> None:
    """Of the trainer alone, then of everything; `make` starts again without a message about locks."""
    process = making.start(until=lambda: making.finished)
    for one in psutil.Process(process.pid).children(recursive=True):
        if "train" in one.cmdline() and one.name().startswith("python"):
            one.kill()
    printed, first = ended(process), making.finished
    assert process.returncode != 0 and not making.output.exists(), printed

    process = making.start(until=lambda: making.finished > first)
    os.killpg(process.pid, signal.SIGKILL)
    ended(process)
    second = making.finished
    assert 1 <= first < second and not making.output.exists()
    locked = making.checkout.snakemake(making.item, "--cores", "1")
    assert "cannot be locked" in locked.stdout  # plain Snakemake keeps its own locks

    process = making.start()
    printed = ended(process)
    assert process.returncode == 0, printed
    runs = storage.read_provenance(making.output)
    assert sum(run.reused for run in runs) == second < len(runs) == making.finished


def test_two_at_once_in_one_folder(making: Making) -> None:
    first = making.start(until=(making.results / f"logs/{making.job}.log").exists)
    os.killpg(first.pid, signal.SIGSTOP)  # or a short training might be over before the second has looked
    second = making.start()
    printed = ended(second)
    plain = making.checkout.snakemake(making.item, "--cores", "1")
    os.killpg(first.pid, signal.SIGCONT)
    assert second.returncode != 0 and f"{making.checkout.root}: another run is active" in printed
    assert plain.returncode == 1 and "cannot be locked" in plain.stdout
    printed = ended(first)
    assert first.returncode == 0 and making.output.exists(), printed


@pytest.mark.slow
def test_every_target_can_be_made_alone(smoke: Checkout, tmp_path: Path) -> None:
    checkout = smoke.copy(tmp_path / "copy")
    chapters = checkout.chapters()
    targets = {target: place for place, target in contents.target_names(chapters).items()}
    targets |= {f"claim_{name}": (study, name) for study, chapter in chapters.items() for name in chapter.claims}
    shutil.rmtree(checkout.root / "paper/build")
    for target, (study, name) in targets.items():
        # When it is made, only the tables that it asks for are there. Trained runs stay.
        results, build = (checkout.root / folder / study for folder in ("results/smoke", "paper/build/smoke"))
        shutil.rmtree(results / "jobs", ignore_errors=True)
        checkout.build(target)
        paths = (build / f"{name}.pdf", build / f"tables/{name}.tex", results / f"claims/{name}.json")
        assert any(path.exists() for path in paths), target
    assert json.loads((results / "claims.json").read_text())
