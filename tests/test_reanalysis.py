"""The published verdicts rest on numbers that reanalysis.py, which shares no code with the package, finds again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from effective_lr.engine import contents
from shared import ROOT

SCRIPT = Path(__file__).with_name("reanalysis.py")
PUBLISHED = [
    (study, scale) for study in ("normalization", "manifold") for scale in contents.published_scales(ROOT, study)
]


@pytest.mark.parametrize(("study", "scale"), PUBLISHED)
def test_the_published_numbers_are_found_again(study: str, scale: str) -> None:
    table = contents.published_table(ROOT, study, scale)
    published = json.loads(table.with_suffix(".claims.json").read_text())
    command = [sys.executable, "-I", SCRIPT, table, table.with_name("checks.parquet")]  # -I: without the package
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    for claim, decided in published.items():
        again, numbers = found[claim], [*decided["parts"], *decided["explored"]]
        part = {(one["statistic"], one["subject"]): one for one in numbers}[again["statistic"], again["subject"]]
        assert (part["value"] is None) == (again["value"] is None), (claim, again, part)
        for key in ("value", "low", "high"):
            if again[key] is not None:
                assert part[key] == pytest.approx(again[key], rel=5e-4, abs=1e-15), (claim, key, again, part)
