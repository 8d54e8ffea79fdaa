"""Training for real under Snakemake: what a kill leaves, two at once, and every target made alone."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from checkouts import Checkout
from effective_lr.engine import contents


def largest_shard(checkout: Checkout) -> tuple[str, int]:
    """A shard of the original study, and its number of runs."""
    shards = checkout.chapters()["normalization"].shards
    name = max(shards, key=lambda name: len(shards[name]))
    return f"results/smoke/normalization/shards/{name}.parquet", len(shards[name])


def start(checkout: Checkout, output: str) -> subprocess.Popen[bytes]:
    """Snakemake in a process group of its own."""
    command = [sys.executable, "-m", "snakemake", output, "--cores", "1"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=checkout.root, start_new_session=True, **quiet)  # type: ignore[call-overload]


def test_after_a_kill_finished_runs_are_reused(real: Checkout) -> None:
    output, members = largest_shard(real)
    process = start(real, output)
    cache = real.root / "results/smoke/normalization/runs"
    while process.poll() is None and not list(cache.glob("*.parquet")):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = len(list(cache.glob("*.parquet")))
    assert 1 <= kept < members

    locked = real.snakemake(output, "--cores", "1")
    assert locked.returncode == 1
    assert "Directory cannot be locked" in locked.stderr + locked.stdout  # what the Makefile looks for
    assert real.snakemake("--unlock").returncode == 0
    real.build(output)
    [log] = (real.root / "results/smoke/normalization/logs").glob("*.log")
    ends = [line for line in log.read_text().splitlines() if "test error" in line or "diverged" in line]
    assert ["reused" in line for line in ends] == [True] * kept + [False] * (members - kept)
    assert (real.root / output).exists()


def test_two_snakemakes_in_one_folder(real: Checkout) -> None:
    output, _ = largest_shard(real)
    first = start(real, output)
    while first.poll() is None and not (real.root / "results/smoke/normalization/logs").exists():
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)  # or a short training might be over before the second has looked
    second = real.snakemake(output, "--cores", "1")
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 1 and "cannot be locked" in second.stdout + second.stderr
    assert first.wait(timeout=120) == 0
    assert (real.root / output).exists()


@pytest.mark.slow
def test_every_target_can_be_made_alone(smoke: Checkout, tmp_path: Path) -> None:
    checkout = smoke.copy(tmp_path / "copy")
    chapters = checkout.chapters()
    claims = {f"claim_{name}": (study, name) for study, chapter in chapters.items() for name in chapter.claims}
    items = {target: place for place, target in contents.target_names(chapters).items()}
    for target, (study, name) in {**items, **claims}.items():
        # When it is made, only the tables that it asks for are there. Trained shards stay.
        shutil.rmtree(checkout.root / "results/smoke" / study / "experiments", ignore_errors=True)
        shutil.rmtree(checkout.root / "results/smoke" / study / "claims", ignore_errors=True)
        checkout.build(target)
        made = [*(checkout.root / "paper/build/smoke" / study).glob(f"{name}.*")]
        assert [*made, *(checkout.root / "results/smoke" / study / "claims").glob(f"{name}.json")]
