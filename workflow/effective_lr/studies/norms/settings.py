"""The settings of one run of the study `norms`: every key that a scale or an experiment may set.

**A run is one replicate of one cell**: (kind of experiment, data, sizes, seed). Its *arms* are all pairs of a penalty
and its strength or strengths that share its data, start and batches; they are trained together as one batched program
and appear in the metrics as rows whose `layer` is the arm's name, such as `car/0.01` or `covridge/0.1/0.5`. Rows with
an empty `layer` are those of the run; in tuned runs those whose `layer` is the bare name of a penalty are of the arm
that cross-validation chose, trained on all training rows.

Nothing here imports torch. Source tags: 3rd (reported by a third party that read the paper), 3rd, assumed (an
assumption of that third party), derived, ours.
"""

import itertools
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, get_args

from pydantic import Field, PositiveInt, model_validator

from effective_lr.engine.study import BaseRun, Fraction, PositiveFloat, setting

Kind = Literal["linear", "network", "bridge", "walk", "tuned", "theorem"]
Data = Literal["simulated", "cooling-load", "leukemia", "gse9476"]
Old = Literal["none", "l2", "l1", "l1+l2", "car", "scar", "inverse", "adaptive"]
Tuned = Literal[
    "none",
    "ridge",
    "ridge+",
    "lasso",
    "lasso+",
    "elastic",
    "covridge",
    "sparridge",
    "covridge-all",
    "sparridge-all",
]
PENALTIES: tuple[str, ...] = get_args(Old)
TUNED: tuple[str, ...] = get_args(Tuned)
PAIRS = ("covridge", "sparridge", "covridge-all", "sparridge-all")  # penalties of two strengths
KNOWN = {"linear": ("l2", "car", "inverse"), "walk": ("l2", "l1", "car", "inverse"), "tuned": TUNED}
KNOWN["theorem"] = ("covridge", "sparridge")
SIZES = {"cooling-load": 768, "leukemia": 38, "gse9476": 64}  # samples
INPUTS = {"cooling-load": 8, "leukemia": 3051}  # before any selection; a user's file decides for gse9476
CLASSES = {"leukemia": 2, "gse9476": 5}
SPLITS = {
    "simulated": ("drawn",),
    "cooling-load": ("random", "disjoint"),
    "leukemia": ("stratified",),
    "gse9476": ("stratified",),
}
DESIGNS = ("linear", "sine")  # truths of the reported simulations
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Arm(NamedTuple):
    """A penalty at one strength l, or at two."""

    penalty: str
    strength: float
    second: float | None = None

    @property
    def name(self) -> str:
        return f"{self.penalty}/{self.strength:g}" + ("" if self.second is None else f"/{self.second:g}")


def parse_arms(text: str) -> tuple[Arm, ...]:
    """`none: 0; l2 car: 0.01 0.1` is none at 0, and l2 and car at 0.01 and 0.1. A penalty of two strengths has all
    pairs of those that are listed, or the pairs that are: `covridge: 0.1,0.5`. ValueError says what is wrong."""
    arms: list[Arm] = []
    for group in text.split(";"):
        names, colon, strengths = group.partition(":")
        if not colon or not names.split() or not strengths.split():
            raise ValueError(
                f"arms = '{text}': '{group.strip()}' is not 'penalties: strengths', such as 'l2 car: 0.01 0.1'"
            )
        for name in names.split():
            if name not in (*PENALTIES, *TUNED):
                known = ", ".join(dict.fromkeys((*PENALTIES, *TUNED)))
                raise ValueError(f"arms = '{text}': '{name}': expected one of {known}")
            items = [[number(text, part) for part in item.split(",")] for item in strengths.split()]
            lengths = {len(item) for item in items}
            if name in PAIRS and lengths == {1}:
                items = [[a, b] for [a], [b] in itertools.product(items, items)]
            elif lengths != ({2} if name in PAIRS else {1}):
                many = "two strengths, such as 0.1,0.5" if name in PAIRS else "one strength"
                raise ValueError(f"arms = '{text}': {name} has {many}; found {max(lengths)} in one place")
            arms += [Arm(name, *item) for item in items]
    if len({arm.name for arm in arms}) < len(arms):
        raise ValueError(f"arms = '{text}': an arm stands there twice; leave one out")
    return tuple(arms)


def number(text: str, strength: str) -> float:
    try:
        value = float(strength)
    except ValueError as error:
        raise ValueError(f"arms = '{text}': '{strength}' is not a number") from error
    if not 0 <= value < float("inf"):
        raise ValueError(f"arms = '{text}': strength {strength}: expected a finite number of at least 0")
    return value


class Run(BaseRun):
    """One replicate of one cell; see the module's docstring."""

    shard_axes: ClassVar[frozenset[str]] = frozenset({"seed", "truth", "part"})
    named_axes: ClassVar[tuple[str, ...]] = ("truth", "part")

    kind: Kind = setting(
        "kind of run (bridge: with batch normalization)",
        {"tuned": "3rd", "theorem": "3rd"},
    )
    data: Data = setting(
        "where the samples come from",
        {"simulated": "3rd", "cooling-load": "3rd", "leukemia": "ours", "gse9476": "3rd"},
        default="simulated",
    )
    correlation: Literal["ar1", "block", "equal"] = setting(
        "covariance of inputs: rho^|i-j|, in blocks, or of the first k",
        {"equal": "3rd"},
        default="ar1",
    )
    rho: Annotated[float, Field(gt=-1, lt=1)] = setting(
        "correlation rho of neighbouring inputs, or of equal ones",
        {0.25: "3rd", 0.75: "3rd"},
        default=0.0,
    )
    inputs: Annotated[int, Field(ge=2)] = setting(
        "simulated inputs p; reported: 20, 200, 2000", {2000: "3rd"}, default=50
    )
    truth: Literal["sparse", "dense", "high", "low", "prior", "data", "linear", "sine"] = setting(
        "true weights: few, z, V d z, V z/d, V z over root d, z normal; linear, sine: z on k inputs x or sin x",
        {"linear": "3rd", "sine": "3rd"},
        default="data",
    )
    support: PositiveInt = setting(
        "inputs k that a sparse, linear or sine truth uses", {10: "3rd", 100: "3rd"}, default=5
    )
    snr: PositiveFloat = setting("variance of the signal over that of the noise", "ours", default=4.0)
    noise: PositiveFloat = setting(
        "deviation of the noise of a linear or sine truth", {0.1: "3rd", 2.0: "3rd"}, default=1.0
    )

    split: Literal["drawn", "random", "disjoint", "stratified"] = setting(
        "how samples are split", {"random": "3rd", "stratified": "3rd"}, default="drawn"
    )
    part: Annotated[int, Field(ge=0)] = setting("number of the disjoint training set in a shuffle", "ours", default=0)
    train_size: Annotated[int, Field(ge=2)] = setting(
        "training samples n; reported: 75 % of all", dict.fromkeys((150, 750, 375, 576, 48), "3rd"), default=100
    )
    validation_size: Annotated[int, Field(ge=0)] = setting("validation samples, to choose l by", "ours", default=200)
    test_size: PositiveInt = setting(
        "test samples; reported: 25 % of all", dict.fromkeys((50, 250, 125, 192, 16), "3rd"), default=1000
    )
    folds: Annotated[int, Field(ge=0)] = setting(
        "folds of the cross-validation that chooses l; 0: validation samples",
        "ours",
        default=0,
    )
    genes: PositiveInt = setting("genes of largest ANOVA F that enter", {2000: "3rd"}, default=2000)
    selection: Literal["training", "all"] = setting(
        "samples that select the genes: of training, or all", "ours", default="training"
    )
    shuffled: bool = setting("shuffled classes, which nothing can predict", "ours", default=False)

    arms: str = setting(
        "penalties and their strengths, in all combinations",
        "ours",
        "widen a grid whose ends are chosen",
    )
    shrinkage: Annotated[float, Field(ge=0, le=1)] = setting(
        "e in S_e = (1-e)·S + e·tr(S)/p·I of a penalty", "ours", default=0.05
    )
    delta: NonNegative = setting("delta in C = H'H/n + delta·I", {1e-4: "3rd, assumed"}, default=1e-4)

    hidden: PositiveInt = setting("hidden units m", {64: "3rd"}, default=8)
    second: PositiveInt = setting("hidden units of the second layer, tuned", {32: "3rd", 4: "3rd"}, default=32)
    start_gain: PositiveFloat = setting("variance of the starting W1, times p", "ours", default=2.0)
    lr: PositiveFloat = setting("learning rate η", {0.001: "3rd, assumed"}, default=0.02)
    other_lr: PositiveFloat = setting("learning rate of what the bridge does not penalise", "ours", default=0.03)
    momentum: Annotated[float, Field(ge=0, lt=1)] = setting("momentum of heavy ball", "ours", default=0.9)
    lr_drop: PositiveFloat = setting("factor on η after `drop_at` of the steps; 1: none", "ours", default=0.1)
    drop_at: Fraction = setting("when η drops, as a fraction of the steps", "ours", default=0.7)
    clip: NonNegative = setting("norm at which a gradient is clipped; 0: none", "ours", default=5.0)
    batch_size: PositiveInt = setting("samples per step; at most n", {16: "3rd"}, default=32)
    steps: PositiveInt = setting("training steps; epochs of tuned networks", {500: "3rd"}, default=1)
    patience: Annotated[int, Field(ge=0)] = setting(
        "epochs without a lower held-out loss that end a fold; 0: none", {10: "3rd"}, default=0
    )
    late_fraction: Fraction = setting("late part, as a fraction of the steps", "ours", default=0.4)
    held: bool = setting("bridge: hold the norm of each unit's weights at 1", "ours", default=True)
    walkers: PositiveInt = setting("random walks per arm, or draws of a Monte Carlo", "ours", default=64)
    scaling: Literal["root", "slow"] = setting(
        "theorem: strengths fall as n^(-1/2), or n^(-1/4)", {"root": "3rd"}, default="root"
    )

    @model_validator(mode="before")
    @classmethod
    def _drops_former(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Records of earlier runs have the setting `baselines`, which no run has any more."""
        return {key: value for key, value in values.items() if key != "baselines"}

    @model_validator(mode="after")
    def _is_consistent(self) -> "Run":
        arms = parse_arms(self.arms)
        if self.split not in SPLITS[self.data]:
            raise ValueError(
                f"split = {self.split} with data = {self.data}: expected one of {', '.join(SPLITS[self.data])}"
            )
        if self.kind == "tuned" or self.kind == "theorem":
            self._fits_a_design()
        elif self.truth in DESIGNS or self.correlation == "equal":
            raise ValueError(
                f"truth = {self.truth}, correlation = {self.correlation} with kind = {self.kind}: linear and sine "
                "truths and equal correlations are those of tuned networks"
            )
        elif self.data != "simulated":
            raise ValueError(f"kind = {self.kind} with data = {self.data}: real data are for tuned networks")
        if (self.data == "simulated") == (self.truth == "data") and self.kind not in ("walk", "theorem"):
            raise ValueError(
                f"truth = {self.truth} with data = {self.data}: simulated data need a truth, real data have their own"
            )
        if self.truth == "sparse" and self.support > self.inputs:
            raise ValueError(f"support = {self.support}: expected at most inputs = {self.inputs}")
        if self.rho < 0 and self.correlation != "equal":
            raise ValueError(f"rho = {self.rho:g} with correlation = {self.correlation}: expected at least 0")
        if self.data == "simulated" and self.correlation == "block" and self.inputs % 10:
            raise ValueError(f"inputs = {self.inputs} with correlation = block: expected a multiple of 10")
        if self.batch_size > self.train_size and self.kind in ("network", "bridge"):
            raise ValueError(f"batch_size = {self.batch_size}: expected at most train_size = {self.train_size}")
        if self.kind == "bridge" and self.batch_size < 2:
            raise ValueError("batch_size = 1 has no batch statistics; use at least 2")
        if self.kind in ("network", "linear") and not self.folds and not self.validation_size:
            raise ValueError("validation_size = 0 and folds = 0: l cannot be chosen; set one of them")
        if self.kind == "network" and self.folds:
            raise ValueError(f"folds = {self.folds} with kind = network: expected 0; l is chosen by validation")
        if self.folds == 1 or self.folds > self.train_size or (self.kind == "tuned" and not self.folds):
            raise ValueError(f"folds = {self.folds}: expected 0, or from 2 to train_size = {self.train_size}")
        if "adaptive" in {arm.penalty for arm in arms} and "l2" not in {arm.penalty for arm in arms}:
            raise ValueError(f"arms = '{self.arms}': adaptive takes its weights from the l2 fit; add l2")
        known = KNOWN.get(self.kind, PENALTIES)
        if unknown := [arm.penalty for arm in arms if arm.penalty not in known]:
            raise ValueError(
                f"arms = '{self.arms}' with kind = {self.kind}: {unknown[0]}: expected one of {', '.join(known)}"
            )
        self._fits_the_data()
        return self

    def _fits_a_design(self) -> None:
        """k ≤ p, and a covariance that is positive definite."""
        if self.data != "simulated" or self.kind == "theorem":
            return
        if self.truth not in DESIGNS or self.correlation != "equal":
            raise ValueError(
                f"truth = {self.truth}, correlation = {self.correlation} with kind = tuned: expected truth = linear or "
                "sine, and correlation = equal"
            )
        if self.support > self.inputs:
            raise ValueError(f"support = {self.support}: expected at most inputs = {self.inputs}")
        least = -1 / max(self.support - 1, 1)
        if self.rho <= least:
            raise ValueError(f"rho = {self.rho:g}: {self.support} inputs of one correlation need more than {least:.4g}")

    def _fits_the_data(self) -> None:
        if self.data == "simulated":
            return
        total, used = SIZES[self.data], self.train_size + self.test_size
        if self.split == "disjoint":
            most = (total - self.test_size) // self.train_size
            if self.part >= most:
                raise ValueError(
                    f"part = {self.part}: {self.data} has room for {max(most, 0)} disjoint sets of {self.train_size}"
                )
        elif used > total:
            raise ValueError(f"train_size + test_size = {used}: {self.data} has {total} samples")

    @property
    def stem(self) -> str:
        cell = (
            f"{self.correlation}_{self.rho:g}-p_{self.inputs}"
            if self.data == "simulated"
            else f"{self.data}-{self.split}"
        )
        return f"{self.kind}-{cell}-n_{self.train_size}"

    @property
    def classes(self) -> int:
        """Classes of the target; 1 for a numerical one."""
        return CLASSES.get(self.data, 1)

    @property
    def p(self) -> int:
        """Number of inputs of the network."""
        if self.data == "simulated":
            return self.inputs
        return min(self.genes, INPUTS.get(self.data, self.genes)) if self.classes > 1 else INPUTS[self.data]
