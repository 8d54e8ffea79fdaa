"""What gradient descent settles at on a parabola with noisy gradients."""

from effective_lr.engine.study import Study
from effective_lr.studies.quadratic.settings import Run

STUDY = Study(
    name="quadratic",
    title="Gradient descent on a noisy parabola",
    follows="no paper: an example",
    run=Run,
    data=lambda run: None,
    summarized=("late_square",),
    outcome=lambda means: f"mean square {means['late_square']:.3g}",
    operations=lambda run: 10.0 * run.steps,
    megabytes=lambda run: 1,
)
