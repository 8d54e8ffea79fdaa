"""Who may import whom: studies import the package, which knows a study by name alone; no study imports another."""

import json
import re
import subprocess
import sys
from pathlib import Path

from effective_lr.engine import code
from effective_lr.engine.study import names
from shared import ENVIRONMENT, ROOT

STUDIES = "effective_lr.studies."
FILES = sorted(code.PACKAGE.rglob("*.py"))
RULES = [ROOT / "Snakefile", *sorted((ROOT / "workflow" / "rules").glob("*.smk"))]


def study_of(path: Path) -> str | None:
    """The study whose folder a file is in."""
    return path.relative_to(code.STUDIES).parts[0] if path.is_relative_to(code.STUDIES) else None


def test_no_file_imports_a_study_but_its_own() -> None:
    assert {study_of(path) for path in FILES} >= set(names()) != set()
    for path in FILES:
        imported = {name.removeprefix(STUDIES).split(".")[0] for name in code.imports(path) if name.startswith(STUDIES)}
        assert imported <= {study_of(path)} & set(names()), path


def test_planning_imports_nothing_that_takes_seconds() -> None:
    """What the Snakefile imports, in every job, and all studies as it loads them."""
    lines = [
        line for path in RULES for line in re.findall(r"^(?:from|import) .*$", path.read_text(), flags=re.MULTILINE)
    ]
    assert any("effective_lr" in line for line in lines)
    program = "\n".join(
        [
            *(line for line in lines if "snakemake" not in line),
            "import json, sys",
            "from effective_lr.engine import study",
            "for name in study.names():",
            "    for scale in grid.scales(Path('config') / name):",
            "        contents.load_chapter(Path('.').resolve(), name, scale)",
            "    code.training_key(study.load(name))",
            "print(json.dumps(sorted(sys.modules)))",
        ]
    )
    command = [sys.executable, "-c", program]
    printed = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout
    slow = {"torch", "matplotlib", "seaborn", "statsmodels", "scipy", "sklearn", "pandas", "pyarrow"}
    assert slow.isdisjoint(json.loads(printed))


def test_no_command_names_a_list_of_files_or_runs() -> None:
    """Linux allows 131,072 bytes for an argument: a job finds its runs and tables by study, scale and name."""
    text = "\n".join(path.read_text() for path in RULES)
    assert set(re.findall(r"\{input[^}]*\}", text)) == {"{input.source:q}"}
    assert "--job {wildcards.job}" in text and "--runs-hash {params.runs}" in text
