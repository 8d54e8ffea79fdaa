"""Does weight decay enhance training stability? Full-batch gradient descent at the edge of stability.

Nothing here imports torch: the Snakefile reads this module in every cluster job.
"""

import math

from effective_lr.engine.study import Study
from effective_lr.studies.stability.settings import IMAGES, Run
from effective_lr.studies.stability.words import NAMES


def outcome(means: dict[str, float]) -> str:
    """One log line: whether the edge was reached, and the test error."""
    step = means.get("edge_step", math.nan)
    edge = "edge not reached" if math.isnan(step) else f"edge at step {step:,.0f}"
    return f"{edge}, test error {100 * means.get('test_error', math.nan):.1f} %"


def parameters(run: Run) -> tuple[int, float]:
    """How many parameters the network has, and how often one is used for one image."""
    channels, size, *_ = IMAGES[run.dataset, run.resolution]
    if run.network == "mlp":
        count = channels * size**2 * run.width + run.width * run.second_width + 10 * run.second_width
        return count, 1.0
    once, twice = (size + 1) // 2, (size + 3) // 4  # pixels along a side after each stride of 2
    layers = [(9 * channels * run.width, once**2), (9 * run.width * run.second_width, twice**2)]
    layers.append((10 * run.second_width * twice**2, 1))
    count = sum(size for size, _ in layers)
    return count, sum(size * uses for size, uses in layers) / count


def operations(run: Run) -> float:
    """A gradient costs 6 operations for each use of a parameter; a probe, or a look at several directions, about 30
    gradients."""
    count, uses = parameters(run)
    looks = run.steps / 3 / run.pairs_every if run.pairs_every else 0
    return 6.0 * count * uses * run.train_size * (run.steps + 30 * (run.probes + looks))


def megabytes(run: Run) -> int:
    """The graph of a Hessian-vector product holds each layer's values some twenty times, in float64."""
    channels, size, *_ = IMAGES[run.dataset, run.resolution]
    values = channels * size**2 + (run.width + run.second_width) * (size**2 / 4 if run.network == "cnn" else 1)
    return 100 + round(20 * 8 * values * run.train_size / 1e6)


STUDY = Study(
    name="stability",
    title="Weight decay at the edge of stability",
    follows="Saether, Kolic, Poggio and Beneventano (2026), arXiv:2605.16622",
    run=Run,
    data=lambda run: f"{run.dataset}-{run.resolution}",
    summarized=("test_error", "edge_step"),
    outcome=outcome,
    operations=operations,
    megabytes=megabytes,
    words=NAMES,
)
