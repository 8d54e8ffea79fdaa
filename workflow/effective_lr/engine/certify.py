"""Checks that changed training code of a study gives the same results, so that trained runs keep their key.

The code of the last certified commit and this one train the same sample: every kind of run that the scales of the study
have, at the sizes of its smoke scale. Where all rows and weights are equal bit for bit, but for quantities that the old
code does not record, the new syntax tree gets the key of the old one, in `code.lock` beside the code. A sample is no
proof: that is to train everything again (`--config retrain=true`).
"""

import itertools
import json
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from effective_lr.engine import code, grid
from effective_lr.engine.grid import Scale
from effective_lr.engine.study import BaseRun, Study, load
from effective_lr.errors import UserError

SAMPLE_SCALE = "smoke"  # whose sizes the sample has
PACKAGE = "workflow/effective_lr"  # in the repository


def certify(study: str) -> str:
    """Check that changed training code of a study gives the same results, and add it to its lock; returns a line about
    the comparison.

    Raises UserError, and leaves the lock as it is, where a result differs, or there is nothing to compare with.
    """
    loaded, root = load(study), code.PACKAGE.parents[1]
    lock = root / PACKAGE / "studies" / study / "code.lock"
    tree, known = tree_at(root, loaded), code.read_lock(lock)
    if tree in known:
        return f"{study}: {tree} is already certified, with the key {known[tree]}"
    runs = sample(root, loaded)
    if not runs:
        raise UserError(f"{study}: no run of any scale is as short as the defaults of {SAMPLE_SCALE}; add one")
    with tempfile.TemporaryDirectory() as scratch:
        base = last_commit(root, loaded, known, Path(scratch))
        before = Path(scratch, base)
        data = prepared(loaded, runs, grid.load_config(root, {}).data_folder, Path(scratch))
        traces = [trace(checkout, study, runs, data) for checkout in (before, root)]
        old_tree = tree_at(before, loaded)
    if difference := first_difference(*traces):
        raise UserError(
            f"{study}: the training code gives other results than commit {base}: {difference}; not certified"
        )
    key = known.get(old_tree, old_tree)
    how = (
        f"{datetime.now(UTC):%Y-%m-%d} equal to commit {base}, bit for bit, in all rows and weights of "
        f"{len(traces[0])} runs, on {platform.machine()} with Python {platform.python_version()}"
    )
    with lock.open("a", encoding="utf-8") as file:
        file.write(f"{tree} {key} {how}\n")
    return f"{study}: {tree} has the key {key}: {how}"


def tree_at(checkout: Path, study: Study) -> str:
    """The hash of the training code of a study in a checkout; empty where it has none."""
    studies = checkout / PACKAGE / "studies"
    files = code.training_files(study, studies) if (studies / study.name / "training.py").exists() else []
    return code.tree_hash(files, studies / study.name) if files else ""


def last_commit(root: Path, study: Study, known: dict[str, str], scratch: Path) -> str:
    """The last commit whose training code the lock knows, or the last one at all where the lock knows none yet.

    Its code is then in the folder of its name in `scratch`. Raises UserError where there is no such commit.
    """
    for commit in git(root, "log", "--format=%h", "--", f"{PACKAGE}/studies/{study.name}").split():
        archive = scratch / f"{commit}.tar"
        git(root, "archive", f"--output={archive}", commit, "workflow")
        with tarfile.open(archive) as tar:
            tar.extractall(scratch / commit, filter="data")
        tree = tree_at(scratch / commit, study)
        if tree in known or (tree and not known):
            return commit
    raise UserError(f"{study.name}: code.lock lists the training code of no commit; nothing to compare with")


def sample(root: Path, study: Study) -> list[BaseRun]:
    """A run of each kind that any scale has, at the sizes of the smoke scale.

    Two runs are of one kind when their settings of words and switches are equal, and the same numbers are at their
    defaults.
    """
    folder = root / "config" / study.name
    small, _ = grid.load_scale(folder, SAMPLE_SCALE, study)
    kinds: dict[tuple[Any, ...], BaseRun] = {}
    for name in grid.scales(folder):
        scale, _ = grid.load_scale(folder, name, study)
        resized = Scale(about=scale.about, defaults=small.defaults, experiments=scale.experiments)
        for run in grid.unique(resized.runs(study.run)):
            if getattr(run, "steps", 0) <= small.defaults.get("steps", 0):
                kinds.setdefault(kind(run), run)
    return list(kinds.values())


def kind(run: BaseRun) -> tuple[Any, ...]:
    fields = type(run).model_fields
    return tuple(
        value if isinstance(value, str | bool) else value == fields[key].default
        for key, value in run
        if key not in ("seed", "dataset")
    )


def prepared(study: Study, runs: list[BaseRun], folder: str, scratch: Path) -> dict[str, str]:
    """The files of the prepared data that these runs need, made anew in a folder."""
    tensors = {name: scratch / f"{name}.pt" for run in runs if (name := study.data(run)) is not None}
    for name, path in tensors.items():
        from effective_lr.prepare.catalog import prepare  # takes seconds, which a study without data need not wait

        prepare(name, Path(folder), path, path.with_suffix(".json"), is_optional=name in study.optional_data)
    return {name: str(path) for name, path in tensors.items()}


def trace(checkout: Path, study: str, runs: list[BaseRun], data: dict[str, str]) -> Any:
    """What the code of a checkout makes of these runs: rows and weights of each, in full precision."""
    task = {"study": study, "runs": [run.model_dump(exclude_defaults=True) for run in runs], "data": data}
    environment = {**os.environ, "PYTHONPATH": str(checkout / "workflow")}
    command = [sys.executable, "-P", str(Path(__file__).with_name("tracer.py"))]
    given = json.dumps(task)
    result = subprocess.run(command, input=given, env=environment, capture_output=True, encoding="utf-8", cwd=checkout)
    if result.returncode:
        raise UserError(f"{study}: the training code at {checkout} fails on the sample: {result.stderr.strip()[-500:]}")
    return json.loads(result.stdout.splitlines()[-1])


def first_difference(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Where two traces part, in words; nothing where they are equal. Quantities that only the later code records do
    not count."""
    if not before:
        return "the earlier code accepts none of the runs"
    for name, old in before.items():
        new = after.get(name, {"rows": [], "weights": "none"})
        known = {quantity for _, _, quantity, _ in old["rows"]}
        rows = [row for row in new["rows"] if row[2] in known]
        for one, other in itertools.zip_longest(old["rows"], rows):
            if one != other:
                return f"{name}: row {other}, before {one}"
        if old["weights"] != new["weights"]:
            return f"{name}: the final weights differ, though all rows are equal"
    return ""


def git(root: Path, *words: str) -> str:
    """What git prints. Raises UserError where it fails."""
    result = subprocess.run(["git", "-C", str(root), *words], capture_output=True, encoding="utf-8")
    if result.returncode:
        raise UserError(f"git {' '.join(words[:2])} failed: {result.stderr.strip()}; run this in a git repository")
    return result.stdout
