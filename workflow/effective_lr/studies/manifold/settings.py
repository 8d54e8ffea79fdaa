"""The settings of one run of this study: every key that config/manifold may set, with its range and its source.

Tags: lit, read in a public text about the paper; derived, by us; ours, our choice; measured, by a pilot of ours. No
setting of the original paper is known to us, so none carries its name. Nothing here imports torch.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from effective_lr.engine.study import BaseRun, Fraction, PositiveFloat, Seed, setting

Average = Annotated[float, Field(ge=0, lt=1)]

FREE = ("adamw", "adam0")  # arms whose block matrices may take any norm


class Run(BaseRun):
    """One training of one GPT. A shard is one arm; its runs are its seeds."""

    shard_axes: ClassVar[frozenset[str]] = frozenset({"seed"})

    corpus: Literal["shakespeare", "tokens"] = setting(
        "text: the plays of Shakespeare, or tokens.bin (uint16), the user's own token file in the data folder",
        "ours",
        "tokens, to train at the paper's scale on text of your own",
    )
    vocabulary: Annotated[int, Field(ge=2, le=65_536)] = setting(
        "number of symbols; every symbol of the corpus is below it", "ours", "to that of your tokenizer"
    )
    layers: PositiveInt = setting("blocks of attention and MLP", "ours", "raise it for a better model")
    width: PositiveInt = setting(
        "numbers in the residual stream", "ours", "raise it for a better model; its cost grows with the square"
    )
    heads: PositiveInt = setting("heads of attention; they divide the width", "ours", "with the width")
    context: PositiveInt = setting("symbols that the model sees at most", "ours", "raise it for a better model")
    rms_norm: Literal["pre", "every", "none"] = setting(
        "RMSNorm without gains: before attention, MLP and head and on queries and keys (pre); on the output of every "
        "matrix (every), which makes each scale invariant; or none",
        {"pre": "ours", "every": "ours", "none": "lit"},
        "a subject of the study",
    )
    rms_eps: PositiveFloat = setting("added to the mean square by RMSNorm", "ours", "to see it break the invariance")
    optimizer: Literal["adamw", "adam0", "adamh", "macro-F", "macro-S", "muonh"] = setting(
        "optimizer of the block matrices; adam0 is adamw without decay",
        {"adamw": "lit", "adam0": "ours", "adamh": "lit", "macro-F": "derived", "macro-S": "derived", "muonh": "lit"},
        "the subject of the study",
    )
    decay_per_step: Annotated[float, Field(gt=0, lt=0.5)] = setting(
        "e = 2ηλ of every block matrix at factor 1: fixes η and λ of each by its starting norm, and the angle of the "
        "constrained arms by the bijection",
        "ours",
        "lower it for longer runs: a norm needs several times 1/(2e) steps to settle",
    )
    lr_factor: PositiveFloat = setting(
        "factor f of the learning rate at the same λ; constrained arms turn by the angle predicted for that",
        "ours",
        "an axis of the study",
        default=1.0,
    )
    initial_norm: PositiveFloat = setting(
        "starting norm of the block matrices over R, the norm of their equilibrium", "ours", "to see it forgotten"
    )
    beta1: Average = setting("decay of Adam's first moment", "ours", "angles follow from it")
    beta2: Average = setting(
        "decay of Adam's second moment; a memory far shorter than the relaxation 1/(2e) is what the theory assumes",
        "derived",
        "with decay_per_step",
    )
    optimizer_eps: PositiveFloat = setting("added to the root of Adam's second moment", "ours", "leave it small")
    momentum: Average = setting("decay b of the momentum of MACRO and MuonH", "ours", "to study its memory")
    warm_up: bool = setting(
        "whether Adam's learning rates start as much lower as its first directions are longer than later ones",
        "derived",
        "false, to see Adam lost in its first steps at large factors",
        default=False,
    )
    vector_lr: PositiveFloat = setting("Adam's learning rate of positions and gain, without decay", "ours", "rarely")
    batch_size: PositiveInt = setting("windows in a step", "ours", "a larger batch has less noise")
    batch_parts: PositiveInt = setting(
        "parts in which a batch passes through the network, its gradients summed", "ours", "for memory", default=1
    )
    precision: Literal["float32", "bfloat16"] = setting(
        "arithmetic of the forward pass; weights and steps are float32", "ours", "bfloat16 on a GPU", default="float32"
    )
    stop_above: PositiveFloat = setting(
        "nats of a batch or an evaluation above which a run ends there", "ours", "1e9, to end none", default=20.0
    )
    steps: PositiveInt = setting("training steps", "ours", "raise it with 1/decay_per_step")
    probes: PositiveInt = setting(
        "steps, log-spaced, at which matrices and activations are measured", "ours", "raise it for smoother curves"
    )
    evaluations: PositiveInt = setting(
        "evaluations equally spaced in the late part, whose mean is the result; as many, log-spaced, come before",
        "ours",
        "raise it for steadier losses",
    )
    validation_batches: PositiveInt = setting(
        "batches of an evaluation, always the same", "ours", "for steadier losses"
    )
    validation_batch_size: PositiveInt = setting("windows in each of them", "ours", "with validation_batches")
    late_fraction: Fraction = setting(
        "the late part of a run, as a fraction of its steps", "ours", "lower it where training is not settled before"
    )
    seed: Seed = setting("seed of the starting weights and of the batches", "ours", "add seeds for narrower intervals")

    @model_validator(mode="after")
    def _is_possible(self) -> "Run":
        if self.width % self.heads:
            raise ValueError(f"heads = {self.heads} do not divide width = {self.width}; choose a divisor of the width")
        if self.batch_size % self.batch_parts:
            raise ValueError(
                f"batch_parts = {self.batch_parts} do not divide batch_size = {self.batch_size}; choose a divisor"
            )
        if self.is_constrained and self.initial_norm != 1:
            raise ValueError(
                f"initial_norm = {self.initial_norm:g} with optimizer = {self.optimizer}: a constrained matrix starts "
                "on its sphere; use initial_norm = 1, or adamw or adam0"
            )
        if self.context >= 2000:
            raise ValueError(
                f"context = {self.context}: a validation window lies within a block of 2000 symbols and has one symbol "
                "more than the context; use at most 1999"
            )
        return self

    @property
    def is_constrained(self) -> bool:
        """Whether the block matrices are held on spheres; the embedding and the head are in every arm."""
        return self.optimizer not in FREE

    @property
    def late_start(self) -> int:
        """The last step before the late part."""
        return min(round(self.steps * (1 - self.late_fraction)), self.steps - 1)

    @property
    def stem(self) -> str:
        parts = [self.optimizer.lower(), self.rms_norm, f"f_{self.lr_factor:g}"]
        if self.initial_norm != 1:
            parts.append(f"start_{self.initial_norm:g}")
        return "-".join(parts).replace("e+", "e")
