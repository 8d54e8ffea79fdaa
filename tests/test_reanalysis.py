"""The published verdicts rest on numbers that reanalysis.py, which shares no code with the package, finds again."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from effective_lr.engine import contents
from effective_lr.engine.storage import with_provenance, write_table
from shared import ROOT, make_run, train_or_reuse

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


def test_runs_of_the_present_code_have_what_the_script_reads(single: Any, tmp_path: Path) -> None:
    """A small run of each kind that it asks for; too small to count, but none is taken for missing."""
    plain: dict[str, Any] = {"affine_lr": 0.1, "norm_eps": 1e-5}
    adam = {"optimizer": "adam", "affine_lr": 0.003, "norm_eps": 1e-5}
    kinds: list[dict[str, Any]] = [
        {**plain, "label_noise": 0.2, "l2": 0.0, "seed": 300},
        {**plain, "label_noise": 0.2, "l2": 0.1, "seed": 300},
        {**plain, "label_noise": 0.2, "l2": 0.1, "replay": "slow", "seed": 300},
        {**adam, "layer_l2": "inverse_size", "l2": 0.1, "starts_at_equilibrium": True, "seed": 300},
        {**plain, "l2": 0.004, "lr": 0.16},
        {**plain, "l2": 0.0, "norm_eps": 1e-12},
        {**adam, "lr": 0.009, "l2": 0.008573},
        {**plain, "l2": 0.004, "affine_l2": "none"},
        {**plain, "l2": 0.004, "affine_l2": "hidden"},
    ]
    for fraction in (0.25, 0.5, 0.8, 0.9):
        kinds.append({**plain, "projected": True, "lr": 0.16, "l2": round(fraction * 3.125, 6)})
        kinds.append({**plain, "projected": True, "lr": round(0.16 / (1 - fraction), 12), "l2": 0.0})
    files = []
    for number, kind in enumerate(kinds):
        table, provenance = train_or_reuse(make_run(**kind), single, tmp_path / "cache")
        files.append(tmp_path / f"{number}.parquet")
        write_table(with_provenance(table, [provenance]), files[-1])
    checks = tmp_path / "checks.parquet"
    pd.DataFrame({"check": ["invariance"], "subject": ["batch"], "value": [1e-14]}).to_parquet(checks)
    found = reanalyze(*files, checks)
    missing = {name: answer["why"] for name, answer in found.items() if not answer["is_there"]}
    assert missing == {"C3": "no check norm_exponent"}  # which the table of checks here has not
