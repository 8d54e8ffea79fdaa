"""The published verdicts rest on numbers that reanalysis.py, which shares no code with the package, finds again."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from effective_lr.engine import contents
from shared import ROOT

SCRIPT = Path(__file__).with_name("reanalysis.py")
PUBLISHED = [
    (study, scale)
    for study in ("normalization", "stability", "manifold")
    for scale in contents.published_scales(ROOT, study)
]


def reanalyze(*files: Path) -> dict[str, dict[str, Any]]:
    """What the script finds; -I keeps the package out of its reach."""
    done = subprocess.run([sys.executable, "-I", SCRIPT, *files], capture_output=True, text=True, check=True)
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


def test_the_script_imports_nothing_of_the_package() -> None:
    lines = [line for line in SCRIPT.read_text().splitlines() if line.startswith(("import ", "from "))]
    modules = {line.split()[1].split(".")[0] for line in lines} - sys.stdlib_module_names
    assert modules == {"numpy", "pandas", "pyarrow", "scipy"}


@pytest.mark.parametrize(("study", "scale"), PUBLISHED)
def test_the_published_numbers_are_found_again(study: str, scale: str) -> None:
    table = contents.published_table(ROOT, study, scale)
    published = json.loads(table.with_suffix(".claims.json").read_text())
    found = reanalyze(table, table.with_name("checks.parquet"))
    for claim, decided in published.items():
        again, numbers = found[claim], [*decided["parts"], *decided["explored"]]
        part = {(one["statistic"], one["subject"]): one for one in numbers}[again["statistic"], again["subject"]]
        assert (part["value"] is None) == (again["value"] is None), (claim, again, part)
        for key in ("value", "low", "high"):
            if again[key] is not None:
                assert part[key] == pytest.approx(again[key], rel=5e-4, abs=1e-15), (claim, key, again, part)
