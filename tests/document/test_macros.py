"""The numbers that sentences state."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from effective_lr.document.macros import count_verdicts, macros_of, to_latex
from effective_lr.document.table import Results
from effective_lr.evidence.tidy import Experiment, Tables
from shared import STUDY, make_run


@pytest.fixture(autouse=True)
def without_those_of_the_study(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(STUDY), "find", lambda *names: None)


def macros(*changes: dict[str, Any], claims: dict[str, Any] | None = None) -> dict[str, str]:
    """The macros of runs with these settings changed."""
    about = {"diverged": np.nan, "seconds": 1800.0, "finished": "2026-01-02T03:04:05+00:00", "device": "CPU x86_64"}
    runs = [make_run(**settings) for settings in changes]
    lines = [{**run.model_dump(), **about, "torch": "2.14.1", "run_id": run.run_id} for run in runs]
    tables = Tables({"all": Experiment(pd.DataFrame(), pd.DataFrame(lines, columns=None if lines else ["run_id"]))})
    return macros_of(Results(STUDY, tables, claims or {}, pd.DataFrame()), "my_scale")


def test_a_setting_of_several_values_is_a_range_of_numbers_or_no_macro() -> None:
    found = macros({"steps": 5000}, {"steps": 1000, "lr": 2.5e-4, "optimizer": "adam"}, {"steps": 2000})
    assert found["settings/steps"] == r"\ensuremath{1\,000}\text{ to }\ensuremath{5\,000}"
    assert found["settings/lr"] == r"\ensuremath{2.5\times 10^{-4}}\text{ to }\ensuremath{0.05}"
    assert "settings/optimizer" not in found  # a sentence that states it is refused
    assert (found["settings/width"], found["settings/normalization"]) == ("2", STUDY.words.get("batch", "batch"))
    assert found["settings/momentum"] == "0.9"


def test_runs_are_counted_with_their_hours_and_dates() -> None:
    found = macros(*({"seed": seed} for seed in range(4)))
    expected = {"count": "4", "diverged": "0", "hours": "2.00", "first": "2026-01-02", "device": r"CPU x86\_64"}
    assert {key: found[f"runs/{key}"] for key in expected} == expected and found["scale"] == r"my\_scale"
    assert macros()["runs/count"] == "0"


def test_a_statistic_has_its_value_its_interval_and_its_verdict() -> None:
    part = {"subject": "sgd", "statistic": "angle_slope", "value": 0.5, "low": 0.4, "high": 0.6, "freedom": 2.0}
    check = {**part, "statistic": "symmetry"}  # a power of ten
    explored = {**part, "subject": "adam", "low": None}
    claims = {"C4": {"verdict": "reproduced", "parts": [part, check], "explored": [explored]}}
    found = macros({}, claims=claims)
    assert found["verdict/C4"] == "reproduced" and found["claims/reproduced"] == "1"
    assert found["angle_slope/sgd"] in found["angle_slope/sgd/interval"] and "[" in found["angle_slope/sgd/interval"]
    assert "[" not in found["angle_slope/adam/interval"] and "symmetry/sgd" not in found


def test_verdicts_are_counted() -> None:
    verdicts = ["reproduced", "not reproduced", "reproduced in part", "undecided", "undecided"]
    counts = count_verdicts(*({"C1": {"verdict": verdict}} for verdict in verdicts))
    kinds = {"reproduced": "1", "not_reproduced": "1", "reproduced_in_part": "1", "undecided": "2", "shown": "0"}
    kinds["needs_the_scale_study"] = "0"
    assert counts == {"claims/count": "5", **{f"claims/{kind}": count for kind, count in kinds.items()}}


def test_numbers_are_mathematics_and_words_are_text() -> None:
    numbers = {"a": r"12\,800", "b": "not reproduced", "c": r"3\times 10^{-4}", "d": "2026-01-02"}
    text = to_latex("study", numbers, {"plane": "What $x$ is"})
    assert r"\definenumber{study/a}{\ensuremath{12\,800}}" in text
    assert r"\definenumber{study/b}{not reproduced}" in text
    assert r"\definenumber{study/c}{\ensuremath{" in text
    assert r"\definenumber{study/d}{2026-01-02}" in text
    assert r"\definecaption{study/plane}{What $x$ is}" in text
