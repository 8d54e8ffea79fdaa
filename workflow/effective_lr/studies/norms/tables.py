"""The tables of the chapter: each a pure function of results that returns rows of LaTeX cells."""

import numpy as np
import pandas as pd

from effective_lr.document.notation import number, thousands
from effective_lr.document.table import MISSING, NOT_MEASURED, Results, Span, Table, fixed, only_line
from effective_lr.prepare.sources import COOLING_LOAD, GOLUB_38, GOLUB_72
from effective_lr.studies.norms.analysis import BASELINES, arms, by_split, chosen, loss_of
from effective_lr.studies.norms.words import NAMES

ORDER = ("none", "l2", "l1", "l1+l2", "car", "car0", "scar", "inverse", "adaptive", *BASELINES)
HEADER = ["", r"$\lambda$", "at end", "training", "test", "gap", "nonzeros", "inputs", r"$\|W_1\|^2$", "df"]
Rows = list[list[str | Span]]


def errors(results: Results) -> Table:
    """Simulations, where the correlation is largest, and cooling load with 60 rows: losses, gap, sparsity and size by
    penalty, with the baselines; df for linear models."""
    rows: Rows = []
    for name, words in (("linear", "Linear"), ("alignment", "Network")):
        if results.tables[name].runs.empty:
            continue
        table = arms(results.tables[name])
        table = table[(table["rho"] == table["rho"].max()) & (table["train_size"] > table["inputs"])]
        for truth in ("high", "low"):
            of_truth = table[table["truth"] == truth]
            rows += block(of_truth, rf"{words}, $\rho={table['rho'].max():g}$, truth {truth}", rows)
    return Table("lrrrlrrrrr", HEADER, rows + of_data(results, ("cooling_small",), rows))


def errors_of_splits(results: Results) -> Table:
    """The same for repeated splits of cooling load and leukemia."""
    names = ("cooling_full", "cooling_shapes", "leukemia", "leukemia_original")
    return Table("lrrrlrrrrr", HEADER, of_data(results, names, []))


def errors_of_diabetes(results: Results) -> Table:
    """The same for diabetes."""
    return Table("lrrrlrrrrr", HEADER, of_data(results, ("diabetes_small", "diabetes_full"), []))


def of_data(results: Results, names: tuple[str, ...], before: Rows) -> Rows:
    """The blocks of these experiments; a line that says so where data cannot be had."""
    rows: Rows = []
    for name in names:
        title = NAMES[name].capitalize()
        if len(results.tables[name].runs):
            rows += block(arms(results.tables[name]), title, before + rows)
        else:
            rows += [*([[]] if before + rows else []), [Span(rf"\textbf{{{title}}}: no data here", len(HEADER))]]
    return rows


def block(table: pd.DataFrame, title: str, before: Rows) -> Rows:
    """The lines of one data set, under its title."""
    loss = loss_of(table)
    best = chosen(table)
    words = "log-loss" if loss == "log_loss" else "RMSE"
    rows: Rows = [*([[]] if before else []), [Span(rf"\textbf{{{title}}} ({words})", len(HEADER))]]
    for penalty in ORDER:
        mine = best[best["penalty"] == penalty]
        if len(mine):
            rows.append([NAMES[penalty], *line(mine, loss)])
    return rows


def line(mine: pd.DataFrame, loss: str) -> list[str]:
    """Strength (the median of those chosen), how often it is an end of the grid, losses, gap, sparsity, size, df."""
    strength = mine["strength"].median()
    own = np.isfinite(strength) and strength > 0
    test = by_split(mine, f"test_{loss}")
    training = mine[f"train_{loss}"] if f"train_{loss}" in mine else pd.Series([np.nan])
    # Test targets of simulations are free of noise, of which the training error has its share.
    noise = 1 / mine["snr"] if mine["data"].iloc[0] == "simulated" else 0.0
    gap = (np.sqrt(mine[f"test_{loss}"] ** 2 + noise) if loss == "rmse" else mine[f"test_{loss}"]) - training
    digits = 3 if test.value < 1.5 else 2
    value = fixed(test.value, digits)
    ends = "" if np.isnan(test.low) else f" $[{test.low:.{digits}f}, {test.high:.{digits}f}]$"
    return [
        f"${number(strength)}$" if own else "--",
        rf"{100 * mine['at_end'].mean():.0f}\,\%" if own else "--",
        fixed(training.mean(), digits),
        f"${value}${ends}",
        f"${gap.mean():.{digits}f}$" if np.isfinite(gap.mean()) else MISSING,
        *(mean_of(mine, quantity, whole) for quantity, whole in (("nonzeros", True), ("active_inputs", True))),
        mean_of(mine, "w1_squared", False),
        mean_of(mine, "df", False),
    ]


def mean_of(mine: pd.DataFrame, quantity: str, whole: bool) -> str:
    if quantity not in mine or not np.isfinite(mine[quantity]).any():
        return "--"
    mean = mine[quantity].mean()
    return thousands(round(mean)) if whole else f"{mean:.3g}"


def readings(results: Results) -> Table:
    """The readings P = S^a: what each does by theory, and the checks of it: the largest residual of those that should
    hold."""
    checks = results.checks

    def worst(check: str, subject: str) -> str:
        values = checks.loc[(checks["check"] == check) & (checks["subject"] == subject), "value"]
        if values.empty:
            return MISSING
        return rf"$\leq 10^{{{int(np.ceil(np.log10(max(values.max(), 1e-17))))}}}$"

    rows = [
        [
            "CAR",
            "1",
            r"$1/(1+\lambda_2)$",
            r"$\propto 1/d_j$",
            "any linear map",
            worst("one_factor", "car"),
            "low variance",
        ],
        [r"$\ell_2$", "0", r"$d_j/(d_j+\lambda_2)$", "constant", "rotations", worst("shrinkage", "all"), "none"],
        [
            "inverse",
            "$-1$",
            r"$d_j^2/(d_j^2+\lambda_2)$",
            r"$\propto d_j$",
            "rotations",
            worst("shrinkage", "all"),
            "high variance",
        ],
        [r"$\ell_1$", "--", "--", "--", "permutations", worst("optimality", "l1"), "sparse"],
    ]
    header = [
        "Reading",
        "$a$",
        "left of least squares $s_j$",
        r"Bayes for $t_j^2$",
        "invariant under",
        "residual",
        "pull on $u$",
    ]
    return Table("lllllll", header, rows)


def provenance(results: Results) -> Table:
    """Where the data come from, with the checksums that are tested; how many runs rest on each."""
    runs = results.tables.runs()
    sources = {
        "cooling-load": ("cooling load (ENB2012), 768 samples, 16 inputs", COOLING_LOAD, "CC BY 4.0 (UCI)"),
        "leukemia": (r"leukemia (Golub), 38 samples, 3\,051 genes", GOLUB_38, "LGPL-3+"),
        "leukemia-72": (r"leukemia (Golub), 38 + 34 samples", GOLUB_72, "MIT (package)"),
    }
    rows = []
    for name, (words, source, licence) in sources.items():
        home = f"Debian {source.package}" if source.package else "/".join(source.url.split("/")[3:5])
        original = runs["split"] == "original"
        used = (runs["data"] == name) & ~original if name != "leukemia-72" else original
        rows.append([words, home, rf"\texttt{{{source.sha256[:12]}}}", licence, thousands(int(used.sum()))])
    count = thousands(int((runs["data"] == "diabetes").sum()))
    rows.append(["diabetes, 442 samples, 10 inputs", "scikit-learn", "bundled", "BSD-3", count])
    return Table("llllr", ["Data", "Home", "SHA-256", "Licence", "runs"], rows)


def stacking(results: Results) -> Table:
    """Networks per second by three ways to train them, in one measurement that took turns."""
    header = ["Way", "networks/s", "ratio"]
    if results.measured is None:
        return only_line("lrr", header, NOT_MEASURED)
    speeds = results.measured["networks_per_second"]
    ways = {
        "stacked": "all arms in one program",
        "one_by_one": "one network after another",
        "mlp_regressor": r"MLPRegressor, $\ell_2$ alone",
    }
    slowest = min(speeds.values())
    rows = [[words, f"{speeds[way]:.3g}", f"{speeds[way] / slowest:.1f}"] for way, words in ways.items()]
    return Table("lrr", header, rows)
