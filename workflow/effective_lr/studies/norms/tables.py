"""The tables of the chapter: each a pure function of results that returns rows of LaTeX cells."""

import numpy as np
import pandas as pd

from effective_lr.document import common_tables
from effective_lr.document.notation import latex, number, thousands
from effective_lr.document.table import MISSING, NOT_MEASURED, Results, Table, fixed, only_line, wide
from effective_lr.evidence.estimates import Undecidable
from effective_lr.prepare.sources import COOLING_LOAD, GOLUB_38, GSE9476
from effective_lr.studies.norms.analysis import arms, by_split, cells, chosen, tuned
from effective_lr.studies.norms.settings import TUNED
from effective_lr.studies.norms.words import NAMES, SUBJECTS

ORDER = ("none", "l2", "l1", "l1+l2", "car", "scar", "inverse", "adaptive")
HEADER = ["", r"$\lambda$", "at end", "training", "test", "gap", "nonzeros", "inputs", r"$\|W_1\|^2$", "df"]
Rows = list[list[str]]


def mse(results: Results) -> Table:
    """Mean squared error on the test rows by penalty (rows) and cell of D1 (columns), in a block for each truth, with
    the weights averaged over its cells."""
    table = tuned(results.tables, "simulated", "simulated_all")
    table = table[table["inputs"] == table["inputs"].min()]
    rows: Rows = []
    widest = max(table[table["truth"] == truth].groupby(["rho", "noise"]).ngroups for truth in table["truth"].unique())
    for truth, of_truth in table.groupby("truth"):
        columns = dict(cells(of_truth))
        empty = [""] * (widest - len(columns))
        titles = [SUBJECTS.get(name, name).split(", ", 1)[-1] for name in columns]
        rows += [[]] if rows else []
        rows.append([rf"\textbf{{{str(truth).capitalize()}}}", *titles, *empty, "nonzeros", r"$\|W_1\|^2$", "at end"])
        for penalty in TUNED:
            mine = of_truth[of_truth["penalty"] == penalty]
            if mine.empty:
                continue
            errors = [cell.loc[cell["penalty"] == penalty, "test_mse"] for cell in columns.values()]
            weights = [
                f"{mine['nonzeros'].mean():.0f}",
                f"{mine['w1_squared'].mean():.3g}",
                rf"{100 * mine['at_end'].mean():.0f}\,\%",
            ]
            rows.append([NAMES[penalty], *(mean_and_deviation(one) for one in errors), *empty, *weights])
    return Table("l" + "r" * (widest + 3), [""] * (widest + 4), rows)


def mean_and_deviation(values: pd.Series) -> str:
    if values.empty:
        return "--"
    digits = 3 if values.mean() < 1 else 2
    spread = f" ({values.std(ddof=1):.{digits}f})" if len(values) > 1 else ""
    return f"${values.mean():.{digits}f}${spread}"


REAL = {
    "energy": ("RMSE", "loss", "MAE", "test_mae", "$R^2$", "test_r2"),
    "energy_small": ("RMSE", "loss", "MAE", "test_mae", "$R^2$", "test_r2"),
    "leukemia": ("log-loss", "loss", "balanced accuracy", "balanced_accuracy", "epochs", "epochs"),
    "gse9476": ("log-loss", "loss", "balanced accuracy", "balanced_accuracy", "epochs", "epochs"),
}


def title_of(experiment: str) -> str:
    return NAMES[experiment][0].upper() + NAMES[experiment][1:]


def real(results: Results) -> Table:
    """Losses by penalty on each data set; what the selection of genes adds."""
    rows: Rows = []
    for name, measured in REAL.items():
        title = title_of(name)
        rows += [[]] if rows else []
        try:
            table = tuned(results.tables, name)
        except Undecidable:
            rows.append([wide(rf"\textbf{{{title}}}: no data here", 6)])
            continue
        rows.append([rf"\textbf{{{title}}}", *measured[::2], "nonzeros", r"$\|W_1\|^2$"])
        for penalty in TUNED:
            mine = table[table["penalty"] == penalty]
            if len(mine):
                shown = [mean_and_deviation(mine[quantity]) for quantity in measured[1::2]]
                shown += [f"{mine['nonzeros'].mean():.0f}", f"{mine['w1_squared'].mean():.3g}"]
                rows.append([NAMES[penalty], *shown])
    try:
        leak = tuned(results.tables, "leak")
    except Undecidable:
        return Table("lrrrrr", [""] * 6, rows)
    rows += [[], [rf"\textbf{{{title_of('leak')}}}", "log-loss", "balanced accuracy", "", "", ""]]
    for selection, words in (("training", "genes of training samples"), ("all", "genes of all samples")):
        mine = leak[leak["selection"] == selection]
        rows.append([words, *(mean_and_deviation(mine[q]) for q in ("loss", "balanced_accuracy")), "", "", ""])
    return Table("lrrrrr", [""] * 6, rows)


def reported(results: Results) -> Table:
    """What the third party states of the paper, and what this study does: the items of paper/norms/reported.json."""
    items = (results.measured or {"items": []})["items"]
    rows = [
        [
            one["item"],
            f"{one['reported']} [{one['tag']}]",
            one["here"] + (f" [{own}]" if (own := one["our_tag"]) else ""),
        ]
        for one in items
    ]
    columns = r"p{0.14\linewidth}p{0.42\linewidth}p{0.36\linewidth}"
    return Table(columns, ["Item", "Reported", "Here"], rows)


def errors(results: Results) -> Table:
    """Simulations, where the correlation is largest: losses, gap, sparsity and size by penalty; df for linear
    models."""
    rows: Rows = []
    for name, words in (("linear", "Linear"), ("alignment", "Network")):
        if results.tables[name].runs.empty:
            continue
        table = arms(results.tables[name])
        table = table[(table["rho"] == table["rho"].max()) & (table["train_size"] > table["inputs"])]
        for truth in ("high", "low"):
            rows += block(
                table[table["truth"] == truth], rf"{words}, $\rho={table['rho'].max():g}$, truth {truth}", rows
            )
    return Table("lrrrlrrrrr", HEADER, rows)


def block(table: pd.DataFrame, title: str, before: Rows) -> Rows:
    """The lines of one data set, under its title."""
    best = chosen(table)
    rows: Rows = [*([[]] if before else []), [wide(rf"\textbf{{{title}}} (RMSE)", len(HEADER))]]
    for penalty in ORDER:
        mine = best[best["penalty"] == penalty]
        if len(mine):
            rows.append([NAMES[penalty], *line(mine)])
    return rows


def line(mine: pd.DataFrame) -> list[str]:
    """Strength (the median of those chosen), how often it is an end of the grid, losses, gap, sparsity, size, df."""
    strength = mine["strength"].median()
    own = np.isfinite(strength) and strength > 0
    test = by_split(mine, "test_rmse")
    training = mine["train_rmse"] if "train_rmse" in mine else pd.Series([np.nan])
    # Test targets are free of noise, of which the training error has its share.
    gap = np.sqrt(mine["test_rmse"] ** 2 + 1 / mine["snr"]) - training
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


def verdicts_reported(results: Results) -> Table:
    """The verdicts on the reported penalties: all claims together are longer than a page."""
    return common_tables.verdicts(results)


def first_registration(results: Results) -> Table:
    """The claims of the first registration with the verdicts of then, which a committed file has, and what the claim of
    that name asks and decides now."""
    header = ["", "Claim then", "Verdict then", "Claim now", "Verdict now"]
    if results.measured is None:
        return only_line("lllll", header, "nothing is published here")
    rows = []
    for name, claim in results.claims.items():
        then = results.measured["claims"].get(name, {"title": "--", "verdict": "--"})
        titles = [latex(then["title"]), latex(claim["title"] if claim["title"] != then["title"] else "the same")]
        rows.append([name, titles[0], then["verdict"], titles[1], claim["verdict"]])
    return Table("lllll", header, rows)


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
        "cooling-load": ("cooling load (ENB2012), 768 samples, 8 inputs", COOLING_LOAD, "CC BY 4.0 (UCI)"),
        "leukemia": (r"leukemia (Golub), 38 samples, 3\,051 genes", GOLUB_38, "LGPL-3+"),
    }
    rows = []
    for name, (words, source, licence) in sources.items():
        home = "/".join(source.url.split("/")[3:5]) or "Debian r-bioc-multtest"
        used = thousands(int((runs["data"] == name).sum()))
        rows.append([words, home, rf"\texttt{{{source.sha256[:12]}}}", licence, used])
    used = thousands(int((runs["data"] == "gse9476").sum()))
    rows.append(["leukemia (GSE9476), 64 samples", rf"\texttt{{{latex(GSE9476)}}}", "a user's file", "GEO", used])
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
    ways = {way: words for way, words in ways.items() if way in speeds}
    slowest = min(speeds.values())
    rows = [[words, f"{speeds[way]:.3g}", f"{speeds[way] / slowest:.1f}"] for way, words in ways.items()]
    return Table("lrr", header, rows)
