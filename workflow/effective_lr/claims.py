"""The verdict on each claim of paper/claims.yaml: its statistics, their 90 % intervals, and whether these lie within.

A statistic is a function of the tidy tables (analysis.py) and of the table of float64 checks (checks.py), for one
subject. It returns an Estimate, or raises Undecidable with the reason; a value without an interval decides nothing.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import statsmodels.formula.api as smf
from scipy import stats

from effective_lr import theory
from effective_lr.analysis import (
    CONFIDENCE,
    PLANES,
    Estimate,
    Tables,
    are_enough,
    contour_cells,
    equilibrium_by_layer,
    error_or_chance,
    pooled_mean,
    slope_of_contours,
)
from effective_lr.config import UserError
from effective_lr.grid import Claim, Measurement, load_claims

REPRODUCED, NOT_REPRODUCED, UNDECIDED = "reproduced", "not reproduced", "undecided"
LAST_LAYER = "linear"
NORM_POWER = {"sgd": 4, "nesterov": 4, "adam": 3, "rmsprop": 3, "adamw": 2}  # in which ‖w*‖ is compared


NO_SPREAD = Estimate(0.0, 0.0, 0.0)


ONE_SEED = "a single seed gives no interval"


class Undecidable(Exception):
    """Why a statistic has no value."""


class Evidence:
    """What the statistics read, and what a reader must know of it: whether it rests on a single seed, and a note."""

    def __init__(self, tables: Tables, checks: pd.DataFrame) -> None:
        self.tables, self.checks = tables, checks
        self.start()

    def start(self) -> None:
        """Forget what was read for another statistic."""
        self.has_one_seed = False
        self.note = ""

    def runs(self, experiment: str) -> pd.DataFrame:
        """The runs of an experiment."""
        runs = self.tables[experiment].runs
        if runs.empty:
            raise Undecidable(f"no runs in {experiment}")
        self.has_one_seed |= runs["seed"].nunique() < 2
        return runs

    def at_equilibrium(self, subject: str) -> pd.DataFrame:
        """Measured and predicted values by run and layer, for the cells of an optimizer's plane at equilibrium."""
        table = equilibrium_by_layer(self.tables[PLANES[subject]].metrics, self.runs(PLANES[subject]))
        if table.empty:
            raise Undecidable("no cell of the grid reaches equilibrium at small steps")
        has_all = table.groupby("run_id")["has_gradient"].all()
        if not has_all.all():
            self.note = f"in {(~has_all).sum()} of {len(has_all)} runs most units of a layer have no gradient"
        return table

    def last_layer(self, subject: str) -> pd.DataFrame:
        """`at_equilibrium` for the classifier alone: no ReLU follows it that could switch off a unit."""
        table = self.at_equilibrium(subject)
        self.note = ""
        return table[table["layer"] == LAST_LAYER]


def checked(evidence: Evidence, check: str, subject: str) -> Estimate:
    """The mean over seeds of a float64 check, and its range: what is exact has no other spread."""
    checks = evidence.checks
    values = checks.loc[(checks["check"] == check) & (checks["subject"] == subject), "value"]
    if values.empty:
        raise Undecidable("no check was run")
    evidence.has_one_seed |= len(values) < 2
    return finite(Estimate(values.mean(), values.min(), values.max()), values)


def finite(estimate: Estimate, values: Any) -> Estimate:
    """The estimate, unless a value that it rests on, or itself, is not a number."""
    missing = int((~np.isfinite(np.asarray(values, dtype=float))).sum())
    if missing:
        raise Undecidable(f"{missing} of {np.size(values)} values are not a number")
    if not np.isfinite(estimate.value):
        raise Undecidable("too few values")
    return estimate


def mean_interval(values: pd.Series) -> Estimate:
    """The mean and its t interval."""
    finite(NO_SPREAD, values)
    spread = values.std(ddof=1) / np.sqrt(len(values))
    margin = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * spread if len(values) > 1 else np.nan
    return finite(Estimate(values.mean(), values.mean() - margin, values.mean() + margin), [])


def largest(differences: pd.DataFrame, by: str) -> Estimate:
    """The largest absolute mean difference over the cells, with its pooled interval, cut at 0."""
    finite(NO_SPREAD, differences["difference"])
    means = differences.groupby(by)["difference"].mean()
    worst = means.abs().idxmax()
    value, low, high = finite(pooled_mean(differences, "difference", by, worst), [])
    if value < 0:
        value, low, high = -value, -high, -low
    return Estimate(value, float(np.maximum(low, 0.0)), high)


def differences(runs: pd.DataFrame, value: pd.Series, reference: pd.Series) -> pd.DataFrame:
    """`difference` of a value from that of the reference run of the same seed, for all other runs."""
    table = runs.assign(value=value)
    start = table[reference].set_index("seed")["value"]
    others = table[~reference]
    if start.empty or others.empty:
        raise Undecidable("there is nothing to compare with")
    return others.assign(difference=others["value"] - others["seed"].map(start))


# The statistics. Errors are in points of percent.


def invariance(evidence: Evidence, subject: str) -> Estimate:
    return checked(evidence, "invariance", subject)


def affine_invariance(evidence: Evidence, subject: str) -> Estimate:
    return checked(evidence, "affine_invariance", subject)


def norm_exponent(evidence: Evidence, subject: str) -> Estimate:
    """The exponent of ‖w‖ in the angle per step."""
    return checked(evidence, "norm_exponent", subject)


def family(evidence: Evidence, subject: str) -> pd.DataFrame:
    """The runs of the symmetry family under a normalization, with the smallest ε."""
    runs = evidence.runs("symmetry")
    runs = runs[runs["normalization"] == subject]
    return runs[runs["norm_eps"] == runs["norm_eps"].min()]


def symmetry_error(evidence: Evidence, subject: str) -> Estimate:
    """The largest departure of the test error from that at a = 1."""
    runs = family(evidence, subject)
    return largest(differences(runs, 100 * error_or_chance(runs), runs["initial_norm"] == 1), "initial_norm")


def symmetry_loss(evidence: Evidence, subject: str) -> Estimate:
    """The largest departure of the late training loss from that at a = 1, in percent of it."""
    runs = family(evidence, subject)
    return largest(differences(runs, 100 * np.log(runs["late_train_loss"]), runs["initial_norm"] == 1), "initial_norm")


def angle_slope(evidence: Evidence, subject: str) -> Estimate:
    """The slope of log(angle per step) in log(ηλ), over the runs at equilibrium; an angle is the median over layers."""
    runs = evidence.at_equilibrium(subject).groupby("run_id").agg({"angle": "median", "lr": "first", "l2": "first"})
    x, y = np.log(runs["lr"] * runs["l2"]), np.log(runs["angle"])
    if x.round(6).nunique() < 3:
        raise Undecidable("fewer than three values of ηλ")
    fit = stats.linregress(x, y)
    margin = stats.t.ppf((1 + CONFIDENCE) / 2, len(x) - 2) * fit.stderr
    return finite(Estimate(fit.slope, fit.slope - margin, fit.slope + margin), y)


def angle_factor(evidence: Evidence, subject: str) -> Estimate:
    """The angle per step over the predicted one, median over layers: geometric mean over the runs at equilibrium."""
    ratios = evidence.at_equilibrium(subject).groupby("run_id")["angle_ratio"].median()
    return Estimate(*np.exp(mean_interval(np.log(ratios))))


def norm_factor(evidence: Evidence, subject: str) -> Estimate:
    """‖w‖⁴ (Adam, RMSProp: ‖w‖³, AdamW: ‖w‖²) over its prediction from the measured G, median over layers: geometric
    mean over the runs at equilibrium."""
    return power_of_ratio(evidence.at_equilibrium(subject), subject)


def norm_factor_of_the_last_layer(evidence: Evidence, subject: str) -> Estimate:
    return power_of_ratio(evidence.last_layer(subject), subject)


def power_of_ratio(table: pd.DataFrame, subject: str) -> Estimate:
    ratios = table.groupby("run_id")["norm_ratio"].median()
    return Estimate(*np.exp(NORM_POWER[subject] * np.array(mean_interval(np.log(ratios.where(ratios > 0))))))


def contour_slope(evidence: Evidence, subject: str) -> Estimate:
    """s of the contours log η = −s·log λ + const of the test error."""
    runs = evidence.runs(PLANES[subject])
    cells = contour_cells(runs)
    if not are_enough(cells):
        raise Undecidable("fewer than three diagonals or six cells")
    finite(NO_SPREAD, cells["test_error"])
    return finite(slope_of_contours(runs), [])


def growth_slope(evidence: Evidence, subject: str) -> Estimate:
    """The slope of log η_eff in log t over the last half of runs without a penalty, median over layers, of those whose
    predicted growth 2η²G²T is at least 8‖w₀‖⁴: mean over runs."""
    runs = evidence.runs("growth")
    runs = runs[(runs["optimizer"] == subject) & runs["diverged"].isna()].set_index("run_id")
    metrics = evidence.tables["growth"].metrics
    metrics = metrics[metrics["run_id"].isin(runs.index) & (metrics["layer"] != "")]
    slopes = {}
    for run_id, rows in metrics.groupby("run_id"):
        run = runs.loc[run_id]
        grad_squared = rows.loc[rows["quantity"] == "g_squared"].groupby("layer")["value"].mean().median()
        if 2 * run["lr"] ** 2 * grad_squared * run["steps"] < 8 * run["initial_norm"] ** 4:
            continue
        late = rows[(rows["quantity"] == "effective_lr") & (rows["step"] >= run["steps"] / 2)]
        layers = [stats.linregress(np.log(k["step"]), np.log(k["value"])).slope for _, k in late.groupby("layer")]
        slopes[run_id] = np.median(layers)
    if not slopes:
        raise Undecidable("no run has grown enough")
    return mean_interval(pd.Series(slopes))


def l2_exponent(evidence: Evidence, subject: str) -> Estimate:
    """The exponent of λ in η_eff at fixed η: least squares of log η_eff on log λ with an intercept for each η."""
    return exponent_of_l2(evidence.at_equilibrium(subject))


def l2_exponent_of_the_last_layer(evidence: Evidence, subject: str) -> Estimate:
    return exponent_of_l2(evidence.last_layer(subject))


def exponent_of_l2(table: pd.DataFrame) -> Estimate:
    runs = table.groupby("run_id").agg({"effective_lr": "median", "lr": "first", "l2": "first"})
    if (runs.groupby("lr")["l2"].nunique() > 1).sum() < 1:
        raise Undecidable("no η has two λ in equilibrium")
    finite(NO_SPREAD, runs["effective_lr"])
    fit = smf.ols("y ~ C(lr) + x", runs.assign(y=np.log(runs["effective_lr"]), x=np.log(runs["l2"]))).fit()
    low, high = fit.conf_int(1 - CONFIDENCE).loc["x"]
    return finite(Estimate(fit.params["x"], low, high), [])


def projected_runs(evidence: Evidence, subject: str) -> tuple[pd.DataFrame, float]:
    """The runs with ‖w‖ = 1, with their errors, and the critical λ."""
    runs = evidence.runs(f"projection_{subject}")
    runs = runs[runs["projected"]]
    return runs.assign(error=100 * error_or_chance(runs)), float(theory.critical_l2(subject, runs["lr"].iloc[0]))


def projected_change(evidence: Evidence, subject: str) -> Estimate:
    """The largest departure of the test error from that at λ = 0, up to 0.1 λc."""
    runs, critical = projected_runs(evidence, subject)
    runs = runs[runs["l2"] <= 0.1 * critical * (1 + 1e-9)]
    return largest(differences(runs, runs["error"], runs["l2"] == 0), "l2")


def projected_beyond(evidence: Evidence, subject: str) -> Estimate:
    """The test error at 1.2 λc."""
    runs, critical = projected_runs(evidence, subject)
    beyond = runs[runs["l2"] > critical]
    at = beyond["l2"][np.isclose(beyond["l2"], 1.2 * critical)]
    if at.empty:
        raise Undecidable("no run at 1.2 λc")
    value, low, high = finite(pooled_mean(beyond, "error", "l2", at.iloc[0]), beyond["error"])
    return Estimate(value, low, float(np.minimum(high, 100.0)))


def affine_penalty(evidence: Evidence, subject: str) -> Estimate:
    """The change of the test error by a penalty on γ and β of the hidden layers."""
    runs = evidence.runs("affine_penalty")
    runs = runs[runs["affine_l2"].isin(["none", "hidden"])]
    return mean_interval(differences(runs, 100 * error_or_chance(runs), runs["affine_l2"] == "none")["difference"])


STATISTICS: dict[str, Callable[[Evidence, str], Estimate]] = {
    function.__name__: function
    for function in (
        invariance,
        affine_invariance,
        norm_exponent,
        symmetry_error,
        symmetry_loss,
        angle_slope,
        angle_factor,
        norm_factor,
        norm_factor_of_the_last_layer,
        contour_slope,
        growth_slope,
        l2_exponent,
        l2_exponent_of_the_last_layer,
        projected_change,
        projected_beyond,
        affine_penalty,
    )
}


# Verdicts


def judge(estimate: Estimate, within: tuple[float, float]) -> tuple[str, str]:
    """The verdict on a part, and the reason where it is undecided."""
    lowest, highest = within
    if np.isnan(estimate.low) or np.isnan(estimate.high):
        return UNDECIDED, "too few values for an interval"
    if lowest <= estimate.low and estimate.high <= highest:
        return REPRODUCED, ""
    if estimate.high < lowest or estimate.low > highest:
        return NOT_REPRODUCED, ""
    return UNDECIDED, "the interval crosses the bound of the tolerance"


def summarize(parts: list[dict[str, Any]]) -> tuple[str, str]:
    """The verdict on a claim from those on its parts: the worst for each subject, then what subjects have in common."""
    subjects: dict[str, str] = {}
    order = [REPRODUCED, UNDECIDED, NOT_REPRODUCED]
    for part in parts:
        worst = max(part["verdict"], subjects.get(part["subject"], REPRODUCED), key=order.index)
        subjects[part["subject"]] = worst
    found = set(subjects.values())
    if len(found) == 1:
        reasons = {part["why"]: None for part in parts if part["why"]}  # each once, in order
        return found.pop(), "; ".join(reasons)
    by = "; ".join(
        f"{kind}: {', '.join(s for s in subjects if subjects[s] == kind)}" for kind in order if kind in found
    )
    return ("reproduced in part" if {REPRODUCED, NOT_REPRODUCED} <= found else UNDECIDED), by


def measure(what: Measurement, evidence: Evidence) -> tuple[Estimate, str]:
    """The statistic, and why it decides nothing where that is so already."""
    evidence.start()
    try:
        estimate = STATISTICS[what.statistic](evidence, what.subject)
    except Undecidable as reason:
        return Estimate(np.nan, np.nan, np.nan), str(reason)
    if evidence.has_one_seed:
        return Estimate(estimate.value, np.nan, np.nan), ONE_SEED
    return estimate, ""


def as_json(estimate: Estimate) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {key: None if np.isnan(value) else float(value) for key, value in estimate._asdict().items()}


def decide(name: str, claim: Claim, evidence: Evidence) -> dict[str, Any]:
    """The verdict on a claim, with every number that it rests on, and those that were explored afterwards."""
    parts = []
    for part in claim.parts:
        estimate, why = measure(part, evidence)
        verdict, why = (UNDECIDED, why) if why else judge(estimate, part.within)
        if verdict != REPRODUCED and evidence.note:
            why = "; ".join(filter(None, [why, evidence.note]))
        within = [None if np.isinf(bound) else bound for bound in part.within]
        parts.append({**part.model_dump(), "within": within, **as_json(estimate), "verdict": verdict, "why": why})
    explored = [{**what.model_dump(), **as_json(measure(what, evidence)[0])} for what in claim.explored]
    verdict, why = summarize(parts)
    text = claim.model_dump(exclude={"parts", "explored"})
    return {"id": name, **text, "verdict": verdict, "why": why, "parts": parts, "explored": explored}


def tell(result: dict[str, Any]) -> str:
    """The verdict in a few lines, for a terminal."""
    lines = [
        f"{result['id']} {result['title']}: {result['verdict'].upper()}" + f" ({result['why']})" * bool(result["why"])
    ]
    for part in result["parts"]:
        low, high = ("∞" if bound is None else f"{bound:g}" for bound in part["within"])
        why = f" ({part['why']})" * bool(part["why"])
        lines.append(f"  {tell_value(part)}, within {low} to {high}: {part['verdict']}{why}")
    lines += [f"  {tell_value(what)}: explored after the results were seen" for what in result["explored"]]
    return "\n".join(lines)


def tell_value(measured: dict[str, Any]) -> str:
    value = "no value" if measured["value"] is None else f"{measured['value']:.3g}"
    value += "" if measured["low"] is None else f" [{measured['low']:.3g}, {measured['high']:.3g}]"
    return f"{measured['subject']}, {measured['statistic']}: {value} {measured['unit']}".rstrip()


def main() -> int:
    parser = argparse.ArgumentParser(description="Decide on a claim.")
    parser.add_argument("claim", help="C1 to C9")
    parser.add_argument("--claims", type=Path, required=True, help="paper/claims.yaml")
    parser.add_argument("--checks", type=Path, required=True, help="table of float64 checks")
    parser.add_argument("--tables", type=Path, nargs="*", default=[], help="tables of the experiments")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    try:
        claim = load_claims(arguments.claims)[arguments.claim]
        unknown = sorted({part.statistic for part in claim.parts} - STATISTICS.keys())
        if unknown:
            known = ", ".join(STATISTICS)
            raise UserError(
                f"{arguments.claims}: {arguments.claim}: statistic = '{unknown[0]}': expected one of {known}"
            )
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    result = decide(arguments.claim, claim, Evidence(Tables(arguments.tables), pd.read_parquet(arguments.checks)))
    arguments.output.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(tell(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
