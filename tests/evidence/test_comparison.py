"""A run beside the published one: prediction intervals of its numbers, and verdicts that differ."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from effective_lr.evidence.comparison import (
    Prediction,
    compared_numbers,
    compared_seeds,
    compared_verdicts,
    predicted_cells,
    predicted_parts,
)
from effective_lr.evidence.estimates import Estimate
from shared import STUDY, make_run

L2 = [round(0.001 * 1.3**k, 6) for k in range(60)]
SETTINGS = make_run().model_dump()


def runs(errors: dict[tuple[float, int], float], diverged: tuple[tuple[float, int], ...] = ()) -> pd.DataFrame:
    """The runs of these (λ, seed), with their test errors."""
    rows = [
        {**SETTINGS, "l2": l2, "seed": seed, "test_error": error, "diverged": 7 if (l2, seed) in diverged else None}
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


TWO = study(seeds=(200, 201))


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


def test_the_same_runs_fall_inside_also_where_the_published_ones_are_older_than_a_setting() -> None:
    same = predicted_cells(STUDY, TWO, TWO)
    assert all(one.holds() for one in same)
    assert predicted_cells(STUDY, TWO, TWO.drop(columns=["replay", "leak"])) == same


def test_a_single_published_seed_takes_the_deviation_of_its_neighbors() -> None:
    one_seed = TWO[(TWO["seed"] == 200) | (TWO["l2"] != L2[1])]
    lone = predicted_cells(STUDY, TWO, one_seed)[1]
    assert 0 < lone.published.high - lone.published.low < 0.02
    alone = predicted_cells(STUDY, TWO, TWO[TWO["seed"] == 200])
    assert len(alone) == len(L2) and not any(one.is_known() for one in alone)


def test_a_cell_that_diverges_in_one_alone_is_counted_as_without_value() -> None:
    published = runs({(0.1, 3): 0.10, (0.1, 4): 0.12, (0.2, 3): 0.2, (0.2, 4): 0.2})
    mine = runs({(0.1, 3): 0.1, (0.2, 3): 0.2}, diverged=((0.2, 3),))
    text = "\n".join(compared_numbers(predicted_cells(STUDY, mine, published), []))
    assert "1 of 1 numbers" in text and "1 others have no interval, or no value in one of the two." in text


# Claims


def claim(value: float | None, low: float | None = None, high: float | None = None, **changes: Any) -> dict[str, Any]:
    part = {"subject": "sgd", "statistic": "angle_slope", "within": [0.4, 0.6]}
    part |= {"value": value, "low": low, "high": high}
    return {"title": "Equilibrium", "verdict": "reproduced", "seeds": 3, "parts": [part], **changes}


def test_the_interval_of_a_statistic_is_its_own_made_wider_by_the_seeds_of_both() -> None:
    for seeds, wider in [(3, math.sqrt(2)), (1, 2.0), (9, math.sqrt(4 / 3)), (0, math.sqrt(2))]:
        published = claim(0.5, 0.49, 0.53, seeds=3 if seeds else 0)  # float64 checks have the same seeds in both
        [found] = predicted_parts({"C4": claim(0.52, seeds=seeds)}, {"C4": published})
        assert found.published[:3] == pytest.approx((0.5, 0.5 - 0.01 * wider, 0.5 + 0.03 * wider))
        assert found.holds() and found.name == "C4 sgd, angle slope"


def test_what_has_no_interval_or_no_value_is_not_counted() -> None:
    mine = {"C4": claim(None), "C5": claim(0.5), "C6": claim(0.5, 0.4, 0.6), "C7": claim(0.5)}
    theirs = {"C4": claim(0.5, 0.4, 0.6), "C5": claim(0.5), "C6": claim(0.5, 0.49, 0.51)}
    found = predicted_parts(mine, theirs)
    assert [one.is_known() for one in found] == [False, False, True]
    assert "2 others" in "\n".join(compared_numbers([], found))


def test_numbers_outside_are_named_with_their_intervals() -> None:
    published = Estimate(1, 0.9, 1.1)
    inside, outside = Prediction("l2 0.1", published, 1.05), Prediction("l2 0.2", published, 1.2)
    text = "\n".join(compared_numbers([inside, outside], [inside]))
    assert text.startswith("2 of 3 numbers lie in their 90% prediction intervals: 1 of 2 means of cells, 1 of 1 parts")
    assert "l2 0.2: 1.2 against 1 [0.9, 1.1]" in text and "l2 0.1:" not in text
    assert "scale" in "\n".join(compared_numbers([], []))


def test_a_verdict_that_differs_or_is_missing_is_shown_but_not_one_by_other_rules() -> None:
    published = {"C4": claim(0.5), "C5": claim(0.5)}
    assert compared_verdicts(published, published)[1]
    lines, agree = compared_verdicts({**published, "C5": claim(0.5, verdict="undecided")}, published)
    assert not agree and ["DIFFERS" in line for line in lines] == [False, False, True]
    lines, agree = compared_verdicts({"C4": published["C4"]}, published)
    assert not agree and "not decided" in lines[-1]
    other = claim(0.5, verdict="undecided")
    other["parts"][0]["within"] = [0.45, 0.55]
    lines, agree = compared_verdicts({"C4": other}, {"C4": claim(0.5)})
    assert agree and lines[-1].endswith("by other rules")


def test_equal_seeds_are_remarked() -> None:
    others = TWO.assign(seed=TWO["seed"] + 100)
    assert "300, 301 here, 200, 201 published" in compared_seeds(others, TWO)
    assert "same seeds" in compared_seeds(TWO, TWO) and "same seeds" not in compared_seeds(others, TWO)
