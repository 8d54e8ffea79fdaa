"""The records for others: CodeMeta, CODECHECK, checklists. That they are fresh is tested with the other pages."""

import json
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from effective_lr.document import records
from effective_lr.document.pages import PUBLISHED_SCALE
from effective_lr.engine import contents, grid
from effective_lr.errors import UserError
from effective_lr.evidence.published import read_claims
from shared import ROOT

CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())


def test_codemeta_says_what_the_citation_and_the_project_say() -> None:
    found = json.loads(records.codemeta(ROOT))
    assert found["@context"] == "https://w3id.org/codemeta/3.0" and found["@type"] == "SoftwareSourceCode"
    assert (found["name"], found["version"]) == (CITATION["title"], CITATION["version"])
    assert found["author"] == [{"@type": "Organization", "name": CITATION["authors"][0]["name"]}]
    required = {one["name"] + one["version"] for one in found["softwareRequirements"]}
    assert required == set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])
    assert len(found["referencePublication"]) == len(CITATION["references"])


def test_an_author_who_is_a_person_has_a_name_and_an_orcid() -> None:
    person = {"given-names": "Ada", "family-names": "Lovelace", "orcid": "https://orcid.org/0000-0002-1825-0097"}
    [found] = records.authors({"authors": [person]})
    assert found == {"@type": "Person", "@id": person["orcid"], "name": "Ada Lovelace"}


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """What codecheck.yml is made of, in a folder of its own."""
    shutil.copytree(ROOT / "paper", tmp_path / "paper", ignore=shutil.ignore_patterns("build"))
    shutil.copy(ROOT / "CITATION.cff", tmp_path)
    return tmp_path


def codecheck(root: Path) -> str:
    chapters = contents.load_chapters(ROOT, grid.load_config({"metrics": "published", "scale": PUBLISHED_SCALE}))
    claims = {name: read_claims(ROOT, name, PUBLISHED_SCALE) for name in chapters}
    return records.codecheck(root, PUBLISHED_SCALE, chapters, claims)


def test_codecheck_lists_what_the_paper_shows_and_the_verdicts(copied: Path) -> None:
    text = codecheck(copied)
    assert text.startswith("%YAML 1.1\n---\n")
    found = yaml.safe_load(text)
    assert found["version"] == "https://codecheck.org.uk/spec/config/1.0/"
    assert found["paper"]["title"] == CITATION["title"] and found["paper"]["authors"][0]["name"]
    manifest = {one["file"]: one["comment"] for one in found["manifest"]}
    assert manifest["paper/build/study/main.pdf"] == "The paper"
    plane = "Test error over the plane of learning rate and penalty"
    assert re.fullmatch(rf"Figure \d+: {plane}", manifest["paper/build/study/normalization/plane.pdf"])
    assert "Table 1: " in manifest["paper/build/study/paper/overview.tex"]
    claim = read_claims(ROOT, "norms", PUBLISHED_SCALE)["N4"]
    assert manifest["results/study/norms/claims/N4.json"].endswith(f"published as {claim['verdict']}")
    assert not any(Path(name).is_absolute() for name in manifest)


def test_codecheck_invents_no_codechecker_and_keeps_the_one_who_wrote_in_it(copied: Path) -> None:
    text = codecheck(copied)
    person = {"codechecker", "report", "summary", "repository", "check_time", "certificate"}
    assert person.isdisjoint(yaml.safe_load(text)) and all(f"# {key}:" in text for key in person)
    before, mark, _ = text.partition(records.BY_HAND)
    written = f"{before}{mark}\ncodechecker:\n  - name: Ada Lovelace\n"
    (copied / "codecheck.yml").write_text(written.replace("The paper\n", "An old comment\n"))
    assert codecheck(copied) == written
    assert yaml.safe_load(written)["codechecker"] == [{"name": "Ada Lovelace"}]


def checklist(folder: Path, answers: Any) -> list[list[str]]:
    path = folder / "checklists.yaml"
    path.write_text(json.dumps({"List": {"about": "About it.", "items": {"Hardware": answers}}}))
    [(_, _, rows)] = records.checklists(path, {"cores": "2"})
    return rows


def test_answers_are_filled_and_marked(tmp_path: Path) -> None:
    rows = checklist(tmp_path, {"from data": "{cores} cores", "by hand": "and a fan"})
    assert rows == [["Hardware", "2 cores", "from data"], ["", "and a fan", "by hand"]]


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ({"from data": "two cores"}, ["List: Hardware: from data", "two cores"]),
        ({"by hand": "{cores} cores"}, ["List: Hardware: by hand", "{cores} cores"]),
        ({"from data": "{disks} disks"}, ["{disks}", "expected one of cores"]),
        ({"by heart": "two"}, ["by heart", "from data, by hand"]),
    ],
)
def test_an_answer_with_a_false_mark_is_refused(tmp_path: Path, answers: dict[str, str], told: list[str]) -> None:
    with pytest.raises(UserError) as error:
        checklist(tmp_path, answers)
    assert all(text in str(error.value) for text in told)


def test_the_checklists_are_whole() -> None:
    found = yaml.safe_load((ROOT / "docs/checklists.yaml").read_text())
    items = {title: list(content["items"]) for title, content in found.items()}
    assert [item.split()[0] for item in items["NeurIPS paper checklist"]] == [str(number) for number in range(1, 17)]
    modules = ["abc", "abcde", "abcdefg", "abc", "abcdef", "abc", "abc", "ab"]
    reforms = [f"{number}{letter}" for number, letters in enumerate(modules, start=1) for letter in letters]
    assert [item.split()[0] for item in items["REFORMS"]] == reforms and len(reforms) == 32
