"""A run beside the published one: prediction intervals of its numbers, and verdicts that differ."""

import math
from typing import Any

import pytest

from effective_lr.evidence.comparison import Prediction, compared_numbers, compared_verdicts, predictions
from effective_lr.evidence.estimates import Estimate
from shared import claim_of, part_of


def claim(*estimate: float | None, **changes: Any) -> dict[str, Any]:
    return claim_of(part_of(*estimate), **changes)


def test_the_interval_of_a_statistic_is_its_own_made_wider_by_the_seeds_of_both() -> None:
    for seeds, wider in [(3, math.sqrt(2)), (1, 2.0), (9, math.sqrt(4 / 3)), (0, math.sqrt(2))]:
        published = claim(0.5, 0.49, 0.53, seeds=3 if seeds else 0)  # float64 checks have the same seeds in both
        [found] = predictions({"C4": claim(0.52, seeds=seeds)}, {"C4": published})
        assert found.published[:3] == pytest.approx((0.5, 0.5 - 0.01 * wider, 0.5 + 0.03 * wider))
        assert found.holds() and found.name == "C4 sgd, angle slope"


def test_what_has_no_interval_or_no_value_is_not_counted() -> None:
    mine = {"C4": claim(None), "C5": claim(0.5), "C6": claim(0.5, 0.4, 0.6), "C7": claim(0.5)}
    theirs = {"C4": claim(0.5, 0.4, 0.6), "C5": claim(0.5), "C6": claim(0.5, 0.49, 0.51)}
    found = predictions(mine, theirs)
    assert [one.is_known() for one in found] == [False, False, True]
    assert "2 others" in "\n".join(compared_numbers(found))


def test_numbers_outside_are_named_with_their_intervals() -> None:
    published = Estimate(1, 0.9, 1.1)
    inside, outside = Prediction("C4 sgd", published, 1.05), Prediction("C4 adam", published, 1.2)
    text = "\n".join(compared_numbers([inside, outside, inside]))
    assert text.startswith("2 of 3 numbers lie in their 90% prediction intervals.")
    assert "C4 adam: 1.2 against 1 [0.9, 1.1]" in text and "C4 sgd:" not in text
    assert "0 of 0 numbers" in "\n".join(compared_numbers([]))


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
