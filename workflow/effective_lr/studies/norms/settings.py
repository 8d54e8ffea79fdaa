"""The settings of one run of the study `norms`: every key that a scale or an experiment may set.

**A run is one replicate of one cell**: (kind of experiment, data, sizes, seed). Its *arms* are all pairs of a penalty
and a strength that share its data, start and batches; they are trained together as one batched program and appear in
the metrics as rows whose `layer` is the arm's name, such as `car/0.01`. Rows with an empty `layer` are those of the
run.

Nothing here imports torch. Source tags: seed, paper, 3rd, lit, derived, ours, guess (spec of the chapter).
"""

from typing import Annotated, ClassVar, Literal, NamedTuple, get_args

from pydantic import Field, PositiveInt, model_validator

from effective_lr.engine.study import BaseRun, Fraction, PositiveFloat, setting

Kind = Literal["linear", "network", "bridge", "walk"]
Data = Literal["simulated", "cooling-load", "diabetes", "leukemia"]
Penalty = Literal["none", "l2", "l1", "l1+l2", "car", "scar", "inverse", "adaptive", "car0", "scar0"]
PENALTIES: tuple[str, ...] = get_args(Penalty)
LINEAR = ("l2", "car", "inverse")  # those with closed forms
WALKED = ("l2", "l1", "car", "inverse")
SIZES = {"cooling-load": 768, "diabetes": 442, "leukemia": 38}  # samples that can be split
SPLITS = {
    "simulated": ("drawn",),
    "cooling-load": ("random", "disjoint", "shape"),
    "diabetes": ("random", "disjoint"),
    "leukemia": ("stratified", "original"),
}
ROWS_PER_SHAPE = 64  # of cooling load, which has 12 building shapes
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Arm(NamedTuple):
    """A penalty at one strength l."""

    penalty: str
    strength: float

    @property
    def name(self) -> str:
        return f"{self.penalty}/{self.strength:g}"


def parse_arms(text: str) -> tuple[Arm, ...]:
    """`none: 0; l2 car: 0.01 0.1` is none at 0, and l2 and car at 0.01 and 0.1. ValueError says what is wrong."""
    arms: list[Arm] = []
    for group in text.split(";"):
        names, colon, strengths = group.partition(":")
        if not colon or not names.split() or not strengths.split():
            raise ValueError(
                f"arms = '{text}': '{group.strip()}' is not 'penalties: strengths', such as 'l2 car: 0.01 0.1'"
            )
        for name in names.split():
            if name not in PENALTIES:
                raise ValueError(f"arms = '{text}': '{name}': expected one of {', '.join(PENALTIES)}")
            for strength in strengths.split():
                try:
                    value = float(strength)
                except ValueError as error:
                    raise ValueError(f"arms = '{text}': '{strength}' is not a number") from error
                if not 0 <= value < float("inf"):
                    raise ValueError(f"arms = '{text}': strength {strength}: expected a finite number of at least 0")
                arms.append(Arm(name, value))
    if len({arm.name for arm in arms}) < len(arms):
        raise ValueError(f"arms = '{text}': an arm stands there twice; leave one out")
    return tuple(arms)


class Run(BaseRun):
    """One replicate of one cell; see the module's docstring."""

    shard_axes: ClassVar[frozenset[str]] = frozenset({"seed", "truth", "part"})
    named_axes: ClassVar[tuple[str, ...]] = ("truth", "part")

    kind: Kind = setting(
        "what is trained: linear (closed forms), network (ReLU, no normalization), bridge (batch normalization), walk "
        "(random gradients)",
        "ours",
    )
    data: Data = setting(
        "where the samples come from",
        {"simulated": "ours", "cooling-load": "guess", "leukemia": "guess", "diabetes": "ours"},
        default="simulated",
    )
    correlation: Literal["ar1", "block"] = setting(
        "simulated inputs: covariance rho^|i-j|, or rho within blocks of 10", "ours", default="ar1"
    )
    rho: Annotated[float, Field(ge=0, lt=1)] = setting("correlation of neighbouring inputs", "ours", default=0.0)
    inputs: Annotated[int, Field(ge=2)] = setting("number of inputs p of simulated data", "ours", default=50)
    truth: Literal["sparse", "dense", "high", "low", "prior", "data"] = setting(
        "true weights: a few inputs, w = z, V d z, V z/d, V z over root d, z normal; data: as the data have it",
        "ours",
        default="data",
    )
    support: PositiveInt = setting("inputs that a sparse truth uses", "ours", default=5)
    snr: PositiveFloat = setting("variance of the signal over that of the noise", "ours", default=4.0)

    split: Literal["drawn", "random", "disjoint", "shape", "stratified", "original"] = setting(
        "how training, validation and test samples are chosen", "ours", default="drawn"
    )
    part: Annotated[int, Field(ge=0)] = setting("which of the disjoint training sets of one shuffle", "ours", default=0)
    train_size: Annotated[int, Field(ge=2)] = setting("training samples n", "ours", default=100)
    validation_size: Annotated[int, Field(ge=0)] = setting("validation samples, to choose l by", "ours", default=200)
    test_size: PositiveInt = setting("test samples", "ours", default=1000)
    folds: Annotated[int, Field(ge=0)] = setting(
        "folds of a cross-validation within the training samples, to choose l by; 0: the validation samples",
        "ours",
        default=0,
    )

    arms: str = setting(
        "penalties and strengths, such as 'none: 0; l2 car: 0.01 0.1': each penalty at each strength",
        "ours",
        "widen a grid whose ends are chosen",
    )
    shrinkage: Annotated[float, Field(ge=0, le=1)] = setting(
        "e in S_e = (1-e)·S + e·tr(S)/p·I, the covariance of the penalties", "ours", default=0.05
    )
    baselines: bool = setting("fit the models of scikit-learn beside networks on real data", "ours", default=False)

    hidden: PositiveInt = setting("hidden units m", "ours", default=8)
    start_gain: PositiveFloat = setting("variance of the starting W1, times p", "ours", default=2.0)
    lr: PositiveFloat = setting("learning rate η", "ours", default=0.02)
    other_lr: PositiveFloat = setting("learning rate of what is not penalised, in the bridge", "ours", default=0.03)
    momentum: Annotated[float, Field(ge=0, lt=1)] = setting("momentum of heavy ball", "ours", default=0.9)
    lr_drop: PositiveFloat = setting("factor on η after `drop_at` of the steps; 1: none", "ours", default=0.1)
    drop_at: Fraction = setting("when η drops, as a fraction of the steps", "ours", default=0.7)
    clip: NonNegative = setting("norm at which a network's gradient is clipped; 0: none", "ours", default=5.0)
    batch_size: PositiveInt = setting("samples per step; at most n", "ours", default=32)
    steps: PositiveInt = setting("training steps", "ours", default=1)
    late_fraction: Fraction = setting("late part, as a fraction of the steps", "ours", default=0.4)
    held: bool = setting("bridge: hold the norm of each unit's weights at 1", "ours", default=True)
    walkers: PositiveInt = setting("random walks per arm", "ours", default=64)

    @model_validator(mode="after")
    def _is_consistent(self) -> "Run":
        arms = parse_arms(self.arms)
        if self.split not in SPLITS[self.data]:
            raise ValueError(
                f"split = {self.split} with data = {self.data}: expected one of {', '.join(SPLITS[self.data])}"
            )
        if (self.data == "simulated") == (self.truth == "data") and self.kind != "walk":
            raise ValueError(
                f"truth = {self.truth} with data = {self.data}: simulated data need a truth, real data have their own"
            )
        if self.kind in ("linear", "bridge", "walk") and self.data != "simulated":
            raise ValueError(f"kind = {self.kind} with data = {self.data}: only networks are trained on real data")
        if self.truth == "sparse" and self.support > self.inputs:
            raise ValueError(f"support = {self.support}: expected at most inputs = {self.inputs}")
        if self.data == "simulated" and self.correlation == "block" and self.inputs % 10:
            raise ValueError(f"inputs = {self.inputs} with correlation = block: expected a multiple of 10")
        if self.batch_size > self.train_size and self.kind in ("network", "bridge"):
            raise ValueError(f"batch_size = {self.batch_size}: expected at most train_size = {self.train_size}")
        if self.kind == "bridge" and self.batch_size < 2:
            raise ValueError("batch_size = 1 has no batch statistics; use at least 2")
        if self.kind in ("network", "linear") and not self.folds and not self.validation_size:
            raise ValueError("validation_size = 0 and folds = 0: l cannot be chosen; set one of them")
        if self.folds == 1 or self.folds > self.train_size:
            raise ValueError(f"folds = {self.folds}: expected 0, or from 2 to train_size = {self.train_size}")
        if "adaptive" in {arm.penalty for arm in arms} and "l2" not in {arm.penalty for arm in arms}:
            raise ValueError(f"arms = '{self.arms}': adaptive takes its weights from the l2 fit; add l2")
        if self.folds and any(arm.penalty == "adaptive" for arm in arms):
            raise ValueError(f"arms = '{self.arms}' with folds = {self.folds}: adaptive is fitted once, without folds")
        known = {"linear": LINEAR, "walk": WALKED}.get(self.kind, PENALTIES)
        if unknown := [arm.penalty for arm in arms if arm.penalty not in known]:
            raise ValueError(
                f"arms = '{self.arms}' with kind = {self.kind}: {unknown[0]}: expected one of {', '.join(known)}"
            )
        self._fits_the_data()
        return self

    def _fits_the_data(self) -> None:
        if self.data == "simulated":
            return
        total, used = SIZES[self.data], self.train_size + self.validation_size + self.test_size
        if self.split == "original":
            if (self.train_size, self.test_size) != (38, 34):
                raise ValueError(
                    f"split = original: train_size, test_size = {self.train_size}, {self.test_size}: expected 38, 34"
                )
        elif self.split == "disjoint":
            most = (total - self.validation_size - self.test_size) // self.train_size
            if self.part >= most:
                raise ValueError(
                    f"part = {self.part}: {self.data} has room for {max(most, 0)} disjoint sets of {self.train_size}"
                )
        elif used > total:
            raise ValueError(f"train_size + validation_size + test_size = {used}: {self.data} has {total} samples")
        if self.split == "shape" and any(
            s % ROWS_PER_SHAPE for s in (self.train_size, self.validation_size, self.test_size)
        ):
            raise ValueError(
                f"split = shape: sizes are multiples of {ROWS_PER_SHAPE}, the samples of one building shape"
            )

    @property
    def stem(self) -> str:
        cell = (
            f"{self.correlation}_{self.rho:g}-p_{self.inputs}"
            if self.data == "simulated"
            else f"{self.data}-{self.split}"
        )
        return f"{self.kind}-{cell}-n_{self.train_size}"

    @property
    def is_classification(self) -> bool:
        return self.data == "leukemia"

    @property
    def p(self) -> int:
        """Number of inputs."""
        return {"simulated": self.inputs, "cooling-load": 16, "diabetes": 10, "leukemia": 3051}[self.data]
