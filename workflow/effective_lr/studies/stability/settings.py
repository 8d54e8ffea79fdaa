"""The settings of one run: every key that a scale or an experiment may set, with its range, meaning and source.

Sources: lit, other literature (Cohen et al. 2021 unless said otherwise); ours, our own choice. The original paper's
abstract alone is known, and it names no setting: nothing here is its authors'.
"""

from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import PositiveInt, model_validator

from effective_lr.engine.study import BaseRun, PositiveFloat, setting


class Images(NamedTuple):
    """Shape and number of the images of a prepared dataset."""

    channels: int
    size: int  # pixels along one side
    train: int
    test: int


IMAGES = {
    ("fashion-mnist", 14): Images(channels=1, size=14, train=60_000, test=10_000),
    ("fashion-mnist", 28): Images(channels=1, size=28, train=60_000, test=10_000),
    ("cifar10", 32): Images(channels=3, size=32, train=50_000, test=10_000),
}

LIT_TRAIN_SIZE: dict[Any, str] = {5000: "lit"}
LIT_WIDTH: dict[Any, str] = {200: "lit"}

# What training here cannot be, by setting: the one value that is possible, and why.
ONLY: dict[str, tuple[Any, str]] = {
    "batch_size": (
        "full",
        "the edge 2/lr is one of full-batch gradient descent, and the noise of minibatches would hide the oscillation",
    ),
    "momentum": (0.0, "the edge, the drift and the balance that are measured are those of plain gradient descent"),
    "activation": (
        "tanh",
        "the gradient of the sharpness is a third derivative, which does not see the kinks of ReLU",
    ),
    "pooling": (
        "none",
        "the gradient of the sharpness is a third derivative, which does not see the kinks of a maximum",
    ),
    "precision": (
        "float64",
        "the gradient of the sharpness is a second difference of gradients, which rounding to float32 would drown",
    ),
}


class Run(BaseRun):
    """One training of one network by full-batch gradient descent. Two equal runs give equal results."""

    shard_axes: ClassVar[frozenset[str]] = frozenset({"l2"})
    named_axes: ClassVar[tuple[str, ...]] = ("l2",)

    dataset: Literal["fashion-mnist", "cifar10"] = setting(
        "dataset", {"fashion-mnist": "ours", "cifar10": "lit"}, change="cifar10 needs a GPU"
    )
    resolution: PositiveInt = setting("image side in pixels", "ours", change="halve it for speed")
    train_size: PositiveInt = setting(
        "training images, the first ones", LIT_TRAIN_SIZE, change="the cost of a step is proportional to it"
    )
    test_size: PositiveInt = setting("test images, the first ones", "ours", change="it costs little")
    network: Literal["mlp", "cnn"] = setting(
        "network, two hidden layers and a linear one; those of the CNN are 3×3 convolutions with stride 2",
        "ours",
        change="the phase below the edge is claimed for the mlp, the damped edge for the cnn",
    )
    width: PositiveInt = setting("units or channels of the first hidden layer", LIT_WIDTH, change="raise it on a GPU")
    second_width: PositiveInt = setting(
        "units or channels of the second hidden layer", LIT_WIDTH, change="raise it on a GPU"
    )
    normalization: Literal["none", "batch", "weight"] = setting(
        "normalization, after every weight layer", "ours", default="none", change="it flips the sign of what decay does"
    )
    norm_eps: float = setting(
        "added to the variance by batch normalization",
        "ours",
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        change="to see it break the invariance",
    )
    activation: Literal["tanh", "relu"] = setting("activation", "lit", default="tanh", change=ONLY["activation"][1])
    pooling: Literal["none", "max"] = setting("pooling", "ours", default="none", change=ONLY["pooling"][1])
    initial_scale: PositiveFloat = setting(
        "standard deviation of the weights at the start, times the root of fan-in; normalized rows have norm 1",
        "ours",
        default=0.7,
        change="a larger start is sharper: it may lie above the edge",
    )
    loss: Literal["mse", "cross-entropy"] = setting(
        "loss, a mean over images; mse is half the sum of squares over classes",
        "lit",
        change="late in training the sharpness of cross-entropy falls with confidence, whatever decay does",
    )
    batch_size: PositiveInt | Literal["full"] = setting(
        "images per step", "lit", default="full", change=ONLY["batch_size"][1]
    )
    momentum: float = setting(
        "momentum", "ours", default=0.0, ge=0, lt=1, allow_inf_nan=False, change=ONLY["momentum"][1]
    )
    precision: Literal["float32", "float64"] = setting(
        "precision of all arithmetic", "ours", default="float64", change=ONLY["precision"][1]
    )
    lr: PositiveFloat = setting("learning rate η of all parameters, constant", "ours", change="the edge is 2/η")
    l2: float = setting(
        "penalty λ on the squared norm of the weights, without ½ (PyTorch's weight_decay is 2λ)",
        "ours",
        allow_inf_nan=False,
        change="the subject",
    )
    kick: float = setting(
        "one displacement along the top eigenvector when the edge is first crossed, relative to the weights",
        "ours",
        default=1e-4,
        ge=0,
        lt=0.1,
        change="without it the oscillation has to grow from rounding errors, late and far",
    )
    steps: PositiveInt = setting("training steps", "ours", change="the late part must begin 1,000 steps after the edge")
    probes: PositiveInt = setting(
        "evenly spaced steps at which the Hessian is probed", "ours", change="they are the cost"
    )
    pairs_every: int = setting(
        "steps between looks at the first six eigenpairs, in the last third of the steps; 0 leaves them out",
        "ours",
        default=0,
        ge=0,
        change="they cost as much as a probe; the pressure of several directions at the edge needs them",
    )
    ntk_images: int = setting(
        "test images of the neural tangent kernel; 0 leaves it out",
        "ours",
        ge=0,
        change="its cost grows with the square",
    )
    seed: int = setting("seed of the start", "ours", ge=0, change="add seeds for narrower intervals; claims need two")

    @model_validator(mode="after")
    def _is_possible(self) -> "Run":
        for key, (value, why) in ONLY.items():
            if getattr(self, key) != value:
                raise ValueError(f"{key} = {getattr(self, key)}: {why}; use {key} = {value}")
        if self.l2 < 0:
            raise ValueError(f"l2 = {self.l2:g}: a negative penalty lengthens the weights without bound; use 0 or more")
        sides = [size for dataset, size in IMAGES if dataset == self.dataset]
        if self.resolution not in sides:
            raise ValueError(
                f"resolution = {self.resolution}: {self.dataset} has {' or '.join(map(str, sides))} pixels "
                "along a side; use that"
            )
        images = IMAGES[self.dataset, self.resolution]
        for name, size, most in [
            ("train_size", self.train_size, images.train),
            ("test_size", self.test_size, images.test),
            ("ntk_images", self.ntk_images, self.test_size),
            ("probes", self.probes, self.steps),
        ]:
            if size > most:
                raise ValueError(f"{name} = {size}: there are only {most}; lower it")
        if self.normalization == "batch" and self.ntk_images:
            raise ValueError(
                f"ntk_images = {self.ntk_images}: with batch statistics the network is no function of one image, so it "
                "has no kernel; use ntk_images = 0 with normalization = batch"
            )
        if self.normalization == "batch" and self.train_size == 1:
            raise ValueError("train_size = 1: one image has no batch statistics; use at least 2")
        return self

    @property
    def stem(self) -> str:
        normalization = [] if self.normalization == "none" else [self.normalization]
        return "-".join([self.network, *normalization, self.loss, f"lr_{self.lr:g}"])

    @property
    def probe_every(self) -> int:
        """Steps between probes."""
        return self.steps // self.probes
