"""contents.yaml and claims.yaml: what they may say, and which runs they rest on."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from effective_lr.engine import contents, grid
from effective_lr.engine.explain import read_yaml
from effective_lr.engine.study import names
from effective_lr.errors import UserError
from shared import ROOT, STUDY, copy_repository

PART = {"subject": "sgd", "statistic": "slope", "within": [0.85, 1.15]}
CLAIM = {"title": "", "claim": "", "original": "", "experiments": [], "shown": "", "reason": "", "parts": [PART]}


@pytest.mark.parametrize(
    ("name", "scale"), [(name, scale) for name in names() for scale in grid.scales(ROOT / "config" / name)]
)
def test_every_chapter_loads_at_every_scale(name: str, scale: str) -> None:
    chapter = contents.load_chapter(ROOT, name, scale)
    shown = {**chapter.contents.figures, **chapter.contents.tables}
    assert shown and {claim.shown for claim in chapter.claims.values()} <= shown.keys()
    for item in shown.values():
        assert set(chapter.experiments_of(item)) <= chapter.experiments.keys()


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3\n", "x:\n  a: 1\n  b: {}\n  a: 3\n"])
def test_a_key_that_stands_twice_is_refused_with_both_lines(text: str, tmp_path: Path) -> None:
    (tmp_path / "file.yaml").write_text(text)
    lines = [str(number) for number, line in enumerate(text.splitlines(), start=1) if line.strip().startswith("a:")]
    with pytest.raises(UserError) as refusal:
        read_yaml(tmp_path / "file.yaml", "keys")
    told = str(refusal.value)
    assert "'a'" in told and all(line in told.partition("file.yaml")[2] for line in lines), told


def test_equal_keys_of_different_mappings_are_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "file.yaml").write_text("x: {a: 1}\ny: {a: 2}\n")
    assert read_yaml(tmp_path / "file.yaml", "keys") == {"x": {"a": 1}, "y": {"a": 2}}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"parts": [{**PART, "within": [1.15, 0.85]}]}, ["within", "1.15", "0.85"]),
        ({"parts": [{**PART, "within": [1.15]}]}, ["within"]),
        ({"parts": [{**PART, "whitin": 3}]}, ["whitin", "'within'"]),
        ({"tittle": ""}, ["tittle", "'title'"]),
    ],
)
def test_a_mistake_in_a_claim_is_named(changes: dict[str, Any], told: list[str], tmp_path: Path) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump({"X1": CLAIM}))
    assert list(contents.load_claims(path)) == ["X1"]
    path.write_text(yaml.safe_dump({"X1": {**CLAIM, **changes}}))
    with pytest.raises(UserError) as refusal:
        contents.load_claims(path)
    assert all(part in str(refusal.value) for part in [str(path), "X1", *told]), refusal.value


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_repository(tmp_path_factory.mktemp("contents") / "repository")


@pytest.mark.parametrize(
    ("file", "kind", "changes", "told"),
    [
        ("contents.yaml", "figures", {"experiments": ["plain_sgd"]}, ["plain_sgd"]),
        ("contents.yaml", "tables", {"claims": ["C99"]}, ["C99", "C1"]),
        ("contents.yaml", "notebooks", {"data_of": "plain_sgd"}, ["plain_sgd"]),
        ("claims.yaml", None, {"experiments": ["plain_sgd"]}, ["plain_sgd"]),
        ("claims.yaml", None, {"shown": "plain"}, ["shown = 'plain'", "plane"]),
    ],
)
def test_what_is_named_must_be_there(
    repository: Path, file: str, kind: str | None, changes: dict[str, Any], told: list[str]
) -> None:
    path = repository / "paper" / STUDY.name / file
    text = path.read_text()
    whole = yaml.safe_load(text)
    items = whole[kind] if kind else whole
    name = next(iter(items))
    items[name].update(changes)
    path.write_text(yaml.safe_dump(whole))
    try:
        with pytest.raises(UserError) as refusal:
            contents.load_chapter(repository, STUDY.name, "smoke")
    finally:
        path.write_text(text)
    assert all(part in str(refusal.value) for part in [name, *told]), refusal.value


def test_the_first_view_is_a_figure_of_the_study(repository: Path) -> None:
    path = repository / "paper" / STUDY.name / "contents.yaml"
    text = path.read_text()
    path.write_text(text.replace("first_view: plane\n", "first_view: plain\n"))
    try:
        with pytest.raises(UserError) as refusal:
            contents.load_chapter(repository, STUDY.name, "smoke")
    finally:
        path.write_text(text)
    assert all(part in str(refusal.value) for part in ["contents.yaml", "first_view = 'plain'", "plane"])


def test_published_metrics_of_a_scale_that_is_not_published_are_refused(repository: Path) -> None:
    with pytest.raises(UserError, match=r"published.*'smoke'.*study"):
        contents.load_chapters(repository, grid.load_config({"metrics": "published", "scale": "smoke"}))
    assert STUDY.name in contents.load_chapters(repository, grid.load_config({"metrics": "published"}))
    with pytest.raises(UserError, match=r"scale = 'smok'.*smoke"):
        contents.load_chapters(repository, grid.load_config({"scale": "smok"}))


def test_targets_of_two_studies_never_have_one_name() -> None:
    chapter = contents.load_chapter(ROOT, STUDY.name, "smoke")
    shown = {**chapter.contents.figures, **chapter.contents.tables}
    alone = contents.target_names({"one": chapter})
    assert {item for (_, item), target in alone.items() if target == item} == set(shown) - set(contents.SHARED_TABLES)
    both = contents.target_names({"one": chapter, "two": chapter})
    assert len(set(both.values())) == len(both) == 2 * len(shown)
