"""One statistic of each claim again, from the raw rows, by a reader's own script: pandas, numpy, scipy, and no package.

    python tests/reanalysis.py TABLE.parquet [MORE.parquet ...] CHECKS.parquet

The tables hold tidy rows (run_id, step, layer, quantity, value) of one study and in their metadata, as JSON, the study
and the settings of each run. The rules are those that paper/<study>/claims.yaml words. Runs are found by their settings
alone: this file does not know the experiments. It prints JSON: by claim subject, statistic, value and, where the
interval is a plain t interval over seeds, its ends; or why there is no value.
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

# A run that does nothing special.
PLAIN: dict[str, dict[str, Any]] = {
    "normalization": {
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
    },
    "stability": {"network": "mlp", "normalization": "none", "loss": "mse"},
    "manifold": {"lr_factor": 1.0, "initial_norm": 1.0, "slowness": 1.0},
}
# From which seeds decide where the third registration has a new rule.
NEW_SEEDS = {"normalization": 300, "stability": 200, "manifold": 200}
Ends = tuple[float, float, float]  # a value and its interval, NaN where there is none that is simple


class NoValue(Exception):
    """There are no such runs, or no cell that counts."""


class Rows:
    """The rows, and the runs with their settings."""

    def __init__(self, records: list[dict[str, Any]], rows: pd.DataFrame) -> None:
        self.study, self.rows = records[0]["study"], rows
        settings = [{**PLAIN[self.study], **one["run"], "run_id": one["run_id"]} for one in records]
        self.runs = pd.DataFrame(settings).set_index("run_id")
        self.runs["diverged"] = pd.Series({one["run_id"]: one["diverged"] is not None for one in records})

    def select(self, what: str, **settings: Any) -> pd.DataFrame:
        """The runs that differ from a plain one in these settings alone; None leaves a setting open."""
        found = self.runs
        for key, value in {**PLAIN[self.study], **settings}.items():
            if value is not None:
                found = found[found[key] == value]
        if found.empty:
            raise NoValue(f"no run of {what}")
        return found

    def fresh(self, what: str, **settings: Any) -> pd.DataFrame:
        """Those of them with new seeds."""
        found = self.select(what, **settings)
        if (found["seed"] < NEW_SEEDS[self.study]).all():
            raise NoValue(f"no run of {what} with a new seed")
        return found[found["seed"] >= NEW_SEEDS[self.study]]

    def whole(self, quantity: str) -> pd.DataFrame:
        """The rows of a quantity that has no layer."""
        return self.rows[(self.rows["layer"] == "") & (self.rows["quantity"] == quantity)]


# Intervals


def alone(value: float) -> Ends:
    return value, np.nan, np.nan


def over_seeds(values: pd.Series) -> Ends:
    """The mean over seeds and its 90 % t interval; NaN where a seed has no number."""
    mean = float(values.mean(skipna=False))
    if len(values) < 2:
        return alone(mean)
    margin = float(stats.t.ppf(0.95, len(values) - 1) * stats.sem(values))
    return mean, mean - margin, mean + margin


def geometric(values: pd.Series) -> Ends:
    """The geometric mean over the seeds that have a number, with the interval of the logarithms."""
    value, low, high = np.exp(over_seeds(np.log(values.dropna())))
    return value, low, high


def farthest_from_1(groups: list[pd.Series]) -> Ends:
    """Of the groups, each with a number for each seed, the geometric mean that is farthest from 1."""
    return max(map(geometric, groups), key=lambda ends: abs(np.log(ends[0])))


def worst(
    table: pd.DataFrame, by: str | list[str], number: Callable[[pd.DataFrame], float], reach: Callable[[float], float]
) -> Ends:
    """Of the groups, each with a number for each seed, the interval that reaches farthest."""
    intervals = []
    for _, group in table.groupby(by):
        seeds = pd.Series({seed: number(cells) for seed, cells in group.groupby("seed")}, dtype=float)
        intervals.append(over_seeds(seeds))
    return max(intervals, key=lambda ends: np.nanmax([reach(end) for end in ends]))


def check(checks: pd.DataFrame, name: str, subject: str) -> Ends:
    """A float64 check: mean and range over its seeds."""
    values = checks.loc[(checks["check"] == name) & (checks["subject"] == subject), "value"]
    if values.empty:
        raise NoValue(f"no check {name}")
    return values.mean(), values.min(), values.max()


# normalization

G = 0.1  # from which masks are predicted
CHANCE = 0.9  # the error of a run that diverged
LOST = 0.05  # the largest share of scale groups without a gradient in a layer that counts


class Images(Rows):
    """With the errors of the runs, and their late values by layer."""

    def __init__(self, *what: Any) -> None:
        super().__init__(*what)
        errors = self.whole("test_error").groupby("run_id")["value"]
        for name, value in [("error", errors.mean()), ("median_error", errors.median())]:
            self.runs[name] = 100 * value.reindex(self.runs.index).where(~self.runs["diverged"], CHANCE)
        self.runs["loss"] = self.whole("late_train_loss").set_index("run_id")["value"]
        last = self.rows[self.rows["layer"] != ""].merge(self.runs["steps"], left_on="run_id", right_index=True)
        last = last[last["step"] == last["steps"]]
        self.late = last.pivot_table(index=["run_id", "layer"], columns="quantity", values="value", dropna=False)

    def layers(self, runs: pd.DataFrame, *quantities: str) -> pd.DataFrame:
        """A row for each of these runs and layers, with the quantities and the settings of the run."""
        missing = {*quantities, "late_without_gradient"} - set(self.late.columns)
        if missing:
            raise NoValue(f"no {min(missing)}")
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


def mean_errors(runs: pd.DataFrame, by: list[str]) -> pd.Series:
    """The mean error of each cell over the seeds that all cells have."""
    table = runs.pivot_table(index=by, columns="seed", values="error")
    return table.dropna(axis="columns").mean(axis="columns")


def replay(rows: Images) -> Ends:
    """C2: the median test error of the slow replay less that of the penalty, mean over λ, new seeds; counted if some λ
    changes the late training loss by a factor of 2.
    """
    runs = rows.fresh("memorization", label_noise=0.2, replay=None)
    runs = runs[runs["replay"].isin(["none", "slow"])]
    runs = runs[runs["seed"].isin(runs.loc[runs["replay"] == "slow", "seed"])]
    if runs.empty:
        raise NoValue("no slow replay with a new seed")
    penalty = runs[runs["replay"] == "none"]
    losses = np.log(penalty["loss"]).groupby(penalty["l2"]).mean()
    if (losses - losses[0.0]).abs().max() < np.log(2):
        raise NoValue("no penalty changes the training loss by a factor of 2")
    errors = runs.pivot_table(index=["seed", "l2"], columns="replay", values="median_error")
    return over_seeds((errors["slow"] - errors["none"]).dropna().groupby("seed").mean())


def in_window(rows: Images) -> pd.DataFrame:
    """C4 and C7: Adam with λ_ℓ = λ·d_max/d_ℓ, from its equilibrium, new seeds. A cell counts at θ ≤ 0.05 in the widest
    layer if 1.5θ²t is at least 3 at the first late step; θ = (4η²λd/G)^⅓. 0.1 % is for λ that were rounded.
    """
    runs = rows.fresh("Adam", optimizer="adam", layer_l2="inverse_size", starts_at_equilibrium=True, initial_norm=None)
    table = rows.layers(runs, "balance_norm", "balance_gradient", "balance_memory", "late_norm_squared", "group_size")
    widest = table["group_size"].max()
    theta = np.cbrt(4 * table["lr"] ** 2 * table["l2"] * widest / G)
    late = np.minimum((table["steps"] * (1 - table["late_fraction"])).round(), table["steps"] - 1)
    counts = (theta <= 0.05 * 1.001) & (1.5 * theta**2 * late * 1.001 >= 3)
    return live(table.assign(penalty=table["l2"] * widest / table["group_size"])[counts])


def balance(rows: Images) -> Ends:
    """C4: 4λ⟨w,w⟩ over η(⟨g,Pg⟩ + 2β/(1−β)·⟨g,Pm⟩) with β = 0.9, geometric mean over cells."""
    table = in_window(rows)
    growth = table["lr"] * (table["balance_gradient"] + 2 * 0.9 / (1 - 0.9) * table["balance_memory"])
    logs = np.log(4 * table["penalty"] * table["balance_norm"] / growth)
    found = worst(table.assign(log=logs), "layer", lambda cells: cells["log"].mean(), abs)
    value, low, high = np.exp(found)
    return value, low, high


def contours(rows: Images) -> Ends:
    """C5: s of the contours log η = −s·log λ + const of SGD's test error, from logit(error) on u, u² and v."""
    runs = rows.select("plane_sgd", optimizer="sgd", affine_lr=0.1)
    runs = runs[runs["l2"] > 0]
    is_old = runs["seed"] < NEW_SEEDS["normalization"]  # where a scale has old seeds, the new ones are of C4
    runs = runs[is_old | ~is_old.any()]
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


def growth(rows: Images) -> Ends:
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


def only_partly(rows: Images) -> Ends:
    """C7: the exponent of λ in Adam's η_eff, in the layer where it is lowest."""
    table = in_window(rows)
    several = table.groupby(["layer", "lr"])["l2"].transform("nunique") > 1
    table = table[several.groupby(table["layer"]).transform("any")]
    if table.empty:
        raise NoValue("no η has two λ in the window")
    return worst(table, "layer", exponent, lambda end: -end)


FRACTIONS = [0.25, 0.5, 0.8, 0.9]


def projected(rows: Images) -> Ends:
    """C8: at 0.25, 0.5, 0.8, 0.9 λc the error less that without a penalty at η/(1 − λ/λc), where it is largest."""
    runs = rows.select("projection_sgd", optimizer="sgd", projected=True)
    lr = runs.loc[runs["l2"] > 0, "lr"].iloc[0]
    fraction = (runs["l2"] * 2 * lr).where(runs["l2"] > 0, 1 - lr / runs["lr"]).round(3)  # λ/λc
    pairs = runs.assign(fraction=fraction, held=runs["l2"] > 0)[fraction.isin(FRACTIONS)]
    errors = mean_errors(pairs, ["fraction", "held"])
    apart = (errors.xs(True, level="held") - errors.xs(False, level="held")).reindex(FRACTIONS)
    if apart.isna().any():
        raise NoValue("no run of projection_sgd without a penalty at η/(1 − λ/λc)")
    return alone(apart[apart.abs().idxmax()])


def affine(rows: Images) -> Ends:
    """C9: the change of the error by a penalty on γ and β of the hidden layers."""
    hidden = rows.select("affine_penalty", affine_l2="hidden")
    first = hidden.iloc[0]
    same = {key: first[key] for key in ("optimizer", "lr", "l2", "steps")}
    none = rows.select("affine_penalty", affine_l2="none", **same)
    none = none[none["affine_lr"] == first["affine_lr"]]
    changes = hidden.set_index("seed")["error"] - none.set_index("seed")["error"]
    return over_seeds(changes.dropna())


def lost_units(rows: Images) -> Ends:
    """C10: the share of units without a gradient in the widest layer, under Adam at θ = 0.2 after 5,000 steps."""
    runs = rows.select("lost_units", optimizer="adam", affine_lr=0.003)
    theta = np.cbrt(4 * runs["lr"] ** 2 * runs["l2"] * 288 / G)  # of 32 channels and 3×3 weights
    runs = runs[np.isclose(theta, 0.2, rtol=0.01)]
    if runs.empty:
        raise NoValue("no run of lost_units at θ = 0.2")
    if runs["steps"].min() < 5000:
        raise NoValue("predicted for 5000 steps")
    table = rows.layers(runs, "group_size")
    widest = table[table["group_size"] == 288]
    return over_seeds(widest.groupby("seed")["late_without_gradient"].mean())


# stability

LATE = 2 / 3  # of the steps
AFTER_EDGE = 1000  # steps from the edge to the late part
FEWEST = 10  # late probes
FIRST = 150  # the step after which probes before the edge count


class Edges(Rows):
    """With the edge, the late means and the state of each run: settled, and if at the edge."""

    def __init__(self, *what: Any) -> None:
        super().__init__(*what)
        self.probes = self.rows.pivot(index=["run_id", "step"], columns="quantity", values="value")
        found = {str(name): self.summary(self.probes.loc[name], run) for name, run in self.runs.iterrows()}
        self.runs = self.runs.join(pd.DataFrame.from_dict(found, orient="index"))

    def summary(self, table: pd.DataFrame, run: pd.Series) -> dict[str, Any]:
        """The edge is the first probe with R > 1, NaN for never. At the edge: late x_rms/|w| above 1e-5. Settled: at
        the edge, or ⟨α_eff⟩ all through the late part would change S by less than 5 % of 2/η − 2λ.
        """
        probes = table.dropna(subset="sharpness")
        edge = probes.index[probes["sharpness_total"] * run["lr"] / 2 > 1].min()
        after = np.nanmax([LATE * run["steps"], edge + AFTER_EDGE])
        late = probes[probes.index > after]
        if run["diverged"] or len(late) < FEWEST:
            return {"edge": edge, "is_at_edge": False, "is_settled": False}
        means = table[table.index > after].mean()
        is_at_edge = np.sqrt((late["displacement"] ** 2).mean() / means["weight_norm_squared"]) > 1e-5
        change = abs(means["alpha_eff"]) * run["lr"] * (late.index[-1] - late.index[0])
        is_settled = is_at_edge or change < 0.05 * (2 / run["lr"] - 2 * run["l2"])
        return {**means, "edge": edge, "is_at_edge": is_at_edge, "is_settled": is_settled}

    def network(self, what: str, **settings: Any) -> pd.DataFrame:
        """The runs of a network with new seeds, at the learning rate that has the most λ."""
        runs = self.fresh(what, **settings)
        if runs["diverged"].any():
            raise NoValue(f"a run of {what} diverged")
        return runs[runs["lr"] == runs.groupby("lr")["l2"].nunique().idxmax()]


def settled(runs: pd.DataFrame) -> pd.DataFrame:
    if runs.empty or not runs["is_settled"].all():
        raise NoValue("no run with this λ, or one that has not settled")
    return runs


def by_seed(runs: pd.DataFrame, l2: float, quantity: str) -> pd.Series:
    """A late mean of the runs with one λ."""
    return settled(runs[runs["l2"] == l2]).set_index("seed")[quantity]


def delay(rows: Edges) -> Ends:
    """S1: the step of the edge at λ = 4e-3, or 8e-3 where there is no 4e-3, over that at 0; steps + 1 for never."""
    runs = rows.network("MLP")
    runs["edge"] = runs["edge"].fillna(runs["steps"] + 1)
    edges = runs.pivot(index="seed", columns="l2", values="edge")
    l2 = 0.004 if 0.004 in edges else 0.008
    if (edges[[0.0, l2]].min(axis="columns") > runs["steps"].max()).any():
        raise NoValue("neither reaches the edge")
    return geometric(edges[l2] / edges[0.0])


def plateau(rows: Edges) -> Ends:
    """S2: 2λAS/α₀ of late means, at the λ from 8e-3 on where it is farthest from 1."""
    runs = rows.network("MLP")
    runs = settled(runs[runs["l2"] >= 0.008])
    ratios = (2 * runs["l2"] * runs["degree"] * runs["sharpness"] / runs["alpha0"]).set_axis(runs["seed"])
    return farthest_from_1([cells for _, cells in ratios.groupby(runs["l2"].to_numpy())])


def held(rows: Edges) -> Ends:
    """S3: at λ = 0.002 the late pressure of all directions at the edge over the late force that it holds."""
    runs = rows.network("MLP")
    if not runs.loc[runs["l2"] == 0.002, "is_at_edge"].all():
        raise NoValue("a run is not at the edge")
    return geometric(by_seed(runs, 0.002, "edge_pressure") / by_seed(runs, 0.002, "edge_force"))


def decay_rate(rows: Edges) -> Ends:
    """S4: before the edge Σ(ΔS − Δt·α₀) over Σ4ηλ|u_w|²S, in one run; mean over λ > 0."""
    runs = rows.network("batch normalization", normalization="batch")
    rates = {}
    for name, run in runs[runs["l2"] > 0].iterrows():
        table = rows.probes.loc[name].dropna(subset="sharpness")
        table = table[(table.index > FIRST) & ~(table.index >= run["edge"])]
        if len(table) < 3:
            raise NoValue("fewer than three probes before the edge")
        time, sharpness = run["lr"] * table.index, table["sharpness"]
        change = sharpness.iloc[-1] - sharpness.iloc[0] - np.trapezoid(table["alpha0"], time)
        rates[name] = change / np.trapezoid(4 * run["l2"] * table["u_weight_share"] * sharpness, time)
    return over_seeds(pd.Series(rates).groupby(runs["seed"]).mean())


def kernel_drift(rows: Edges) -> Ends:
    """S5: the late drift of the kernel at the largest λ whose runs are all at the edge, over that at 0."""
    runs = rows.network("MLP")
    at_edge = runs.groupby("l2")["is_at_edge"].all().drop(0.0)
    if not at_edge.any():
        raise NoValue("no run with decay is at the edge")
    return geometric(by_seed(runs, at_edge[at_edge].index.max(), "ntk_drift") / by_seed(runs, 0.0, "ntk_drift"))


# manifold


class Texts(Rows):
    """With e over that of the study (slowness), the late loss of each run, and whether it is lost."""

    def __init__(self, *what: Any) -> None:
        super().__init__(*what)
        runs = self.runs
        runs["slowness"] = (runs["decay_per_step"] / runs["decay_per_step"].max()).round(6)
        table = self.whole("validation_loss").join(runs, on="run_id").sort_values(["run_id", "step"])
        table = table[table["step"] > table["steps"] * (1 - table["late_fraction"])]
        above = table["value"] > np.log(table["vocabulary"])
        twice = above & above.groupby(table["run_id"]).shift(fill_value=False)
        runs["is_lost"] = runs["diverged"] | runs.index.isin(table.loc[twice, "run_id"])
        losses = table.groupby("run_id")["value"].mean().reindex(runs.index)
        runs["loss"] = losses.where(~runs["is_lost"], np.log(runs["vocabulary"]))  # that of a uniform guess

    def finished(self, what: str, **settings: Any) -> pd.DataFrame:
        """The runs with new seeds that are not lost."""
        runs = self.fresh(what, **settings)
        if runs["is_lost"].all():
            raise NoValue(f"every run of {what} is lost")
        return runs[~runs["is_lost"]]

    def matrices(self, runs: pd.DataFrame, quantity: str) -> pd.Series:
        """A quantity of the matrices of the blocks, which alone have a point in their name, by run and matrix."""
        rows = self.rows[self.rows["run_id"].isin(runs.index) & (self.rows["quantity"] == quantity)]
        return rows[rows["layer"].str.contains(".", regex=False)].set_index(["run_id", "layer"])["value"]

    def medians(self, runs: pd.DataFrame, quantity: str) -> pd.Series:
        """By run: the median over the matrices."""
        return self.matrices(runs, quantity).groupby("run_id").median()


def late_angle(rows: Texts) -> Ends:
    """X1: AdamW's late angle over k√(2e), k² = (1−β₁)/(1+β₁), with RMSNorm after every matrix, from any norm."""
    runs = rows.finished("AdamW", optimizer="adamw", rms_norm="every", initial_norm=None)
    predicted = np.sqrt((1 - runs["beta1"]) / (1 + runs["beta1"]) * 2 * runs["decay_per_step"])
    return over_seeds((rows.medians(runs, "late_angle") / predicted).groupby(runs["seed"]).mean())


def loss_difference(rows: Texts) -> Ends:
    """X2: the loss of AdamW less that of AdamH, paired; no interval unless half the angle changes that of AdamH by more
    than 0.05, with one sign in all seeds.
    """
    adamw = rows.fresh("AdamW", optimizer="adamw", rms_norm="pre").set_index("seed")["loss"]
    adamh = rows.fresh("AdamH", optimizer="adamh", rms_norm="pre", lr_factor=None)
    adamh = adamh.pivot(index="seed", columns="lr_factor", values="loss")
    found = over_seeds((adamw - adamh[1.0]).dropna())
    effect = (adamh[0.25] - adamh[1.0]).dropna()
    return found if abs(effect.mean()) > 0.05 and abs(np.sign(effect).mean()) == 1 else alone(found[0])


def norm_exponent(rows: Texts) -> Ends:
    """X3: AdamW's norm in f without RMSNorm, over f up to 1 with two time constants 1/(2ef) before the late part, from
    √f·R; no interval unless at the smallest f a start from R leads to the same norm within 10 %.
    """
    runs = rows.finished("AdamW", optimizer="adamw", rms_norm="none", initial_norm=None, lr_factor=None)
    constants = 2 * runs["decay_per_step"] * runs["lr_factor"] * runs["steps"] * (1 - runs["late_fraction"])
    runs = runs[(runs["lr_factor"] <= 1) & (constants >= 2 - 1e-6)]
    norms = np.log(rows.medians(runs, "late_norm_ratio").rename("norm")).to_frame().join(runs)
    norms["is_matched"] = np.isclose(norms["initial_norm"] ** 2, norms["lr_factor"])
    matched = norms[norms["is_matched"]].pivot(index="seed", columns="lr_factor", values="norm")
    if matched.shape[1] < 2:
        raise NoValue("fewer than two f")
    found = over_seeds(matched.apply(lambda row: np.polyfit(np.log(row.index), row, 1)[0], axis=1))
    control = norms[~norms["is_matched"] & (norms["lr_factor"] == matched.columns[0])].set_index("seed")["norm"]
    ratio = np.exp((control - matched.iloc[:, 0]).dropna().mean())
    return found if abs(ratio - 1) <= 0.1 else alone(found[0])


def best(rows: Texts, optimizer: str, rms_norm: str) -> tuple[pd.Series, bool]:
    """The losses at the f up to 1 with the smallest mean loss, and whether that f lies inside all that were tried."""
    runs = rows.fresh(optimizer, optimizer=optimizer, rms_norm=rms_norm, lr_factor=None)
    means = runs[runs["lr_factor"] <= 1].groupby("lr_factor")["loss"].mean()
    if len(means) < 3:
        raise NoValue(f"fewer than three f of {optimizer}")
    chosen = means.idxmin()
    is_inside = bool(means.index[0] < chosen < runs["lr_factor"].max())
    return runs[runs["lr_factor"] == chosen].set_index("seed")["loss"], is_inside


def gap(own: tuple[pd.Series, bool], others: list[tuple[pd.Series, bool]]) -> Ends:
    """The loss less that of the best other, paired; no interval unless the best f of both lie inside."""
    other = min(others, key=lambda one: float(one[0].mean()))
    found = over_seeds((own[0] - other[0]).dropna())
    return found if own[1] and other[1] else alone(found[0])


def norm_free_gap(rows: Texts) -> Ends:
    """X4: AdamH without RMSNorm against the better of AdamW and AdamH with it, each at its best f."""
    return gap(best(rows, "adamh", "none"), [best(rows, name, "pre") for name in ("adamw", "adamh")])


def competitive_gap(rows: Texts) -> Ends:
    """X6: MACRO against the best of AdamW, AdamH and MuonH, each at its best f; shown without an interval."""
    others = [best(rows, name, "pre") for name in ("adamw", "adamh", "muonh")]
    return alone(gap(best(rows, "macro-F", "pre"), others)[0])


def equilibrium(rows: Texts) -> Ends:
    """X7: 4λ⟨w,√ŝ w⟩ + 2⟨w,g⟩ over η(⟨g,Pg⟩ + 2β₁/(1−β₁)·⟨d,g⟩) of AdamW with RMSNorm after every matrix, at e/4;
    geometric mean over blocks, for the kind of matrix that is farthest from 1. η = √(2e)/√d_in, 2λ = e/η.
    """
    runs = rows.finished("AdamW", optimizer="adamw", rms_norm="every", slowness=0.25)
    parts = {name: rows.matrices(runs, f"late_{name}") for name in ("weighted_square", "radial", "noise", "memory")}
    table = pd.DataFrame(parts).reset_index().merge(runs, left_on="run_id", right_index=True)
    table["kind"] = table["layer"].str.split(".").str[1]
    inputs = table["width"] * np.where(table["kind"] == "down", 4, 1)
    lr = np.sqrt(2 * table["decay_per_step"] / inputs)
    shrinking = 2 * table["decay_per_step"] / lr * table["weighted_square"] + 2 * table["radial"]
    growing = lr * (table["noise"] + 2 * table["beta1"] / (1 - table["beta1"]) * table["memory"])
    means = np.exp(np.log(shrinking / growing).groupby([table["kind"], table["seed"]]).mean())
    return farthest_from_1([values for _, values in means.groupby("kind")])


# Claims: statistic, subject, and how it is found, or None for a float64 check

Claims = dict[str, tuple[str, str, Callable[[Any], Ends] | None]]
STUDIES: dict[str, tuple[type[Rows], Claims]] = {
    "normalization": (
        Images,
        {
            "C1": ("invariance", "batch", None),
            "C2": ("replay_error_mean", "slow replay", replay),
            "C3": ("norm_exponent", "adam", None),
            "C4": ("balance", "adam", balance),
            "C5": ("contour_slope", "sgd", contours),
            "C6": ("growth_factor", "sgd", growth),
            "C7": ("l2_exponent", "adam", only_partly),
            "C8": ("projected_match", "sgd", projected),
            "C9": ("affine_penalty", "hidden penalty", affine),
            "C10": ("lost_share_of_widest", "adam", lost_units),
        },
    ),
    "stability": (
        Edges,
        {
            "S1": ("edge_delay", "MLP", delay),
            "S2": ("plateau_law", "MLP", plateau),
            "S3": ("balance", "MLP at 0.002", held),
            "S4": ("decay_rate", "BN", decay_rate),
            "S5": ("kernel_drift_ratio", "at the edge", kernel_drift),
        },
    ),
    "manifold": (
        Texts,
        {
            "X1": ("late_angle", "every", late_angle),
            "X2": ("loss_difference", "theta_0", loss_difference),
            "X3": ("norm_exponent", "adamw", norm_exponent),
            "X4": ("norm_free_gap", "adamh", norm_free_gap),
            "X5": ("step_slope", "macro-F", None),
            "X6": ("competitive_gap", "macro-F", competitive_gap),
            "X7": ("balance", "every", equilibrium),
        },
    ),
}


def answer(statistic: str, subject: str, find: Callable[[], Ends]) -> dict[str, Any]:
    """What was found, or why nothing was."""
    found: dict[str, Any] = {"statistic": statistic, "subject": subject, "value": None, "low": None, "high": None}
    try:
        ends = dict(zip(("value", "low", "high"), find(), strict=True))
    except NoValue as why:
        return {**found, "why": str(why)}
    return {**found, **{key: float(end) for key, end in ends.items() if np.isfinite(end)}}


def reanalyze(paths: list[Path], checks: Path) -> dict[str, dict[str, Any]]:
    """The answers by claim."""
    tables, exact = [pq.read_table(path) for path in paths], pd.read_parquet(checks)
    records = [record for table in tables for record in json.loads(table.schema.metadata[b"provenance"])]
    reader, claims = STUDIES[records[0]["study"]]
    rows = reader(records, pd.concat([table.to_pandas() for table in tables]))
    return {
        name: answer(statistic, subject, partial(find, rows) if find else partial(check, exact, statistic, subject))
        for name, (statistic, subject, find) in claims.items()
    }


if __name__ == "__main__":
    *files, last = map(Path, sys.argv[1:])
    print(json.dumps(reanalyze(files, last), indent=1, ensure_ascii=False))
