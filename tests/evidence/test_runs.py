"""Questions about runs: conditions, tables, exports."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from effective_lr.engine import grid
from effective_lr.engine.code import training_key
from effective_lr.engine.contents import Chapter, Contents
from effective_lr.errors import UserError
from effective_lr.evidence import runs as questions
from effective_lr.evidence.tidy import Experiment
from effective_lr.studies.normalization.data import Splits
from shared import SMALL, STUDY, diverging_run, make_run, train_or_reuse

RUNS = [make_run(l2=l2, optimizer=optimizer) for l2 in (0.001, 0.01) for optimizer in ("sgd", "adam")]
DIVERGING = diverging_run()


@pytest.fixture(scope="module")
def finished(single: Splits, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """Five finished runs; a sixth is planned."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "fashion-mnist-14.json").write_text(json.dumps({"sha256": "data"}))
    for run in [*RUNS, DIVERGING]:
        train_or_reuse(run, single, folder / "runs", training_key(STUDY), "data")
    planned = [*RUNS, DIVERGING, make_run(seed=9)]
    scale = grid.Scale(about="", defaults=SMALL, experiments={})
    chapter = Chapter(STUDY, scale, {"all": planned}, grid.shards(planned), Contents(order=1), {})
    return questions.finished(chapter, folder, folder)


def answer(finished: Experiment, where: str = "", **exports: str) -> str:
    return questions.answer([STUDY], {STUDY.name: finished}, questions.conditions(where), **exports)


def ids(finished: Experiment, where: str) -> set[str]:
    return set(questions.select(finished.runs, questions.conditions(where))["run_id"])


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("optimizer=adam", {RUNS[1], RUNS[3]}),
        ("optimizer!=adam", {RUNS[0], RUNS[2], DIVERGING}),
        ("optimizer=adam l2=1e-3", {RUNS[1]}),
        ("l2<0.01", {RUNS[0], RUNS[1]}),
        ("l2<=0.01 l2>0.001", {RUNS[2], RUNS[3]}),
        ("l2>=0.01", {RUNS[2], RUNS[3], DIVERGING}),
        ("diverged=none", set(RUNS)),
        ("diverged>0", {DIVERGING}),
        ("device='CPU nowhere'", set()),
        ("test_error<=1 diverged=none", set(RUNS)),
        ("", {*RUNS, DIVERGING}),
    ],
)
def test_conditions_hold_together(finished: Experiment, where: str, expected: set[Any]) -> None:
    assert ids(finished, where) == {run.run_id for run in expected}


def test_the_table_shows_what_differs_and_what_diverged_first(finished: Experiment) -> None:
    first, header, *rows = answer(finished).splitlines()
    assert first == "normalization: 5 of 5 runs, 1 diverged"
    columns = header.split()
    assert {"diverged", "optimizer", "l2", "lr", *STUDY.summarized, "run_id"} <= set(columns)
    assert {"momentum", "steps_per_epoch", "width"}.isdisjoint(columns)  # of one value
    assert DIVERGING.run_id in rows[0] and rows[0].split()[0] in ("25", "25.0")
    assert all(row.split()[0] == "–" for row in rows[1:]) and len(rows) == 5
    values = dict(zip(columns, rows[-1].split(), strict=True))
    run = finished.runs.set_index("run_id").loc[values["run_id"]]
    assert float(values["test_error"]) == pytest.approx(run["test_error"], rel=1e-3)


def test_runs_of_which_none_diverged_say_so(finished: Experiment) -> None:
    first, _, *rows = answer(finished, "diverged=none").splitlines()
    assert first.endswith("4 of 5 runs, 0 diverged") and {row.split()[0] for row in rows} == {"–"}


def test_a_question_without_an_answer_tells_what_there_is(finished: Experiment) -> None:
    told = answer(finished, "l2=0.5")
    assert "0 of 5 runs" in told and "l2: has 0.001, 0.01, 1.0" in told


@pytest.mark.parametrize(
    ("where", "found", "expected"),
    [
        ("optimiser=adam", "optimiser", "optimizer"),
        ("colour=red", "colour", "test_error"),
        ("lr", "'lr'", "lr=0.009"),
        ("optimizer<adam", "'optimizer<adam'", "number"),
    ],
)
def test_a_mistake_is_named_with_what_is_expected(finished: Experiment, where: str, found: str, expected: str) -> None:
    with pytest.raises(UserError) as error:
        answer(finished, where)
    assert found in str(error.value) and expected in str(error.value) and "\n" not in str(error.value)


def test_a_scale_without_runs_is_refused(finished: Experiment) -> None:
    empty = Experiment(finished.metrics[:0], finished.runs[:0])
    with pytest.raises(UserError, match="METRICS=published"):
        answer(empty)


# Exports


def test_csv_has_all_columns_of_the_runs_asked_for(finished: Experiment, tmp_path: Path) -> None:
    answer(finished, "optimizer=adam", csv=str(tmp_path / "runs.csv"))
    table = pd.read_csv(tmp_path / "runs.csv")
    assert set(table["run_id"]) == ids(finished, "optimizer=adam") and list(table) == list(finished.runs)


class StandIn:
    """In place of a SummaryWriter."""

    scalars: dict[str, list[tuple[str, float, int]]]

    def __init__(self, folder: str) -> None:
        self.written = self.scalars.setdefault(folder, [])

    def __enter__(self) -> "StandIn":
        return self

    def __exit__(self, *_: object) -> None: ...

    def add_text(self, *_: object) -> None: ...

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.written.append((tag, value, step))


def test_tensorboard_gets_every_row_under_its_quantity_and_layer(
    finished: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = ModuleType("torch.utils.tensorboard")
    stand_in.SummaryWriter = type("Writer", (StandIn,), {"scalars": (written := {})})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", stand_in)
    answer(finished, "optimizer=adam l2=0.001", tensorboard=str(tmp_path / "events"))
    [(folder, scalars)] = written.items()
    assert folder == str(tmp_path / "events" / STUDY.name / RUNS[1].run_id)
    rows = finished.metrics[finished.metrics["run_id"] == RUNS[1].run_id]
    assert len(scalars) == len(rows)
    loss = rows[(rows["quantity"] == "train_loss")]
    assert [s[1:] for s in scalars if s[0] == "train_loss"] == list(zip(loss["value"], loss["step"], strict=True))
    assert any("/" in tag for tag, *_ in scalars)


def test_tensorboard_reads_what_is_written(finished: Experiment, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the package tensorboard is optional")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    answer(finished, "optimizer=adam l2=0.001", tensorboard=str(tmp_path / "events"))
    events = EventAccumulator(str(tmp_path / "events" / STUDY.name / RUNS[1].run_id), {"scalars": 0}).Reload()
    rows = finished.metrics[
        (finished.metrics["run_id"] == RUNS[1].run_id) & (finished.metrics["quantity"] == "train_loss")
    ]
    found = [(event.step, event.value) for event in events.Scalars("train_loss")]
    assert [step for step, _ in found] == list(rows["step"])
    assert [value for _, value in found] == pytest.approx(list(rows["value"]), rel=1e-6)


def test_without_tensorboard_the_sentence_says_what_to_install(
    finished: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match="pip install tensorboard"):
        answer(finished, tensorboard=str(tmp_path / "events"))
    assert not (tmp_path / "events").exists()


def test_old_curves_are_not_mixed_with_new_ones(finished: Experiment, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("")
    stand_in = ModuleType("torch.utils.tensorboard")
    stand_in.SummaryWriter = StandIn  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch.utils.tensorboard", stand_in)
        with pytest.raises(UserError, match="not empty"):
            answer(finished, tensorboard=str(tmp_path))
