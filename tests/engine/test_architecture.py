"""Who may import whom: studies know the house, the house knows a study by name alone, and no study knows another."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from effective_lr.engine import code
from effective_lr.engine.study import names
from shared import ENVIRONMENT, ROOT

STUDIES = "effective_lr.studies."
FILES = sorted(code.PACKAGE.rglob("*.py"))


def study_of(path: Path) -> str | None:
    """The study whose folder a file is in."""
    return path.relative_to(code.STUDIES).parts[0] if path.is_relative_to(code.STUDIES) else None


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(code.PACKAGE)))
def test_no_file_imports_a_study_but_its_own(path: Path) -> None:
    imported = {name.removeprefix(STUDIES).split(".")[0] for name in code.imports(path) if name.startswith(STUDIES)}
    assert imported <= {study_of(path)} & set(names())


def test_studies_are_found() -> None:
    assert {study_of(path) for path in FILES} >= set(names()) != set()


def test_planning_imports_nothing_that_takes_seconds() -> None:
    """What the Snakefile imports, in every job, and all studies as it loads them."""
    rules = [ROOT / "Snakefile", *(ROOT / "workflow" / "rules").glob("*.smk")]
    lines = [
        line for path in rules for line in re.findall(r"^(?:from|import) .*$", path.read_text(), flags=re.MULTILINE)
    ]
    assert any("effective_lr" in line for line in lines)
    ours = [line for line in lines if "snakemake" not in line]
    program = "\n".join(
        [
            *ours,
            "import json, sys",
            "from effective_lr.engine import code, contents, grid, study",
            "for name in study.names():",
            "    for scale in grid.scales(Path('config') / name):",
            "        contents.load_chapter(Path('.').resolve(), name, scale)",
            "    code.training_key(study.load(name))",
            "print(json.dumps(sorted(sys.modules)))",
        ]
    )
    command = [sys.executable, "-c", f"from pathlib import Path\n{program}"]
    printed = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout
    assert {"torch", "pandas", "seaborn", "matplotlib", "pyarrow"}.isdisjoint(json.loads(printed))
