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
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from scipy import special, stats

Ends = np.ndarray  # a value and its interval, NaN where there is none that is simple


class NoValue(Exception):
    """There are no such runs, or no cell that counts."""


def require(is_so: object, why: str) -> None:
    if not is_so:
        raise NoValue(why)


def alone(value: float) -> Ends:
    return np.array([value, np.nan, np.nan])


def over_seeds(values: pd.Series) -> Ends:
    """The mean over seeds and its 90 % t interval; NaN where a seed has no number."""
    if len(values) < 2:
        return alone(values.mean())
    margin = stats.t.ppf(0.95, len(values) - 1) * stats.sem(values)
    return values.mean(skipna=False) + margin * np.array([0, -1, 1])


def farthest(values: pd.Series, by: Any, distance: Callable[[Ends], Any]) -> Ends:
    """Of the groups, each with a number for each seed, the interval of which an end is farthest."""
    intervals = [over_seeds(group) for _, group in values.groupby(by)]
    require(intervals, "no cell counts at this scale")
    return max(intervals, key=lambda ends: np.nanmax(distance(ends)))


class Study:
    """The rows of a study, its runs with their settings, and a method for each statistic."""

    CLAIMS: ClassVar[dict[str, tuple[str, str]]]  # statistic and subject; what has no method is a float64 check
    PLAIN: ClassVar[dict[str, Any]]  # a run that does nothing special
    NEW_SEEDS: ClassVar[int] = 200  # from which seeds decide where the third registration has a new rule

    def __init__(self, records: list[dict[str, Any]], rows: pd.DataFrame) -> None:
        self.rows, self.whole = rows, rows[rows["layer"] == ""].set_index("quantity")  # of the latter none has a layer
        self.runs = pd.DataFrame([self.PLAIN | one["run"] for one in records], [one["run_id"] for one in records])
        self.runs["diverged"] = [one["diverged"] is not None for one in records]
        self.runs["is_new"] = self.runs["seed"] >= self.NEW_SEEDS

    def select(self, **settings: Any) -> pd.DataFrame:
        """The runs that differ from a plain one in these settings alone; None leaves a setting open."""
        found = self.runs
        for key, value in {**self.PLAIN, **settings}.items():
            found = found if value is None else found[found[key] == value]
        require(len(found), f"no run with {settings}")
        return found


class Normalization(Study):
    """With the errors of the runs, and their late values by layer."""

    CLAIMS: ClassVar = {
        "C1": ("invariance", "batch"),
        "C2": ("replay_error_mean", "slow replay"),
        "C3": ("norm_exponent", "adam"),
        "C4": ("balance", "adam"),
        "C5": ("contour_slope", "sgd"),
        "C6": ("growth_factor", "sgd"),
        "C7": ("l2_exponent", "adam"),
        "C8": ("projected_match", "sgd"),
        "C9": ("affine_penalty", "hidden penalty"),
        "C10": ("lost_share_of_widest", "adam"),
    }
    PLAIN: ClassVar = {
        "normalization": "batch", "norm_eps": 1e-5, "initial_norm": 1.0, "label_noise": 0.0, "leak": 0.0,
        "layer_l2": "equal", "replay": "none", "affine_l2": "none", "projected": False, "lr_drop": 1.0,
        "evaluated": "parts", "batch_statistics": "recomputed", "starts_at_equilibrium": False,
        "corrected_squares": False,
    }  # fmt: skip
    NEW_SEEDS = 300
    G = 0.1  # from which masks are predicted

    def __init__(self, *what: Any) -> None:
        super().__init__(*what)
        errors = self.whole.loc["test_error"].groupby("run_id")["value"].agg(["mean", "median"])
        errors = 100 * errors.reindex(self.runs.index).where(~self.runs["diverged"], 0.9)  # that of a guess
        self.runs[["error", "median_error"]] = errors
        self.runs["loss"] = self.whole.loc["late_train_loss"].set_index("run_id")["value"]
        is_last = self.rows["step"] == self.rows["run_id"].map(self.runs["steps"])
        last = self.rows[(self.rows["layer"] != "") & is_last]
        self.late = last.pivot(index=["run_id", "layer"], columns="quantity", values="value").reset_index()

    def layers(self, runs: pd.DataFrame) -> pd.DataFrame:
        """The late values and settings of these runs by layer: of the cells (η, λ) that have all seeds, those in which
        at most 5 % of the scale groups have no gradient, in every seed."""
        table = self.late.merge(runs[~runs["diverged"]], left_on="run_id", right_index=True)
        count = table.groupby(["lr", "l2"])["seed"].transform("nunique")
        lost = table.groupby(["layer", "lr", "l2"])["late_without_gradient"].transform("max")
        return table[(count == runs["seed"].nunique()) & (lost <= 0.05)]

    def replay_error_mean(self) -> Ends:
        """C2: the median test error of the slow replay less that of the penalty, mean over λ, new seeds; counted if
        some λ changes the late training loss by a factor of 2."""
        runs = self.select(is_new=True, label_noise=0.2, replay=None)
        runs = runs[runs["seed"].isin(runs.loc[runs["replay"] == "slow", "seed"])]
        penalty = runs[runs["replay"] == "none"]
        losses = np.log(penalty["loss"]).groupby(penalty["l2"]).mean()
        require((losses - losses[0.0]).abs().max() >= np.log(2), "no λ changes the training loss by a factor of 2")
        errors = runs.pivot_table(index=["seed", "l2"], columns="replay", values="median_error")
        return over_seeds((errors["slow"] - errors["none"]).dropna().groupby("seed").mean())

    def in_window(self) -> pd.DataFrame:
        """C4 and C7: Adam with λ_ℓ = λ·d_max/d_ℓ, from its equilibrium, new seeds. A cell counts at θ ≤ 0.05 in the
        widest layer if 1.5θ²t is at least 3 at the first late step; θ = (4η²λd/G)^⅓. 0.1 % is for rounded λ."""
        runs = self.select(
            is_new=True, optimizer="adam", layer_l2="inverse_size", starts_at_equilibrium=True, initial_norm=None
        )
        table = self.layers(runs)
        widest = self.late.loc[self.late["run_id"].isin(runs.index), "group_size"].max()
        theta = np.cbrt(4 * table["lr"] ** 2 * table["l2"] * widest / self.G)
        late = np.minimum((table["steps"] * (1 - table["late_fraction"])).round(), table["steps"] - 1)
        counts = (theta <= 0.05 * 1.001) & (1.5 * theta**2 * late * 1.001 >= 3)
        return table.assign(penalty=table["l2"] * widest / table["group_size"])[counts]

    def balance(self) -> Ends:
        """C4: 4λ⟨w,w⟩ over η(⟨g,Pg⟩ + 2β/(1−β)·⟨g,Pm⟩) with β = 0.9, geometric mean over cells."""
        table = self.in_window()
        growth = table["lr"] * (table["balance_gradient"] + 2 * 0.9 / (1 - 0.9) * table["balance_memory"])
        logs = np.log(4 * table["penalty"] * table["balance_norm"] / growth)
        return np.exp(farthest(logs.groupby([table["layer"], table["seed"]]).mean(), "layer", np.abs))

    def contour_slope(self) -> Ends:
        """C5: s of the contours log η = −s·log λ + const of SGD's test error, from logit(error) on u, u² and v."""
        runs = self.select(optimizer="sgd", affine_lr=0.1)
        runs = runs[runs["l2"] > 0]
        runs = runs[~runs["is_new"] | runs["is_new"].all()]  # where a scale has old seeds, the new ones are of C4
        rate = 8 * runs["lr"] * runs["l2"]
        far = np.abs(4 * runs["l2"] / (runs["lr"] * self.G**2) - 1)  # (‖w₀‖/‖w*‖)⁴ − 1
        late = runs["steps"] * (1 - runs["late_fraction"])
        runs = runs[(far * np.exp(-rate * late) <= 0.2) & (np.sqrt(rate / 2) <= 0.25)]
        often = runs["seed"].value_counts()  # a single cell may have further seeds, for another experiment
        runs = runs[runs["seed"].isin(often[often > often.max() / 2].index)]
        runs = runs[runs.groupby(["lr", "l2"])["seed"].transform("nunique") == runs["seed"].nunique()]
        cells = runs.groupby(["lr", "l2"], as_index=False).agg({"error": "mean", "diverged": "any"})
        cells = cells[~cells["diverged"]]
        u, v = np.log(cells["lr"] * cells["l2"]), np.log(cells["lr"] / cells["l2"])
        require(u.round(6).nunique() >= 3 and len(cells) >= 6, "fewer than three diagonals or six cells")
        u = u - u.mean()
        design = np.column_stack([np.ones(len(u)), u, u**2, v])
        (_, b_u, _, b_v), *_ = np.linalg.lstsq(design, special.logit(cells["error"] / 100), rcond=None)
        return alone((b_u - b_v) / (b_u + b_v))

    def growth_factor(self) -> Ends:
        """C6 ii: R₄ at the η and layer where it is farthest from 1."""
        runs = self.select(optimizer="sgd", l2=0.0, norm_eps=None, initial_norm=1.0)
        table = self.layers(runs[runs["norm_eps"] == runs["norm_eps"].min()])
        ratios = table.groupby(["layer", "lr", "seed"])["fourth_power_ratio"].mean()
        return farthest(ratios, ["layer", "lr"], lambda ends: np.abs(ends - 1))

    def l2_exponent(self) -> Ends:
        """C7: the exponent of λ in Adam's η_eff = η/‖w‖ at fixed η, in the layer where it is lowest."""
        table = self.in_window().set_index(["layer", "seed"])
        logs = np.log(table[["penalty", "late_norm_squared"]])
        logs -= logs.groupby(["layer", "seed", table["lr"]]).transform("mean")
        products = logs.mul(logs["penalty"], axis="index").groupby(["layer", "seed"]).sum()
        exponents = -0.5 * products["late_norm_squared"] / products["penalty"]
        return farthest(exponents.dropna(), "layer", np.negative)  # none where every η has one λ

    def projected_match(self) -> Ends:
        """C8: at 0.25, 0.5, 0.8, 0.9 λc the error less that without a penalty at η/(1 − λ/λc), where it is largest."""
        runs, fractions = self.select(optimizer="sgd", projected=True), [0.25, 0.5, 0.8, 0.9]
        lr = runs.loc[runs["l2"] > 0, "lr"].iloc[0]
        fraction = (runs["l2"] * 2 * lr).where(runs["l2"] > 0, 1 - lr / runs["lr"]).round(3)  # λ/λc
        pairs = runs.assign(fraction=fraction, held=runs["l2"] > 0)[fraction.isin(fractions)]
        errors = pairs.pivot_table(index=["fraction", "held"], columns="seed", values="error").dropna(axis="columns")
        means = errors.mean(axis="columns").unstack("held").reindex(fractions)
        apart = means[True] - means[False]
        require(apart.notna().all(), "no run without a penalty at η/(1 − λ/λc)")
        return alone(apart[apart.abs().idxmax()])

    def affine_penalty(self) -> Ends:
        """C9: the change of the error by a penalty on γ and β of the hidden layers."""
        hidden = self.select(affine_l2="hidden")
        none = self.select(**hidden.iloc[0][["optimizer", "lr", "l2", "steps", "affine_lr"]])
        return over_seeds((hidden.set_index("seed")["error"] - none.set_index("seed")["error"]).dropna())

    def lost_share_of_widest(self) -> Ends:
        """C10: the share of units without a gradient in the widest layer, under Adam at θ = 0.2 after 5,000 steps."""
        runs = self.select(optimizer="adam", affine_lr=0.003)
        theta = np.cbrt(4 * runs["lr"] ** 2 * runs["l2"] * 288 / self.G)  # of 32 channels and 3×3 weights
        runs = runs[np.isclose(theta, 0.2, rtol=0.01) & (runs["steps"] >= 5000)]
        table = self.late.merge(runs, left_on="run_id", right_index=True)
        return over_seeds(table[table["group_size"] == 288].groupby("seed")["late_without_gradient"].mean())


class Manifold(Study):
    """With e over that of the study (slowness), the late loss of each run, and whether it is lost; and late values of
    the matrices of the blocks, which alone have a point in their name."""

    CLAIMS: ClassVar = {
        "X1": ("late_angle", "every"),
        "X2": ("loss_difference", "theta_0"),
        "X3": ("norm_exponent", "adamw"),
        "X4": ("norm_free_gap", "adamh"),
        "X5": ("step_slope", "macro-F"),
        "X6": ("competitive_gap", "macro-F"),
        "X7": ("balance", "every"),
    }
    PLAIN: ClassVar = {"lr_factor": 1.0, "initial_norm": 1.0, "slowness": 1.0}

    def __init__(self, *what: Any) -> None:
        super().__init__(*what)
        runs = self.runs
        runs["slowness"] = (runs["decay_per_step"] / runs["decay_per_step"].max()).round(6)
        table = self.whole.loc["validation_loss"].join(runs, on="run_id").sort_values(["run_id", "step"])
        table = table[table["step"] > table["steps"] * (1 - table["late_fraction"])]
        above = table["value"] > np.log(table["vocabulary"])
        twice = above & above.groupby(table["run_id"]).shift(fill_value=False)
        runs["is_lost"] = runs["diverged"] | runs.index.isin(table.loc[twice, "run_id"])
        losses = table.groupby("run_id")["value"].mean().reindex(runs.index)
        runs["loss"] = losses.where(~runs["is_lost"], np.log(runs["vocabulary"]))  # that of a uniform guess
        late = self.rows[self.rows["layer"].str.contains(".", regex=False) & self.rows["quantity"].str.match("late_")]
        self.late = late.pivot(index=["run_id", "layer"], columns="quantity", values="value")

    def late_angle(self) -> Ends:
        """X1: AdamW's late angle over k√(2e), k² = (1−β₁)/(1+β₁), with RMSNorm after every matrix, from any norm; of
        each run the median over the matrices."""
        runs = self.select(is_new=True, is_lost=False, optimizer="adamw", rms_norm="every", initial_norm=None)
        angles = self.late["late_angle"].groupby("run_id").median()
        predicted = np.sqrt((1 - runs["beta1"]) / (1 + runs["beta1"]) * 2 * runs["decay_per_step"])
        return over_seeds((angles / predicted).groupby(runs["seed"]).mean())

    def loss_difference(self) -> Ends:
        """X2: the loss of AdamW less that of AdamH, paired; no interval unless half the angle changes that of AdamH by
        more than 0.05, with one sign in all seeds."""
        adamw = self.select(is_new=True, optimizer="adamw", rms_norm="pre").set_index("seed")["loss"]
        adamh = self.select(is_new=True, optimizer="adamh", rms_norm="pre", lr_factor=None)
        adamh = adamh.pivot(index="seed", columns="lr_factor", values="loss")
        found = over_seeds((adamw - adamh[1.0]).dropna())
        effect = (adamh[0.25] - adamh[1.0]).dropna()
        return found if abs(effect.mean()) > 0.05 and abs(np.sign(effect).mean()) == 1 else alone(found[0])

    def norm_exponent(self) -> Ends:
        """X3: AdamW's norm in f without RMSNorm, over f up to 1 with two time constants 1/(2ef) before the late part,
        from √f·R; no interval unless at the smallest f a start from R leads to the same norm within 10 %."""
        runs = self.select(
            is_new=True, is_lost=False, optimizer="adamw", rms_norm="none", initial_norm=None, lr_factor=None
        )
        constants = 2 * runs["decay_per_step"] * runs["lr_factor"] * runs["steps"] * (1 - runs["late_fraction"])
        runs = runs[(runs["lr_factor"] <= 1) & (constants >= 2 - 1e-6)]
        norms = runs.assign(norm=np.log(self.late["late_norm_ratio"].groupby("run_id").median()))
        is_matched = np.isclose(norms["initial_norm"] ** 2, norms["lr_factor"])
        matched = norms[is_matched].pivot(index="seed", columns="lr_factor", values="norm")
        require(matched.shape[1] >= 2, "fewer than two f")
        found = over_seeds(matched.apply(lambda row: np.polyfit(np.log(row.index), row, 1)[0], axis=1))
        control = norms[~is_matched & (norms["lr_factor"] == matched.columns[0])].set_index("seed")["norm"]
        ratio = np.exp((control - matched.iloc[:, 0]).dropna().mean())
        return found if abs(ratio - 1) <= 0.1 else alone(found[0])

    def best(self, optimizer: str, rms_norm: str = "pre") -> tuple[pd.Series, bool]:
        """The losses at the f up to 1 with the smallest mean loss, and whether that f lies inside all that were
        tried."""
        runs = self.select(is_new=True, optimizer=optimizer, rms_norm=rms_norm, lr_factor=None)
        means = runs[runs["lr_factor"] <= 1].groupby("lr_factor")["loss"].mean()
        require(len(means) >= 3, f"fewer than three f of {optimizer}")
        chosen = means.idxmin()
        losses = runs[runs["lr_factor"] == chosen].set_index("seed")["loss"]
        return losses, means.index[0] < chosen < runs["lr_factor"].max()

    def gap(self, own: tuple[pd.Series, bool], others: list[str]) -> Ends:
        """The loss less that of the best of the others, paired; no interval unless the best f of both lie inside."""
        other = min(map(self.best, others), key=lambda one: float(one[0].mean()))
        found = over_seeds((own[0] - other[0]).dropna())
        return found if own[1] and other[1] else alone(found[0])

    def norm_free_gap(self) -> Ends:
        """X4: AdamH without RMSNorm against the better of AdamW and AdamH with it, each at its best f."""
        return self.gap(self.best("adamh", "none"), ["adamw", "adamh"])

    def competitive_gap(self) -> Ends:
        """X6: MACRO against the best of AdamW, AdamH and MuonH, each at its best f; shown without an interval."""
        return alone(self.gap(self.best("macro-F"), ["adamw", "adamh", "muonh"])[0])

    def balance(self) -> Ends:
        """X7: 4λ⟨w,√ŝ w⟩ + 2⟨w,g⟩ over η(⟨g,Pg⟩ + 2β₁/(1−β₁)·⟨d,g⟩) of AdamW with RMSNorm after every matrix, at e/4;
        geometric mean over blocks, for the kind of matrix that is farthest from 1. η = √(2e)/√d_in, 2λ = e/η."""
        runs = self.select(is_new=True, is_lost=False, optimizer="adamw", rms_norm="every", slowness=0.25)
        table = self.late.reset_index().merge(runs, left_on="run_id", right_index=True)
        table["kind"] = table["layer"].str.split(".").str[1]
        lr = np.sqrt(2 * table["decay_per_step"] / table["width"] / np.where(table["kind"] == "down", 4, 1))
        shrinking = 2 * table["decay_per_step"] / lr * table["late_weighted_square"] + 2 * table["late_radial"]
        growing = lr * (table["late_noise"] + 2 * table["beta1"] / (1 - table["beta1"]) * table["late_memory"])
        logs = np.log(shrinking / growing).groupby([table["kind"], table["seed"]]).mean()
        return np.exp(farthest(logs, "kind", lambda ends: np.abs(ends[0])))


def reanalyze(paths: list[Path], checks: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """By claim: what was found, or why nothing was. Of a float64 check the mean and range over its seeds."""
    tables = [pq.read_table(path) for path in paths]
    records = [record for table in tables for record in json.loads(table.schema.metadata[b"provenance"])]
    kinds = {"normalization": Normalization, "manifold": Manifold}
    study = kinds[records[0]["study"]](records, pd.concat([table.to_pandas() for table in tables]))
    answers: dict[str, dict[str, Any]] = {}
    for claim, (statistic, subject) in study.CLAIMS.items():
        exact = checks.loc[(checks["check"] == statistic) & (checks["subject"] == subject), "value"]
        found = answers[claim] = dict.fromkeys(("value", "low", "high")) | {"statistic": statistic, "subject": subject}
        try:
            ends = getattr(study, statistic)() if hasattr(study, statistic) else exact.agg(["mean", "min", "max"]).array
            require(np.isfinite(ends[0]), "no run counts at this scale")
        except (NoValue, KeyError) as why:  # no such quantity, λ or f
            found["why"] = str(why)
        else:
            found |= {key: end for key, end in zip(("value", "low", "high"), ends, strict=True) if np.isfinite(end)}
    return answers


if __name__ == "__main__":
    *files, last = map(Path, sys.argv[1:])
    print(json.dumps(reanalyze(files, pd.read_parquet(last)), indent=1, ensure_ascii=False))
