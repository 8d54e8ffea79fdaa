"""The generated LaTeX of the paper: its tables, and the macros that hold every number of its sentences.

Each table is a tabular environment, a pure function of tidy tables (analysis.py); the paper gives it a caption.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from effective_lr import theory
from effective_lr.analysis import (
    Estimate,
    Tables,
    best_setting,
    contour_slope,
    dynamics,
    equilibrium_ratios,
    error_or_chance,
    norm_exponents,
)
from effective_lr.config import Run
from effective_lr.notation import NAMES, latex, number, plain

# Of the effective learning rate: as a function of ‖w‖, and at equilibrium up to a constant (theory.py has those).
FORMULAS = {
    "sgd": (r"\eta/\|w\|^2", r"\sqrt{\eta\lambda}"),
    "momentum": (r"\eta/((1-\mu)\|w\|^2)", r"\sqrt{\eta\lambda/(1-\mu)}"),
    "nesterov": (r"\eta/((1-\mu)\|w\|^2)", r"\sqrt{\eta\lambda/(1-\mu)}"),
    "adam": (r"\eta/\|w\|", r"\sqrt[3]{\eta^2\lambda}"),
    "rmsprop": (r"\eta/\|w\|", r"\sqrt[3]{\eta^2\lambda}"),
    "projected": (r"\eta", r"\eta"),
}
NORMALIZATIONS = ("batch", "weight", "layer", "none")  # in the order of the tables
MISSING = "n/a"  # what cannot be computed at a scale that is too small


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


def exponents(tables: Tables) -> dict[str, Estimate]:
    """The measured exponent of ‖w‖ by optimizer; projected SGD is called 'projected'."""
    measured = norm_exponents(*tables["rescaling"])
    return {"projected" if row.projected else row.optimizer: row.exponent for row in measured.itertuples(index=False)}


PLANES = {"sgd": "plane_sgd", "nesterov": "plane_nesterov", "adam": "plane_adam"}


def table_1(tables: Tables) -> str:
    """Effective learning rates: formula, predicted and measured exponent of ‖w‖, slope of the contours of the error."""
    measured = exponents(tables)
    rows = []
    for optimizer, (formula, equilibrium) in FORMULAS.items():
        projected = optimizer == "projected"
        slope = contour_slope(tables[PLANES[optimizer]].runs).value if optimizer in PLANES else np.nan
        rows.append(
            [
                r"SGD, $\|w\|=1$" if projected else NAMES[optimizer],
                f"${formula}$",
                f"${0 if projected else theory.NORM_EXPONENT[optimizer]}$",
                interval(measured[optimizer], digits=3) if optimizer in measured else MISSING,
                f"${equilibrium}$",
                "--" if projected else f"${theory.diagonal_slope(optimizer):g}$",
                "--" if optimizer not in PLANES else f"${fixed(slope)}$" if np.isfinite(slope) else MISSING,
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
    return tabular("llrllrr", header, rows).replace("\\toprule\n", "\\toprule\n" + groups)


def table_2(tables: Tables) -> str:
    """Best test error by normalization and optimizer, over the whole grid and for λ = 0 alone."""
    runs = tables.runs("plane_sgd", "plane_nesterov", "plane_adam", "rmsprop", "normalizations")
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


def table_4(tables: Tables) -> str:
    """What the trainings cost: by normalization and optimizer, and in all."""
    runs = tables.runs()
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


def settings(tables: Tables) -> str:
    """Every setting of the runs, its values, and where they come from."""
    runs = tables.runs()
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
            rows.append([latex(field.description or ""), listing(tagged), f"[{tag}]"])
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


def symmetry(tables: Tables) -> dict[str, str]:
    """How far runs that should be one function are apart, in points of test error from the one with a = 1."""
    runs = tables["symmetry"].runs
    runs = runs.assign(error=error_or_chance(runs))
    smallest = runs["norm_eps"].min()

    def spread(kind: pd.DataFrame) -> str:
        start = kind.loc[kind["initial_norm"] == 1, "error"]
        return percent((kind["error"] - start.iloc[0]).abs().max()) if len(start) else MISSING

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
    """The measured over the predicted effective learning rate of the runs that figure 1 shows."""
    ratios = equilibrium_ratios(*dynamics(tables["plane_sgd"])).groupby("l2")["ratio"].mean()
    return {
        "DynamicsRatioMin": fixed(ratios.min()),
        "DynamicsRatioMax": fixed(ratios.max()),
        "DynamicsCount": str(len(ratios)),
    }


def macros(tables: Tables, scale: str, watermark: str) -> str:
    """A LaTeX command for every number that a sentence of the paper states."""
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
    measured = exponents(tables)
    values |= {f"Exponent{name.capitalize()}": fixed(estimate.value, 3) for name, estimate in measured.items()}
    for optimizer, experiment in PLANES.items():
        slope = contour_slope(tables[experiment].runs)
        values |= {f"DiagonalSlope{optimizer.capitalize()}": fixed(slope.value)}
        values |= {f"DiagonalCells{optimizer.capitalize()}": str(slope.cells)}
    return "".join(rf"\newcommand{{\{name}}}{{{value}}}" + "\n" for name, value in values.items())


TABLES = {"table_1": table_1, "table_2": table_2, "table_4": table_4, "settings": settings}


def main() -> int:
    parser = argparse.ArgumentParser(description="Write a generated piece of LaTeX.")
    parser.add_argument("table", choices=[*TABLES, "macros"])
    parser.add_argument("--scale", required=True, help="name of the scale")
    parser.add_argument("--watermark", default="", help="printed across every page")
    parser.add_argument("--tables", type=Path, nargs="+", required=True, help="tables of the experiments")
    parser.add_argument("--output", type=Path, required=True, help="LaTeX file to write")
    arguments = parser.parse_args()
    tables = Tables(arguments.tables)
    if arguments.table == "macros":
        text = macros(tables, arguments.scale, arguments.watermark)
    else:
        text = TABLES[arguments.table](tables)
    arguments.output.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
