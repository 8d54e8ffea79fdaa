"""The tables of the chapter: each a pure function of tidy tables and verdicts."""

import numpy as np
import pandas as pd

from effective_lr.document.common_tables import listing, verdicts
from effective_lr.document.notation import latex, number, thousands
from effective_lr.document.table import MISSING, NOT_MEASURED, Results, Table, fixed, interval, only_line
from effective_lr.evidence.estimates import NO_VALUE, Estimate, pooled_mean
from effective_lr.studies.normalization import theory
from effective_lr.studies.normalization.analysis import (
    best_setting,
    equilibria,
    error_or_chance,
    geometric_mean,
    late_layers,
    lost_by_cause,
)
from effective_lr.studies.normalization.words import NAMES, NORMALIZATIONS

further_verdicts = verdicts  # of the claims that would not fit on a page with the others

# Of the effective learning rate: as a function of ‖w‖, and at equilibrium up to a constant (theory.py has those).
FORMULAS = {
    "sgd": (r"\eta/\|w\|^2", r"\sqrt{\eta\lambda}"),
    "momentum": (r"\eta/((1-\mu)\|w\|^2)", r"\sqrt{\eta\lambda/(1-\mu)}"),
    "nesterov": (r"\eta/((1-\mu)\|w\|^2)", r"\sqrt{\eta\lambda/(1-\mu)}"),
    "adam": (r"\eta/\|w\|", r"\sqrt[3]{\eta^2\lambda}"),
    "rmsprop": (r"\eta/\|w\|", r"\sqrt[3]{\eta^2\lambda}"),
    "projected": (r"\eta", r"\eta"),
}


def exponents(results: Results) -> Table:
    """Effective learning rates: formula, predicted and measured exponent of ‖w‖, slope of the contours of the error."""
    exponents, slopes = results.estimates("norm_exponent"), results.estimates("contour_slope")
    rows = []
    for optimizer, (formula, equilibrium) in FORMULAS.items():
        projected = optimizer == "projected"
        rows.append(
            [
                NAMES[optimizer],
                f"${formula}$",
                f"${0 if projected else theory.NORM_EXPONENT[optimizer]}$",
                interval(exponents[optimizer], digits=3) if optimizer in exponents else MISSING,
                f"${equilibrium}$",
                "--" if projected else f"${theory.diagonal_slope(optimizer):g}$",
                "--" if projected or optimizer == "momentum" else interval(slopes.get(optimizer, NO_VALUE)),
            ]
        )
    header = [
        "Optimizer",
        r"$\eta_{\mathrm{eff}}$",
        "predicted",
        "measured",
        r"at equilibrium $\propto$",
        "predicted",
        "measured",
    ]
    groups = [(r"exponent of $\|w\|$", 3, 4), ("slope of contours", 6, 7)]
    return Table("llrllrl", header, rows, groups)


def best_errors(results: Results) -> Table:
    """Best test error by normalization and optimizer, over the whole grid and for λ = 0 alone."""
    runs = results.tables.runs("plane_sgd", "plane_nesterov", "plane_adam", "plane_rmsprop", "normalizations")
    rows: list[list[str]] = []
    for normalization in NORMALIZATIONS:
        rows += [[]] if rows else []
        for optimizer in theory.NORM_EXPONENT:
            grid = runs[(runs["normalization"] == normalization) & (runs["optimizer"] == optimizer)]
            if grid.empty:
                continue
            best = best_setting(grid)
            has_zero = (grid["l2"] == 0).any()
            rows.append(
                [
                    NAMES[normalization],
                    NAMES[optimizer],
                    f"${number(best.lr)}$",
                    f"${number(best.l2)}$",
                    interval(best.error, 100, 1),
                    interval(best_setting(grid, only_without_penalty=True).error, 100, 1) if has_zero else "--",
                    str(best.seeds),
                ]
            )
    header = [
        "Normalization",
        "Optimizer",
        r"$\eta$",
        r"$\lambda$",
        r"test error (\%)",
        r"with $\lambda=0$ (\%)",
        "seeds",
    ]
    return Table("llrrllr", header, rows)


# What each float64 check states (checks.py), and what breaks it in its controls.
STATEMENTS = {
    "invariance": (r"$w\to\alpha w$: output, $\alpha\nabla L$, right angle", "no normalization"),
    "symmetry": (r"scaled $(w,\eta,\lambda,\varepsilon)$, six optimizers", r"no normalization; $\varepsilon$ unscaled"),
    "growing_lr": (r"$(\eta,\lambda)$ is $\eta_t=\eta(1-2\eta\lambda)^{-2t-1}$, $\lambda=0$", "no normalization"),
    "norm_transfer": (r"$\lambda=0$, $\eta_t$ by the decayed run's norms", "no normalization"),
    "projected_penalty": (r"$\|w\|=1$: $(\eta,\lambda)$ is $(\eta/(1-2\eta\lambda),0)$", r"$\eta$ unchanged"),
    "pythagoras": (r"$\|w_T\|^2=\|w_0\|^2+\eta^2\sum\|g_t\|^2$", "momentum"),
    "affine_invariance": (r"hidden $(\gamma,\beta)\to 3(\gamma,\beta)$, batch and layer", "weight; last layer"),
}


def exact(results: Results) -> Table:
    """The exact statements: the largest residual where each should hold, the smallest of its controls."""
    rows = []
    for check, (statement, control) in STATEMENTS.items():
        group = results.checks[results.checks["check"] == check]
        largest, smallest = group.loc[group["holds"], "value"].max(), group.loc[~group["holds"], "value"].min()
        rows.append(
            [statement, f"${number(float(f'{largest:.0e}'))}$", control, f"${number(float(f'{smallest:.1g}'))}$"]
        )
    return Table("llll", ["Statement", "residual", "Broken by", "residual"], rows)


def layers(results: Results) -> Table:
    """Equilibrium by layer: measured over predicted angle per step and norm, geometric means over runs whose layer has
    gradients; how many runs there are, and in how many most units of the layer have none."""
    rows: list[list[str]] = []
    for optimizer, ratios in equilibria(results.tables):
        if ratios.empty:
            continue
        means = ratios[ratios["has_gradient"]].groupby("layer")[["angle_ratio", "norm_ratio"]].agg(geometric_mean)
        rows += [[]] if rows else []
        for layer, runs in ratios.groupby("layer", sort=False):
            row = means.reindex([layer]).iloc[0]
            without = (~runs["has_gradient"]).sum()
            rows.append(
                [
                    NAMES[optimizer],
                    str(layer),
                    fixed(row["angle_ratio"]),
                    fixed(row["norm_ratio"]),
                    str(len(runs)),
                    str(without) if without else "--",
                ]
            )
    header = ["Optimizer", "Layer", "angle", r"$\|w\|$", "runs", "without"]
    return Table("llrrrr", header, rows) if rows else only_line("llrrrr", header, "no run has reached equilibrium")


# Experiments that try other choices than the rest of the study, and how table 9 names them: those that vary a setting,
# and those whose usual choice is in the plane of SGD, at the same settings and seeds.
VARIED = {
    "starting_norms": ("initial_norm", r"starting norm $\|w_0\|$"),
    "norm_eps": ("norm_eps", r"$\varepsilon$ of the normalization, at a small norm"),
    "affine_penalty": ("affine_l2", r"layers whose $\gamma$ and $\beta$ are penalised"),
}
COMPARED = {
    "evaluations": ("images of an evaluation", "a part", "all"),
    "running_statistics": ("batch statistics of an evaluation", "recomputed", "running"),
    "shared_affine_lr": (r"learning rate of $\gamma$ and $\beta$", "their own", "that of $w$"),
}


def choices(results: Results) -> Table:
    """Choices of the study, one changed at a time: test error and the norm late in training."""
    tables, rows = results.tables, []
    plane = tables["plane_sgd"]
    for experiment, (setting, title) in VARIED.items():
        metrics, runs = tables[experiment]
        values = {value: listing([value], NAMES) for value in runs[setting].unique()}
        rows += choice_rows(title, metrics, runs.assign(choice=runs[setting].map(values)))
    for experiment, (title, *names) in COMPARED.items():
        metrics, tried = tables[experiment]
        usual = plane.runs.merge(tried[["lr", "l2", "seed"]])
        runs = pd.concat([part.assign(choice=name) for part, name in zip([usual, tried], names, strict=True)])
        rows += choice_rows(title, pd.concat([metrics, plane.metrics]), runs)
    header = ["Choice", "", r"$\eta$", r"$\lambda$", r"test error (\%)", r"$\|w\|$", "seeds"]
    return Table("llllllr", header, rows[1:])


def choice_rows(title: str, metrics: pd.DataFrame, runs: pd.DataFrame) -> list[list[str]]:
    """Rows of `choices` for runs with their `choice`: one for each setting, or for their mean where there are many."""
    norms = np.sqrt(late_layers(metrics, runs).groupby("run_id")["late_norm_squared"].median())
    runs = runs.assign(error=error_or_chance(runs), norm=runs["run_id"].map(norms))
    is_mean = runs.groupby(["lr", "l2"]).ngroups > 3
    runs["cell"] = runs.groupby(["choice"] if is_mean else ["l2", "choice"], sort=False).ngroup()
    rows: list[list[str]] = [[]]
    for cell, group in runs.groupby("cell"):
        error = Estimate(group["error"].mean(), np.nan, np.nan) if is_mean else pooled_mean(runs, "error", "cell", cell)
        settings = [listing(sorted(group[key].unique()), NAMES) for key in ("lr", "l2")]
        norm = group["norm"].mean()
        found = [interval(error, 100, 1), MISSING if np.isnan(norm) else f"{norm:#.2g}", str(group["seed"].nunique())]
        rows.append([title if not cell else "", group["choice"].iloc[0], *settings, *found])
    return rows


def causes(results: Results) -> Table:
    """What became of the widest layer of Adam by activation and learning rate of γ and β."""
    rows: list[list[str]] = []
    for theta, group in lost_by_cause(*results.tables["causes"]).groupby("theta"):
        rows += [[]] if rows else []
        for (_, leak, affine_lr), found in group.sort_index(ascending=[True, True, False]).iterrows():
            activation = "ReLU" if leak == 0 else f"leaky, slope {leak:g}"
            rate = "frozen" if affine_lr == 0 else f"${number(affine_lr)}$"
            values = [rf"{100 * found['lost']:.0f}\,\%", fixed(found["gamma"]), fixed(found["angle"])]
            rows.append(["" if rows and rows[-1] else f"${theta:g}$", activation, rate, *values])
    header = [r"$\theta$", "Activation", r"learning rate of $\gamma,\beta$", "lost", r"$|\gamma|$", "angle"]
    return Table("lllrrr", header, rows)


SCRIPTS = {
    "usual": "usual script: torchvision, DataLoader",
    "tensors": "plain PyTorch on tensors",
    "compiled": "the same, compiled",
    "ours": "this repository",
}


def speed(results: Results) -> Table:
    """Training speed by script, as benchmarks/normalization.py measured it; one line where nothing was measured."""
    header = ["Script", "images", "processes, threads", "images/s", "relative", "share of sgemm"]
    if results.measured is None:
        return only_line("lllrrr", header, NOT_MEASURED)
    found = results.measured["speed"]["scripts"]
    usual = {row["size"]: row["images_per_second"] for row in found if row["script"] == "usual"}
    rows = [
        [
            SCRIPTS[row["script"]],
            rf"${row['size']}\times{row['size']}$",
            row["setup"].replace("×", r"$\times$"),
            thousands(round(row["images_per_second"])),
            f"{row['images_per_second'] / usual[row['size']]:.1f}",
            rf"{100 * row['share_of_sgemm']:.0f}\,\%",
        ]
        for row in found
    ]
    return Table("lllrrr", header, rows)


def registrations(results: Results) -> Table:
    """The verdicts by the first and the second registration, which a committed file has, beside the present ones."""
    header = ["", "Claim", "first", "second", "present"]
    if results.measured is None:
        return only_line("lllll", header, "nothing is published here")
    earlier = [results.measured[which]["claims"] for which in ("first", "second")]
    rows = []
    for name, claim in results.claims.items():
        then = [claims[name]["verdict"] if name in claims else "--" for claims in earlier]
        rows.append([name, latex(claim["title"]), *then, claim["verdict"]])
    return Table("lllll", header, rows)
