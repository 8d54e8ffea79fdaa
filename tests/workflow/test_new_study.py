"""The examples that CONTRIBUTING.md links: a study in folders of its own, and a new optimizer."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from pypdf import PdfReader

from checkouts import Checkout
from effective_lr.engine.storage import read_table
from shared import ROOT

EXAMPLE = ROOT / "tests" / "example_study"
STUDY, TITLE = "quadratic", "Gradient descent on a noisy parabola"


def add_study(checkout: Checkout) -> None:
    for path in EXAMPLE.rglob("*.*"):
        assert STUDY in path.parts and not (checkout.root / path.relative_to(EXAMPLE)).exists()
    shutil.copytree(EXAMPLE, checkout.root, dirs_exist_ok=True)


def test_it_plans_its_own_jobs_and_what_shows_all_studies(finished: Checkout) -> None:
    add_study(finished)
    plan = finished.planned("paper")
    own = {rule for rule, jobs in plan.items() if {job.split("/")[0] for job in jobs} == {STUDY}}
    assert own == {"train", "checks", "figure", "chapter"}
    assert (
        {rule for rule, jobs in plan.items() if jobs == {""}}
        == {"verdicts_figure", "pdf", "paper"}
        == plan.keys() - own
    )


def test_it_appears_in_the_targets_and_in_the_paper(smoke: Checkout, tmp_path: Path) -> None:
    checkout = smoke.copy(tmp_path / "copy")
    add_study(checkout)
    checkout.build()
    assert f"\n{STUDY} ({TITLE}" in checkout.snakemake("--list-target-rules").stdout
    [verdict] = json.loads((checkout.root / f"results/smoke/{STUDY}/claims.json").read_text()).values()
    assert verdict["verdict"] == "reproduced"
    text = "".join(page.extract_text() for page in PdfReader(checkout.root / "paper/build/smoke/main.pdf").pages)
    assert TITLE in text and verdict["title"] in text and "??" not in text
    assert re.search(rf"{verdict['parts'][0]['value']:.2f}\s*\[", text)  # in its sentence


JOBS = """
from pathlib import Path
from effective_lr.engine.inputs import Layout
print(*Layout.load(Path(), scale="signs").chapters["normalization"].jobs_of(["signsgd"]))
"""


def test_the_new_optimizer_trains(real: Checkout) -> None:
    subprocess.run(["git", "apply", ROOT / "tests/example_optimizer.diff"], cwd=real.root, check=True)
    found = []
    for job in real.run(sys.executable, "-c", JOBS, PYTHONPATH="workflow").stdout.split():
        words = ("--study", "normalization", "--scale", "signs", "--job", job, "--output", "one.parquet")
        trained = real.command("train", *words)
        assert trained.returncode == 0, trained.stdout
        found += [one for one in read_table(real.root / "one.parquet")[1] if one.run["optimizer"] == "signsgd"]
    assert len(found) == 4 and all(record.diverged is None for record in found if record.run["l2"] > 0)
