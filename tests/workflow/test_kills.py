"""Training for real under Snakemake: what a kill leaves, two at once, and every target made alone."""

import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from checkouts import Checkout
from effective_lr.engine import contents


def largest_shard(checkout: Checkout) -> tuple[str, int]:
    """A shard of the original study, and its number of runs."""
    shards = checkout.chapters()["normalization"].shards
    name = max(shards, key=lambda name: len(shards[name]))
    return f"results/smoke/normalization/shards/{name}.parquet", len(shards[name])


def started(checkout: Checkout, *words: str) -> subprocess.Popen[str]:
    """`make`'s way to run Snakemake, in a process group of its own."""
    command = [sys.executable, "-m", "effective_lr", "run", *words, "--cores", "1"]
    environment = {**os.environ, "PYTHONPATH": str(checkout.root / "workflow")}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=checkout.root, env=environment, start_new_session=True, **pipes)


def test_make_names_no_target_and_begins_with_an_option(real: Checkout) -> None:
    command = [sys.executable, "-m", "effective_lr", "run", "--cores", "1", "--version"]
    environment = {**os.environ, "PYTHONPATH": str(real.root / "workflow")}
    said = subprocess.run(command, cwd=real.root, env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == importlib.metadata.version("snakemake")


def test_after_a_kill_finished_runs_are_reused(real: Checkout) -> None:
    output, members = largest_shard(real)
    process = started(real, output)
    cache = real.root / "results/smoke/normalization/runs"
    while process.poll() is None and not list(cache.glob("*.parquet")):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    kept = len(list(cache.glob("*.parquet")))
    assert 1 <= kept < members

    assert "cannot be locked" in (locked := real.snakemake(output, "--cores", "1")).stderr + locked.stdout
    again = started(real, output)  # frees the lock, which nobody holds
    said, _ = again.communicate(timeout=300)
    assert again.returncode == 0, said
    [log] = (real.root / "results/smoke/normalization/logs").glob("*.log")
    ends = [line for line in log.read_text().splitlines() if "test error" in line or "diverged" in line]
    assert ["reused" in line for line in ends] == [True] * kept + [False] * (members - kept)
    assert (real.root / output).exists()


def test_two_at_once_in_one_folder(real: Checkout) -> None:
    output, _ = largest_shard(real)
    first = started(real, output)
    while first.poll() is None and not (real.root / "results/smoke/normalization/logs").exists():
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGSTOP)  # or a short training might be over before the second has looked
    second = started(real, output)
    said, _ = second.communicate(timeout=60)
    plain = real.snakemake(output, "--cores", "1")
    os.killpg(first.pid, signal.SIGCONT)
    assert second.returncode == 1 and str(real.root) in said and len(said.splitlines()) == 1
    assert plain.returncode == 1 and "cannot be locked" in plain.stdout + plain.stderr
    said, _ = first.communicate(timeout=300)
    assert first.returncode == 0, said
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
