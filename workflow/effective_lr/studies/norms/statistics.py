"""What the claims N1 to N7 are decided by. Subjects are a penalty, or a penalty and a truth: `car_high`.

The strength of a penalty is always the one that validation chooses; where a claim names a strength, it is that one.
Values are paired: every penalty has the same samples, start and batches. The unit of an interval is one replicate of
the data, or one split; splits of one data set have the interval of Nadeau and Bengio.
"""

import numpy as np
import pandas as pd

from effective_lr.evidence.estimates import Estimate, Undecidable, mean_interval
from effective_lr.evidence.verdicts import Evidence, statistic
from effective_lr.studies.norms.analysis import arms, chosen, log_ratios, repeated_splits

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
    evidence.runs("alignment")  # notes a single seed
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


@statistic(r"$D=\log$ RMSE over that of $\ell_1$, $\rho=0.9$", 3)
def log_ratio_to_l1(evidence: Evidence, subject: str) -> Estimate:
    penalty, truth = subject.split("_")
    table = networks(evidence, correlated=True)
    return advantage(table[table["truth"] == truth], penalty, "l1")


@statistic(r"$D=\log$ RMSE over that of $\ell_2$, $\rho=0$", 3)
def log_ratio_independent(evidence: Evidence, subject: str) -> Estimate:
    penalty, truth = subject.split("_")
    table = networks(evidence, correlated=False)
    return advantage(table[table["truth"] == truth], penalty, "l2")


# N4: real data


def small_sets(evidence: Evidence, experiment: str = "cooling_small") -> pd.DataFrame:
    """The chosen arms of the disjoint training sets. The sets are the repetitions; a single shuffle will do."""
    if evidence.tables[experiment].runs.empty:
        raise Undecidable(f"no runs in {experiment}: its data cannot be had")
    return chosen(arms(evidence.tables[experiment]))


@statistic(r"$D=\log$ RMSE over that of $\ell_2$, cooling load, 60 rows", 3)
def small_set_log_ratio(evidence: Evidence, subject: str) -> Estimate:
    """A t interval over the disjoint sets, each averaged over the shuffles: given the test set, they are
    independent."""
    ratios = log_ratios(small_sets(evidence), subject, "l2")
    if ratios.empty:
        raise Undecidable(f"no runs with {subject} and l2")
    return mean_interval(ratios.groupby("part")["value"].mean())


@statistic(r"nonzeros of $W_1$ over those of $\ell_2$, cooling load, 60 rows", 3)
def nonzero_ratio(evidence: Evidence, subject: str) -> Estimate:
    table = small_sets(evidence)
    counts = table.pivot_table(index=["part", "seed"], columns="penalty", values="nonzeros")
    if subject not in counts or "l2" not in counts:
        raise Undecidable(f"no runs with {subject} and l2")
    return mean_interval((counts[subject] / counts["l2"]).groupby("part").mean())


@statistic(r"RMSE above that of $\ell_2$, in standard errors, cooling load, 60 rows", 2)
def excess_error(evidence: Evidence, subject: str) -> Estimate:
    """Paired differences over the standard error of the l2 arm's RMSE, which is taken over the disjoint sets."""
    errors = small_sets(evidence).pivot_table(index="part", columns="penalty", values="test_rmse")  # mean over shuffles
    if subject not in errors or "l2" not in errors or len(errors) < 2:
        raise Undecidable(f"fewer than two sets with {subject} and l2")
    return mean_interval((errors[subject] - errors["l2"]) / (errors["l2"].std(ddof=1) / np.sqrt(len(errors))))


@statistic(r"log-loss above that of $\ell_2$, leukemia", 3)
def log_loss_difference(evidence: Evidence, subject: str) -> Estimate:
    runs = evidence.runs("leukemia")
    losses = chosen(arms(evidence.tables["leukemia"])).pivot_table(
        index="run_id", columns="penalty", values="test_log_loss"
    )
    if subject not in losses or "l2" not in losses:
        raise Undecidable(f"no runs with {subject} and l2")
    sizes = runs.iloc[0]
    return repeated_splits(losses[subject] - losses["l2"], sizes["test_size"], sizes["train_size"])


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
