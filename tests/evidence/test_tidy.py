"""From tables of training jobs to the tidy tables of an experiment."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from effective_lr.engine import storage
from effective_lr.engine.storage import Result
from effective_lr.errors import UserError
from effective_lr.evidence import tidy
from effective_lr.studies.normalization.data import Splits
from effective_lr.studies.normalization.settings import Run
from shared import STUDY, chapter_of, make_run, train_or_reuse

RUNS = [make_run(optimizer=optimizer, l2=l2) for optimizer in ("sgd", "adam") for l2 in (0.0, 0.01)]


@pytest.fixture(scope="module")
def trained(single: Splits, tmp_path_factory: pytest.TempPathFactory) -> dict[Run, Result]:
    return {run: train_or_reuse(run, single, tmp_path_factory.mktemp("cache")) for run in RUNS}


def write(results: list[Result], folder: Path) -> list[Path]:
    """The tables of jobs of one run each."""
    paths = [folder / f"{number}.parquet" for number in range(len(results))]
    for (table, provenance), path in zip(results, paths, strict=True):
        storage.write_table(table, [provenance], path)
    return paths


def test_tidy_tables_hold_results_settings_and_the_effective_lr(trained: dict[Run, Result], tmp_path: Path) -> None:
    paths, chapter = write(list(trained.values()), tmp_path), chapter_of({"one": RUNS[1:], "other": RUNS[:2]})
    tables = tidy.read(chapter, paths)
    metrics, lines = tables["one"]
    assert lines["run_id"].tolist() == [run.run_id for run in RUNS[1:]]
    assert set(metrics["run_id"]) == set(lines["run_id"])
    for run, line in zip(RUNS[1:], lines.itertuples(), strict=True):
        own = metrics[metrics["run_id"] == run.run_id]
        assert line.lr == run.lr and line.seconds > 0
        assert line.test_error == pytest.approx(own.loc[own["quantity"] == "test_error", "value"].mean())
        norms = own[own["quantity"] == "norm_squared"].set_index(["step", "layer"])["value"] ** 0.5
        expected = run.lr / (norms**2 if run.optimizer == "sgd" else norms)
        found = own[own["quantity"] == "effective_lr"].set_index(["step", "layer"])["value"]
        pd.testing.assert_series_equal(found, expected, check_names=False)
    assert sorted(tables.runs()["run_id"]) == sorted(run.run_id for run in RUNS)  # each once
    assert tables.runs("other")["run_id"].tolist() == [run.run_id for run in RUNS[:2]]
    assert list(tidy.read(chapter, paths[:2], ["other"])) == ["other"]
    with pytest.raises(UserError, match=RUNS[3].run_id):
        tidy.read(chapter, paths[:3])


def test_runs_without_their_optional_data_leave_empty_tables() -> None:
    chapter = chapter_of({"one": RUNS})
    optional = replace(chapter, study=replace(STUDY, optional_data=frozenset(["fashion-mnist-14"])))
    metrics, runs = tidy.read(optional, [])["one"]
    assert metrics.empty and runs.empty and {"seed", "torch", "test_error"} <= set(runs.columns)
    with pytest.raises(UserError, match=RUNS[0].run_id):
        tidy.read(chapter, [])


def test_runs_of_two_versions_of_pytorch_that_meet_are_named_once(
    trained: dict[Run, Result], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tidy.warn_of_versions.cache_clear()

    def warned(*versions: str) -> str:
        results = [
            (table, provenance.model_copy(update={"versions": {"python": "3.11.2", "torch": version}}))
            for (table, provenance), version in zip(trained.values(), versions, strict=False)
        ]
        tidy.read(chapter_of({"one": RUNS[: len(versions)]}), write(results, tmp_path))
        return capsys.readouterr().err

    assert warned("2.14.1", "2.14.0") == ""  # differ in the patch alone
    assert "normalization trained with PyTorch 2.14 and 2.9 are shown together" in warned("2.9.0", "2.14.1")
    assert warned("2.14.1", "2.9.0") == ""
