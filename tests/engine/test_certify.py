"""Certification, in a small git repository with a toy study: equal results keep the key, others are refused."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from effective_lr.engine import certify
from shared import ENVIRONMENT, copy_repository

FILES = {
    "workflow/effective_lr/studies/toy/__init__.py": """
from effective_lr.engine.study import Study
from effective_lr.studies.toy.settings import Run

STUDY = Study(
    name="toy", title="Toy", follows="nobody", run=Run, data=lambda run: None, summarized=("loss",),
    outcome=lambda means: "", operations=lambda run: 1.0, megabytes=lambda run: 1,
)
""",
    "workflow/effective_lr/studies/toy/settings.py": """
from effective_lr.engine.study import BaseRun, setting


class Run(BaseRun):
    rule: str = setting("how to step", "ours")
    rate: float = setting("how far to step", "ours")
    steps: int = setting("how often", "ours")

    @property
    def stem(self):
        return f"{self.rule}-{self.rate}"
""",
    "workflow/effective_lr/studies/toy/training.py": """
import io

import torch

TARGET = 2.0


class Training:
    def __init__(self, run):
        self.steps, self.step, self.diverged, self.seconds, self.rows = run.steps, 0, False, 1.0, []
        generator = torch.Generator().manual_seed(run.seed)
        self.weights = {"w": torch.randn(3, generator=generator)}
        self.velocity = torch.zeros(3)
        self.examples = 0

    def save(self):
        file = io.BytesIO()
        torch.save((self.step, self.rows, self.weights, self.velocity), file)
        return file.getvalue()


def load(tensors, run, device):
    return None


def train(run, shared, saved=None, after_step=lambda training: None):
    training = Training(run)
    if saved is not None:
        training.step, training.rows, training.weights, training.velocity = torch.load(io.BytesIO(saved))
    while training.step < run.steps:
        gradient = training.weights["w"] - TARGET
        training.velocity = gradient + (0.9 if run.rule == "momentum" else 0.0) * training.velocity
        training.weights["w"] = training.weights["w"] - run.rate * training.velocity
        training.step += 1
        training.rows.append((training.step, "", "loss", float((gradient**2).sum())))
        after_step(training)
    return training
""",
    "config/toy/smoke.yaml": """
about: a toy
defaults: {rate: 0.1, steps: 4, seed: 0}
experiments: {all: {about: both rules, grid: {rule: [plain, momentum], rate: [0.1, 0.2]}}}
""",
}
TRAINING = "workflow/effective_lr/studies/toy/training.py"
LOCK = "workflow/effective_lr/studies/toy/code.lock"


def git(root: Path, *words: str) -> None:
    person = ["-c", "user.name=A person", "-c", "user.email=person@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(root), *person, *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = copy_repository(tmp_path_factory.mktemp("certify") / "repository")
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    git(root, "init", "--quiet")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "A toy")
    return root


def run_certify(root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "effective_lr", "certify", "--study", "toy"]
    environment = {**ENVIRONMENT, "PYTHONPATH": str(root / "workflow")}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


def key(root: Path) -> str:
    show = (
        "from effective_lr.engine import code, study; toy = study.load('toy'); print(code.training_key(toy), "
        "code.tree_hash(code.training_files(toy), code.STUDIES / 'toy'))"
    )
    environment = {**ENVIRONMENT, "PYTHONPATH": str(root / "workflow")}
    return subprocess.check_output([sys.executable, "-c", show], env=environment, text=True).strip()


@pytest.fixture
def training(repository: Path) -> Iterator[Path]:
    """The training module of the toy, as it was certified first; put back after a test."""
    path, lock = repository / TRAINING, repository / LOCK
    if not lock.exists():
        assert run_certify(repository).returncode == 0
    text, listed = path.read_text(), lock.read_text()
    yield path
    path.write_text(text)
    lock.write_text(listed)


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_refactoring_keeps_its_key(repository: Path, training: Path) -> None:
    first, tree = key(repository).split()
    assert first == tree
    change(training, "gradient", "slope")
    assert key(repository).split()[0] != first  # unknown: it would train anew
    result = run_certify(repository)
    assert result.returncode == 0, result.stderr
    now, tree = key(repository).split()
    assert now == first != tree
    added = (repository / LOCK).read_text().splitlines()[-1]
    assert added.startswith(f"{tree} {first} ") and "4 runs" not in added and "2 runs" in added  # one for each rule
    again = run_certify(repository)
    assert again.returncode == 0 and (repository / LOCK).read_text().count(tree) == 1
    left = subprocess.check_output(["git", "-C", str(repository), "worktree", "list"], text=True)
    assert len(left.splitlines()) == 1


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("(0.9 if", "(0.8 if", "momentum"),
        ("self.weights, self.velocity)", "self.weights, torch.zeros(3))", "resumed"),
    ],
    ids=["one rule", "resuming"],
)
def test_a_changed_result_is_refused_with_the_first_row_that_differs(
    repository: Path, training: Path, old: str, new: str, where: str
) -> None:
    listed = (repository / LOCK).read_text()
    change(training, old, new)
    result = run_certify(repository)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1 and where in result.stderr
    assert re.search(r"row \(\d, '', 'loss', '0x.*before \(\d, '', 'loss', '0x", result.stderr)
    assert (repository / LOCK).read_text() == listed


ROWS = [[1, "", "loss", "0x1"], [2, "", "loss", "0x2"]]


@pytest.mark.parametrize(
    ("rows", "weights", "where"),
    [
        (ROWS, "a", None),
        ([ROWS[0], [2, "", "loss", "0x3"]], "a", "0x3"),
        (ROWS[:1], "a", "1 rows, before 2"),
        (ROWS, "b", "weights"),
    ],
)
def test_a_difference_is_told_where_it_is(rows: list[Any], weights: str, where: str | None) -> None:
    traces = {"first": {"rows": [], "weights": ""}}, {"first": {"rows": [], "weights": ""}}
    traces[0]["second"], traces[1]["second"] = {"rows": ROWS, "weights": "a"}, {"rows": rows, "weights": weights}
    told = certify.first_difference(*traces)
    assert told == "" if where is None else told.startswith("second: ") and where in told


def test_without_git_it_says_what_is_needed(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "git").write_text("#!/bin/sh\necho 'fatal: not a git repository' >&2\nexit 128\n")
    (tmp_path / "git").chmod(0o755)
    environment = {**ENVIRONMENT, "PYTHONPATH": str(repository / "workflow")}
    environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
    (repository / LOCK).unlink(missing_ok=True)
    command = [sys.executable, "-m", "effective_lr", "certify", "--study", "toy"]
    result = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True)
    assert result.returncode == 1 and "git repository" in result.stderr and len(result.stderr.splitlines()) == 1
