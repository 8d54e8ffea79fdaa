"""From shards to the tidy tables of an experiment."""

import json
from pathlib import Path

import pandas as pd
import pytest

from effective_lr.__main__ import main
from effective_lr.engine import storage
from effective_lr.errors import UserError
from effective_lr.evidence.tidy import Experiment, Tables, gather
from effective_lr.studies.normalization.data import Splits
from shared import STUDY, make_run, train_or_reuse


def test_gathered_tables_hold_results_settings_and_the_effective_lr(single: Splits, tmp_path: Path) -> None:
    runs = [make_run(optimizer=optimizer, l2=l2) for optimizer in ("sgd", "adam") for l2 in (0.0, 0.01)]
    paths = []
    for number, run in enumerate(runs):
        table, provenance = train_or_reuse(run, single, tmp_path / "cache")
        paths.append(tmp_path / f"{number}.parquet")
        storage.write_table(storage.with_provenance(table, [provenance]), paths[-1])
    metrics, lines = gather(STUDY, paths, [run.run_id for run in runs[1:]])
    assert lines["run_id"].tolist() == [run.run_id for run in runs[1:]]
    assert set(metrics["run_id"]) == set(lines["run_id"])
    for run, line in zip(runs[1:], lines.itertuples(), strict=True):
        own = metrics[metrics["run_id"] == run.run_id]
        assert line.lr == run.lr and line.seconds > 0
        assert line.test_error == pytest.approx(own.loc[own["quantity"] == "test_error", "value"].mean())
        norms = own[own["quantity"] == "norm_squared"].set_index(["step", "layer"])["value"] ** 0.5
        expected = run.lr / (norms**2 if run.optimizer == "sgd" else norms)
        found = own[own["quantity"] == "effective_lr"].set_index(["step", "layer"])["value"]
        pd.testing.assert_series_equal(found, expected, check_names=False)
    with pytest.raises(UserError, match=runs[3].run_id):
        gather(STUDY, paths[:1], [runs[3].run_id])

    # By the command line, and back from its files.
    files = {name: tmp_path / f"mine.{name}.parquet" for name in ("metrics", "runs")}
    words = ["gather", "--study", STUDY.name, "--run-ids", json.dumps([run.run_id for run in runs[1:]])]
    words += ["--metrics", str(files["metrics"]), "--runs", str(files["runs"]), "--shards", *map(str, paths)]
    assert main(words) == 0
    read = Tables(list(files.values()))["mine"]
    assert len(read.metrics) == len(metrics) and read.runs["test_error"].tolist() == lines["test_error"].tolist()


def test_runs_of_several_experiments_are_counted_once() -> None:
    one, other = (pd.DataFrame({"run_id": names}) for names in (["a", "b"], ["b", "c"]))
    tables = Tables.of({"one": Experiment(pd.DataFrame(), one), "other": Experiment(pd.DataFrame(), other)})
    assert tables.runs()["run_id"].tolist() == ["a", "b", "c"]
    assert tables.runs("other")["run_id"].tolist() == ["b", "c"]
