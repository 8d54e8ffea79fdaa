"""Checks that changed training code of a study gives the same results, so that trained runs keep their key.

The last certified commit is checked out beside this one, and both codes train the same sample of runs, on this machine,
one after another: every kind of run that the scales of the study have, at the sizes of its smoke scale, from the first
step to the last, and each once more with an interruption and a checkpoint. Where all rows and weights are equal bit for
bit, but for quantities that the old code does not record, the new syntax tree gets the key of the old one, in
`code.lock` beside the code.

A sample does not cover every setting: the lock records when, on which machine and against which commit, and a full
retrain stays the audit (`make retrain`, `make compare`).
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from effective_lr.engine import code, grid
from effective_lr.engine.grid import Scale
from effective_lr.engine.study import STUDIES, BaseRun, Study, load
from effective_lr.errors import UserError

SAMPLE_SCALE = "smoke"  # whose sizes the sample has
RESUMED = ", resumed"  # at the end of the name of such a run (tracer.py)


def certify(root: Path, name: str, data_folder: str) -> str:
    """Add the present code of a study to its lock; returns a line about the comparison.

    Raises UserError, and leaves the lock as it is, where a result differs, or there is nothing to compare with.
    """
    study = load(name)
    folder = STUDIES / name
    tree = code.tree_hash(code.training_files(study), folder)
    lock = folder / "code.lock"
    known = code.read_lock(lock)
    if tree in known:
        return f"{name}: {tree} is certified already, with the key {known[tree]}"
    base = last_commit(root, lock, known)
    runs = sample(root, study)
    with tempfile.TemporaryDirectory() as scratch:
        before, after = Path(scratch, "before"), Path(root)
        git(root, "worktree", "add", "--detach", "--quiet", str(before), base)
        try:
            old_tree = code.tree_hash(
                code.training_files(study, before / "workflow/effective_lr/studies"),
                before / "workflow/effective_lr/studies" / name,
            )
            data = prepared(study, runs, data_folder, Path(scratch))
            traces = [trace(tree_root, name, runs, data, Path(scratch)) for tree_root in (before, after)]
        finally:
            git(root, "worktree", "remove", "--force", str(before))
    if difference := first_difference(*traces):
        raise UserError(
            f"{name}: the training code gives other results than at {base}: {difference}; nothing was certified"
        )
    key = known.get(old_tree, old_tree)
    resumed = sum(one.endswith(RESUMED) for one in traces[0])
    how = (
        f"{datetime.now(UTC):%Y-%m-%d} equal to commit {base}, bit for bit, in all rows and weights of "
        f"{len(traces[0]) - resumed} runs, {resumed} of them resumed too, on {platform.machine()} with Python "
        f"{platform.python_version()}"
    )
    with lock.open("a") as file:
        file.write(f"{tree} {key} {how}\n")
    return f"{name}: {tree} has the key {key}: {how}"


def last_commit(root: Path, lock: Path, known: dict[str, str]) -> str:
    """The last commit whose training code the lock knows; the last one at all where the lock knows none yet."""
    for commit in git(root, "log", "--format=%H", "--", str(lock.parent)).split():
        with tempfile.TemporaryDirectory() as scratch:
            study = load(lock.parent.name)
            studies = studies_at(root, commit, study, Path(scratch))
            if (studies / study.name / "training.py").exists():
                tree = code.tree_hash(code.training_files(study, studies), studies / study.name)
                if not known or tree in known:
                    return commit[:12]
    raise UserError(f"{lock}: no commit has training code that it knows; there is nothing to compare with")


def studies_at(root: Path, commit: str, study: Study, scratch: Path) -> Path:
    """The Python files of a study as they were at a commit, in a package in `scratch`; returns its folder of studies.

    Raises UserError where the commit is not at hand.
    """
    package = scratch / "effective_lr"
    place = f"workflow/effective_lr/studies/{study.name}"
    for file in git(root, "ls-tree", "-r", "--name-only", commit, place).split():
        if file.endswith(".py"):
            path = package / Path(file).relative_to("workflow/effective_lr")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(git(root, "show", f"{commit}:{file}"))
    return package / "studies"


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


def prepared(study: Study, runs: list[BaseRun], folder: str, scratch: Path) -> dict[str, tuple[str, str]]:
    """The prepared data that these runs need, made anew in a folder."""
    names = {name for run in runs if (name := study.data(run)) is not None}
    files = {name: (scratch / f"{name}.pt", scratch / f"{name}.json") for name in names}
    for name, (tensors, record) in files.items():
        from effective_lr.prepare.catalog import prepare  # takes seconds, which a study without data need not wait

        prepare(name, Path(folder), tensors, record, is_optional=name in study.optional_data)
    return {name: (str(tensors), str(record)) for name, (tensors, record) in files.items()}


def trace(root: Path, study: str, runs: list[BaseRun], data: dict[str, tuple[str, str]], scratch: Path) -> Any:
    """What the code of a checkout makes of these runs: rows and weights of each, in full precision."""
    output = scratch / "trace.json"
    task = {
        "study": study,
        "runs": [run.model_dump(exclude_defaults=True) for run in runs],
        "data": data,
        "output": str(output),
    }
    environment = {**os.environ, "PYTHONPATH": str(root / "workflow")}
    tracer = Path(__file__).with_name("tracer.py")
    result = subprocess.run(
        [sys.executable, "-P", str(tracer)],
        input=json.dumps(task),
        env=environment,
        capture_output=True,
        text=True,
        cwd=root,
    )
    if result.returncode:
        raise UserError(f"{study}: the training code at {root} fails on the sample: {result.stderr.strip()[-500:]}")
    return json.loads(output.read_text())


def first_difference(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Where two traces part, in words; nothing where they are equal. Quantities that only the later code records do
    not count."""
    if not before:
        return "the code before knows none of the runs"
    for name, old in before.items():
        if name not in after:
            return f"{name}: its settings are refused now"
        known = {quantity for _, _, quantity, _ in old["rows"]}
        new = after[name]
        new["rows"] = [row for row in new["rows"] if row[2] in known]
        for one, other in zip(old["rows"], new["rows"], strict=False):
            if one != other:
                return f"{name}: row {tuple(other)}, before {tuple(one)}"
        if len(old["rows"]) != len(new["rows"]):
            return f"{name}: {len(new['rows'])} rows, before {len(old['rows'])}"
        if old["weights"] != new["weights"]:
            return f"{name}: the final weights differ, though all rows are equal"
    return ""


def git(root: Path, *words: str) -> str:
    """What git prints. Raises UserError where it fails."""
    result = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True)
    if result.returncode:
        raise UserError(f"git {' '.join(words[:2])} failed: {result.stderr.strip()}; certify in a git repository")
    return result.stdout
