"""Numbers with their intervals: pure functions of columns."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

CONFIDENCE = 0.9  # of every interval


class Undecidable(Exception):
    """Why a statistic has no value."""


class Estimate(NamedTuple):
    """A number with the ends of its interval, which are NaN when there is none to give."""

    value: float
    low: float
    high: float


NO_VALUE = Estimate(np.nan, np.nan, np.nan)


def t_margin(deviation: float, freedom: float) -> float:
    """Half the width of a t interval; NaN without a degree of freedom."""
    if freedom < 1:
        return np.nan
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * deviation)


def require_numbers(values: Any) -> None:
    """Raise Undecidable where a value is not a number."""
    missing = int((~np.isfinite(np.asarray(values, dtype=float))).sum())
    if missing:
        raise Undecidable(f"{missing} of {np.size(values)} values are not a number")


def finite(estimate: Estimate, values: Any = ()) -> Estimate:
    """The estimate, unless a value that it rests on, or itself, is not a number."""
    require_numbers(values)
    if not np.isfinite(estimate.value):
        raise Undecidable("too few values")
    return estimate


def mean_interval(values: pd.Series) -> Estimate:
    """The mean and its t interval."""
    require_numbers(values)
    margin = t_margin(values.std(ddof=1) / np.sqrt(len(values)), len(values) - 1) if len(values) else np.nan
    return finite(Estimate(values.mean(), values.mean() - margin, values.mean() + margin))


def pooled_mean(cells: pd.DataFrame, column: str, by: str | list[str], at: Any) -> Estimate:
    """The mean over seeds in the cell by = at, with a t interval whose deviation is pooled over all cells."""
    groups = cells.groupby(by)[column]
    cell, freedom = groups.get_group(at), len(cells) - groups.ngroups
    squares = ((cells[column] - groups.transform("mean")) ** 2).sum()
    margin = t_margin(np.sqrt(squares / freedom / len(cell)), freedom) if freedom else np.nan
    return Estimate(cell.mean(), cell.mean() - margin, cell.mean() + margin)
