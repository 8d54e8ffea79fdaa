"""Numbers with their intervals: pure functions of columns."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtrit

CONFIDENCE = 0.9  # of every interval


class Undecidable(Exception):
    """Why a statistic has no value."""


class Estimate(NamedTuple):
    """A number with the ends of its interval, which are NaN when there is none to give.

    `freedom`: the degrees of freedom that the interval rests on; NaN where it is no t interval. `note`: what a reader
    must know of the number beside its interval.
    """

    value: float
    low: float
    high: float
    freedom: float = np.nan
    note: str = ""

    def map(self, function: Callable[[float], float]) -> "Estimate":
        """The estimate of an increasing function of the number."""
        value, low, high = (float(function(x)) for x in (self.value, self.low, self.high))
        return Estimate(value, low, high, self.freedom, self.note)

    def unsigned(self) -> "Estimate":
        """The estimate of the absolute value, its interval cut at 0."""
        low, high = (self.low, self.high) if self.value >= 0 else (-self.high, -self.low)
        return Estimate(abs(self.value), float(np.maximum(low, 0.0)), high, self.freedom, self.note)  # NaN stays

    def noted(self, *texts: str) -> "Estimate":
        """The estimate with these notes behind its own; empty ones are left out."""
        return self._replace(note="; ".join(filter(None, [self.note, *texts])))

    def shown(self, why: str) -> "Estimate":
        """The number without its interval, which decides nothing, and why that is so."""
        return Estimate(self.value, np.nan, np.nan).noted(self.note, why)


NO_VALUE = Estimate(np.nan, np.nan, np.nan)


def t_estimate(value: float, deviation: float, freedom: float) -> Estimate:
    """A number with the t interval of its standard deviation, which is NaN without a degree of freedom."""
    margin = stdtrit(freedom, (1 + CONFIDENCE) / 2) * deviation
    return Estimate(float(value), float(value - margin), float(value + margin), float(freedom))


def require_numbers(values: Any) -> None:
    """Raise Undecidable where a value is not a number."""
    missing = int((~np.isfinite(np.asarray(values, dtype=float))).sum())
    if missing:
        raise Undecidable(f"{missing} of {np.size(values)} values are not a number")


def finite(estimate: Estimate) -> Estimate:
    """The estimate, unless it is not a number."""
    if not np.isfinite(estimate.value):
        raise Undecidable("too few values")
    return estimate


def mean_interval(values: pd.Series) -> Estimate:
    """The mean and its t interval."""
    require_numbers(values)
    return finite(t_estimate(values.mean(), values.sem(), len(values) - 1))


def geometric_mean(values: pd.Series) -> Estimate:
    """The geometric mean of positive numbers, with the t interval of their logarithms."""
    return mean_interval(np.log(values.where(values > 0))).map(np.exp)


def log_ratio(above: pd.Series, below: pd.Series) -> Estimate:
    """The geometric mean of the ratio of two positive columns that are indexed by the unit of repetition, such as the
    seed, over the units that both have."""
    return geometric_mean((above / below).dropna())


def pooled_mean(cells: pd.DataFrame, column: str, by: str | list[str], at: Any) -> Estimate:
    """The mean over seeds in the cell by = at, with a t interval whose deviation is pooled over all cells."""
    groups = cells.groupby(by)[column]
    cell, freedom = groups.get_group(at), len(cells) - groups.ngroups
    squares = ((cells[column] - groups.transform("mean")) ** 2).sum()
    return t_estimate(cell.mean(), np.sqrt(squares / max(freedom, 1) / len(cell)), freedom)


def contrast(table: pd.DataFrame, cell: Any, reference: Any) -> Estimate:
    """The difference between two cells (rows) over the same seeds (columns), by the two-way layout.

    The model is cell + seed + residual: what all cells of a seed have in common cancels. With A cells and S seeds the
    residual has (A−1)(S−1) degrees of freedom, and with its deviation σ that of the difference of two means over seeds
    is σ√(2/S). With two cells this is the paired t test.
    """
    require_numbers(table)
    residuals = table.sub(table.mean(axis=1), axis=0).sub(table.mean(axis=0), axis=1) + table.to_numpy().mean()
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    deviation = np.sqrt((residuals.to_numpy() ** 2).sum() / max(freedom, 1) * 2 / table.shape[1])
    return t_estimate(table.loc[cell].mean() - table.loc[reference].mean(), deviation, freedom)
