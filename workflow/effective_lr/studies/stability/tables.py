"""The tables of the chapter, each a pure function of the results."""

import numpy as np
import pandas as pd

from effective_lr.document.common_tables import earlier_verdicts
from effective_lr.document.notation import number, thousands
from effective_lr.document.table import MISSING, Results, Table, fixed, percent, wide
from effective_lr.studies.stability.statistics import EXPERIMENTS

TITLES = {
    "MLP": "MLP, MSE",
    "CNN": "CNN, MSE",
    "BN": "MLP with batch normalization, MSE",
    "WN": "MLP with weight normalization, MSE",
    "cross-entropy": "MLP, cross-entropy",
}
COLUMNS = {  # of the table of runs: header and digits, None for a power of ten
    "late_edge_ratio": ("$R$", 3),
    "late_spread": ("sd", 4),
    "late_degree": ("$A$", 2),
    "late_alignment": (r"$\cos$", 3),
    "late_alpha_eff": (r"$\alpha_{eff}$", 3),
    "late_pressure": (r"$\frac{\beta}{2}x^2$", 3),
    "late_weight_norm_squared": ("$|w|^2$", 1),
    "late_ntk_jitter": ("jitter", None),
    "late_ntk_drift": ("drift", 4),
    "late_train_loss": ("loss", 4),
}


def edge(results: Results) -> Table:
    """Late means over seeds of every network, learning rate and λ; an asterisk where a run has not settled."""
    rows: list[list[str]] = []
    for name, title in TITLES.items():
        experiments = [EXPERIMENTS[name], *["mlp_other_lr"] * (name == "MLP")]
        if rows:
            rows.append([])
        rows.append([wide(rf"\textbf{{{title}}}", 15)])
        runs = results.tables.runs(*experiments)
        rows += [row(lr, l2, cell) for (lr, l2), cell in runs.groupby(["lr", "l2"])]
    header = [r"$\eta$", r"$\lambda$", "seeds", r"$t_{edge}$", *(title for title, _ in COLUMNS.values()), r"error, \%"]
    return Table("l" * 2 + "r" * 13, header, rows)


def row(lr: float, l2: float, cell: pd.DataFrame) -> list[str]:
    """One setting, with means over its seeds."""
    mark = "" if cell["settled"].all() else "*"
    step = thousands(round(cell["edge_step"].mean()))
    values = [
        power(cell[column].mean()) if digits is None else fixed(cell[column].mean(), digits)
        for column, (_, digits) in COLUMNS.items()
    ]
    return [
        f"${number(lr)}$",
        f"${number(l2)}${mark}",
        str(len(cell)),
        step if cell["reached_edge"].all() else f"$>$ {step}",
        *(value if value == MISSING else f"${value}$" for value in values),
        percent(cell["test_error"].mean()),
    ]


def second_registration(results: Results) -> Table:
    """The claims before the third registration, with the verdicts of then, which a committed file has, and of now."""
    return earlier_verdicts(results, ["", "Claim then", "parts reproduced", "Verdict then", "Verdict now"])


def power(value: float) -> str:
    """A positive number as a digit times a power of ten."""
    if np.isnan(value):
        return MISSING
    mantissa, exponent = f"{value:.0e}".split("e")
    return rf"{mantissa}\cdot10^{{{int(exponent)}}}"
