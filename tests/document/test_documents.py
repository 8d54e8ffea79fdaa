"""The documentation: links, commands and versions; what is generated, is so; and a bundle of the repository draws."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from checkouts import Checkout
from effective_lr.document import generate_docs, manuscript
from effective_lr.engine import contents, grid
from effective_lr.engine.grid import Config
from effective_lr.engine.inputs import Layout
from effective_lr.engine.study import names
from shared import ROOT

PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("config/**/*.md")]


def test_links_lead_somewhere() -> None:
    def anchors(page: Path) -> set[str]:
        """As code hosts make them of headings."""
        titles = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
        return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}

    for page in PAGES:
        for path, anchor in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", page.read_text()):
            target = page.parent / path if path else page
            assert target.exists() and (not anchor or anchor in anchors(target)), f"{page}: {path}#{anchor}"


def test_commands_exist() -> None:
    make = re.findall(r"^([a-z_%-]+(?: [a-z_%-]+)*):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    patterns = [target.replace("%", r"\w+") for targets in make for target in targets.split()]
    scales = {scale for study in names() for scale in grid.scales(ROOT / "config" / study)}
    chapters = Layout.load(ROOT, scale="laptop").chapters
    known = {"all", "paper", "notebooks", "explore", "report", *chapters, "quadratic"}
    known |= set(contents.target_names(chapters).values())
    known |= {f"claim_{name}" for chapter in chapters.values() for name in chapter.claims}
    placed = manuscript.scan(ROOT / "paper", list(chapters), ROOT)
    known |= {name for kind in ("figure", "table") for name in placed.numbered(kind)}
    for page in PAGES:
        text = page.read_text() if page.name != "CHANGELOG.md" else ""  # which names commands of its time
        for name in re.findall(r"(?:`|^)make ([a-z]\w*(?:-\w+)*)", text, flags=re.MULTILINE):
            assert any(re.fullmatch(pattern, name) for pattern in patterns), f"{page}: make {name}"
        for name in re.findall(r"(?:`|^)snakemake ([a-z]\w+)(?= |`)", text, flags=re.MULTILINE):
            assert name in known, f"{page}: snakemake {name}"
        assert set(re.findall(r"\b(?:scale=|SCALE=)([a-z]\w*)", text)) <= scales, page


def test_versions_agree() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == version and {"cff-version", "message", "title", "authors"} <= citation.keys()
    changed = re.search(r"^## (\S+) \((\S+)\)", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert changed and changed.groups() == (version, str(citation["date-released"]))


def test_what_was_not_run_is_listed_with_its_resource() -> None:
    text, page = (ROOT / "tests/workflow/test_needs.py").read_text(), (ROOT / "docs/artifact.md").read_text()
    marked = re.findall(r'pytest\.mark\.needs\(\s*"([^"]+)", "([^"]+)"', text)
    assert marked and all(f"| {resource} | {what} |" in page for resource, what in marked)


def test_pull_requests_run_the_test_command_and_compare_what_is_drawn() -> None:
    text = (ROOT / ".github/workflows/ci.yml").read_text()
    assert {"run": "make test"} in yaml.safe_load(text)["jobs"]["test"]["steps"]
    drawn = grid.load_config(ROOT, {"metrics": "published"}).results
    assert set(re.findall(r"paper/build/([\w-]+)", text)) == {drawn}


def test_every_generated_file_is_as_its_source_makes_it() -> None:
    for path, text in generate_docs.generated().items():
        assert path.read_text() == text, f"{path}: type `make docs`"


def test_every_key_of_the_config_has_a_line_with_its_default() -> None:
    keys = (ROOT / "config" / "README.md").read_text()
    for key, field in Config.model_fields.items():
        assert f"| `{key}` |" in keys and (field.default is None or f"`{str(field.default).lower()}`" in keys)


def test_the_archive_unpacks_and_draws(tmp_path: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("an archive has no history to make an archive of")
    archive = ["git", "archive", "--prefix=bundle/", f"--output={tmp_path}/bundle.tar.gz", "HEAD"]
    subprocess.run(archive, cwd=ROOT, check=True)
    subprocess.run(["tar", "-xf", "bundle.tar.gz"], cwd=tmp_path, check=True)
    words = ["growth", "--cores", "1", "--config", "metrics=published"]
    drawn = Checkout(tmp_path / "bundle").snakemake(*words)
    assert drawn.returncode == 0, drawn.stdout
    assert list((tmp_path / "bundle/paper/build").glob("published*/normalization/growth.pdf"))
