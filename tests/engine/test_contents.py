"""contents.yaml and claims.yaml: what they may hold, which runs they rest on, and where the files of these lie."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from effective_lr.engine import contents, grid
from effective_lr.engine.inputs import Layout
from effective_lr.engine.study import names
from effective_lr.errors import UserError
from shared import ROOT, STUDY

PART = {"subject": "sgd", "statistic": "slope", "within": [0.85, 1.15]}
CLAIM = {"title": "", "claim": "", "original": "", "experiments": [], "shown": "", "reason": "", "parts": [PART]}


def test_every_chapter_loads_at_every_scale_and_its_figures_train_what_they_show() -> None:
    for name in names():
        for scale in grid.scales(ROOT / "config" / name):
            chapter = contents.load_chapter(ROOT, name, scale)
            shown = chapter.contents.shown
            assert shown and {claim.shown for claim in chapter.claims.values()} <= shown.keys()
            for item in shown.values():
                assert set(chapter.experiments_of(item)) <= chapter.experiments.keys()
            assert len({run.run_id for run in chapter.runs}) == len(set(chapter.runs)) > 0
            in_jobs = [run.run_id for runs in chapter.jobs.values() for run in runs]
            assert sorted(in_jobs) == sorted(run.run_id for run in chapter.runs)
            for item in chapter.contents.figures.values() if scale != "smoke" else ():  # whose jobs are tiny
                experiments = chapter.experiments_of(item)
                trained = {run.run_id for job in chapter.jobs_of(experiments) for run in chapter.jobs[job]}
                assert trained == {run.run_id for run in chapter.runs_of(experiments)}, f"{scale}: {item.title}"


def test_a_mistake_in_a_claim_is_named(tmp_path: Path) -> None:
    path = tmp_path / "claims.yaml"
    check = {"subject": "sgd", "check": "exact", "within": [0, 1.0e-9], "seeds_from": 300}
    path.write_text(yaml.safe_dump({"X1": {**CLAIM, "parts": [PART, check]}}))
    parts = contents.load_claims(path)["X1"].parts
    assert [(part.name, part.check, part.seeds_from) for part in parts] == [
        ("slope", "", None),
        ("exact", "exact", 300),
    ]
    for changes, expected in [
        ({"parts": [{**PART, "within": [1.15, 0.85]}]}, ["X1.parts.0.within", "1.15", "0.85"]),
        ({"parts": [{**PART, "within": [1.15]}]}, ["within"]),
        ({"parts": [{**PART, "whitin": 3}]}, ["whitin: unknown key"]),
        ({"parts": [{**PART, "check": "exact"}]}, ["subject = 'sgd'", "either a statistic or a check"]),
        ({"explored": [{"subject": "sgd"}]}, ["subject = 'sgd'", "either a statistic or a check"]),
        ({"parts": [{**PART, "planned": {"seeds": 9}}]}, ["planned.deviation", "missing"]),
        ({"tittle": ""}, ["tittle: unknown key"]),
    ]:
        path.write_text(yaml.safe_dump({"X1": {**CLAIM, **changes}}))
        with pytest.raises(UserError) as refusal:
            contents.load_claims(path)
        assert all(part in str(refusal.value) for part in [f"{path}: X1.", *expected]), refusal.value


def test_what_is_named_must_be_there(tmp_path: Path) -> None:
    """In a repository of one study, whose first item of a kind names what no file has."""
    for folder in ("config", "paper"):
        (tmp_path / folder / STUDY.name).mkdir(parents=True)
        for path in (ROOT / folder / STUDY.name).glob("*.yaml"):
            (tmp_path / folder / STUDY.name / path.name).write_text(path.read_text())
    mistakes: list[tuple[str, str, dict[str, Any], list[str]]] = [
        ("contents.yaml", "figures", {"experiments": ["plain_sgd"]}, ["experiments of config", "'plain_sgd'"]),
        ("contents.yaml", "tables", {"claims": ["C99"]}, ["claims = 'C99'", "C1"]),
        ("contents.yaml", "tables", {"claim": ["C1"]}, ["claim: unknown key"]),
        ("contents.yaml", "notebooks", {"data_of": "plain_sgd"}, ["'plain_sgd'"]),
        ("contents.yaml", "", {"first_view": "plain"}, ["first_view = 'plain'", "plane"]),
        ("claims.yaml", "C1", {"experiments": ["plain_sgd"]}, ["experiments of config/normalization/smoke.yaml"]),
        ("claims.yaml", "C1", {"shown": "plain"}, ["shown = 'plain'", "plane"]),
    ]
    for file, kind, changes, expected in mistakes:
        path = tmp_path / "paper" / STUDY.name / file
        text = path.read_text()
        whole = yaml.safe_load(text)
        items = whole[kind] if kind else whole
        (items if kind in ("", "C1") else next(iter(items.values()))).update(changes)
        path.write_text(yaml.safe_dump(whole))
        with pytest.raises(UserError) as refusal:
            contents.load_chapter(tmp_path, STUDY.name, "smoke")
        assert all(part in str(refusal.value) for part in [file, *expected]), refusal.value
        path.write_text(text)


def test_a_layout_has_the_studies_of_its_scale_and_refuses_one_that_nobody_has() -> None:
    layout = Layout.load(ROOT, scale="smoke", metrics="")
    assert list(layout.chapters) == sorted(names(), key=lambda name: layout.chapters[name].contents.order)
    assert STUDY.name in Layout.load(ROOT, scale="", metrics="published").chapters
    with pytest.raises(UserError, match=r"published.*'smoke'.*study"):
        Layout.load(ROOT, scale="smoke", metrics="published")
    with pytest.raises(UserError, match=r"scale = 'smok'.*smoke"):
        Layout.load(ROOT, scale="smok")


def test_what_is_made_lies_in_the_working_directory_and_what_is_published_in_the_repository() -> None:
    layout = Layout.load(ROOT, scale="smoke")
    for study, chapter in layout.chapters.items():
        assert layout.tables(study) == [Path(f"results/smoke/{study}/jobs/{name}.parquet") for name in chapter.jobs]
        for name, notebook in chapter.contents.notebooks.items():
            given = json.loads(layout.notebook_parameters(study, name))
            assert (given["scale"], given["metrics"]) == ("smoke", "recompute")
            assert ("tensors" in given) == (notebook.data_of is not None)
    published = Layout.load(ROOT, metrics="published")
    for study in published.chapters:
        folder = ROOT / "results/published" / study
        assert published.tables(study) == [folder / "study.parquet"] == published.tables(study, [])
        assert published.claims(study) == Path("results/published-study", study, "claims.json")
        assert published.all_published_claims(study)["study"] == folder / "study.claims.json"


def test_what_was_measured_here_goes_before_what_is_published_and_is_left_out_of_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    published = ROOT / "results/published/normalization/benchmark.json"
    files = ["results/benchmark.json", str(published.relative_to(ROOT)), "results/published/nowhere.json"]
    item = contents.Item(title="", caption="", file=files)
    own, redrawn = Layout.load(ROOT, scale="smoke"), Layout.load(ROOT, metrics="published")
    assert own.measured(item) == redrawn.measured(item) == [published]
    Path("results").mkdir()
    Path("results/benchmark.json").write_text("{}")
    assert own.measured(item) == [Path("results/benchmark.json")] and redrawn.measured(item) == [published]
    assert own.measured(item.model_copy(update={"file": ["results/other.json"]})) == []


def test_targets_of_two_studies_never_have_one_name() -> None:
    chapter = contents.load_chapter(ROOT, STUDY.name, "smoke")
    both = contents.target_names({"one": chapter, "two": chapter})
    assert len(set(both.values())) == len(both) == 2 * len(chapter.contents.shown)
