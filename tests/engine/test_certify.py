"""Certification: equal results keep the key of the code, others are refused."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from effective_lr.engine import certify, code, storage
from effective_lr.errors import UserError
from effective_lr.studies.normalization.data import Splits
from shared import STUDY, chapter_of, layout_of, make_run, train_or_reuse

RUNS = [make_run(l2=l2, steps=3, probes=3, evaluations=1) for l2 in (0.0, 0.1)]
LAYOUT = layout_of(chapter_of({"plane": RUNS}))
FORMER, PRESENT = "f" * 16, code.training_tree(STUDY)


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One that lists another code than the present one."""
    path = tmp_path / STUDY.name / "code.lock"
    path.parent.mkdir()
    path.write_text(f"{'e' * 16} {FORMER} the code that trained the published study\n")
    monkeypatch.setattr(certify, "STUDIES", tmp_path)
    return path


@pytest.fixture
def train(results: Path, single: Splits) -> Callable[..., None]:
    """Train both runs with the code of a key, whose last value is larger by a `change`."""

    def call(key: str, change: float = 0.0) -> None:
        for run in RUNS:
            table, record = train_or_reuse(run, single, results / "runs", key, "data")
            *values, last = table["value"].to_pylist()
            table = table.set_column(4, storage.SCHEMA[4], [[*values, last + change]])
            storage.write_table(table, [record], results / f"runs/{record.run_key}.parquet")

    return call


def test_code_that_gives_the_same_rows_keeps_the_key(lock: Path, train: Callable[..., None]) -> None:
    listed = lock.read_text()
    for trained in ("", FORMER):
        if trained:
            train(trained)
        with pytest.raises(UserError, match=r"normalization: . runs of the scale scale .*; train the scale with both"):
            certify.certify(LAYOUT, STUDY.name)
    assert lock.read_text() == listed
    train(PRESENT)
    assert "2 of 2 runs" in certify.certify(LAYOUT, STUDY.name)
    assert code.read_lock(lock) == {"e" * 16: FORMER, PRESENT: FORMER}
    assert "already certified" in certify.certify(LAYOUT, STUDY.name)


def test_a_changed_result_is_refused_with_the_first_row_that_differs(lock: Path, train: Callable[..., None]) -> None:
    listed = lock.read_text()
    train(FORMER)
    train(PRESENT, change=1e-9)
    with pytest.raises(UserError, match=r"normalization: .* other results: .*'run_id'.*'value_after'.*; not certified"):
        certify.certify(LAYOUT, STUDY.name)
    assert lock.read_text() == listed


def test_a_difference_is_named_with_its_place() -> None:
    def table(rows: list[tuple[int, str, float]]) -> pd.DataFrame:
        lines = [("run", step, "", quantity, value) for step, quantity, value in rows]
        return pd.DataFrame(lines, columns=storage.SCHEMA.names)

    rows = [(1, "loss", 0.1), (2, "loss", float("nan"))]
    for after, where in [
        (rows, ""),
        ([(1, "norm", 9.0), *rows], ""),  # a quantity that only the later code records
        ([rows[0], (2, "loss", 0.3)], "0.3"),
        (rows[1:], "0.1"),
        ([*rows, (3, "loss", 0.7)], "0.7"),
    ]:
        found = certify.first_difference(table(rows), table(after))
        assert bool(found) == bool(where) and where in found, after
