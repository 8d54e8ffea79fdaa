"""The documentation: its links lead somewhere, its commands exist, its example works, its versions agree."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from effective_lr import grid

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "config/README.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text())
    missing = [link for link in links if not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page: Path) -> None:
    targets = re.findall(r"^([a-z_%-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    patterns = [target.replace("%", r"\w+") for target in targets]
    asked = re.findall(r"`make ([a-z]\w*(?:-\w+)*)", page.read_text())
    unknown = [name for name in asked if not any(re.fullmatch(pattern, name) for pattern in patterns)]
    assert unknown == []


def test_the_numbers_of_trainings_are_those_of_the_grids() -> None:
    counts = {}
    for name in ("smoke", "laptop", "study", "paper"):
        experiments = grid.load_scale(ROOT / "config/scales", name).runs().values()
        counts[name] = f"{len({run.run_id for runs in experiments for run in runs}):,}"
    readme, reviewers = ((ROOT / name).read_text() for name in ("README.md", "docs/reviewers.md"))
    for name in ("laptop", "study", "paper"):
        assert f"{counts[name]} trainings" in readme, name
    assert f"{counts['smoke']} tiny trainings" in reviewers and f"{counts['laptop']} runs to train" in reviewers


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


def test_hooks_are_the_linters_of_make_test() -> None:
    recipe = (ROOT / "Makefile").read_text().split("\ntest: ")[1].split("\n\n")[0]
    linters = [line.strip() for line in recipe.splitlines() if not re.search(r"test|activate", line)]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert {hook["entry"] for hook in hooks} == {line.removesuffix(" Snakefile workflow/rules") for line in linters}


def test_pull_requests_run_the_test_command() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    assert {"run": "make test"} in jobs["test"]["steps"]


def copy(folder: Path) -> Path:
    """A copy of the repository without what is generated."""
    skip = shutil.ignore_patterns(
        ".git", ".venv", ".snakemake", "build", "data", "dist", "results", "__pycache__", ".*_cache"
    )
    shutil.copytree(ROOT, folder, ignore=skip)
    shutil.copytree(ROOT / "results/published", folder / "results/published")
    return folder


def block(language: str, number: int = 0) -> str:
    """A fenced block of CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)[number]


def test_the_worked_example_works(tmp_path: Path) -> None:
    if not Path("/usr/share/datasets/fashion-mnist").exists():
        pytest.skip("no Fashion-MNIST: install the Debian package dataset-fashion-mnist")
    root = copy(tmp_path / "copy")
    subprocess.run(["git", "apply", "-"], cwd=root, input=block("diff"), text=True, check=True)
    (root / "config/scales/signs.yaml").write_text(block("yaml"))
    command = block("sh", -1).strip()
    assert command.startswith("snakemake ")
    result = subprocess.run(
        f"{sys.executable} -m {command.replace('--cores all', '--cores 1')}",
        shell=True,
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    from effective_lr.analysis import Tables  # of this checkout: it only reads the table

    folder = root / "results/signs/experiments"
    runs = Tables([folder / "signsgd.runs.parquet", folder / "signsgd.metrics.parquet"]).runs()
    assert set(runs["optimizer"]) == {"signsgd"} and len(runs) == 4
    assert (runs["samples_per_second"] > 0).all() and runs["test_error"].between(0, 1).all()


def test_the_archive_unpacks_and_plans(tmp_path: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("an archive has no history to make an archive of")
    subprocess.run(
        ["git", "archive", "--prefix=bundle/", f"--output={tmp_path}/bundle.tar.gz", "HEAD"], cwd=ROOT, check=True
    )
    subprocess.run(["tar", "-xf", "bundle.tar.gz"], cwd=tmp_path, check=True)
    plan = subprocess.run(
        [sys.executable, "-m", "snakemake", "figure_7", "--cores", "1", "--config", "metrics=published"],
        cwd=tmp_path / "bundle",
        capture_output=True,
        text=True,
    )
    assert plan.returncode == 0, plan.stdout + plan.stderr
    assert (tmp_path / "bundle/paper/build/published/figure_7.pdf").exists()
