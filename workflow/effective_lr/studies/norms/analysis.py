"""Arms as lines of a table, the strength that validation or cross-validation chooses, and intervals for repeated
splits."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from effective_lr.evidence.estimates import Estimate, Undecidable, finite, mean_interval, require_numbers, t_estimate
from effective_lr.evidence.tidy import Experiment, Tables
from effective_lr.studies.norms.settings import TUNED

CELL = ["inputs", "truth", "rho", "noise"]  # of a design
UNIT = [*CELL, "part", "seed"]
STANDARD = ("none", "ridge+", "lasso+", "elastic")  # among which cross-validation chooses the best standard penalty
REPORTED = ("none", "ridge", "lasso", "elastic")  # the same with the strengths that are reported


def arms(experiment: Experiment) -> pd.DataFrame:
    """One line for each run and arm: the settings of the run, `penalty`, `strength`, and what was measured at its end,
    one column for each quantity."""
    wide = pivoted(experiment, experiment.metrics["layer"] != "")
    names = wide["layer"].str.partition("/")
    wide = wide.assign(penalty=names[0], strength=pd.to_numeric(names[2], errors="coerce"))
    return with_settings(wide, experiment)


def pivoted(experiment: Experiment, rows: pd.Series) -> pd.DataFrame:
    metrics = experiment.metrics[rows]
    return metrics.pivot_table(index=["run_id", "layer"], columns="quantity", values="value").reset_index()


def with_settings(wide: pd.DataFrame, experiment: Experiment) -> pd.DataFrame:
    settings = experiment.runs.drop(columns=[c for c in experiment.runs if c in wide.columns and c != "run_id"])
    return wide.merge(settings, on="run_id")


def chosen(table: pd.DataFrame) -> pd.DataFrame:
    """For each run and penalty the arm with the lowest validation loss; `at_end`: whether it is an end of its grid."""
    own = table[np.isfinite(table["validation_rmse"])] if "validation_rmse" in table else table.iloc[:0]
    if own.empty:
        return own.assign(at_end=False)
    groups = own.groupby(["run_id", "penalty"])
    best = own.loc[groups["validation_rmse"].idxmin()]
    of_grid = groups["strength"].agg(["min", "max", "size"]).loc[pd.MultiIndex.from_frame(best[["run_id", "penalty"]])]
    at_end = (best["strength"].to_numpy() == of_grid["min"]) | (best["strength"].to_numpy() == of_grid["max"])
    return best.assign(at_end=(at_end & (of_grid["size"] > 1)).to_numpy())


def log_ratios(table: pd.DataFrame, penalty: str, reference: str) -> pd.DataFrame:
    """Lines of the runs, with `value`, log of the test RMSE of one chosen penalty over that of another: paired, on the
    same samples, start and batches. Empty where a penalty is missing."""
    of = {name: group.set_index("run_id")["test_rmse"] for name, group in table.groupby("penalty")}
    if penalty not in of or reference not in of:
        return table.iloc[:0].assign(value=np.nan)
    runs = table.drop_duplicates("run_id")
    values = np.log(of[penalty] / of[reference])
    return runs.assign(value=runs["run_id"].map(values))


def tuned(tables: Tables, *experiments: str) -> pd.DataFrame:
    """One line for each run of these experiments and each penalty: settings, and what was measured of the arm that
    cross-validation chose. `loss` is the root of the mean squared error that decides: of `risk` in simulations, of the
    test samples of data; or the log-loss of classes."""
    parts = []
    for name in experiments:
        experiment = tables[name]
        if len(experiment.runs):
            wide = pivoted(experiment, experiment.metrics["layer"].isin(TUNED)).rename(columns={"layer": "penalty"})
            parts.append(with_settings(wide.rename(columns={"strength": "first"}), experiment))
    if not parts:
        raise Undecidable(f"no runs in {', '.join(experiments)}")
    table = pd.concat(parts, ignore_index=True)
    if "test_log_loss" in table:
        return table.assign(loss=table["test_log_loss"])
    return table.assign(loss=np.sqrt(table["risk"] if "risk" in table else table["test_mse"]))


def cells(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The cells of designs by their names, such as `linear_0.25_0.1`; wider designs have the number of inputs, too."""
    for (inputs, truth, rho, noise), cell in table.groupby(CELL):
        yield f"{truth}_{rho:g}_{noise:g}" + (f"_{inputs}" if inputs > 20 else ""), cell


def paired(table: pd.DataFrame, penalty: str, references: tuple[str, ...] = STANDARD) -> pd.DataFrame:
    """For each unit the line of a penalty beside that of the reference with the lowest held-out loss: columns of the
    same names, the reference's with `_best` behind, and `value`, the log of the ratio of their losses."""
    mine = table[table["penalty"] == penalty].set_index(UNIT)
    others = table[table["penalty"].isin(references)]
    if mine.empty or others.empty:
        raise Undecidable(f"no runs with {penalty} and {' or '.join(references)}: needs the scale study")
    best = others.loc[others.groupby(UNIT)["cv_loss"].idxmin()].set_index(UNIT)
    found = mine.join(best.add_suffix("_best"), how="inner").reset_index()
    return found.assign(value=np.log(found["loss"] / found["loss_best"]))


def repeated_splits(values: pd.Series, test_size: int, train_size: int) -> Estimate:
    """The mean over J repeated splits of one data set, with the t interval of Nadeau and Bengio (2003): the variance is
    multiplied by 1/J + n_test/n_train in place of 1/J, since training sets overlap."""
    require_numbers(values)
    count = len(values)
    spread = float(values.std(ddof=1)) * np.sqrt(1 / max(count, 1) + test_size / train_size) if count > 1 else np.nan
    mean = float(values.mean()) if count else np.nan
    return finite(t_estimate(mean, spread, count - 1))


def by_split(table: pd.DataFrame, column: str = "value") -> Estimate:
    """The mean of a column over the runs of one cell: by seeds of simulations, by shuffles where training sets are
    small and disjoint, or over repeated splits of one data set."""
    run = table.iloc[0]
    if run["data"] == "simulated" or run["split"] == "disjoint":
        return mean_interval(table.groupby("seed")[column].mean())
    return repeated_splits(table[column], run["test_size"], run["train_size"])
