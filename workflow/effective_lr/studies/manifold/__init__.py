"""Manifold constraints in LLM pre-training: what a constraint on the norm of a matrix takes the place of."""

import math

from effective_lr.engine.study import Study
from effective_lr.studies.manifold.settings import Run
from effective_lr.studies.manifold.words import NAMES


def _operations(run: Run) -> float:
    """Floating point operations of a run: 6 for each weight and token trained on, 2 where it is evaluated, and
    attention."""
    per_token = 12 * run.layers * run.width**2 + run.width * run.vocabulary + run.layers * run.context * run.width
    trained = run.steps * run.batch_size * run.context
    evaluated = 2 * run.evaluations * run.validation_batches * run.validation_batch_size * run.context
    return 2.0 * per_token * (3 * trained + evaluated)


def _megabytes(run: Run) -> int:
    """Host memory beyond PyTorch: the text, and weights, moments and activations of one network."""
    weights = 12 * run.layers * run.width**2 + 2 * run.width * run.vocabulary
    tokens = max(run.batch_size // run.batch_parts, run.validation_batch_size) * run.context
    activations = tokens * (34 * run.layers * run.width + 4 * run.vocabulary)
    return 100 + math.ceil(4 * (8 * weights + activations) / 2**20)


STUDY = Study(
    name="manifold",
    title="Manifold constraints and rotational equilibrium",
    follows="An et al. (2026), arXiv:2605.04418",
    run=Run,
    data=lambda run: run.corpus,
    summarized=("late_validation_loss", "late_train_loss"),
    outcome=lambda means: f"validation loss {means['late_validation_loss']:.3f} nats",
    operations=_operations,
    megabytes=_megabytes,
    words=NAMES,
    unit="symbols",
)
