"""The generated LaTeX of the paper: its tables, and the macros that hold every number of its sentences.

Each table is a tabular environment, a pure function of tidy tables (analysis.py); the paper gives it a caption.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from effective_lr import theory
from effective_lr.analysis import (
    PLANES,
    Estimate,
    Tables,
    best_setting,
    contour_cells,
    dynamics,
    equilibrium_by_layer,
    error_or_chance,
    late_layers,
    pooled_mean,
    slope_of_contours,
)
from effective_lr.config import Run
from effective_lr.notation import NAMES, NORMALIZATIONS, latex, number, plain

# Of the effective learning rate: as a function of ‖w‖, and at equilibrium up to a constant (theory.py has those).
FORMULAS = {
    "sgd": (r"\eta/\|w\|^2", r"\sqrt{\eta\lambda}"),
    "momentum": (r"\eta/((1-\mu)\|w\|^2)", r"\sqrt{\eta\lambda/(1-\mu)}"),
    "nesterov": (r"\eta/((1-\mu)\|w\|^2)", r"\sqrt{\eta\lambda/(1-\mu)}"),
    "adam": (r"\eta/\|w\|", r"\sqrt[3]{\eta^2\lambda}"),
    "rmsprop": (r"\eta/\|w\|", r"\sqrt[3]{\eta^2\lambda}"),
    "projected": (r"\eta", r"\eta"),
}
MISSING = "n/a"  # what cannot be computed at a scale that is too small
NO_VALUE = Estimate(np.nan, np.nan, np.nan)


def tabular(columns: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A booktabs tabular of cells that are LaTeX already; an empty row becomes a rule."""
    lines = [" & ".join(row) + r" \\" if row else r"\midrule" for row in rows]
    return "\n".join([rf"\begin{{tabular}}{{{columns}}}", r"\toprule", " & ".join(header) + r" \\", r"\midrule", *lines,
                      r"\bottomrule", r"\end{tabular}", ""])  # fmt: skip


def percent(error: float) -> str:
    return MISSING if np.isnan(error) else f"{100 * error:.1f}"


def fixed(value: float, digits: int = 2) -> str:
    return MISSING if np.isnan(value) else f"{value:.{digits}f}"


def interval(estimate: Estimate, scale: float = 1.0, digits: int = 2) -> str:
    """The value, and its interval in brackets where there is one."""
    value, low, high = (f"{scale * part:.{digits}f}" for part in estimate)
    if np.isnan(estimate.value):
        return MISSING
    return f"${value}$" if np.isnan(estimate.low) else f"${value}$ $[{low}, {high}]$"


def estimate_of(part: dict[str, Any]) -> Estimate:
    """What a part of a claim has measured; JSON has no NaN."""
    return Estimate(*(np.nan if part[key] is None else part[key] for key in ("value", "low", "high")))


class Results(NamedTuple):
    """What the tables are made of: tidy tables of experiments, verdicts on claims by id, float64 checks."""

    tables: Tables
    claims: dict[str, dict[str, Any]]
    checks: pd.DataFrame

    def estimates(self, statistic: str) -> dict[str, Estimate]:
        """A statistic of the claims by subject."""
        parts = [part for claim in self.claims.values() for part in claim["parts"] if part["statistic"] == statistic]
        return {part["subject"]: estimate_of(part) for part in parts}


def table_1(results: Results) -> str:
    """Effective learning rates: formula, predicted and measured exponent of ‖w‖, slope of the contours of the error."""
    exponents, slopes = results.estimates("norm_exponent"), results.estimates("contour_slope")
    rows = []
    for optimizer, (formula, equilibrium) in FORMULAS.items():
        projected = optimizer == "projected"
        rows.append(
            [
                r"SGD, $\|w\|=1$" if projected else NAMES[optimizer],
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
    groups = (
        r" & & \multicolumn{2}{c}{exponent of $\|w\|$} & & \multicolumn{2}{c}{slope of contours} \\"
        "\n" + r"\cmidrule(lr){3-4}\cmidrule(lr){6-7}" + "\n"
    )
    return tabular("llrllrl", header, rows).replace("\\toprule\n", "\\toprule\n" + groups)


def table_2(results: Results) -> str:
    """Best test error by normalization and optimizer, over the whole grid and for λ = 0 alone."""
    runs = results.tables.runs("plane_sgd", "plane_nesterov", "plane_adam", "rmsprop", "normalizations")
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
    return tabular("llrrllr", header, rows)


# How table 3 writes a statistic (claims.py), and with how many digits.
STATISTICS = {
    "invariance": ("residual", 0),
    "affine_invariance": ("residual", 0),
    "norm_exponent": (r"exponent of $\|w\|$", 3),
    "symmetry_error": ("largest change of the error, points", 1),
    "symmetry_loss": (r"largest change of the loss, \%", 1),
    "angle_slope": (r"slope of the angle in $\eta\lambda$", 2),
    "angle_factor": ("angle / predicted", 2),
    "norm_factor": (r"$\|w\|^{4,3,2}$ / predicted", 2),
    "norm_factor_of_the_last_layer": (r"the same in the last layer alone", 2),
    "contour_slope": ("slope of contours", 2),
    "growth_slope": (r"slope of $\eta_{\mathrm{eff}}$ in $t$", 2),
    "l2_exponent": (r"exponent of $\lambda$ in $\eta_{\mathrm{eff}}$", 2),
    "l2_exponent_of_the_last_layer": ("the same in the last layer alone", 2),
    "projected_change": (r"largest change of the error up to $0.1\lambda_{\mathrm{c}}$, points", 1),
    "projected_beyond": (r"error at $1.2\lambda_{\mathrm{c}}$, \%", 1),
    "affine_penalty": ("change of the error, points", 1),
}
SUBJECTS = {**NAMES, "projected": r"SGD, $\|w\|=1$", "gauss_newton": "Gauss--Newton"}


def table_3(results: Results) -> str:
    """Claims and verdicts: each statistic with its interval, its tolerance and what follows; then what was explored."""
    rows: list[list[str]] = []
    for name, claim in results.claims.items():
        rows += [[]] if rows else []
        rows.append(
            [
                rf"\textbf{{{name}}}",
                rf"\multicolumn{{4}}{{l}}{{\textbf{{{latex(claim['title'])}}}}}",
                rf"\textbf{{{claim['verdict']}}}",
            ]
        )
        for part in claim["parts"]:
            rows.append(["", *measured(part), tolerance(part["within"]), part["verdict"]])
        for part in claim["explored"]:
            rows.append(["", *measured(part), "--", "explored"])
    return tabular("llllll", ["", "Subject", "Statistic", "Value", "Tolerance", "Verdict"], rows)


def measured(part: dict[str, Any]) -> list[str]:
    """Subject, statistic and value of a part of a claim."""
    what, digits = STATISTICS[part["statistic"]]
    found = estimate_of(part)
    value = interval(found, digits=digits) if digits else residuals(found)
    return [SUBJECTS.get(part["subject"], latex(part["subject"].capitalize())), what, value]


def residuals(estimate: Estimate) -> str:
    """The range of a residual, to a power of ten."""
    if np.isnan(estimate.value):
        return MISSING
    ends = estimate[1:] if np.isfinite(estimate.low) else estimate[:1]
    low, high = (f"10^{{{round(np.log10(max(value, 1e-17)))}}}" for value in (ends[0], ends[-1]))
    return f"${low}$" if low == high else f"${low}$ to ${high}$"


def tolerance(within: list[float | None]) -> str:
    low, high = within
    if high is None:
        return rf"$\geq {number(low or 0)}$"
    return rf"$\leq {number(high)}$" if not low else f"${number(low)}$ to ${number(high)}$"


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


def table_4(results: Results) -> str:
    """The exact statements: the largest residual where each should hold, the smallest of its controls."""
    rows = []
    for check, (statement, control) in STATEMENTS.items():
        group = results.checks[results.checks["check"] == check]
        largest, smallest = group.loc[group["holds"], "value"].max(), group.loc[~group["holds"], "value"].min()
        rows.append(
            [statement, f"${number(float(f'{largest:.0e}'))}$", control, f"${number(float(f'{smallest:.1g}'))}$"]
        )
    return tabular("llll", ["Statement", "residual", "Broken by", "residual"], rows)


def table_5(results: Results) -> str:
    """Equilibrium by layer: measured over predicted angle per step and norm, geometric means over runs whose layer has
    gradients; how many runs there are, and in how many most units of the layer have none."""
    rows: list[list[str]] = []
    for optimizer, experiment in PLANES.items():
        ratios = equilibrium_by_layer(*results.tables[experiment])
        if ratios.empty:
            continue
        means = ratios[ratios["has_gradient"]].groupby("layer")[["angle_ratio", "norm_ratio"]].agg(stats.gmean)
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
    return tabular("llrrrr", ["Optimizer", "Layer", "angle", r"$\|w\|$", "runs", "without"], rows)


def table_7(results: Results) -> str:
    """What the trainings cost: by normalization and optimizer, and in all."""
    runs = results.tables.runs()
    rows = []
    for normalization in NORMALIZATIONS:
        for optimizer in theory.NORM_EXPONENT:
            group = runs[(runs["normalization"] == normalization) & (runs["optimizer"] == optimizer)]
            if len(group):
                rows.append([NAMES[normalization], NAMES[optimizer], *cost(group)])
    header = ["Normalization", "Optimizer", "runs", "reused", "diverged", "images/s", "hours", "GPU hours", "MB"]
    return tabular("llrrrrrrr", header, [*rows, [], ["All", "", *cost(runs)]])


def cost(runs: pd.DataFrame) -> list[str]:
    """Counts, the median speed, hours summed over processes, the most memory."""
    return [
        plain(len(runs)),
        plain(runs["reused"].sum()),
        plain(runs["diverged"].notna().sum()),
        plain(round(runs["samples_per_second"].median())),
        f"{runs['seconds'].sum() / 3600:.2f}",
        f"{runs['gpu_seconds'].sum() / 3600:.2f}",
        plain(runs["peak_memory_mb"].max()),
    ]


def table_8(results: Results) -> str:
    """Every setting of the runs, its values and its source."""
    runs = results.tables.runs()
    rows = []
    for key, field in Run.model_fields.items():
        values = sorted(runs[key].unique(), key=lambda value: (isinstance(value, str), value))
        source = field.json_schema_extra["source"]  # type: ignore[index]
        by_source: dict[Any, list[Any]] = {}
        for value in values:
            by_source.setdefault(source.get(value, "ours") if isinstance(source, dict) else str(source), []).append(
                value
            )
        for tag, tagged in by_source.items():
            rows.append([latex((field.description or "").replace("`", "")), listing(tagged), f"[{tag}]"])
    return tabular(r"p{0.5\linewidth}p{0.3\linewidth}l", ["Setting", "Values", "Source"], rows)


def listing(values: list[Any]) -> str:
    """A few values one by one, many numbers as a range."""
    if isinstance(values[0], str):
        return ", ".join(latex(NAMES.get(value, value)) for value in values)
    if isinstance(values[0], bool | np.bool_):
        return ", ".join("yes" if value else "no" for value in values)
    if isinstance(values[0], int | np.integer):
        return ", ".join(plain(value) for value in values)
    if len(values) <= 3:
        return ", ".join(f"${number(value)}$" for value in values)
    return f"${number(values[0])}$ to ${number(values[-1])}$ ({len(values)} values)"


# Experiments that try other choices than the rest of the study, and how table 9 names them: those that vary a setting,
# and those whose usual choice is in the plane of SGD, at the same settings and seeds.
VARIED = {
    "starting_norms": ("initial_norm", r"starting norm $\|w_0\|$"),
    "norm_eps": ("norm_eps", r"$\varepsilon$ of the normalization, at a small norm"),
    "affine_penalty": ("affine_l2", r"layers whose $\gamma$ and $\beta$ are penalised"),
}
COMPARED = {
    "running_statistics": ("batch statistics of an evaluation", "recomputed", "running"),
    "shared_affine_lr": (r"learning rate of $\gamma$ and $\beta$", "their own", "that of $w$"),
}


def table_9(results: Results) -> str:
    """Choices of the study, one changed at a time: test error and the norm late in training."""
    tables, rows = results.tables, []
    plane = tables["plane_sgd"]
    for experiment, (setting, title) in VARIED.items():
        metrics, runs = tables[experiment]
        values = {value: listing([value]) for value in runs[setting].unique()}
        rows += choices(title, metrics, runs.assign(choice=runs[setting].map(values)))
    for experiment, (title, *names) in COMPARED.items():
        metrics, tried = tables[experiment]
        usual = plane.runs.merge(tried[["lr", "l2", "seed"]])
        runs = pd.concat([part.assign(choice=name) for part, name in zip([usual, tried], names, strict=True)])
        rows += choices(title, pd.concat([metrics, plane.metrics]), runs)
    header = ["Choice", "", r"$\eta$", r"$\lambda$", r"test error (\%)", r"$\|w\|$", "seeds"]
    return tabular("llllllr", header, rows[1:])


def choices(title: str, metrics: pd.DataFrame, runs: pd.DataFrame) -> list[list[str]]:
    """Rows of table 9 for runs with their `choice`: one for each setting, or for their mean where there are many."""
    norms = np.sqrt(late_layers(metrics, runs).groupby("run_id")["late_norm_squared"].median())
    runs = runs.assign(error=error_or_chance(runs), norm=runs["run_id"].map(norms))
    is_mean = runs.groupby(["lr", "l2"]).ngroups > 3
    runs["cell"] = runs.groupby(["choice"] if is_mean else ["l2", "choice"], sort=False).ngroup()
    rows: list[list[str]] = [[]]
    for cell, group in runs.groupby("cell"):
        error = Estimate(group["error"].mean(), np.nan, np.nan) if is_mean else pooled_mean(runs, "error", "cell", cell)
        settings = [listing(sorted(group[key].unique())) for key in ("lr", "l2")]
        norm = group["norm"].mean()
        found = [interval(error, 100, 1), MISSING if np.isnan(norm) else f"{norm:#.2g}", str(group["seed"].nunique())]
        rows.append([title if not cell else "", group["choice"].iloc[0], *settings, *found])
    return rows


def symmetry(tables: Tables) -> dict[str, str]:
    """How far runs that should be one function are apart, in points of test error from the one with a = 1."""
    runs = tables["symmetry"].runs
    runs = runs.assign(error=error_or_chance(runs))
    smallest = runs["norm_eps"].min()

    def spread(kind: pd.DataFrame) -> str:
        start = kind[kind["initial_norm"] == 1].set_index("seed")["error"]
        change = (kind["error"] - kind["seed"].map(start)).groupby(kind["initial_norm"]).mean()
        return percent(change.abs().max())

    batch, none = runs[runs["normalization"] == "batch"], runs[runs["normalization"] == "none"]
    exact = batch[batch["norm_eps"] == smallest]
    return {
        "SymmetryRuns": str(len(runs)),
        "SymmetryLambdaMin": number(exact["l2"].min()),
        "SymmetryLambdaMax": number(exact["l2"].max()),
        "SymmetryDecades": f"{np.log10(exact['l2'].max() / exact['l2'].min()):.1f}",
        "SymmetrySpread": spread(exact),
        "SymmetrySpreadEps": spread(batch[batch["norm_eps"] > smallest]),
        "SymmetrySpreadNone": spread(none),
        "SymmetryEps": number(smallest),
        "DefaultEps": number(batch["norm_eps"].max()),
    }


def projection(tables: Tables) -> dict[str, str]:
    """SGD with and without ‖w‖ = 1, in percent of test error."""
    runs = tables.runs("projection_sgd", "plane_sgd")
    lr = tables["projection_sgd"].runs["lr"].iloc[0]
    runs = runs[runs["lr"] == lr].assign(error=error_or_chance(runs))
    critical = float(theory.critical_l2("sgd", lr))
    held = runs[runs["projected"]].groupby("l2")["error"].mean()
    free = runs[~runs["projected"]].groupby("l2")["error"].mean()
    below = held[(held.index > 0) & (held.index <= 0.1 * critical)]
    return {
        "ProjectedLr": number(lr),
        "CriticalLambda": number(critical),
        "ProjectedErrorZero": percent(held[0]),
        "ProjectedErrorTenth": percent(below.iloc[-1]) if len(below) else MISSING,
        "ProjectedErrorBeyond": percent(held[held.index >= 1.2 * critical].min()),
        "PlainErrorZero": percent(free[0]),
        "PlainErrorBest": percent(free.min()),
        "PlainBestLambda": number(free.idxmin()),
    }


def equilibrium(tables: Tables) -> dict[str, str]:
    """The measured over the predicted effective learning rate of the runs that figure 1 shows; how many layers are at
    equilibrium under each optimizer, and how many of them have a median unit without a gradient."""
    table = equilibrium_by_layer(*dynamics(tables["plane_sgd"]))
    ratios = table.groupby(["l2", "run_id"])["effective_lr_ratio"].median().groupby("l2").mean()
    counts = {}
    for optimizer, experiment in PLANES.items():
        has_gradient = equilibrium_by_layer(*tables[experiment])["has_gradient"]
        counts[f"Layers{camel(optimizer)}"] = str(len(has_gradient))
        counts[f"WithoutGradient{camel(optimizer)}"] = str(int((~has_gradient).sum()))
    return {
        **counts,
        "DynamicsRatioMin": fixed(ratios.min()),
        "DynamicsRatioMax": fixed(ratios.max()),
        "DynamicsCount": str(len(ratios)),
    }


def macros(results: Results, scale: str, watermark: str) -> str:
    """A LaTeX command for every number that a sentence of the paper states."""
    tables = results.tables
    runs = tables.runs()
    main = tables["plane_sgd"].runs.iloc[0]
    values = {
        "Watermark": latex(watermark),
        "ScaleName": scale,
        "DatasetName": NAMES[main["dataset"]],
        "Resolution": str(main["resolution"]),
        "TrainSize": plain(main["train_size"]),
        "ValidationSize": plain(main["validation_size"]),
        "TestSize": plain(main["test_size"]),
        "Width": str(main["width"]),
        "BatchSize": str(main["batch_size"]),
        "Steps": plain(main["steps"]),
        "Evaluations": str(main["evaluations"]),
        "StatisticsSize": plain(main["statistics_size"]),
        "RunCount": plain(len(runs)),
        "DivergedCount": str(int(runs["diverged"].notna().sum())),
        "CoreHours": f"{runs['seconds'].sum() / 3600:.2f}",
        "FirstTrained": runs["finished"].min()[:10],
        "LastTrained": runs["finished"].max()[:10],
        "DeviceName": latex(", ".join(sorted(runs["device"].unique()))),
        "TorchVersion": latex(", ".join(sorted(runs["torch"].unique()))),
        **symmetry(tables),
        **equilibrium(tables),
        **projection(tables),
    }
    slopes = results.estimates("contour_slope")
    for optimizer in ("sgd", "nesterov", "adam", "rmsprop"):
        values[f"DiagonalSlope{camel(optimizer)}"] = fixed(slopes.get(optimizer, NO_VALUE).value)
        values[f"DiagonalCells{camel(optimizer)}"] = str(len(contour_cells(tables[PLANES[optimizer]].runs)))
    shared = tables["shared_affine_lr"].runs
    values["OwnAffineSlope"] = fixed(
        slope_of_contours(tables["plane_sgd"].runs.merge(shared[["lr", "l2", "seed"]])).value
    )
    values["SharedAffineSlope"] = fixed(slope_of_contours(shared).value)
    values["DropFactor"] = number(tables["lr_drop"].runs["lr_drop"].iloc[0])
    values |= verdicts(results)
    return "".join(rf"\newcommand{{\{name}}}{{{value}}}" + "\n" for name, value in values.items())


def verdicts(results: Results) -> dict[str, str]:
    """How many claims have which verdict, that of each, and the value of every statistic that has digits."""
    found = [claim["verdict"] for claim in results.claims.values()]
    counts = {
        kind: plain(found.count(kind)) for kind in ("reproduced", "reproduced in part", "undecided", "not reproduced")
    }
    letters = dict(zip("123456789", "ABCDEFGHI", strict=True))  # names of LaTeX macros have no digits
    return {
        "ClaimCount": plain(len(found)),
        **{f"Claims{camel(kind)}": count for kind, count in counts.items()},
        **{f"Verdict{letters[name[1:]]}": claim["verdict"] for name, claim in results.claims.items()},
        **{
            camel(f"{part['statistic']} {part['subject']}"): fixed(
                estimate_of(part).value, STATISTICS[part["statistic"]][1]
            )
            for claim in results.claims.values()
            for part in claim["parts"] + claim["explored"]
            if STATISTICS[part["statistic"]][1]
        },
    }


def camel(name: str) -> str:
    """A name of letters alone, as LaTeX wants its macros."""
    return "".join(part.capitalize() for part in name.replace("_", " ").replace("2", " two ").split())


# Table 6 is made by benchmark.py.
TABLES = {
    f"table_{k}": make
    for k, make in enumerate((table_1, table_2, table_3, table_4, table_5, None, table_7, table_8, table_9), start=1)
    if make
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Write a generated piece of LaTeX.")
    parser.add_argument("table", choices=[*TABLES, "macros"])
    parser.add_argument("--scale", required=True, help="name of the scale")
    parser.add_argument("--watermark", default="", help="printed across every page")
    parser.add_argument("--tables", type=Path, nargs="*", default=[], help="tables of the experiments")
    parser.add_argument("--claims", type=Path, nargs="*", default=[], help="verdicts on claims")
    parser.add_argument("--checks", type=Path, nargs="*", default=[], help="table of float64 checks")
    parser.add_argument("--output", type=Path, required=True, help="LaTeX file to write")
    arguments = parser.parse_args()
    results = Results(
        Tables(arguments.tables),
        {path.stem: json.loads(path.read_text()) for path in arguments.claims},
        pd.concat([pd.read_parquet(path) for path in arguments.checks] or [pd.DataFrame()]),
    )
    if arguments.table == "macros":
        text = macros(results, arguments.scale, arguments.watermark)
    else:
        text = TABLES[arguments.table](results)
    arguments.output.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
