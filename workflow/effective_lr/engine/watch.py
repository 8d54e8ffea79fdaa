"""What is training now, in a terminal: from finished runs, the notes of jobs at work, and their logs.

Nothing is asked of the jobs: whoever can read the folder of results can watch it, also while a scheduler runs them.
"""

import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from effective_lr.engine import grid
from effective_lr.engine.code import training_key
from effective_lr.engine.contents import Chapter
from effective_lr.engine.jobs import PROGRESS_SECONDS, duration, note_of
from effective_lr.engine.plan import cache_of, group, left_out, seconds_per_operation
from effective_lr.engine.storage import Provenance, read_provenance
from effective_lr.engine.study import BaseRun
from effective_lr.errors import UserError

REFRESH = 3.0  # seconds between screens
SILENT = 12 * PROGRESS_SECONDS  # after which a job of another machine, whose process nobody sees here, counts as dead
BARS = "▁▂▃▄▅▆▇█"
WIDTH_OF_BAR = 30
MOST_DIVERGED = 3  # that are named


class Job(NamedTuple):
    """A job that is at work, or that ended without finishing."""

    study: str
    shard: str
    note: dict[str, Any]
    is_alive: bool


class State(NamedTuple):
    """A study at one scale."""

    chapter: Chapter
    finished: list[tuple[BaseRun, Provenance]]
    missing: list[BaseRun]
    jobs: list[Job]

    @property
    def runs(self) -> list[BaseRun]:
        return [*(run for run, _ in self.finished), *self.missing]


def watch(chapters: list[Chapter], results: Path, data: Path, once: bool) -> None:
    """Show the state of a scale until Ctrl-C; once, where asked for or where nobody looks."""
    try:
        while True:
            size = shutil.get_terminal_size()
            lines = screen([state(chapter, results / chapter.name, data) for chapter in chapters], results)
            if once or not sys.stdout.isatty():
                print("\n".join(lines))
                return
            lines = [line[: size.columns - 1] for line in lines[: size.lines - 1]]
            print("\x1b[H\x1b[J" + "\n".join(lines), flush=True)  # home, and clear from there
            time.sleep(REFRESH)
    except KeyboardInterrupt:
        return


def state(chapter: Chapter, results: Path, data: Path) -> State:
    """What is finished, what is missing, and the jobs."""
    key = training_key(chapter.study)
    finished, missing = [], []
    for run in grid.unique(chapter.experiments):
        if left_out(chapter.study, run, data):
            continue
        record = record_of(cache_of(chapter.study, run, results, data, key).table_path(run))
        if record is None:
            missing.append(run)
        else:
            finished.append((run, record))
    notes = [(shard, note_of(results / "shards" / f"{shard}.parquet")) for shard in chapter.shards]
    jobs = [Job(chapter.name, shard, *read_note(path)) for shard, path in notes if path.exists()]
    return State(chapter, finished, missing, jobs)


def record_of(path: Path) -> Provenance | None:
    """The provenance of a finished run; None where the run is not finished."""
    try:
        return _read_record(path, path.stat().st_mtime)
    except (FileNotFoundError, UserError):
        return None


@cache  # each screen asks for all of them
def _read_record(path: Path, changed: float) -> Provenance:
    [record] = read_provenance(path)
    return record


def read_note(path: Path) -> tuple[dict[str, Any], bool]:
    """What a job has noted, and whether it is still at work."""
    try:
        note, age = json.loads(path.read_text()), time.time() - path.stat().st_mtime
    except (OSError, ValueError):  # it has just ended
        return {}, True
    if note["host"] != platform.node():
        return note, age < SILENT
    try:
        os.kill(note["pid"], 0)
    except ProcessLookupError:
        return note, False
    except PermissionError:  # it is another user's
        return note, True
    return note, True


def screen(states: list[State], results: Path) -> list[str]:
    """The lines to show, what went wrong before what goes well."""
    jobs = [job for one in states for job in one.jobs if job.note]
    alive = [job for job in jobs if job.is_alive]
    done, missing = sum(len(one.finished) for one in states), sum(len(one.missing) for one in states)
    lines = [f"{time.strftime('%H:%M:%S')}  {done} of {done + missing} runs, {len(alive)} jobs at work{left(states)}"]
    for one in states:
        share = len(one.finished) / max(len(one.runs), 1)
        bar = "█" * int(WIDTH_OF_BAR * share)
        lines.append(f"{one.chapter.name:15} {bar:░<{WIDTH_OF_BAR}} {len(one.finished)} of {len(one.runs)}")
    lines += [f"failed    {job.study}/{job.shard}: {last_line(job, results)}" for job in jobs if not job.is_alive]
    diverged = [
        f"{one.chapter.name}/{record.run_id} at step {record.diverged}"
        for one in states
        for _, record in one.finished
        if record.diverged is not None
    ]
    lines += [f"diverged  {text}" for text in diverged[:MOST_DIVERGED]]
    if len(diverged) > MOST_DIVERGED:
        lines.append(f"diverged  and {len(diverged) - MOST_DIVERGED} more, which `make runs` lists first")
    lines += [at_work(job) for job in alive]
    if not jobs and missing:
        lines.append("Nobody is training here; `make` with the same SCALE does.")
    return lines


def at_work(job: Job) -> str:
    """A job in one line: run, step, loss."""
    note = job.note
    where = f"run {note['number']} of {note['runs']}, step {note['step']:,} of {note['steps']:,}"
    if not note["step"]:
        where = f"run {note['number']} of {note['runs']}, starting"
    loss = f", {note['quantity']} {note['losses'][-1]:.3g} {sparkline(note['losses'])}" if note["losses"] else ""
    return f"at work   {job.study}/{note['run_id']}: {where}{loss}"


def sparkline(values: Iterable[float]) -> str:
    """A bar for each value from the least to the largest; a dot for one that is not a number."""
    found = list(values)
    numbers = [value for value in found if abs(value) < float("inf")]
    low, high = min(numbers, default=0.0), max(numbers, default=0.0)
    scale = (len(BARS) - 1) / (high - low or 1.0)
    return "".join(BARS[round((value - low) * scale)] if value in numbers else "·" for value in found)


def last_line(job: Job, results: Path) -> str:
    """The last line of the log of a job, which says how it ended where it could."""
    log = results / job.study / "logs" / f"{job.shard}.log"
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    how = f"ended in run {job.note['number']} of {job.note['runs']}"
    return f"{how}; {log}: {lines[-1]}" if lines else how


def left(states: list[State]) -> str:
    """How long the rest takes at the speed of the runs before, with as many jobs as are at work now."""
    seconds, jobs = 0.0, 0
    for one in states:
        study, runs = one.chapter.study, {run.run_id: run for run in one.missing}
        notes = [job.note for job in one.jobs if job.is_alive and job.note.get("step") and job.note["run_id"] in runs]
        jobs += sum(job.is_alive for job in one.jobs)
        taken = [(run, record.seconds) for run, record in one.finished if record.diverged is None]
        taken += [(runs[note["run_id"]], note["seconds"] * note["steps"] / note["step"]) for note in notes]
        speeds = seconds_per_operation(study, taken)
        if one.missing and not speeds:
            return ""
        seconds += sum(study.operations(run) * speeds.get(group(run), speeds[""]) for run in one.missing)
        seconds -= sum(note["seconds"] for note in notes)
    return f", about {duration(max(seconds, 0.0) / jobs)} left" if jobs and seconds else ""
