"""The documentation: its links lead somewhere, its commands exist, its example works, its versions agree."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from checkouts import Checkout
from effective_lr.document import manuscript
from effective_lr.engine import contents, grid
from effective_lr.evidence.tidy import Tables
from shared import ROOT

PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("config/**/*.md")]
by_page = pytest.mark.parametrize("page", sorted(PAGES), ids=lambda page: str(page.relative_to(ROOT)))


@by_page
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@by_page
def test_commands_exist(page: Path) -> None:
    targets = re.findall(r"^([a-z_%-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    patterns = [target.replace("%", r"\w+") for target in targets]
    asked = re.findall(r"`make ([a-z]\w*(?:-\w+)*)", page.read_text())
    assert [name for name in asked if not any(re.fullmatch(pattern, name) for pattern in patterns)] == []

    scales = {scale for study in contents.names() for scale in grid.scales(ROOT / "config" / study)} | {"signs"}
    chapters = contents.load_chapters(ROOT, grid.load_config({}))
    known = {"all", "paper", "notebooks", "explore", "report", *chapters, "quadratic"}
    known |= set(contents.target_names(chapters).values())
    known |= {f"claim_{name}" for chapter in chapters.values() for name in chapter.claims}
    placed = manuscript.scan(ROOT / "paper", list(chapters), ROOT)
    known |= {name for kind in ("figure", "table") for name in placed.numbered(kind)}
    named = re.findall(r"\bsnakemake ([a-z]\w+)(?= --cores|`)", page.read_text())
    assert [name for name in named if name not in known] == []
    assert set(re.findall(r"\b(?:scale=|SCALE=)([a-z]\w*)", page.read_text())) <= scales


def test_the_numbers_of_trainings_are_those_of_the_grids() -> None:
    counts = {}
    for scale in ("smoke", "laptop"):
        chapters = contents.load_chapters(ROOT, grid.load_config({"scale": scale})).values()
        counts[scale] = sum(len(chapter.runs_of(list(chapter.experiments))) for chapter in chapters)
    reviewers = (ROOT / "docs/reviewers.md").read_text()
    assert f"{counts['smoke']:,} tiny trainings" in reviewers and f"{counts['laptop']:,} runs to train" in reviewers


def test_versions_agree() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == version
    changed = re.search(r"^## (\S+) \((\S+)\)", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert changed and changed.groups() == (version, str(citation["date-released"]))


def test_citation_has_what_the_format_asks_for() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["references"][0]["url"] == "https://arxiv.org/abs/1706.05350"


def test_pull_requests_run_the_test_command_and_compare_what_is_drawn() -> None:
    text = (ROOT / ".github/workflows/ci.yml").read_text()
    assert {"run": "make test"} in yaml.safe_load(text)["jobs"]["test"]["steps"]
    drawn = grid.load_config({"metrics": "published"}).results
    assert set(re.findall(r"paper/build/([\w-]+)", text)) == {drawn}


def block(text: str, language: str) -> str:
    """The first fenced block of a language."""
    found = re.search(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


def test_the_example_of_a_new_optimizer_works(tmp_path: Path) -> None:
    if not Path("/usr/share/datasets/fashion-mnist").exists():
        pytest.skip("no Fashion-MNIST: install the Debian package dataset-fashion-mnist")
    example = (ROOT / "CONTRIBUTING.md").read_text().partition("### Example: SignSGD")[2]
    checkout = Checkout.new(tmp_path / "copy")
    subprocess.run(["git", "apply", "-"], cwd=checkout.root, input=block(example, "diff"), text=True, check=True)
    (checkout.root / "config/normalization/signs.yaml").write_text(block(example, "yaml"))
    command = block(example, "sh").replace("--cores all", "--cores 1").split()
    assert command.pop(0) == "snakemake"
    result = checkout.snakemake(*command)
    assert result.returncode == 0, result.stdout + result.stderr
    folder = checkout.root / "results/signs/normalization/experiments"
    runs = Tables(sorted(folder.glob("signsgd.*.parquet"))).runs()
    assert set(runs["optimizer"]) == {"signsgd"} and len(runs) == 4
    assert runs["test_error"].between(0, 1).all()


def test_the_archive_unpacks_and_draws(tmp_path: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("an archive has no history to make an archive of")
    archive = ["git", "archive", "--prefix=bundle/", f"--output={tmp_path}/bundle.tar.gz", "HEAD"]
    subprocess.run(archive, cwd=ROOT, check=True)
    subprocess.run(["tar", "-xf", "bundle.tar.gz"], cwd=tmp_path, check=True)
    words = ["growth", "--cores", "1", "--config", "metrics=published"]
    drawn = Checkout(tmp_path / "bundle").snakemake(*words)
    assert drawn.returncode == 0, drawn.stdout + drawn.stderr
    assert list((tmp_path / "bundle/paper/build").glob("published*/normalization/growth.pdf"))
