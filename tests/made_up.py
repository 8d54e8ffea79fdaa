"""The published runs of a study with made-up values, of which the statistics are known."""

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from effective_lr.engine.contents import Measurement, Part
from effective_lr.evidence import tidy, verdicts
from effective_lr.evidence.tidy import Experiment, Tables
from effective_lr.evidence.verdicts import Evidence
from shared import published_layout

Value = Callable[
    [Any, float], Any
]  # of rows with the settings of their runs, of one optimizer, such that a statistic is to be x
Made = dict[str, dict[str, Value]]  # by statistic and quantity


class Published:
    """The claims of a study, on its published runs of the scale `study`."""

    def __init__(self, study: str, quantities: set[str]) -> None:
        """With what they measured of these quantities."""
        layout = published_layout()
        chapter = layout.chapters[study]
        self.claims, self.statistics = chapter.claims, verdicts.statistics_of(chapter.study)
        names = {name for claim in self.claims.values() for name in claim.experiments}
        read = tidy.read(chapter, [layout.published(study)], names).items()
        tables = {name: Experiment(rows[rows["quantity"].isin(quantities)], runs) for name, (rows, runs) in read}
        self.whole = Evidence(Tables(tables), tidy.read_checks(layout.checks(study)))

    def of(self, claim: str) -> Evidence:
        """What a claim rests on."""
        return Evidence(self.whole.tables.only(self.claims[claim].experiments), self.whole.checks)

    def decide(self, claim: str, evidence: Evidence, *only: Measurement) -> list[dict[str, Any]]:
        """The parts of a claim and what it explores, or some of these alone."""
        stated = self.claims[claim]
        chosen = {kind: [one for one in getattr(stated, kind) if one in only] for kind in ("parts", "explored")}
        result = verdicts.decide(claim, stated.model_copy(update=chosen if only else {}), evidence, self.statistics)
        json.dumps(result, allow_nan=False)
        return [*result["parts"], *result["explored"]]

    def require_known_answers(self, made: Made, answers: dict[str, tuple[float, float]]) -> None:
        """Each statistic has the value that it is to have, and the verdict follows.

        `answers`: the two values of statistics that cannot have those of `wanted`, or 1.2 where there is no tolerance.
        """
        tried = set()
        for claim, stated in self.claims.items():
            cases: list[tuple[Measurement, float, str | None]] = []
            for part in stated.parts:
                good, bad = answers.get(part.statistic) or wanted(part)
                cases += [(part, good, verdicts.REPRODUCED), (part, bad, verdicts.NOT_REPRODUCED)]
            cases += [(one, answers.get(one.statistic, (1.2,))[0], None) for one in stated.explored]
            for what, x, verdict in cases:
                if what.statistic not in made:
                    continue
                evidence = self.of(claim)
                for quantity, value in made[what.statistic].items():
                    evidence = changed(evidence, quantity, lambda rows, value=value, x=x: value(rows, x))
                [found] = self.decide(claim, evidence, what)
                assert found["value"] is not None and math.isclose(found["value"], x, rel_tol=1e-3, abs_tol=1e-3), found
                assert found.get("verdict") == verdict, found
                tried.add(what.statistic)
        assert tried == made.keys()

    def require_undecided_where_nothing_can_be_said(self) -> None:
        """Without runs, without numbers, and with one seed."""
        results = ("value", "test_error", "validation_error", "late_train_loss", "late_validation_loss")

        def without_numbers(table: pd.DataFrame) -> pd.DataFrame:
            return table.assign(**{key: np.nan for key in results if key in table})

        def of_one_seed(table: pd.DataFrame) -> pd.DataFrame:
            return table[table["seed"] == table["seed"].max()] if "seed" in table else table

        for claim in self.claims:
            for change in (lambda table: table.iloc[:0], without_numbers, of_one_seed):
                read = self.of(claim).tables.items()
                tables = Tables({name: Experiment(*map(change, experiment)) for name, experiment in read})
                for part in self.decide(claim, Evidence(tables, change(self.whole.checks))):
                    assert part["low"] is part["high"] is None, part
                    if "verdict" in part:
                        assert part["verdict"] in (verdicts.UNDECIDED, verdicts.NEEDS_STUDY) and part["why"], part
                        assert part["value"] is None or change is of_one_seed, part


def wanted(part: Part) -> tuple[float, float]:
    """The middle of the tolerance and twice its half-width from there, or half a single bound on either side of it."""
    low, high = part.within
    if math.isinf(low) or math.isinf(high):
        bound, inwards = (high, -1) if math.isinf(low) else (low, 1)
        step = abs(bound) / 2 or 0.1
        return bound + inwards * step, bound - inwards * step
    outwards = -1 if high == 100 else 1  # no error is above 100 %
    return (low + high) / 2, (low + high) / 2 + outwards * (high - low)


def changed(whole: Evidence, quantity: str, value: Callable[[Any], Any]) -> Evidence:
    """With another value of a quantity, in all rows and in the means of runs; `value` sees those of one optimizer."""
    tables = Tables()
    for name, (metrics, runs) in whole.tables.items():
        metrics, runs = metrics.copy(), runs.copy()
        for _, chosen in runs.groupby("optimizer"):
            is_row = metrics["run_id"].isin(chosen["run_id"]) & (metrics["quantity"] == quantity)
            if is_row.any():
                metrics.loc[is_row, "value"] = value(metrics[is_row].join(chosen.set_index("run_id"), on="run_id"))
            if quantity in runs:
                runs.loc[chosen.index, quantity] = value(chosen)
        tables[name] = Experiment(metrics, runs)
    return Evidence(tables, whole.checks)


def with_runs(whole: Evidence, experiment: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Evidence:
    """With other runs in one experiment."""
    metrics, runs = whole.tables[experiment]
    return Evidence(Tables({**whole.tables, experiment: Experiment(metrics, change(runs))}), whole.checks)
