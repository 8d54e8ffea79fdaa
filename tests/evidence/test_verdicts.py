"""Verdicts from estimates: tolerances, parts, single seeds, and what estimates rest on."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats

from effective_lr.engine.contents import Claim
from effective_lr.errors import UserError
from effective_lr.evidence import verdicts
from effective_lr.evidence.estimates import Estimate, Undecidable, contrast, mean_interval, pooled_mean
from effective_lr.evidence.tidy import Experiment, Tables
from effective_lr.evidence.verdicts import Evidence, Statistic


def test_an_interval_across_the_bound_is_undecided() -> None:
    assert verdicts.judge(Estimate(1.0, 0.9, 1.1), (0.95, 1.05))[0] == "undecided"
    assert verdicts.judge(Estimate(1.0, 0.96, 1.04), (0.95, 1.05))[0] == "reproduced"
    assert verdicts.judge(Estimate(1.2, 1.1, 1.3), (0.95, 1.05))[0] == "not reproduced"
    assert verdicts.judge(Estimate(9.0, 8.0, 10.0), (5, math.inf))[0] == "reproduced"


def two_by_two(count: int) -> pd.Series:
    """An even number of values whose mean is 1 and whose standard deviation is 0.1."""
    return pd.Series(1 + 0.1 * math.sqrt((count - 1) / count) * np.tile([1, -1], count // 2))


@pytest.mark.parametrize("within", [(0.95, 1.05), (0.9, 1.2), (1.04, 2.0), (-math.inf, 1.01)])
def test_so_many_repetitions_would_decide(within: tuple[float, float]) -> None:
    verdict, why, times = verdicts.judge(mean_interval(two_by_two(4)), within)
    assert verdict == "undecided" and times is not None and f"about {times} times" in why
    assert verdicts.judge(mean_interval(two_by_two(4 * times)), within).verdict != "undecided"
    if times > 2:
        assert verdicts.judge(mean_interval(two_by_two(4 * (times - 1))), within).verdict == "undecided"


def test_where_repetitions_would_not_decide_they_are_not_asked_for() -> None:
    at_the_bound = verdicts.judge(mean_interval(two_by_two(4)), (1.0, 2.0))
    assert at_the_bound.repetitions is None and "no number" in at_the_bound.why
    of_a_check = verdicts.judge(Estimate(1.0, 0.9, 1.1), (0.95, 1.05))  # the range over seeds
    assert of_a_check.repetitions is None and "repetitions" not in of_a_check.why
    assert of_a_check.verdict == "undecided"
    of_splits = verdicts.judge(mean_interval(two_by_two(4)), (0.95, 1.05), is_shortened=False)
    assert of_splits == (of_a_check.verdict, of_a_check.why, None)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([("sgd", "reproduced"), ("adam", "reproduced")], "reproduced"),
        ([("sgd", "reproduced"), ("adam", "not reproduced")], "reproduced in part"),
        ([("sgd", "reproduced"), ("sgd", "not reproduced")], "not reproduced"),
        ([("sgd", "reproduced"), ("adam", "undecided")], "undecided"),
        ([("sgd", "undecided"), ("adam", "not reproduced")], "undecided"),
        ([("sgd", "undecided"), ("adam", "not reproduced"), ("adamw", "reproduced")], "reproduced in part"),
    ],
)
def test_a_claim_follows_from_its_parts(found: list[tuple[str, str]], expected: str) -> None:
    parts = [{"subject": subject, "verdict": verdict, "why": ""} for subject, verdict in found]
    verdict, why = verdicts.summarize(parts)
    assert verdict == expected
    if len({kind for _, kind in found}) > 1 and expected != "not reproduced":
        assert all(f"{kind}: " in why and subject in why for subject, kind in found)


# From a claim and tables to a verdict


def mean_value(evidence: Evidence, subject: str) -> Estimate:
    runs = evidence.runs("plane")
    return mean_interval(runs.loc[runs["kind"] == subject, "value"])


STATISTICS = {"mean_value": Statistic(mean_value, "mean", 2)}


def claim(**changes: Any) -> Claim:
    part = {"subject": "a", "statistic": "mean_value", "within": [0.9, 1.1]}
    about = {"title": "", "claim": "", "original": "", "experiments": ["plane"], "shown": "", "reason": ""}
    return Claim(**{**about, "parts": [part], **changes})


def evidence(values: list[float], seeds: list[int] | None = None) -> Evidence:
    runs = pd.DataFrame({"run_id": [f"r{k}" for k in range(len(values))], "value": values, "kind": "a"})
    runs["seed"] = seeds or list(range(len(values)))
    tables = Tables.of({"plane": Experiment(pd.DataFrame(), runs)})
    return Evidence(tables, pd.DataFrame(columns=["check", "subject", "value"]))


@pytest.mark.parametrize(
    ("values", "seeds", "expected"),
    [
        ([1.0, 1.01, 0.99], None, verdicts.REPRODUCED),
        ([2.0, 2.01, 1.99], None, verdicts.NOT_REPRODUCED),
        ([1.0, 1.5, 0.5], None, verdicts.UNDECIDED),
        ([1.0, 1.01, 0.99], [1, 1, 1], verdicts.UNDECIDED),  # three runs of one seed are one repetition
        ([1.0, float("nan"), 1.0], None, verdicts.UNDECIDED),
        ([], None, verdicts.UNDECIDED),
    ],
)
def test_a_verdict_follows_the_values(values: list[float], seeds: list[int] | None, expected: str) -> None:
    result = verdicts.decide("X1", claim(), evidence(values, seeds), STATISTICS)
    assert result["verdict"] == result["parts"][0]["verdict"] == expected
    assert bool(result["why"]) == (expected == verdicts.UNDECIDED)


def test_an_unknown_statistic_is_refused_with_those_there_are() -> None:
    part = {"subject": "a", "statistic": "mean_valu", "within": [0, 1]}
    with pytest.raises(UserError, match=r"X1.*'mean_valu'.*mean_value"):
        verdicts.decide("X1", claim(parts=[part]), evidence([1.0, 1.0]), STATISTICS)


# Estimates


def test_the_interval_of_a_mean_is_that_of_student() -> None:
    values = pd.Series([1.0, 2.0, 4.0])
    margin = stats.t.ppf(0.95, 2) * values.std(ddof=1) / math.sqrt(3)
    assert mean_interval(values) == pytest.approx((7 / 3, 7 / 3 - margin, 7 / 3 + margin, 2))
    one = mean_interval(pd.Series([1.0]))
    assert one.value == 1 and np.isnan(one.low) and np.isnan(one.high)
    with pytest.raises(Undecidable):
        mean_interval(pd.Series([1.0, np.nan]))


def test_a_pooled_deviation_has_the_freedom_of_all_cells() -> None:
    cells = pd.DataFrame({"at": [0, 0, 1, 1], "value": [1.0, 3.0, 10.0, 14.0]})
    margin = stats.t.ppf(0.95, 2) * math.sqrt((2 + 8) / 2 / 2)
    assert pooled_mean(cells, "value", "at", 0) == pytest.approx((2, 2 - margin, 2 + margin, 2))


def test_an_estimate_is_mapped_with_its_ends_and_loses_its_sign_with_them() -> None:
    assert Estimate(0.0, -1.0, 1.0, 2).map(math.exp) == pytest.approx((1, math.exp(-1), math.e, 2))
    assert Estimate(-2.0, -3.0, 1.0, 2).unsigned() == (2, 0, 3, 2)
    assert np.isnan(Estimate(-2.0, np.nan, np.nan).unsigned().low)


def test_a_contrast_is_that_of_the_linear_model_with_cells_and_seeds() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(4, 3)) + 10 * rng.normal(size=3), index=list("abcd"), columns=[200, 201, 202])
    rows = table.stack().rename_axis(["cell", "seed"]).reset_index(name="y")
    fit = smf.ols("y ~ C(cell) + C(seed)", rows).fit()
    low, high = fit.conf_int(0.1).loc["C(cell)[T.c]"]
    assert contrast(table, "c", "a") == pytest.approx((fit.params["C(cell)[T.c]"], low, high, fit.df_resid))
    # Two cells make it the paired t test.
    assert contrast(table.loc[["a", "c"]], "c", "a") == pytest.approx(mean_interval(table.loc["c"] - table.loc["a"]))
    one = contrast(table[[200]], "c", "a")
    assert np.isfinite(one.value) and np.isnan(one.low) and one.freedom == 0
