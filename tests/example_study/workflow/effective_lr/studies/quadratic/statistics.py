"""The statistic of the claim."""

from effective_lr.evidence.estimates import Estimate, mean_interval
from effective_lr.evidence.verdicts import Evidence, statistic


@statistic("mean square / predicted", digits=2)
def square_ratio(evidence: Evidence, subject: str) -> Estimate:
    """The mean of x² over η/(2 − η): mean over seeds, after that over learning rates."""
    runs = evidence.runs("rates")
    ratios = runs["late_square"] * (2 - runs["lr"]) / runs["lr"]
    return mean_interval(ratios.groupby(runs["seed"]).mean())
