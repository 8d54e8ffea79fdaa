"""The key of training code: what changes it, what it covers, what the lock makes of it; and who may import whom."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from effective_lr.engine import code
from effective_lr.engine.study import load, names
from effective_lr.errors import UserError
from shared import ENVIRONMENT, ROOT, STUDY

SOURCE = '''"""Module."""

from typing import Any

RATE = 0.5  # half


def rate(x: float) -> float:
    """Function."""
    if x < 0:
        raise ValueError(f"x is {x}, less than 0")
    return RATE * x


class Run:
    """Class."""

    name = "layer"
    steps: int = setting("training steps", {"a": "ours"}, change="raise it", ge=1, default=7)
    width: int = Field(description="channels", ge=1)
    drop: float = halve(RATE, change=0.25)
'''
KEEP = {
    "  # half": "",
    "RATE = 0.5": "RATE = (\n    0.50\n)",
    "\n\n\n": "\n",
    '"layer"': "'layer'",
    "Module.": "Edited.",
    '    """Function."""\n': "",
    "training steps": "steps of training",
    "raise it": "lower it",
    "channels": "units",
    "less than 0": "below 0",
}
CHANGE = {
    "0.5": "5",
    "RATE * x": "x * RATE",
    '"layer"': '"batch"',
    "x < 0": "x <= 0",
    "ValueError": "TypeError",
    "default=7": "default=8",
    "change=0.25": "change=0.5",  # of a function that is no setting
}


def test_only_what_may_change_a_result_changes_the_key(tmp_path: Path) -> None:
    def tree(source: str) -> str:
        (tmp_path / "module.py").write_text(source)
        return code.tree_hash([tmp_path / "module.py"], tmp_path)

    for edits, keeps in ((KEEP, True), (CHANGE, False)):
        for old, new in edits.items():
            assert SOURCE.replace(old, new) != SOURCE
            assert (tree(SOURCE.replace(old, new)) == tree(SOURCE)) == keeps, old


def test_no_file_imports_a_study_but_its_own() -> None:
    start = "effective_lr.studies."
    for path in code.PACKAGE.rglob("*.py"):
        imported = {name.removeprefix(start).split(".")[0] for name in code.imports(path) if name.startswith(start)}
        own = {path.relative_to(code.STUDIES).parts[0]} if path.is_relative_to(code.STUDIES) else set()
        assert imported <= own, path


def test_imports_are_those_of_the_syntax_tree() -> None:
    """Also in functions, over several lines, and by another name."""
    for path in [*code.PACKAGE.rglob("*.py"), *(ROOT / "notebooks").rglob("*.py")]:
        expected: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                expected |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.module is not None
                expected |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        assert expected <= set(code.imports(path)), path


def test_the_closure_of_training_is_what_python_imports_and_lies_in_the_folder_of_the_study() -> None:
    """So no edit outside a study retrains anything. What all studies share, settings and errors, decides no result."""
    program = "import sys; from effective_lr.studies.{} import training; print(*sys.modules)"
    for name in names():
        folder = code.STUDIES / name
        done = subprocess.check_output([sys.executable, "-c", program.format(name)], env=ENVIRONMENT, text=True)
        start = f"effective_lr.studies.{name}."
        imported = {folder / f"{module.removeprefix(start)}.py" for module in done.split() if module.startswith(start)}
        files = set(code.training_files(load(name)))
        outside = set(code.closure([f"{start}training"])) - files
        assert outside <= {code.PACKAGE / "errors.py", code.PACKAGE / "engine" / "study.py"}
        # The folder's __init__ is imported too, with what describes the study; it trains nothing.
        described = set(code.closure([start.removesuffix(".")]))
        assert files - {folder / "__init__.py"} <= imported <= files | described


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """The folder of studies of a package, with one study of two files."""
    folder = tmp_path / "effective_lr" / "studies" / STUDY.name
    folder.mkdir(parents=True)
    (folder / "training.py").write_text(f"from effective_lr.studies.{STUDY.name} import optimizers\n")
    (folder / "optimizers.py").write_text("RATE = 0.5\n")
    (folder / "figures.py").write_text("COLOR = 'red'\n")
    return folder.parent


def edit(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def test_an_edit_of_what_training_imports_changes_the_key_and_of_a_figure_not(studies: Path) -> None:
    folder, module = studies / STUDY.name, f"studies.{STUDY.name}.training"
    assert code.training_files(STUDY, studies) == [folder / "optimizers.py", folder / "training.py"]

    def keys() -> tuple[str, str]:
        """Of the results, and of the code of a job that runs the module."""
        return code.training_key(STUDY, studies), code.sources([module], studies.parent)

    before = keys()
    edit(folder / "figures.py", "WIDTH = 3\n")
    os.utime(folder / "training.py", (0, 0))
    assert keys() == before
    edit(folder / "optimizers.py", "DECAY = 0.1\n")
    assert all(new != old for new, old in zip(keys(), before, strict=True))
    edit(folder / "training.py", "from . import figures\n")  # which would leave the key
    with pytest.raises(UserError, match=rf"{folder}/training.py: relative import of figures"):
        keys()


def test_an_unknown_tree_is_its_own_key_and_a_listed_one_has_the_listed_key(studies: Path) -> None:
    lock = studies / STUDY.name / "code.lock"
    tree = code.training_key(STUDY, studies)
    lock.write_text(f"# trees and keys\n\n{'0' * 16} {'1' * 16} of another tree\n")
    assert code.training_key(STUDY, studies) == tree
    edit(lock, f"{tree} {'2' * 16} certified in a test\n")
    assert code.training_key(STUDY, studies) == "2" * 16
    edit(studies / STUDY.name / "optimizers.py", "DECAY = 0.1\n")
    assert code.training_key(STUDY, studies) not in (tree, "2" * 16)
