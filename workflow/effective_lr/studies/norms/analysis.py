"""Arms as lines of a table, the strength that validation chooses, and intervals for repeated splits of one data set."""

import numpy as np
import pandas as pd

from effective_lr.evidence.estimates import Estimate, finite, mean_interval, require_numbers, t_estimate
from effective_lr.evidence.tidy import Experiment

LOSSES = ("rmse", "log_loss")
BASELINES = ("ridge-cv", "elastic-net-cv", "mlp", "logistic-cv")  # they choose their strengths themselves


def arms(experiment: Experiment) -> pd.DataFrame:
    """One line for each run and arm: the settings of the run, `penalty`, `strength` (NaN for baselines), and what was
    measured at its end, one column for each quantity."""
    metrics = experiment.metrics[experiment.metrics["layer"] != ""]
    wide = metrics.pivot_table(index=["run_id", "layer"], columns="quantity", values="value").reset_index()
    names = wide["layer"].str.partition("/")
    wide = wide.assign(penalty=names[0], strength=pd.to_numeric(names[2], errors="coerce"))
    settings = experiment.runs.drop(columns=[c for c in experiment.runs if c in wide.columns and c != "run_id"])
    return wide.merge(settings, on="run_id")


def loss_of(table: pd.DataFrame) -> str:
    """`rmse`, or `log_loss` where the target is a class."""
    return "log_loss" if "test_log_loss" in table else "rmse"


def chosen(table: pd.DataFrame) -> pd.DataFrame:
    """For each run and penalty the arm with the lowest validation loss; `at_end`: whether it is an end of its grid.

    Baselines have one arm, which they choose inside.
    """
    column = f"validation_{loss_of(table)}"
    own = table[np.isfinite(table[column])] if column in table else table.iloc[:0]
    groups = own.groupby(["run_id", "penalty"])
    best = own.loc[groups[column].idxmin()] if len(own) else own
    ends = groups["strength"].agg(["min", "max", "size"])
    places = pd.MultiIndex.from_frame(best[["run_id", "penalty"]])
    of_grid = ends.loc[places]
    at_end = (best["strength"].to_numpy() == of_grid["min"]) | (best["strength"].to_numpy() == of_grid["max"])
    best = best.assign(at_end=(at_end & (of_grid["size"] > 1)).to_numpy())
    return pd.concat([best, table[table["penalty"].isin(BASELINES)].assign(at_end=False)], ignore_index=True)


def log_ratios(table: pd.DataFrame, penalty: str, reference: str) -> pd.DataFrame:
    """Lines of the runs, with `value`, log of the test loss of one chosen penalty over that of another: paired, on the
    same samples, start and batches. Empty where a penalty is missing."""
    column = f"test_{loss_of(table)}"
    of = {name: group.set_index("run_id")[column] for name, group in table.groupby("penalty")}
    if penalty not in of or reference not in of:
        return table.iloc[:0].assign(value=np.nan)
    runs = table.drop_duplicates("run_id")
    values = np.log(of[penalty] / of[reference])
    return runs.assign(value=runs["run_id"].map(values))


def repeated_splits(values: pd.Series, test_size: int, train_size: int) -> Estimate:
    """The mean over J repeated splits of one data set, with the t interval of Nadeau and Bengio (2003): the variance is
    multiplied by 1/J + n_test/n_train in place of 1/J, since training sets overlap."""
    require_numbers(values)
    count = len(values)
    spread = float(values.std(ddof=1)) * np.sqrt(1 / max(count, 1) + test_size / train_size) if count > 1 else np.nan
    mean = float(values.mean()) if count else np.nan
    return finite(t_estimate(mean, spread, count - 1))


def by_split(table: pd.DataFrame, column: str) -> Estimate:
    """The mean of a column over the runs of one cell: by seeds of simulations, by disjoint training sets, each averaged
    over shuffles, or over repeated splits of one data set."""
    run = table.iloc[0]
    if run["split"] == "disjoint":
        return mean_interval(table.groupby("part")[column].mean())
    if run["data"] == "simulated":
        return mean_interval(table[column])
    return repeated_splits(table[column], run["test_size"], run["train_size"])
