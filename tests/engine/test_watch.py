"""The view of what is training: counts, failures first, jobs at work, time left."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from effective_lr.engine import grid, jobs, watch
from effective_lr.engine.code import training_key
from effective_lr.engine.contents import Chapter, Contents
from shared import ENVIRONMENT, ROOT, SMALL, STUDY, Trainer, fabricate, fabricated, make_run

KEY = training_key(STUDY)
DATA = Path("data")
RUNS = [make_run(l2=l2, seed=seed) for seed in (3, 4) for l2 in (0.0, 0.1)]
CHAPTER = Chapter(
    STUDY, grid.Scale(about="", defaults=SMALL, experiments={}), {"all": RUNS}, grid.shards(RUNS), Contents(order=1), {}
)
SHARDS = list(CHAPTER.shards)


def note(results: Path, shard: str, step: int = 5, losses: Any = (3.0, 2.0, 1.0), **changes: Any) -> Path:
    """What a job notes that trains the first run of a shard."""
    runs = CHAPTER.shards[shard]
    rows = [(1, "layer", "train_loss", 9.0), *((step, "", "train_loss", loss) for loss in losses)]
    state = SimpleNamespace(step=step, steps=20, seconds=4.0, rows=rows)
    path = jobs.note_of(results / STUDY.name / "shards" / f"{shard}.parquet")
    jobs.write_note(path, runs, runs[0], state if step else None)  # type: ignore[arg-type]
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path


def lines(results: Path) -> list[str]:
    return watch.screen([watch.state(CHAPTER, results / STUDY.name, DATA)], results)


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    return process.pid


def test_before_anything_was_trained(results: Path) -> None:
    told = "\n".join(lines(results))
    assert "0 of 4 runs, 0 jobs at work" in told and "Nobody is training" in told and "left" not in told


def test_jobs_at_work_show_run_step_and_loss(results: Path) -> None:
    fabricate(results / STUDY.name / "runs", fabricated(RUNS[0], KEY, "data"))
    note(results, SHARDS[1])
    first, bar, line = lines(results)
    assert "1 of 4 runs, 1 jobs at work" in first and bar.count("█") == watch.WIDTH_OF_BAR // 4
    run = CHAPTER.shards[SHARDS[1]][0].run_id
    assert line.startswith("at work") and run in line and "run 1 of 2, step 5 of 20, train_loss 1 █▅▁" in line


def test_time_left_follows_from_the_speed_of_finished_runs(results: Path) -> None:
    """Three runs of 10 seconds each, less the 4 that the present one has taken, with one job at work, then with two."""
    fabricate(results / STUDY.name / "runs", fabricated(RUNS[0], KEY, "data", seconds=10.0))
    note(results, SHARDS[1], step=8)  # 4 of 10 seconds
    assert "about 0:26 left" in lines(results)[0]
    note(results, SHARDS[0], step=0)
    assert "about 0:13 left" in lines(results)[0]


def test_what_failed_and_diverged_comes_first_with_the_last_words(results: Path) -> None:
    fabricate(results / STUDY.name / "runs", fabricated(RUNS[0], KEY, "data", diverged=25))
    note(results, SHARDS[0], pid=dead_process())
    note(results, SHARDS[1])
    log = results / STUDY.name / "logs" / f"{SHARDS[0]}.log"
    log.parent.mkdir(parents=True)
    log.write_text("started\nlr = 3: too large\n")
    told = lines(results)[2:]
    assert [line.split()[0] for line in told] == ["failed", "diverged", "at"]
    assert SHARDS[0] in told[0] and told[0].endswith("lr = 3: too large")
    assert RUNS[0].run_id in told[1] and "step 25" in told[1]


def test_a_silent_job_of_another_machine_counts_as_dead(results: Path) -> None:
    path = note(results, SHARDS[0], host="elsewhere", pid=1)
    assert any(line.startswith("at work") for line in lines(results))
    os.utime(path, (time.time() - 2 * watch.SILENT,) * 2)
    assert any(line.startswith("failed") for line in lines(results))


def test_a_damaged_run_and_a_damaged_note_stop_nothing(results: Path) -> None:
    fabricate(results / STUDY.name / "runs", fabricated(RUNS[0], KEY, "data"))
    next((results / STUDY.name / "runs").iterdir()).write_text("damaged")
    note(results, SHARDS[0]).write_text("{")
    assert "0 of 4 runs" in lines(results)[0]


def test_a_sparkline_spans_its_values() -> None:
    assert watch.sparkline([0, 1, 2, 7]) == "▁▂▃█"
    assert watch.sparkline([5, 5]) == "▁▁"
    assert watch.sparkline([]) == "" and watch.sparkline([1, float("nan"), 2]) == "▁·█"


# What jobs write


def test_a_note_has_few_losses_and_the_last_one(tmp_path: Path) -> None:
    rows = [(step, "", name, float(step)) for step in range(1, 1001) for name in ("other", "train_loss", "late_loss")]
    state = SimpleNamespace(step=1000, steps=2000, seconds=1.0, rows=rows)
    jobs.write_note(tmp_path / "note", RUNS, RUNS[1], state)  # type: ignore[arg-type]
    noted = json.loads((tmp_path / "note").read_text())
    assert noted["quantity"] == "train_loss" and noted["losses"][-1] == 1000
    assert jobs.NOTED / 2 < len(noted["losses"]) <= jobs.NOTED and noted["losses"] == sorted(noted["losses"])
    assert (noted["number"], noted["runs"], noted["pid"]) == (2, 4, os.getpid())


def test_a_full_disk_costs_the_note_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    jobs.write_note(tmp_path / "file" / "note", RUNS, RUNS[0])


def test_a_killed_job_leaves_its_note_and_a_finished_one_none(trainer: Trainer) -> None:
    path = jobs.note_of(trainer.output)
    process = trainer.start([make_run(steps=10**6)], device="cpu")
    assert process.stdout is not None and "to train" in process.stdout.readline()
    noted, is_alive = watch.read_note(path)
    assert is_alive and noted["pid"] == process.pid and noted["step"] == 0
    process.kill()
    process.wait()
    assert not watch.read_note(path)[1]
    assert trainer.train([make_run()])[0] == 0
    assert not path.exists()


def test_the_command_prints_once_into_a_pipe(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "effective_lr", "watch", "--scale", "smoke"]
    result = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0 and " jobs at work" in result.stdout and "\x1b" not in result.stdout
    wrong = subprocess.run([*command, "--study", "norm"], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert wrong.returncode == 1 and "STUDY = 'norm'" in wrong.stderr and "norms" in wrong.stderr
