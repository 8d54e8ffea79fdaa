"""What the claims N1 to N9 are decided by. Subjects are a penalty, or a penalty and a truth: `car_high`.

The strength of a penalty is always the one that validation or cross-validation chooses; where a claim names a strength,
it is that one. Values are paired: every penalty has the same samples, start and batches. The unit of an interval is one
replicate of the data, or one split; splits of one data set have the interval of Nadeau and Bengio.
"""

import numpy as np
import pandas as pd

from effective_lr.evidence.estimates import Estimate, Undecidable, mean_interval
from effective_lr.evidence.verdicts import Evidence, statistic
from effective_lr.studies.norms.analysis import (
    REPORTED,
    STANDARD,
    arms,
    by_split,
    cells,
    chosen,
    log_ratios,
    paired,
    tuned,
)

RELAXED = 5.0  # relaxation times before the late part of a run counts
SMALL_ANGLE = 0.04  # up to which the direction under l1 is judged


# N1 and N2: labels and digits of the float64 checks.
CHECKS = {
    "shrinkage": ("shrinkage $s_j$ and df: residual", None),
    "one_factor": (r"$b=b_{\mathrm{OLS}}/(1+\lambda_2)$: residual", None),
    "scaled_lasso": (r"$b=b_{\mathrm{lasso}}/(1+\lambda_2)$: residual", None),
    "reparametrization": (r"$x\to Ax$: residual", None),
    "input_noise": ("input noise: residual", None),
    "dropout": ("dropout: residual", None),
    "optimality": ("optimality conditions: residual", None),
    "symmetry": ("losses along the symmetry: residual", None),
    "symmetry_of_zeros": ("zeros that differ", 0),
    "growth": (r"balance of $\|w\|^2$: residual", None),
    "held_penalty": (r"$\eta/(1-2\eta\lambda)$ in place of $\lambda$: residual", None),
}


# N3: alignment of the truth with the covariance


def networks(evidence: Evidence, correlated: bool) -> pd.DataFrame:
    """The chosen arms of `alignment`, at the largest correlation or at none."""
    evidence.runs("alignment")
    table = arms(evidence.tables["alignment"])
    rho = table["rho"].max() if correlated else 0.0
    return chosen(table[table["rho"] == rho])


def advantage(table: pd.DataFrame, penalty: str, reference: str) -> Estimate:
    """The mean over seeds of the log ratio of test losses; truths of one seed share inputs and are averaged first."""
    ratios = log_ratios(table, penalty, reference)
    if ratios.empty:
        raise Undecidable(f"no runs with {penalty} and {reference}")
    return mean_interval(ratios.groupby("seed")["value"].mean())


@statistic(r"$D=\log$ RMSE over that of $\ell_2$, $\rho=0.9$", 3)
def log_ratio(evidence: Evidence, subject: str) -> Estimate:
    penalty, truth = subject.split("_")
    table = networks(evidence, correlated=True)
    return advantage(table[table["truth"] == truth], penalty, "l2")


@statistic(r"$D=\log$ RMSE over that of $\ell_2$, $\rho=0$", 3)
def log_ratio_independent(evidence: Evidence, subject: str) -> Estimate:
    penalty, truth = subject.split("_")
    table = networks(evidence, correlated=False)
    return advantage(table[table["truth"] == truth], penalty, "l2")


# N4: real data


@statistic("log RMSE over that of the best standard penalty, 576 rows", 3)
def energy_ratio(evidence: Evidence, subject: str) -> Estimate:
    """Each penalty as cross-validation chooses it, the best standard one of none, ridge+, lasso+ and elastic net; over
    random splits."""
    return by_split(paired(tuned(evidence.tables, "energy"), subject))


@statistic("log RMSE over that of the best standard penalty, 60 rows", 3)
def small_ratio(evidence: Evidence, subject: str) -> Estimate:
    """The same for disjoint training sets, averaged over those of a shuffle; over shuffles."""
    return by_split(paired(tuned(evidence.tables, "energy_small"), subject))


@statistic("balanced accuracy above that of the best standard penalty, Golub", 3)
def accuracy_difference(evidence: Evidence, subject: str) -> Estimate:
    pairs = paired(tuned(evidence.tables, "leukemia"), subject, REPORTED)
    return by_split(pairs.assign(value=pairs["balanced_accuracy"] - pairs["balanced_accuracy_best"]))


@statistic("log-loss above that of the best standard penalty, Golub", 3)
def log_loss_difference(evidence: Evidence, subject: str) -> Estimate:
    pairs = paired(tuned(evidence.tables, "leukemia"), subject, REPORTED)
    return by_split(pairs.assign(value=pairs["loss"] - pairs["loss_best"]))


@statistic("balanced accuracy with shuffled classes", 2)
def accuracy_by_chance(evidence: Evidence, subject: str) -> Estimate:
    """With genes selected among the training samples or among all: the classes are shuffled, so that 0.5 is honest."""
    table = tuned(evidence.tables, "leak")
    return by_split(table[table["selection"] == subject], "balanced_accuracy")


# N6, N7: prediction in simulations. A subject is a cell: linear_0.25_0.1 has ρ = 0.25 and σ = 0.1.


def simulated(evidence: Evidence, cell: str, penalty: str, references: tuple[str, ...] = STANDARD) -> Estimate:
    table = tuned(evidence.tables, "simulated", *(["simulated_all"] if penalty.endswith("-all") else []))
    found = dict(cells(table))
    if cell not in found:
        raise Undecidable(f"no runs of {cell} at this scale: needs the scale study")
    return by_split(paired(found[cell], penalty, references))


LABEL = "log root risk of {} over that of {}"


@statistic(LABEL.format("Covridge", "the best standard penalty"), 3)
def covridge_ratio(evidence: Evidence, subject: str) -> Estimate:
    return simulated(evidence, subject, "covridge")


@statistic(LABEL.format("Covridge", "ridge with 5 strengths"), 3)
def covridge_to_ridge(evidence: Evidence, subject: str) -> Estimate:
    return simulated(evidence, subject, "covridge", ("ridge",))


@statistic(LABEL.format("Covridge on all layers", "the best standard penalty"), 3)
def covridge_all_ratio(evidence: Evidence, subject: str) -> Estimate:
    return simulated(evidence, subject, "covridge-all")


@statistic(LABEL.format("Sparridge", "the best standard penalty"), 3)
def sparridge_ratio(evidence: Evidence, subject: str) -> Estimate:
    return simulated(evidence, subject, "sparridge")


@statistic(LABEL.format("Sparridge", "the lasso with 25 strengths"), 3)
def sparridge_to_lasso(evidence: Evidence, subject: str) -> Estimate:
    return simulated(evidence, subject.removesuffix("_lasso"), "sparridge", ("lasso+",))


@statistic(LABEL.format("Sparridge on all layers", "the best standard penalty"), 3)
def sparridge_all_ratio(evidence: Evidence, subject: str) -> Estimate:
    return simulated(evidence, subject, "sparridge-all")


# N8: complexity, averaged over the cells of one noise. A subject is a penalty and σ: covridge_0.1.


def pooled(evidence: Evidence, subject: str, references: tuple[str, ...] = STANDARD) -> pd.DataFrame:
    penalty, noise = subject.split("_")
    table = tuned(evidence.tables, "simulated")
    table = table[np.isclose(table["noise"], float(noise)) & (table["inputs"] == table["inputs"].min())]
    return paired(table, penalty, references)


@statistic("log root risk over that of the best standard penalty", 3)
def pooled_ratio(evidence: Evidence, subject: str) -> Estimate:
    return by_split(pooled(evidence, subject))


@statistic("gap of risk and training loss, less that of the best standard penalty, over its risk", 3)
def gap_change(evidence: Evidence, subject: str) -> Estimate:
    pairs = pooled(evidence, subject)
    gaps = [pairs["risk"] - pairs["train_mse"], pairs["risk_best"] - pairs["train_mse_best"]]
    return by_split(pairs.assign(value=(gaps[0] - gaps[1]) / pairs["risk_best"]))


@statistic(r"$\|W_1\|^2$ over that of the best standard penalty", 2)
def size_ratio(evidence: Evidence, subject: str) -> Estimate:
    pairs = pooled(evidence, subject)
    return by_split(pairs.assign(value=np.log(pairs["w1_squared"] / pairs["w1_squared_best"]))).map(np.exp)


@statistic(r"weights of $W_1$ above $10^{-3}$ over those of the lasso with 25 strengths", 2)
def nonzero_ratio(evidence: Evidence, subject: str) -> Estimate:
    """One is added to both counts, so that none has a ratio."""
    pairs = pooled(evidence, subject, ("lasso+",))
    return by_split(pairs.assign(value=np.log((pairs["nonzeros"] + 1) / (pairs["nonzeros_best"] + 1)))).map(np.exp)


# N9: the theorems, linear. The unit is a fixed design; `_slow` has strengths that fall as n^(-1/4).


def theorem(evidence: Evidence, subject: str) -> pd.DataFrame:
    """The arms of a penalty where strengths fall as they should, or too slowly."""
    evidence.runs("theorems")
    penalty, _, scaling = subject.partition("_")
    table = arms(evidence.tables["theorems"])
    table = table[(table["penalty"] == penalty) & (table["scaling"] == (scaling or "root"))]
    if table.empty:
        raise Undecidable(f"no runs of {subject}")
    return table


@statistic("covariance over the sandwich: distance in Frobenius norm", 3)
def covariance_error(evidence: Evidence, subject: str) -> Estimate:
    return mean_interval(theorem(evidence, subject)["covariance_error"])


@statistic(r"coverage of 90\,\% intervals", 3)
def coverage(evidence: Evidence, subject: str) -> Estimate:
    return mean_interval(theorem(evidence, subject)["coverage"])


@statistic("probability of an exact zero, less that of the limit", 3)
def zero_difference(evidence: Evidence, subject: str) -> Estimate:
    table = theorem(evidence, subject)
    return mean_interval(table["zero_measured"] - table["zero_predicted"])


@statistic("largest distance of a quantile from the limit, in its deviations", 3)
def quantile_distance(evidence: Evidence, subject: str) -> Estimate:
    return mean_interval(theorem(evidence, subject)["quantile_distance"])


# N5: the bridge to normalized layers


def held(evidence: Evidence, subject: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of one penalty and truth, the arms without a penalty and at the largest strength, by seed."""
    penalty, truth = subject.split("_")
    evidence.runs("bridge_held")
    table = arms(evidence.tables["bridge_held"])
    table = table[(table["penalty"] == penalty) & (table["truth"] == truth)]
    if table.empty or table["strength"].min() > 0 or table["strength"].max() == 0:
        raise Undecidable(f"no runs of {subject} with and without a penalty")
    ends = (table[table["strength"] == strength] for strength in (0.0, table["strength"].max()))
    without, strongest = (end.set_index("seed").sort_index() for end in ends)
    return without, strongest


@statistic(r"change of the RMSE by the largest $\lambda$, $\|w\|=1$ (\%)", 1)
def held_change(evidence: Evidence, subject: str) -> Estimate:
    without, strongest = held(evidence, subject)
    change = mean_interval(np.log(strongest["test_rmse"] / without["test_rmse"]))
    return change.map(lambda log: 100 * (np.exp(log) - 1))


@statistic(r"change of the top-5 share by the largest $\lambda$, $\|w\|=1$", 3)
def held_share(evidence: Evidence, subject: str) -> Estimate:
    without, strongest = held(evidence, subject)
    return mean_interval(strongest["top_share"] - without["top_share"])


@statistic(r"mean angle$^2$ over $2k\eta\lambda R(w)/r^2$", 3)
def angle_ratio(evidence: Evidence, subject: str) -> Estimate:
    """The geometric mean over the relaxed arms of a penalty, by seed, then over seeds."""
    evidence.runs("bridge_free")
    table = arms(evidence.tables["bridge_free"])
    table = table[(table["penalty"] == subject) & (table["relaxations"] >= RELAXED)]
    if table.empty:
        raise Undecidable(f"no run of {subject} has relaxed for {RELAXED:g} relaxation times")
    ratios = np.log(table["angle_squared"] / table["predicted_angle_squared"])
    return mean_interval(ratios.groupby(table["seed"]).mean()).map(np.exp)


def walks(evidence: Evidence, penalty: str, inputs: int | None = None) -> pd.DataFrame:
    """The arms of a penalty, in one dimension if it is given. Those of CAR must have lasted for five times the time of
    their slowest component."""
    evidence.runs("walk")
    table = arms(evidence.tables["walk"])
    table = table[table["penalty"] == penalty]
    if inputs is not None:
        table = table[table["inputs"] == inputs]
    if penalty == "car":
        table = table[table["slowest_times"] >= RELAXED]
    if table.empty:
        raise Undecidable(f"no walk of {penalty} has relaxed")
    return table


def by_seed(table: pd.DataFrame, values: pd.Series) -> Estimate:
    return mean_interval(values.groupby(table["seed"]).mean())


@statistic("top-5 share of the random walk, $D=50$", 3)
def walk_share(evidence: Evidence, subject: str) -> Estimate:
    table = walks(evidence, subject, 50)
    return by_seed(table, table["top_share"])


@statistic(r"largest and smallest third of $D\,E[u_j^2]$: departure from 1", 3)
def walk_unevenness(evidence: Evidence, subject: str) -> Estimate:
    """The third of the components whose mean over seeds departs most from 1, with its interval, without its sign."""
    table = walks(evidence, subject, 50)
    thirds = [by_seed(table, table[f"third_{name}"] - 1) for name in ("low", "middle", "high")]
    return max(thirds, key=lambda third: abs(third.value)).unsigned()


@statistic(r"kurtosis of $u$ at angles up to 0.04, $D=200$", 2)
def walk_kurtosis(evidence: Evidence, subject: str) -> Estimate:
    table = walks(evidence, subject, 200)
    table = table[np.sqrt(table["angle_squared"]) <= SMALL_ANGLE]
    if table.empty:
        raise Undecidable(f"no walk of {subject} has angles up to {SMALL_ANGLE:g}")
    return by_seed(table, table["kurtosis"])


@statistic(r"$r^{k+2}R(u)$ over $\eta G^2/(2k\lambda)$", 3)
def walk_balance(evidence: Evidence, subject: str) -> Estimate:
    table = walks(evidence, subject)
    return by_seed(table, table["balance"])
