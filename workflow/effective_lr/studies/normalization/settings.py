"""The settings of one run: every key that a scale or an experiment may set, with its meaning, range and source.

Tags of sources: paper, stated in the original; read, reported by someone who read it; ours, chosen by us.
"""

from typing import ClassVar, Literal, NamedTuple, Self

from pydantic import PositiveInt, model_validator

from effective_lr.engine.study import BaseRun, Fraction, PositiveFloat, Seed, setting


class DatasetFacts(NamedTuple):
    """Image shape and split sizes of a dataset, as its authors published it."""

    channels: int
    size: int  # pixels along one side
    train: int
    test: int


DATASETS = {
    "fashion-mnist": DatasetFacts(channels=1, size=28, train=60_000, test=10_000),
    "cifar10": DatasetFacts(channels=3, size=32, train=50_000, test=10_000),
    "cifar10-jpeg": DatasetFacts(channels=3, size=32, train=22_500, test=5_000),
}

TYPICAL_GRADIENT = 0.1  # G, the gradient's norm at ‖w‖ = 1, where settings alone must predict
CLASSES = 10  # of every dataset
VALIDATION_SIZE = 5_000  # the last images of the training set; pixel statistics never see them


class Run(BaseRun):
    """One training of one network."""

    shard_axes: ClassVar[frozenset[str]] = frozenset({"lr", "l2", "initial_norm"})
    named_axes: ClassVar[tuple[str, ...]] = ("lr", "l2")

    dataset: Literal["fashion-mnist", "cifar10", "cifar10-jpeg"] = setting(
        "dataset",
        {"cifar10": "read", "fashion-mnist": "ours", "cifar10-jpeg": "ours"},
        change="to move to a GPU: cifar10 is what the original used",
    )
    resolution: PositiveInt = setting("image side in pixels, by block means", "ours", change="halve it for speed")
    train_size: PositiveInt = setting(
        "training images used", "ours", change="lower it for speed; all that are not validation images is the most"
    )
    validation_size: PositiveInt = setting(
        "validation images used to choose settings",
        "ours",
        le=VALIDATION_SIZE,
        change="lower it for speed; settings are then chosen less surely",
    )
    test_size: PositiveInt = setting(
        "test images used", "ours", change="lower it for speed; 5,000 images resolve 0.6 points of error"
    )
    label_noise: float = setting(
        "share of the training labels that are drawn anew, from the seed",
        "ours",
        default=0.0,
        ge=0,
        le=1,
        change="to have something to regularize: a network that memorizes wrong labels",
    )
    width: PositiveInt = setting(
        "channels of the first layer; the others have 2 and 4 times as many",
        "ours",
        change="raise it for a better network; its cost grows with the square",
    )
    normalization: Literal["batch", "weight", "layer", "none"] = setting(
        "normalization; that it follows every weight layer is ours",
        {"batch": "paper", "weight": "paper", "layer": "paper", "none": "ours"},
        change="the subject of the paper; none is the control",
    )
    norm_eps: float = setting(
        "added to the variance by batch and layer normalization",
        "ours",
        ge=0,
        allow_inf_nan=False,
        change="to see it break the invariance: it matters where the variance of Xw is not far above it",
    )
    initial_norm: PositiveFloat = setting(
        "norm of every scale group at the start",
        "ours",
        change="to see that the start is forgotten, or that equilibrium takes longer from far away",
    )
    starts_at_equilibrium: bool = setting(
        "start every scale group at the norm that is predicted for equilibrium, not at `initial_norm`",
        "ours",
        default=False,
        change="where the approach to equilibrium takes longer than the run",
    )
    leak: float = setting(
        "slope of the activation below zero; 0 is ReLU",
        "ours",
        default=0.0,
        ge=0,
        lt=1,
        change="to keep a gradient in units that ReLU switches off",
    )
    optimizer: Literal["sgd", "momentum", "nesterov", "adam", "rmsprop", "adamw"] = setting(
        "optimizer",
        {
            "sgd": "paper",
            "nesterov": "paper",
            "adam": "read",
            "rmsprop": "paper",
            "momentum": "ours",
            "adamw": "ours",
        },
        change="the subject of the paper",
    )
    momentum: float = setting(
        "momentum of heavy ball and Nesterov",
        "ours",
        ge=0,
        lt=1,
        change="the effective learning rate has the factor 1/(1 − μ)",
    )
    optimizer_eps: PositiveFloat = setting(
        "added to the root of the second moment by Adam and RMSProp",
        "ours",
        change="to see it break the invariance of Adam and RMSProp: it matters where gradients are small",
    )
    corrected_squares: bool = setting(
        "correct the second moment of RMSProp for its start at 0, as Adam does",
        "ours",
        default=False,
        change="to see what its uncorrected first steps do, which are ten times as long",
    )
    lr: PositiveFloat = setting(
        "learning rate of the weights, η; constant, but for `lr_drop`",
        "ours",
        change="an axis of every plane; diagonals fall on grid points when its factor is that of λ",
    )
    l2: float = setting(
        "penalty λ on the squared norm of the weights, without ½",
        "ours",
        ge=0,
        allow_inf_nan=False,
        change="the other axis; twice the λ of papers that write ½λ, half the weight_decay of PyTorch",
    )
    layer_l2: Literal["equal", "inverse_size"] = setting(
        "the penalty of a layer: λ in all, or λ·d_max/d, with d weights in its scale groups and d_max in the largest",
        {"equal": "paper", "inverse_size": "ours"},
        default="equal",
        change="inverse_size gives all layers one angle per step under Adam and RMSProp",
    )
    replay: Literal["none", "closed", "open", "slow"] = setting(
        "train without the penalty, ‖w‖ held at 1, at the effective learning rate that it would have produced: "
        "'closed' from the run's own gradients, 'open' from a decayed run beside it, 'slow' one rate for each layer, "
        "from a mean of its gradients over groups and steps",
        "ours",
        default="none",
        change="to tell what the penalty does by the learning rate from what it does otherwise",
    )
    affine_lr: PositiveFloat | Literal["shared", "frozen"] = setting(
        "learning rate of γ and β; 'shared' gives them that of the weights, 'frozen' leaves them at their start",
        "ours",
        change="'shared' is usual in practice, and lets η change the training of γ and β too",
    )
    affine_l2: Literal["none", "hidden", "last", "all"] = setting(
        "layers whose γ and β carry the penalty λ too: none, hidden, the last, or all",
        {"none": "paper", "hidden": "ours", "last": "ours", "all": "ours"},
        default="none",
        change="to see what the penalty does to γ and β, which are not scale invariant in the last layer",
    )
    projected: bool = setting(
        "rescale every scale group to norm 1 after each step",
        "paper",
        default=False,
        change="to take the length of the weights out of training; λ then acts as a slightly larger η",
    )
    lr_drop: PositiveFloat = setting(
        "factor by which η falls, once, in the middle of a run",
        "ours",
        default=1.0,
        change="to see the norm follow a change of η",
    )
    rescaled_at_drop: bool = setting(
        "when η falls by k, rescale the weights by k^(-1/4), to the norm of the new equilibrium",
        "ours",
        default=False,
        change="with lr_drop: to see that a rescaled norm need not follow",
    )
    batch_size: PositiveInt = setting(
        "images per step", "ours", change="diagonals do not depend on it; the measured G does"
    )
    steps: PositiveInt = setting(
        "training steps",
        "ours",
        change="raise it to reach equilibrium at a smaller λ: that takes several times 1/(4ηλ) steps",
    )
    probes: PositiveInt = setting(
        "steps, log-spaced, at which norms and angles are recorded",
        "ours",
        change="raise it for smoother curves over time",
    )
    evaluations: PositiveInt = setting(
        "evaluations in the late part of a run; their mean is the result",
        "ours",
        change="raise it for errors that depend less on single steps",
    )
    evaluated: Literal["parts", "all"] = setting(
        "images of an evaluation: each its own part of the test and validation images, or all of them",
        "ours",
        default="parts",
        change="'all' costs as many times more as there are evaluations, for means that are hardly steadier",
    )
    late_fraction: Fraction = setting(
        "the late part of a run, as a fraction of its steps",
        "ours",
        change="lower it where training is not settled before; its means need some hundred steps",
    )
    batch_statistics: Literal["recomputed", "running"] = setting(
        "batch statistics of an evaluation: recomputed from training images, or running means",
        "ours",
        change="running is usual in practice; at a large effective learning rate it adds an error of its own",
    )
    statistics_size: PositiveInt = setting(
        "training images from which batch statistics are recomputed",
        "ours",
        change="raise it for steadier batch statistics",
    )
    seed: Seed = setting(
        "seed of the initial weights and of the order of the images",
        "ours",
        change="add seeds for narrower intervals; claims need two",
    )

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        facts = DATASETS[self.dataset]
        if self.resolution not in (facts.size, facts.size // 2):
            raise ValueError(
                f"resolution = {self.resolution}: {self.dataset} has {facts.size} pixels a side; "
                f"use {facts.size} or {facts.size // 2}"
            )
        for name, size, most in [
            ("train_size", self.train_size, facts.train - VALIDATION_SIZE),
            ("test_size", self.test_size, facts.test),
            ("batch_size", self.batch_size, self.train_size),
            ("statistics_size", self.statistics_size, self.train_size),
        ]:
            if size > most:
                raise ValueError(f"{name} = {size} is more than the {most} images there are; lower it")
        if self.batch_size == 1 and self.normalization == "batch":
            raise ValueError("batch_size = 1 has no batch statistics under normalization = batch; use at least 2")
        if self.projected and self.normalization == "none":
            raise ValueError(
                "projected = true with normalization = none would change the function that the network computes; "
                "use a normalization, or projected = false"
            )
        if self.evaluated == "parts" and self.evaluations > min(self.validation_size, self.test_size):
            raise ValueError(
                f"evaluations = {self.evaluations} is more than the {min(self.validation_size, self.test_size)} images "
                "that they share; lower it, or use evaluated = all"
            )
        if self.replay != "none" and not self._can_replay:
            raise ValueError(
                f"replay = {self.replay} needs optimizer = sgd, a normalization, l2 above 0, projected = false, "
                "lr_drop = 1 and layer_l2 = equal: only there is the decayed run's effective learning rate known"
            )
        if self.corrected_squares and self.optimizer != "rmsprop":
            raise ValueError(
                f"corrected_squares = true with optimizer = {self.optimizer}: Adam corrects its squares always, others "
                "have none; set it to false"
            )
        if self.starts_at_equilibrium and (self.l2 == 0 or self.projected or self.replay != "none"):
            raise ValueError(
                "starts_at_equilibrium = true needs l2 above 0, projected = false and replay = none: without a "
                "penalty that acts on a free norm there is no equilibrium; set it to false"
            )
        if self.rescaled_at_drop and (self.optimizer != "sgd" or self.projected or self.lr_drop == 1):
            raise ValueError(
                "rescaled_at_drop = true needs an lr_drop other than 1, optimizer = sgd and projected = false (other "
                "optimizers remember gradients of the old norm, projected weights have norm 1); set it to false"
            )
        return self

    @property
    def _can_replay(self) -> bool:
        is_plain = self.lr_drop == 1 and self.layer_l2 == "equal" and not self.projected
        return self.optimizer == "sgd" and self.normalization != "none" and self.l2 > 0 and is_plain

    @property
    def drop_step(self) -> int:
        """The last step with the full learning rate, after which it is divided by `lr_drop`."""
        return self.steps // 2

    @property
    def stem(self) -> str:
        kind = f"{self.optimizer}-projected" if self.projected else self.optimizer
        return f"{self.normalization}-{kind}"
