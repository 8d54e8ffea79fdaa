"""Verdicts from estimates: tolerances, parts, deciding seeds and checks; and what estimates rest on."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats

from effective_lr.engine.contents import Claim, load_claims
from effective_lr.engine.study import load, names
from effective_lr.errors import UserError
from effective_lr.evidence import verdicts
from effective_lr.evidence.estimates import Estimate, contrast, mean_interval, pooled_mean
from effective_lr.evidence.tidy import Experiment, Tables
from effective_lr.evidence.verdicts import (
    IN_PART,
    NEEDS_STUDY,
    NO_INTERVAL,
    NOT_REPRODUCED,
    REPRODUCED,
    UNDECIDED,
    Evidence,
    Statistic,
)
from shared import ROOT, STUDY, chapter_of, make_run, part_of

CROSSES = "the interval crosses the bound of the tolerance"


def test_a_claim_follows_from_its_parts_with_the_reasons_of_those_that_have_its_verdict() -> None:
    assert verdicts.summarize([]) == (verdicts.SHOWN, "")  # numbers without tests
    one_of_each = {"sgd": [UNDECIDED], "adam": [NOT_REPRODUCED], "adamw": [REPRODUCED]}
    for found, verdict, why in [
        ({"sgd": [UNDECIDED, NOT_REPRODUCED, REPRODUCED]}, NOT_REPRODUCED, "why sgd is not reproduced"),
        ({"sgd": [REPRODUCED, UNDECIDED, UNDECIDED]}, UNDECIDED, "why sgd is undecided"),  # once
        ({"sgd": [REPRODUCED], "adam": [NOT_REPRODUCED]}, IN_PART, "reproduced: sgd; not reproduced: adam"),
        ({"sgd": [REPRODUCED], "adam": [UNDECIDED]}, UNDECIDED, "reproduced: sgd; undecided: adam"),
        ({"sgd": [UNDECIDED], "adam": [NOT_REPRODUCED]}, UNDECIDED, "undecided: sgd; not reproduced: adam"),
        ({"sgd": [REPRODUCED], "adam": [NEEDS_STUDY]}, NEEDS_STUDY, f"reproduced: sgd; {NEEDS_STUDY}: adam"),
        ({"sgd": [UNDECIDED], "adam": [NEEDS_STUDY]}, UNDECIDED, f"{NEEDS_STUDY}: adam; undecided: sgd"),
        (one_of_each, IN_PART, "reproduced: adamw; undecided: sgd; not reproduced: adam"),
    ]:
        parts = [
            {"subject": subject, "verdict": kind, "why": f"why {subject} is {kind}"}
            for subject, kinds in found.items()
            for kind in kinds
        ]
        assert verdicts.summarize(parts) == (verdict, why)


def test_the_part_that_decided_a_claim_is_that_nearest_to_another_verdict() -> None:
    parts = [
        part_of((low + high) / 2, low, high, verdict=verdict, within=within)
        for verdict, low, high, within in [
            (REPRODUCED, 0.9, 1.1, [0, 2]),
            (REPRODUCED, 890, 910, [800, 1000]),  # in units of its tolerance as far inside as the first
            (REPRODUCED, 2.2, 4, [2, None]),
            (REPRODUCED, 0.5, 1.5, [None, 2]),
            (NOT_REPRODUCED, 2, 4, [0, 0]),  # a tolerance of one value
            (UNDECIDED, math.nan, math.nan, [0, None]),
        ]
    ]
    parts[-1] |= dict.fromkeys(("value", "low", "high"))
    assert [verdicts.margin(part) for part in parts] == pytest.approx([0.9, 0.9, 0.1, 0.25, -4, -math.inf])
    for verdict, worst in [(REPRODUCED, parts[2]), (IN_PART, parts[4]), (UNDECIDED, parts[5]), (verdicts.SHOWN, None)]:
        assert verdicts.worst_part({"verdict": verdict, "parts": parts}) is worst


def mean_value(evidence: Evidence, subject: str) -> Estimate:
    """The mean of the values."""
    runs = evidence.runs("plane")
    return mean_interval(runs.loc[runs["kind"] == subject, "value"])


STATISTICS = {"mean_value": Statistic(mean_value, "mean", 2)}
PART = {"subject": "a", "statistic": "mean_value", "within": [0.9, 1.1]}
CHECK = {"subject": "a", "check": "exact", "within": [0, 1e-9]}


def claim(*parts: dict[str, Any], **changes: Any) -> Claim:
    about = {"title": "", "claim": "", "original": "", "experiments": ["plane"], "shown": "", "reason": ""}
    return Claim(**{**about, "parts": list(parts) or [PART], **changes})


def evidence(values: list[float], seeds: list[int] | None = None, checks: list[float] | None = None) -> Evidence:
    runs = pd.DataFrame({"run_id": [f"r{k}" for k in range(len(values))], "value": values, "kind": "a"})
    runs["seed"] = seeds or list(range(len(values)))
    tables = Tables({"plane": Experiment(pd.DataFrame({"run_id": runs["run_id"]}), runs)})
    return Evidence(tables, pd.DataFrame({"check": "exact", "subject": "a", "value": checks or []}))


def test_a_verdict_follows_the_interval_of_runs_or_checks() -> None:
    above, below = {**PART, "within": [0.9, math.inf]}, {**PART, "within": [-math.inf, 1.1]}
    for part, values, verdict, why in [
        (PART, [1.0, 1.01, 0.99], REPRODUCED, ""),
        (PART, [2.0, 2.01, 1.99], NOT_REPRODUCED, ""),
        (PART, [0.2, 0.21, 0.19], NOT_REPRODUCED, ""),
        (PART, [1.0, 1.5, 0.5], UNDECIDED, CROSSES),
        (above, [9.0, 9.1, 8.9], REPRODUCED, ""),
        (below, [9.0, 9.1, 8.9], NOT_REPRODUCED, ""),
        (PART, [1.0], UNDECIDED, NO_INTERVAL),
        (PART, [1.0, math.nan, 1.0], UNDECIDED, "1 of 3 values are not a number"),
        (PART, [], UNDECIDED, "no runs in plane"),
        (CHECK, [1e-12, 3e-12], REPRODUCED, ""),
        (CHECK, [1e-12, 1e-3], UNDECIDED, CROSSES),
        (CHECK, [1e-3, 2e-3], NOT_REPRODUCED, ""),
        (CHECK, [1e-12], UNDECIDED, NO_INTERVAL),
        (CHECK, [1e-12, math.nan], UNDECIDED, "1 of 2 values are not a number"),
        (CHECK, [], UNDECIDED, "no check was run"),
    ]:
        given = evidence([], checks=values) if part is CHECK else evidence(values)
        result = verdicts.decide("X1", claim(part), given, STATISTICS)
        assert result["verdict"] == result["parts"][0]["verdict"] == verdict
        assert result["why"] == result["parts"][0]["why"] == why
    [found] = verdicts.decide("X1", claim(CHECK), evidence([], checks=[1e-12, 3e-12]), {})["parts"]
    assert (found["statistic"], found["low"], found["high"]) == ("exact", 1e-12, 3e-12)
    assert found["value"] == pytest.approx(2e-12) and found["freedom"] is None


def test_an_interval_over_cells_of_one_seed_decides_nothing() -> None:
    one = evidence([1.0, 1.01, 0.99], [10, 10, 10])
    several = Tables({**one.tables, "other": evidence([1.0, 1.0]).tables["plane"]})  # which the statistic does not read
    for given in (one, Evidence(several, one.checks)):
        [found] = verdicts.decide("X1", claim(experiments=list(given.tables)), given, STATISTICS)["parts"]
        assert (found["value"], found["low"]) == (pytest.approx(1.0), None)
        assert (found["verdict"], found["why"]) == (UNDECIDED, verdicts.ONE_SEED)
    assert verdicts.decide("X1", claim({**PART, "one_seed": True}), one, STATISTICS)["verdict"] == REPRODUCED
    fresh = evidence([1.0, 1.01, 0.99], [10, 11, 11])
    assert verdicts.decide("X1", claim(), fresh, STATISTICS)["verdict"] == REPRODUCED
    assert verdicts.decide("X1", claim(seeds_from=11), fresh, STATISTICS)["verdict"] == UNDECIDED


def test_what_fewer_seeds_than_were_planned_leave_open_needs_the_study() -> None:
    planned = {**PART, "planned": {"seeds": 3, "deviation": 0.1, "expected": 1.0, "power": 0.9}}
    for values, verdict in [([1.0, 1.5], NEEDS_STUDY), ([1.0, 1.5, 0.5], UNDECIDED), ([1.0, 1.0], REPRODUCED)]:
        found = verdicts.decide("X1", claim(planned), evidence(values), STATISTICS)
        assert found["verdict"] == verdict
        assert found["why"].startswith("2 of 3 planned seeds: needs") == (verdict == NEEDS_STUDY)


def test_notes_of_an_estimate_stand_behind_the_reason() -> None:
    def of(change: Any, values: list[float]) -> tuple[Any, ...]:
        statistic = Statistic(lambda given, subject: change(mean_value(given, subject)), "mean", 2)
        [found] = verdicts.decide("X1", claim(), evidence(values), {"mean_value": statistic})["parts"]
        return found["low"] is None, found["verdict"], found["why"]

    noted = of(lambda found: found.noted("one was lost").noted("", "one is late"), [1.0, 1.5, 0.5])
    assert noted == (False, UNDECIDED, f"{CROSSES}; one was lost; one is late")
    assert of(lambda found: found.shown("measured once"), [1.0, 1.0]) == (True, UNDECIDED, "measured once")
    scale = f"no cell counts at this scale: {NEEDS_STUDY}"
    assert of(lambda found: found.shown(scale), [1.0, 1.0]) == (True, NEEDS_STUDY, scale)


def test_an_older_seed_changes_nothing_in_a_part_that_starts_later() -> None:
    parts = [PART, {**PART, "seeds_from": 0}, {**PART, "seeds_from": 12}]
    stated = claim(*parts, seeds_from=11, explored=[{"subject": "a", "statistic": "mean_value"}])

    def values(*older: float) -> list[float]:
        seeds = [10] * len(older) + [11, 12, 13]
        found = verdicts.decide("X1", stated, evidence([*older, 1.0, 1.02, 1.04], seeds), STATISTICS)
        return [one["value"] for one in [*found["parts"], *found["explored"]]]

    assert values() == pytest.approx([1.02, 1.02, 1.03, 1.02])
    assert values(7.0, 9.0) == pytest.approx([1.02, 19.06 / 5, 1.03, 1.02])  # all seeds where a part starts at 0
    fresh = verdicts.since(evidence([7.0, 1.0], [10, 11]), 11)
    assert fresh.tables["plane"].metrics["run_id"].tolist() == ["r1"]  # the rows of its runs alone


def test_every_number_of_a_claim_has_a_definition() -> None:
    for study in names():
        known = verdicts.definitions_of(load(study))
        for claim in load_claims(ROOT / "paper" / study / "claims.yaml").values():
            for part in [*claim.parts, *claim.explored]:
                assert known.get(part.name) or verdicts.label_of(load(study), part.name)[0] != "residual", part.name
    assert verdicts.definitions_of(STUDY)["invariance"].startswith("Output and α·gradient at αw")


def test_an_unknown_statistic_is_refused_with_those_that_exist() -> None:
    wrong = {"subject": "a", "statistic": "mean_valu"}
    for stated in (claim({**wrong, "within": [0, 1]}), claim(explored=[wrong])):
        with pytest.raises(UserError, match="'mean_valu': expected one of mean_value"):
            verdicts.decide("X1", stated, evidence([1.0, 1.0]), STATISTICS)


def test_the_content_of_claims_json_has_definitions_runs_seeds_and_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "statistics_of", lambda study: STATISTICS)
    runs = [make_run(seed=seed, l2=l2) for seed in (10, 11, 12) for l2 in (0, 0.1)]
    claims = {"X1": claim(seeds_from=11), "X2": claim(CHECK, experiments=[]), "X3": claim(experiments=["other"])}
    chapter = replace(chapter_of({"plane": runs, "other": []}), claims=claims)
    given = evidence([1.0, 1.01], [11, 12], checks=[0.0, 0.0])
    found = verdicts.decide_all(chapter, given.tables, given.checks, "--cores all")
    assert {name: (one["runs"], one["seeds"]) for name, one in found.items()} == {"X1": (6, 2), "X2": (0, 0)}
    assert found["X1"]["parts"][0]["definition"] == "The mean of the values."
    assert found["X1"]["command"] == "snakemake claim_X1 --cores all"
    text = verdicts.as_text(found["X1"])
    assert text.startswith("X1 : REPRODUCED\n")
    assert "  a, mean_value: 1 [0.973, 1.04], within 0.9 to 1.1: reproduced" in text


def test_a_pooled_deviation_has_the_freedom_of_all_cells() -> None:
    cells = pd.DataFrame({"at": [0, 0, 1, 1], "value": [1.0, 3.0, 10.0, 14.0]})
    margin = stats.t.ppf(0.95, 2) * math.sqrt((2 + 8) / 2 / 2)
    assert pooled_mean(cells, "value", "at", 0)[:4] == pytest.approx((2, 2 - margin, 2 + margin, 2))


def test_a_contrast_is_that_of_the_linear_model_with_cells_and_seeds() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(4, 3)) + 10 * rng.normal(size=3), index=list("abcd"), columns=[200, 201, 202])
    rows = table.stack().rename_axis(["cell", "seed"]).reset_index(name="y")
    fit = smf.ols("y ~ C(cell) + C(seed)", rows).fit()
    low, high = fit.conf_int(0.1).loc["C(cell)[T.c]"]
    assert contrast(table, "c", "a")[:4] == pytest.approx((fit.params["C(cell)[T.c]"], low, high, fit.df_resid))
    one = contrast(table[[200]], "c", "a")
    assert np.isfinite(one.value) and np.isnan(one.low) and one.freedom == 0
