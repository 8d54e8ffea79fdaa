"""One statistic of each claim again, from the raw rows, by a reader's own script: pandas, numpy, scipy, and no package.

    python tests/normalization/reanalysis.py TABLE.parquet [MORE.parquet ...] CHECKS.parquet

The tables hold tidy rows (run_id, step, layer, quantity, value) and in their metadata, as JSON, the settings of each
run. The rules are those that paper/normalization/claims.yaml words. Runs are found by their settings alone: this file
does not know the experiments. It prints JSON: by claim subject, statistic, value and, where the interval is a plain t
interval over seeds, its ends; or why there is no value.
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from scipy import stats

G = 0.1  # from which masks are predicted
CHANCE = 0.9  # the error of a run that diverged
LOST = 0.05  # the largest share of scale groups without a gradient in a layer that counts
# A run that does nothing special.
PLAIN = {
    "normalization": "batch",
    "norm_eps": 1e-5,
    "initial_norm": 1.0,
    "label_noise": 0.0,
    "leak": 0.0,
    "layer_l2": "equal",
    "replay": "none",
    "affine_l2": "none",
    "projected": False,
    "lr_drop": 1.0,
    "evaluated": "parts",
    "batch_statistics": "recomputed",
    "starts_at_equilibrium": False,
    "corrected_squares": False,
}
NEW_SEEDS = 300  # from which seeds decide where the third registration has a new rule
Ends = tuple[float, float, float]  # a value and its interval, NaN where there is none that is simple


class NotThere(Exception):
    """The tables have no run of this kind."""


class NoValue(Exception):
    """There are runs, and no cell that counts."""


class Rows:
    """The runs with their settings and errors, and their late values by layer."""

    def __init__(self, paths: list[Path]) -> None:
        tables = [pq.read_table(path) for path in paths]
        records = [record for table in tables for record in json.loads(table.schema.metadata[b"provenance"])]
        settings = pd.DataFrame([{**PLAIN, **one["run"], "run_id": one["run_id"]} for one in records])
        diverged = pd.Series({one["run_id"]: one["diverged"] is not None for one in records})
        rows = pd.concat([table.to_pandas() for table in tables])
        whole = rows[(rows["layer"] == "") & (rows["quantity"] == "test_error")]
        errors = whole.groupby("run_id")["value"]
        losses = rows[(rows["layer"] == "") & (rows["quantity"] == "late_train_loss")].set_index("run_id")["value"]
        self.runs = settings.set_index("run_id")
        self.runs["diverged"] = diverged
        for name, value in [("error", errors.mean()), ("median_error", errors.median())]:
            self.runs[name] = 100 * value.reindex(self.runs.index).where(~diverged, CHANCE)
        self.runs["loss"] = losses
        last = rows[rows["layer"] != ""].merge(settings[["run_id", "steps"]], on="run_id")
        last = last[last["step"] == last["steps"]]
        self.late = last.pivot_table(index=["run_id", "layer"], columns="quantity", values="value", dropna=False)

    def select(self, what: str, **settings: Any) -> pd.DataFrame:
        """The runs that differ from a plain one in these settings alone; None leaves a setting open."""
        found = self.runs
        for key, value in {**PLAIN, **settings}.items():
            if value is not None:
                found = found[found[key] == value]
        if found.empty:
            raise NotThere(f"no run of {what}")
        return found

    def layers(self, runs: pd.DataFrame, *quantities: str) -> pd.DataFrame:
        """A row for each of these runs and layers, with the quantities and the settings of the run."""
        missing = {*quantities, "late_without_gradient"} - set(self.late.columns)
        if missing:
            raise NotThere(f"no {min(missing)}")
        table = self.late.reset_index().merge(runs[~runs["diverged"]], left_on="run_id", right_index=True)
        return whole_cells(table, runs["seed"].nunique())


def whole_cells(table: pd.DataFrame, seeds: int) -> pd.DataFrame:
    """The cells (η, λ) that have so many seeds."""
    return table[table.groupby(["lr", "l2"])["seed"].transform("nunique") == seeds]


def live(table: pd.DataFrame) -> pd.DataFrame:
    """The layers and cells where nearly all scale groups have a gradient, in every seed."""
    lost = table.groupby(["layer", "lr", "l2"])["late_without_gradient"].transform("max")
    if not (lost <= LOST).any():
        raise NoValue("no cell counts at this scale")
    return table[lost <= LOST]


def alone(value: float) -> Ends:
    return value, np.nan, np.nan


def over_seeds(values: pd.Series) -> Ends:
    """The mean over seeds and its 90 % t interval."""
    if len(values) < 2:
        return float(values.mean()), np.nan, np.nan
    margin = stats.t.ppf(0.95, len(values) - 1) * stats.sem(values)
    return float(values.mean()), float(values.mean() - margin), float(values.mean() + margin)


def worst(
    table: pd.DataFrame, by: str | list[str], number: Callable[[pd.DataFrame], float], reach: Callable[[float], float]
) -> Ends:
    """Of the groups, each with a number for each seed, the interval that reaches farthest."""
    intervals = []
    for _, group in table.groupby(by):
        seeds = pd.Series({seed: number(cells) for seed, cells in group.groupby("seed")}, dtype=float)
        intervals.append(over_seeds(seeds))
    return max(intervals, key=lambda ends: np.nanmax([reach(end) for end in ends]))


def mean_errors(runs: pd.DataFrame, by: list[str]) -> pd.Series:
    """The mean error of each cell over the seeds that all cells have."""
    table = runs.pivot_table(index=by, columns="seed", values="error")
    return table.dropna(axis="columns").mean(axis="columns")


# The claims


def check(checks: pd.DataFrame, name: str, subject: str) -> Ends:
    """A float64 check: mean and range over its seeds."""
    values = checks.loc[(checks["check"] == name) & (checks["subject"] == subject), "value"]
    if values.empty:
        raise NotThere(f"no check {name}")
    return values.mean(), values.min(), values.max()


def replay(rows: Rows) -> Ends:
    """C2: the median test error of the slow replay less that of the penalty, mean over λ, new seeds; counted if some λ
    changes the late training loss by a factor of 2.
    """
    runs = rows.select("memorization", label_noise=0.2, replay=None)
    runs = runs[runs["replay"].isin(["none", "slow"]) & (runs["seed"] >= NEW_SEEDS)]
    runs = runs[runs["seed"].isin(runs.loc[runs["replay"] == "slow", "seed"])]
    if runs.empty:
        raise NoValue("no slow replay with a new seed")
    penalty = runs[runs["replay"] == "none"]
    losses = np.log(penalty["loss"]).groupby(penalty["l2"]).mean()
    if (losses - losses[0.0]).abs().max() < np.log(2):
        raise NoValue("no penalty changes the training loss by a factor of 2")
    errors = runs.pivot_table(index=["seed", "l2"], columns="replay", values="median_error")
    return over_seeds((errors["slow"] - errors["none"]).dropna().groupby("seed").mean())


def in_window(rows: Rows) -> pd.DataFrame:
    """C4 and C7: Adam with λ_ℓ = λ·d_max/d_ℓ, from its equilibrium, new seeds. A cell counts at θ ≤ 0.05 in the widest
    layer if 1.5θ²t is at least 3 at the first late step; θ = (4η²λd/G)^⅓. 0.1 % is for λ that were rounded.
    """
    runs = rows.select("Adam", optimizer="adam", layer_l2="inverse_size", starts_at_equilibrium=True, initial_norm=None)
    runs = runs[runs["seed"] >= NEW_SEEDS]
    if runs.empty:
        raise NoValue("no run of Adam with a new seed")
    table = rows.layers(runs, "balance_norm", "balance_gradient", "balance_memory", "late_norm_squared", "group_size")
    widest = table["group_size"].max()
    theta = np.cbrt(4 * table["lr"] ** 2 * table["l2"] * widest / G)
    late = np.minimum((table["steps"] * (1 - table["late_fraction"])).round(), table["steps"] - 1)
    counts = (theta <= 0.05 * 1.001) & (1.5 * theta**2 * late * 1.001 >= 3)
    return live(table.assign(penalty=table["l2"] * widest / table["group_size"])[counts])


def balance(rows: Rows) -> Ends:
    """C4: 4λ⟨w,w⟩ over η(⟨g,Pg⟩ + 2β/(1−β)·⟨g,Pm⟩) with β = 0.9, geometric mean over cells."""
    table = in_window(rows)
    growth = table["lr"] * (table["balance_gradient"] + 2 * 0.9 / (1 - 0.9) * table["balance_memory"])
    logs = np.log(4 * table["penalty"] * table["balance_norm"] / growth)
    found = worst(table.assign(log=logs), "layer", lambda cells: cells["log"].mean(), abs)
    value, low, high = np.exp(found)
    return value, low, high


def contours(rows: Rows) -> Ends:
    """C5: s of the contours log η = −s·log λ + const of SGD's test error, from logit(error) on u, u² and v."""
    runs = rows.select("plane_sgd", optimizer="sgd", affine_lr=0.1)
    runs = runs[(runs["l2"] > 0) & (runs["seed"] < NEW_SEEDS)]  # the new ones are of C4
    rate = 8 * runs["lr"] * runs["l2"]
    far = np.abs(4 * runs["l2"] / (runs["lr"] * G**2) - 1)  # (‖w₀‖/‖w*‖)⁴ − 1
    late = runs["steps"] * (1 - runs["late_fraction"])
    runs = runs[(far * np.exp(-rate * late) <= 0.2) & (np.sqrt(rate / 2) <= 0.25)]
    several = runs[runs.groupby(["lr", "l2"])["seed"].transform("nunique") > 1]
    often = several["seed"].value_counts()  # a single cell may have further seeds, for another experiment
    seeds = often[often > often.max() / 2].index if len(often) else runs["seed"].unique()
    runs = whole_cells(runs[runs["seed"].isin(seeds)], len(seeds))
    cells = runs.groupby(["lr", "l2"])["error"].mean().reset_index()
    diverged = runs.groupby(["lr", "l2"])["diverged"].any().to_numpy()
    cells = cells[~diverged]
    u, v = np.log(cells["lr"]) + np.log(cells["l2"]), np.log(cells["lr"]) - np.log(cells["l2"])
    if u.round(6).nunique() < 3 or len(cells) < 6:
        raise NoValue("fewer than three diagonals or six cells")
    u = u - u.mean()
    error = cells["error"] / 100
    design = np.column_stack([np.ones(len(u)), u, u**2, v])
    (_, b_u, _, b_v), *_ = np.linalg.lstsq(design, np.log(error / (1 - error)), rcond=None)
    return alone((b_u - b_v) / (b_u + b_v))


def growth(rows: Rows) -> Ends:
    """C6 ii: R₄ at the η and layer where it is farthest from 1."""
    runs = rows.select("growth", optimizer="sgd", l2=0.0, norm_eps=None, initial_norm=1.0)
    runs = runs[runs["norm_eps"] == runs["norm_eps"].min()]
    table = live(rows.layers(runs, "fourth_power_ratio"))
    return worst(table, ["layer", "lr"], lambda cells: cells["fourth_power_ratio"].mean(), lambda end: abs(end - 1))


def exponent(cells: pd.DataFrame) -> float:
    """The exponent of λ in η_eff = η/‖w‖ at fixed η."""
    x, y = np.log(cells["penalty"]), np.log(cells["lr"] / np.sqrt(cells["late_norm_squared"]))
    rates = pd.get_dummies(cells["lr"]).to_numpy(dtype=float)
    return float(np.linalg.lstsq(np.column_stack([x, rates]), y, rcond=None)[0][0])


def only_partly(rows: Rows) -> Ends:
    """C7: the exponent of λ in Adam's η_eff, in the layer where it is lowest."""
    table = in_window(rows)
    several = table.groupby(["layer", "lr"])["l2"].transform("nunique") > 1
    table = table[several.groupby(table["layer"]).transform("any")]
    if table.empty:
        raise NoValue("no η has two λ in the window")
    return worst(table, "layer", exponent, lambda end: -end)


def projected(rows: Rows) -> Ends:
    """C8: at 0.25, 0.5, 0.8, 0.9 λc the error less that without a penalty at η/(1 − λ/λc), where it is largest."""
    runs = rows.select("projection_sgd", optimizer="sgd", projected=True)
    lr = runs.loc[runs["l2"] > 0, "lr"].iloc[0]
    fraction = (runs["l2"] * 2 * lr).where(runs["l2"] > 0, 1 - lr / runs["lr"]).round(3)  # λ/λc
    errors = mean_errors(runs.assign(fraction=fraction, held=runs["l2"] > 0), ["fraction", "held"])
    apart = (errors.xs(True, level="held") - errors.xs(False, level="held")).reindex([0.25, 0.5, 0.8, 0.9])
    if apart.isna().any():
        raise NotThere("no run of projection_sgd without a penalty at η/(1 − λ/λc)")
    return alone(apart[apart.abs().idxmax()])


def affine(rows: Rows) -> Ends:
    """C9: the change of the error by a penalty on γ and β of the hidden layers."""
    hidden = rows.select("affine_penalty", affine_l2="hidden")
    first = hidden.iloc[0]
    none = rows.select("affine_penalty", affine_l2="none", **{key: first[key] for key in ("optimizer", "lr", "l2")})
    none = none[none["affine_lr"] == first["affine_lr"]]
    changes = hidden.set_index("seed")["error"] - none.set_index("seed")["error"]
    return over_seeds(changes.dropna())


def lost_units(rows: Rows) -> Ends:
    """C10: the share of units without a gradient in the widest layer, under Adam at θ = 0.2 after 5,000 steps."""
    runs = rows.select("lost_units", optimizer="adam", affine_lr=0.003)
    theta = np.cbrt(4 * runs["lr"] ** 2 * runs["l2"] * 288 / G)  # of 32 channels and 3×3 weights
    runs = runs[np.isclose(theta, 0.2, rtol=0.01)]
    if runs.empty:
        raise NotThere("no run of lost_units at θ = 0.2")
    if runs["steps"].min() < 5000:
        raise NoValue("predicted for 5000 steps")
    table = rows.layers(runs, "group_size")
    widest = table[table["group_size"] == 288]
    return over_seeds(widest.groupby("seed")["late_without_gradient"].mean())


CLAIMS: dict[str, tuple[str, str, Callable[[Rows], Ends]]] = {  # statistic, subject, and how it is found
    "C2": ("replay_error_mean", "slow replay", replay),
    "C4": ("balance", "adam", balance),
    "C5": ("contour_slope", "sgd", contours),
    "C6": ("growth_factor", "sgd", growth),
    "C7": ("l2_exponent", "adam", only_partly),
    "C8": ("projected_match", "sgd", projected),
    "C9": ("affine_penalty", "hidden penalty", affine),
    "C10": ("lost_share_of_widest", "adam", lost_units),
}
CHECKS = {"C1": ("invariance", "batch"), "C3": ("norm_exponent", "adam")}


def answer(statistic: str, subject: str, find: Callable[[], Ends]) -> dict[str, Any]:
    """What was found, or why nothing was, and whether there were runs at all."""
    told: dict[str, Any] = {"statistic": statistic, "subject": subject, "value": None, "low": None, "high": None}
    try:
        ends = dict(zip(("value", "low", "high"), find(), strict=True))
        return {**told, "is_there": True, **{key: float(end) for key, end in ends.items() if np.isfinite(end)}}
    except (NotThere, NoValue) as why:
        return {**told, "is_there": isinstance(why, NoValue), "why": str(why)}


def reanalyze(paths: list[Path], checks: Path) -> dict[str, dict[str, Any]]:
    """The answers by claim."""
    table, rows = pd.read_parquet(checks), Rows(paths)
    exact = {name: answer(*what, partial(check, table, *what)) for name, what in CHECKS.items()}
    return exact | {
        name: answer(statistic, subject, partial(find, rows)) for name, (statistic, subject, find) in CLAIMS.items()
    }


if __name__ == "__main__":
    *tables, last = map(Path, sys.argv[1:])
    print(json.dumps(reanalyze(tables, last), indent=1, ensure_ascii=False))
