"""The worked example of CONTRIBUTING.md: a study that is added as folders of its own, and nothing else is edited."""

import json
import re
from pathlib import Path

import pytest
from pypdf import PdfReader

from checkouts import Checkout
from shared import ROOT

STUDY = "quadratic"
FOLDER = f"workflow/effective_lr/studies/{STUDY}"


def example() -> dict[str, str]:
    """The files that the page writes out, each below its name."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    return dict(re.findall(r"^`([\w/.]+)`:\n\n```\w+\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL))


def add_study(checkout: Checkout) -> None:
    files = example()
    assert len(files) > 6
    for name, content in files.items():
        path = checkout.root / name
        assert STUDY in path.parts and not path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


@pytest.fixture
def with_study(finished: Checkout) -> Checkout:
    """A copy in which stand-ins made everything, the new study included."""
    add_study(finished)
    finished.build()
    return finished


def test_it_plans_its_own_jobs_and_what_shows_all_studies(finished: Checkout) -> None:
    add_study(finished)
    plan = finished.planned("paper")
    assert {job.split("/")[0] for jobs in plan.values() for job in jobs} == {STUDY, ""}
    assert {rule for rule, jobs in plan.items() if "" in jobs} == {"frame", "pdf", "paper"}
    assert {"train", "gather", "claim", "figure", "numbers"} <= plan.keys()


def test_an_edit_of_its_training_plans_its_runs_only(with_study: Checkout) -> None:
    with_study.append(f"{FOLDER}/training.py", "EDITED = 1\n")
    plan = with_study.planned()
    shards = {path.stem for path in (with_study.root / f"results/smoke/{STUDY}/shards").glob("*.parquet")}
    assert plan["train"] == {f"{STUDY}/{shard}" for shard in shards} and shards
    assert {job.split("/")[0] for jobs in plan.values() for job in jobs} == {STUDY, ""}


def test_an_edit_of_its_figures_draws_no_other_study(with_study: Checkout) -> None:
    with_study.append(f"{FOLDER}/figures.py", "EDITED = 1\n")
    plan = with_study.planned()
    assert set(plan) == {"figure", "pdf", "all"}
    assert {job.split("/")[0] for job in plan["figure"]} == {STUDY}


def test_it_appears_in_the_paper_the_targets_and_the_report(smoke: Checkout, tmp_path: Path) -> None:
    checkout = smoke.copy(tmp_path / "copy")
    add_study(checkout)
    checkout.build("report")
    title = re.search(r'title="(.+)"', example()[f"{FOLDER}/__init__.py"])
    assert title
    assert title[1] in (listing := checkout.snakemake("--list-target-rules").stdout) and f"\n{STUDY} " in listing

    [verdict] = [json.loads(path.read_text()) for path in (checkout.root / f"results/smoke/{STUDY}").glob("claims/*")]
    assert verdict["verdict"] == "reproduced"
    text = "".join(page.extract_text() for page in PdfReader(checkout.root / "paper/build/smoke/main.pdf").pages)
    assert title[1] in text and verdict["title"] in text and "??" not in text
    value = f"{verdict['parts'][0]['value']:.2f}"
    assert re.search(rf"{value}\s*\[", text)  # in its sentence

    checkout.build("report", "--report", str(tmp_path / "report.html"))
    report = (tmp_path / "report.html").read_text()
    assert f'"study": "{STUDY}"' in report and f"build/smoke/{STUDY}/claims.html" in report
