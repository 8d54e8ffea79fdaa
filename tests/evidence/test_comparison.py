"""A run beside the published one: prediction intervals of its numbers, and verdicts that differ."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from effective_lr.evidence import comparison
from effective_lr.evidence.comparison import Prediction, predicted_cells, predicted_parts, tell_predictions
from effective_lr.evidence.estimates import Estimate
from shared import STUDY, make_run

L2 = [round(0.001 * 1.3**k, 6) for k in range(60)]


def runs(errors: dict[tuple[float, int], float], diverged: tuple[tuple[float, int], ...] = ()) -> pd.DataFrame:
    """The runs of these (λ, seed), with their test errors."""
    rows = [
        {
            **make_run(l2=l2, seed=seed).model_dump(),
            "test_error": error,
            "diverged": 7 if (l2, seed) in diverged else None,
        }
        for (l2, seed), error in errors.items()
    ]
    return pd.DataFrame(rows)


def study(seeds: tuple[int, ...], shift: float = 0.0) -> pd.DataFrame:
    """60 cells, half of which train badly and scatter thirty times as far."""
    errors = {}
    for number, l2 in enumerate(L2):
        mean, deviation = (0.12, 0.001) if number % 2 else (0.6, 0.03)
        for seed in seeds:
            noise = np.random.default_rng([number, seed]).normal()
            errors[l2, seed] = mean + shift + deviation * noise
    return runs(errors)


def test_the_interval_of_a_cell_is_that_of_the_difference_of_two_means() -> None:
    published = runs({(0.1, 3): 0.10, (0.1, 4): 0.12, (0.2, 3): 0.20, (0.2, 4): 0.24})
    mine = runs({(0.1, 5): 0.13, (0.1, 6): 0.15, (0.1, 7): 0.14, (0.2, 5): 0.23})
    first, second = predicted_cells(STUDY, mine, published)
    deviation, t = math.sqrt((2 * 0.01**2 + 2 * 0.02**2) / 2), stats.t.ppf(0.95, 2)
    for found, mean, value, sizes in [(first, 0.11, 0.14, 1 / 3 + 1 / 2), (second, 0.22, 0.23, 1 / 1 + 1 / 2)]:
        margin = t * deviation * math.sqrt(sizes)
        assert found.mine == pytest.approx(value)
        assert found.published[:3] == pytest.approx((mean, mean - margin, mean + margin))
    assert (first.name, second.name) == ("l2 0.1", "l2 0.2")  # the settings that vary


def test_other_seeds_fall_inside_as_often_as_promised_and_a_shift_does_not() -> None:
    published = study(seeds=(200, 201, 202))
    again = predicted_cells(STUDY, study(seeds=(300, 301, 302)), published)
    inside = {bad: [one.holds() for one in again if (one.published.value > 0.3) == bad] for bad in (False, True)}
    assert [len(found) for found in inside.values()] == [30, 30]
    assert all(0.8 <= np.mean(found) <= 1 for found in inside.values()), inside  # good cells and bad ones alike
    shifted = predicted_cells(STUDY, study(seeds=(300, 301, 302), shift=0.004), published)
    assert np.mean([one.holds() for one in shifted if one.published.value < 0.3]) < 0.1  # four of their deviations


def test_the_same_runs_fall_inside() -> None:
    published = study(seeds=(200, 201))
    assert all(one.holds() for one in predicted_cells(STUDY, published, published))


def test_a_single_published_seed_takes_the_deviation_of_its_neighbors() -> None:
    published = study(seeds=(200, 201))
    one_seed = published[(published["seed"] == 200) | (published["l2"] != L2[1])]
    lone = predicted_cells(STUDY, published, one_seed)[1]
    assert 0 < lone.published.high - lone.published.low < 0.02
    alone = predicted_cells(STUDY, published, published[published["seed"] == 200])
    assert len(alone) == len(L2) and not any(one.is_known() for one in alone)


def test_a_cell_that_diverges_in_one_alone_is_counted_as_without_value() -> None:
    published = runs({(0.1, 3): 0.10, (0.1, 4): 0.12, (0.2, 3): 0.2, (0.2, 4): 0.2})
    mine = runs({(0.1, 3): 0.1, (0.2, 3): 0.2}, diverged=((0.2, 3),))
    told = "\n".join(tell_predictions(predicted_cells(STUDY, mine, published), []))
    assert "1 of 1 numbers" in told and "1 others have no interval, or no value in one of the two." in told


def test_published_runs_may_be_older_than_a_setting() -> None:
    published = study(seeds=(200, 201))
    older = predicted_cells(STUDY, published, published.drop(columns=["replay", "leak"]))
    assert older == predicted_cells(STUDY, published, published)


# Claims


def claim(value: float | None, low: float | None = None, high: float | None = None, **changes: Any) -> dict[str, Any]:
    part = {
        "subject": "sgd",
        "statistic": "angle_slope",
        "within": [0.4, 0.6],
        "value": value,
        "low": low,
        "high": high,
    }
    return {"title": "Equilibrium", "verdict": "reproduced", "seeds": 3, "parts": [part], **changes}


@pytest.mark.parametrize(("seeds", "wider"), [(3, math.sqrt(2)), (1, 2.0), (9, math.sqrt(4 / 3))])
def test_the_interval_of_a_statistic_is_its_own_made_wider(seeds: int, wider: float) -> None:
    [found] = predicted_parts({"C4": claim(0.52)}, {"C4": claim(0.5, 0.49, 0.53)}, {"C4": seeds})
    assert found.published[:3] == pytest.approx((0.5, 0.5 - 0.01 * wider, 0.5 + 0.03 * wider))
    assert found.holds() and found.name == "C4 sgd, angle slope"


def test_float64_checks_have_the_same_seeds_in_both() -> None:
    [found] = predicted_parts({"C1": claim(1.0)}, {"C1": claim(1.0, 0.9, 1.1, seeds=0)}, {"C1": 0})
    assert found.published.high == pytest.approx(1 + 0.1 * math.sqrt(2))


def test_what_has_no_interval_or_no_value_is_not_counted() -> None:
    mine = {"C4": claim(None), "C5": claim(0.5), "C6": claim(0.5, 0.4, 0.6), "C7": claim(0.5)}
    theirs = {"C4": claim(0.5, 0.4, 0.6), "C5": claim(0.5), "C6": claim(0.5, 0.49, 0.51)}
    found = predicted_parts(mine, theirs, dict.fromkeys(mine, 3))
    assert [one.is_known() for one in found] == [False, False, True]
    assert "2 others" in "\n".join(tell_predictions([], found))


def test_numbers_outside_are_named_with_their_intervals() -> None:
    inside, outside = (
        Prediction("l2 0.1", Estimate(1, 0.9, 1.1), 1.05),
        Prediction("l2 0.2", Estimate(1, 0.9, 1.1), 1.2),
    )
    told = "\n".join(tell_predictions([inside, outside], [inside]))
    assert told.startswith("2 of 3 numbers lie in their 90% prediction intervals: 1 of 2 means of cells, 1 of 1 parts")
    assert "l2 0.2: 1.2 against 1 [0.9, 1.1]" in told and "l2 0.1:" not in told
    assert "scale" in "\n".join(tell_predictions([], []))


def test_a_verdict_that_differs_or_is_missing_is_told() -> None:
    published = {"C4": claim(0.5), "C5": claim(0.5)}
    assert comparison.tell_verdicts(published, published)[1]
    lines, agree = comparison.tell_verdicts({**published, "C5": claim(0.5, verdict="undecided")}, published)
    assert not agree and ["DIFFERS" in line for line in lines] == [False, False, True]
    lines, agree = comparison.tell_verdicts({"C4": published["C4"]}, published)
    assert not agree and "not decided" in lines[-1]


def test_verdicts_by_other_rules_are_not_compared() -> None:
    mine = claim(0.5, verdict="undecided")
    mine["parts"][0]["within"] = [0.45, 0.55]
    lines, agree = comparison.tell_verdicts({"C4": mine}, {"C4": claim(0.5)})
    assert agree and lines[-1].endswith("by other rules")


def test_equal_seeds_are_remarked() -> None:
    some, others = study(seeds=(200, 201)), study(seeds=(300, 301))
    assert "300, 301 here, 200, 201 published" in comparison.tell_seeds(others, some)
    assert "same seeds" in comparison.tell_seeds(some, some) and "same seeds" not in comparison.tell_seeds(others, some)
