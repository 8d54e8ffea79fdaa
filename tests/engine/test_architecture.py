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


def imported_by(*lines: str) -> set[str]:
    """The modules that a process has imported after these lines."""
    program = "\n".join([*lines, "import json, sys", "print(json.dumps(sorted(sys.modules)))"])
    command = [sys.executable, "-c", program]
    printed = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout
    return set(json.loads(printed))


SLOW = {"torch", "matplotlib", "seaborn", "statsmodels", "scipy.stats", "sklearn"}


def test_planning_imports_nothing_that_takes_seconds() -> None:
    """What the Snakefile imports, in every job, and all studies as it loads them."""
    lines = [
        line for path in RULES for line in re.findall(r"^(?:from|import) .*$", path.read_text(), flags=re.MULTILINE)
    ]
    assert any("effective_lr" in line for line in lines)
    loaded = imported_by(
        *(line for line in lines if "snakemake" not in line),
        "from effective_lr.engine import study",
        "for name in study.names():",
        "    for scale in grid.scales(Path('config') / name):",
        "        contents.load_chapter(Path('.').resolve(), name, scale)",
        "    code.training_key(study.load(name))",
    )
    assert (SLOW | {"pandas", "pyarrow", "scipy"}).isdisjoint(loaded)


def test_a_chapter_draws_nothing_and_neither_it_nor_a_figure_imports_torch() -> None:
    find = "from effective_lr.engine.study import load; [load({!r}).find(name, '') for name in {}]"
    chapter = ("analysis", "statistics", "tables", "numbers")
    lines = [find.format(name, chapter[: 3 if name == "stability" else 4]) for name in names()]  # its numbers draw
    loaded = imported_by("from effective_lr.document import chapter, overview", *lines)
    assert SLOW.isdisjoint(loaded) and f"{STUDIES}norms.tables" in loaded
    lines = [find.format(name, ("analysis", "figures")) for name in names()]
    loaded = imported_by("from effective_lr.document import figures", *lines)
    assert (SLOW - {"matplotlib"}).isdisjoint(loaded) and f"{STUDIES}norms.figures" in loaded


def test_no_command_names_a_list_of_files_or_runs() -> None:
    """Linux allows 131,072 bytes for an argument: a job finds its runs and tables by study, scale and name."""
    text = "\n".join(path.read_text() for path in RULES)
    assert set(re.findall(r"\{input[^}]*\}", text)) == {"{input.source:q}"}
    assert "--job {wildcards.job}" in text and "--runs-hash {params.runs}" in text
