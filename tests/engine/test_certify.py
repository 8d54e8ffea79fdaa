"""Certification, in a small git repository with a toy study: equal results keep the key, others are refused."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from effective_lr.engine import certify, tracer
from effective_lr.engine.code import PACKAGE
from shared import ENVIRONMENT

FILES = {
    "workflow/torch.py": """
import numpy


class Tensor(numpy.ndarray):
    \"\"\"Stands in for that of PyTorch, which takes seconds to import.\"\"\"

    detach = cpu = contiguous = numpy = lambda self: self


def device(name):
    return name
""",
    "workflow/effective_lr/studies/toy/__init__.py": """
from effective_lr.engine.study import BaseRun, Study


class Run(BaseRun):
    rule: str
    rate: float
    steps: int

    @property
    def stem(self):
        return f"{self.rule}-{self.rate}"


STUDY = Study(
    name="toy", title="Toy", follows="nobody", run=Run, data=lambda run: None, summarized=("loss",),
    outcome=lambda means: "", operations=lambda run: 1.0, megabytes=lambda run: 1,
)
""",
    "workflow/effective_lr/studies/toy/training.py": """
import pickle

import numpy
import torch


class Training:
    def __init__(self, run):
        self.steps, self.step, self.rows, self.velocity = run.steps, 0, [], 0.0
        self.weights = {"w": numpy.random.default_rng(run.seed).normal(size=3).view(torch.Tensor)}

    def save(self):
        return pickle.dumps((self.step, self.rows, self.weights, self.velocity))


def load(tensors, run, device):
    return None


def train(run, shared, saved=None, after_step=lambda training: None):
    training = Training(run)
    if saved is not None:
        training.step, training.rows, training.weights, training.velocity = pickle.loads(saved)
    while training.step < run.steps:
        gradient = training.weights["w"] - 2.0
        training.velocity = gradient + (0.9 if run.rule == "momentum" else 0.0) * training.velocity
        training.weights["w"] = training.weights["w"] - run.rate * training.velocity
        training.step += 1
        training.rows.append((training.step, "", "loss", float((gradient**2).sum())))
        after_step(training)
    return training
""",
    "config/config.yaml": "{}",
    "config/toy/smoke.yaml": """
about: a toy
defaults: {rate: 0.1, steps: 4, seed: 0}
experiments: {all: {about: both rules, grid: {rule: [plain, momentum], rate: [0.1, 0.2]}}}
""",
}
TRAINING = "workflow/effective_lr/studies/toy/training.py"
LOCK = "workflow/effective_lr/studies/toy/code.lock"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package with a toy for its only study, committed and certified."""
    root = tmp_path_factory.mktemp("certify")
    shutil.copytree(PACKAGE, root / "workflow/effective_lr", ignore=shutil.ignore_patterns("__pycache__"))
    for study in (root / "workflow/effective_lr/studies").glob("*/"):
        shutil.rmtree(study)
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    commit = "git -c user.name=A -c user.email=a@example.org -c commit.gpgsign=false commit --quiet --message=Toy"
    subprocess.run(f"git init --quiet && git add --all && {commit}", shell=True, cwd=root, check=True)
    assert run(root, "-m", "effective_lr", "certify", "--study", "toy").returncode == 0
    return root


def run(root: Path, *words: str, path: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**ENVIRONMENT, "PYTHONPATH": str(root / "workflow"), "PATH": f"{path}:{ENVIRONMENT['PATH']}"}
    return subprocess.run([sys.executable, *words], cwd=root, env=environment, capture_output=True, text=True)


def keys(root: Path) -> list[str]:
    """The key of the toy's code, and the hash of its syntax tree."""
    show = (
        "from effective_lr.engine import code, study; toy = study.load('toy'); print(code.training_key(toy), "
        "code.tree_hash(code.training_files(toy), code.STUDIES / 'toy'))"
    )
    return run(root, "-c", show).stdout.split()


@pytest.fixture
def training(repository: Path) -> Iterator[Path]:
    """The training module of the toy, as it was certified first; put back after a test."""
    path, lock = repository / TRAINING, repository / LOCK
    text, listed = path.read_text(), lock.read_text()
    yield path
    path.write_text(text)
    lock.write_text(listed)


def test_a_refactoring_keeps_its_key(repository: Path, training: Path) -> None:
    first, tree = keys(repository)
    assert first == tree
    training.write_text(training.read_text().replace("gradient", "slope"))
    assert keys(repository)[0] != first  # unknown: it would train anew
    for _ in range(2):
        result = run(repository, "-m", "effective_lr", "certify", "--study", "toy")
        assert result.returncode == 0, result.stderr
    now, tree = keys(repository)
    assert now == first != tree
    text = (repository / LOCK).read_text()
    added = text.splitlines()[-1]
    assert added.startswith(f"{tree} {first} ") and text.count(tree) == 1
    assert "of 2 runs" in added  # one for each rule


def test_a_changed_result_is_refused_with_the_first_row_that_differs(repository: Path, training: Path) -> None:
    listed, text = (repository / LOCK).read_text(), training.read_text()
    assert "(0.9 if" in text
    training.write_text(text.replace("(0.9 if", "(0.8 if"))
    result = run(repository, "-m", "effective_lr", "certify", "--study", "toy")
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1 and "momentum" in result.stderr
    assert re.search(r"row \[\d, '', 'loss', '0x.*before \[\d, '', 'loss', '0x", result.stderr)
    assert (repository / LOCK).read_text() == listed


def test_an_empty_sample_is_refused(repository: Path, training: Path) -> None:
    scale = repository / "config/toy/smoke.yaml"
    text, listed = scale.read_text(), (repository / LOCK).read_text()
    training.write_text(training.read_text().replace("gradient", "slope"))
    scale.write_text(text.replace("steps: 4, ", "").replace("grid: {", "grid: {steps: 4, "))
    result = run(repository, "-m", "effective_lr", "certify", "--study", "toy")
    scale.write_text(text)
    assert result.returncode == 1 and result.stderr.startswith("toy: no run of any scale is as short as the defaults")
    assert len(result.stderr.splitlines()) == 1 and (repository / LOCK).read_text() == listed


def test_without_git_it_names_what_is_needed(tmp_path: Path, repository: Path, training: Path) -> None:
    (tmp_path / "git").write_text("#!/bin/sh\necho 'fatal: not a git repository' >&2\nexit 128\n")
    (tmp_path / "git").chmod(0o755)
    (repository / LOCK).write_text("")
    result = run(repository, "-m", "effective_lr", "certify", "--study", "toy", path=str(tmp_path))
    assert result.returncode == 1 and "git repository" in result.stderr and len(result.stderr.splitlines()) == 1


def test_a_difference_is_named_with_its_place() -> None:
    rows: list[Any] = [[1, "", "loss", "0x1"], [2, "", "loss", "0x2"]]
    more = [[1, "", "norm", "0x9"], *rows]  # of a quantity that only the later code records
    for found, weights, where in [
        (rows, "a", ""),
        (more, "a", ""),
        ([rows[0], [2, "", "loss", "0x3"]], "a", "0x3"),
        (rows[:1], "a", "row None, before [2"),
        (rows, "b", "weights"),
    ]:
        before = {"first": {"rows": [], "weights": ""}, "second": {"rows": rows, "weights": "a"}}
        after = {"first": {"rows": [], "weights": ""}, "second": {"rows": found, "weights": weights}}
        text = certify.first_difference(before, after)
        assert text == "" if not where else text.startswith("second: ") and where in text


def test_the_digest_of_weights_depends_on_their_names_types_shapes_and_bits() -> None:
    one = torch.tensor([[1.0, 2.0]])
    others = [one.double(), one.T, one + 1e-6, -one]
    digests = [tracer.digest({"w": tensor}) for tensor in [one, *others]] + [tracer.digest({"v": one})]
    assert len(set(digests)) == len(digests) and tracer.digest({"w": one.clone()}) == digests[0]
