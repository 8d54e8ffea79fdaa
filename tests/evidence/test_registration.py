"""What the claims of all studies promise before a run: the power of each planned test, and fresh seeds for it."""

import math
from collections import Counter

import numpy as np
from scipy.stats import t

from effective_lr.engine import grid
from effective_lr.engine.contents import Claim, Part, load_claims
from effective_lr.engine.study import BaseRun, load, names
from effective_lr.evidence.verdicts import statistics_of
from shared import ROOT


def power(count: int, deviation: float, expected: float, within: tuple[float, float]) -> float:
    """The share of simulated studies whose t interval, of a mean over `count` repetitions, lies within the tolerance or
    outside it. `deviation` is that of one repetition."""
    rng, freedom, error, studies = np.random.default_rng(0), count - 1, deviation / math.sqrt(count), 400_000
    means = rng.normal(expected, error, studies)
    margins = t.ppf(0.95, freedom) * error * np.sqrt(rng.chisquare(freedom, studies) / freedom)
    inside = (means - margins >= within[0]) & (means + margins <= within[1])
    outside = (means + margins < within[0]) | (means - margins > within[1])
    return float((inside | outside).mean())


def seeds_of_cells(claim: Claim, part: Part, experiments: dict[str, list[BaseRun]]) -> set[int]:
    """How many seeds, of those that decide the part, the cells of the claim have."""
    first = claim.seeds_from if part.seeds_from is None else part.seeds_from
    runs = {run for name in claim.experiments for run in experiments[name] if run.seed >= first}
    return set(Counter(run.changed(seed=0) for run in runs).values())


def test_the_claims_use_every_statistic_and_no_other() -> None:
    for study in map(load, names()):
        claims = load_claims(ROOT / "paper" / study.name / "claims.yaml").values()
        named = {what.statistic for claim in claims for what in (*claim.parts, *claim.explored)}
        assert named - {""} == set(statistics_of(study)), study.name


def test_planned_seeds_have_the_power_that_is_stated_and_are_those_of_the_study() -> None:
    for study in map(load, names()):
        _, experiments = grid.load_scale(ROOT / "config" / study.name, "study", study)
        for claim in load_claims(ROOT / "paper" / study.name / "claims.yaml").values():
            for part in claim.parts:
                if plan := part.planned:
                    low, high = part.within
                    if plan.log:
                        low, high = (math.log(bound) if bound > 0 else -math.inf for bound in part.within)
                    found = power(plan.seeds, plan.deviation, plan.expected, (low, high))
                    about = study.name, part.name, part.subject, found
                    assert found >= plan.power - 0.005, about
                    assert plan.power >= 0.9 or study.name == "norms", about  # which has real data of few samples
                    assert plan.seeds in seeds_of_cells(claim, part, experiments), about
