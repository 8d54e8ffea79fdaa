"""Van Laarhoven (2017): what an L2 penalty does to weights that are normalized."""

from effective_lr.engine.study import Study
from effective_lr.studies.normalization.settings import DATASETS, Run
from effective_lr.studies.normalization.words import NAMES

FORWARD_SHARE = 1 / 3  # of the arithmetic of a training image, what an evaluated image needs: no backward pass


def data(run: Run) -> str:
    return f"{run.dataset}-{run.resolution}"


def outcome(means: dict[str, float]) -> str:
    return f"test error {100 * means['test_error']:.1f} %"


def images_in_all(run: Run) -> float:
    """Training images, twice where a decayed run goes beside, and those evaluated in proportion to their arithmetic."""
    recomputed = run.normalization == "batch" and run.batch_statistics == "recomputed"
    times = 1 if run.evaluated == "parts" else run.evaluations
    evaluated = times * (run.validation_size + run.test_size) + run.evaluations * run.statistics_size * recomputed
    return run.steps * run.batch_size * (2 if run.replay == "open" else 1) + FORWARD_SHARE * evaluated


def operations(run: Run) -> float:
    """Floating point operations: a training image goes forward, and needs as much again for each of both gradients."""
    side, width = run.resolution, run.width
    first = 9 * DATASETS[run.dataset].channels * width * side**2
    others = 9 * width * 2 * width * (side // 2) ** 2 + 9 * 2 * width * 4 * width * (side // 4) ** 2
    others += 4 * width * 10  # classes
    image = 2 * (3 * (first + others) - first)  # nobody asks for the gradient of the images
    return images_in_all(run) * image


def megabytes(run: Run) -> int:
    """The data, with the copies that are made in reading it."""
    facts = DATASETS[run.dataset]
    images = 4 * facts.channels * run.resolution**2 * (facts.train + facts.test)
    return round(4 * images / 1e6)


STUDY = Study(
    name="normalization",
    title="L2 regularization versus batch and weight normalization",
    follows="van Laarhoven (2017), arXiv:1706.05350",
    run=Run,
    data=data,
    summarized=(
        "test_error",
        "test_loss",
        "validation_error",
        "validation_loss",
        "late_train_loss",
        "late_train_error",
    ),
    outcome=outcome,
    operations=operations,
    megabytes=megabytes,
    words=NAMES,
    unit="images",
)
