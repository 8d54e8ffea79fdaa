"""How a run is trained: all of its arms at once, on one CPU thread, in float64.

Read from top to bottom: what runs share; a training and its checkpoints; then the four kinds of run. A linear run is
closed forms; a network run trains stacked networks once per fold and once for good; a bridge run puts batch
normalization behind W1; a walk replaces the loss by random gradients.
"""

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

import effective_lr.studies.norms.baselines as baselines  # not from the package, whose words decide no result
import effective_lr.studies.norms.linear as linear
import effective_lr.studies.norms.networks as networks
from effective_lr.studies.norms.data import Scaler, Task, covariance, folds, simulate, split
from effective_lr.studies.norms.penalties import FORMS, Penalties, metrics
from effective_lr.studies.norms.settings import Arm, Run, parse_arms
from effective_lr.studies.norms.theory import DEGREE

Row = tuple[int, str, str, float]  # step, arm ("": the run), quantity, value
NORM_EPS = 1e-12
TOP = 5  # principal components in `top_share`
DIVERGENCE_CHECK = 50  # steps
LATE_SAMPLING = 25  # steps between evaluations of the bridge in its late part
WALK_SAMPLING = 10


@dataclass(frozen=True, eq=False)
class Data:
    """The prepared tensors that the runs of a shard share; none where data are simulated."""

    tensors: dict[str, Tensor]


def load(tensors: dict[str, Tensor], run: Run, device: torch.device) -> Data:
    """Everything stays on the CPU whatever the device: the networks are far too small for another."""
    torch.set_num_threads(1)
    return Data({name: tensor.cpu() for name, tensor in tensors.items()})


class Training:
    """A run under way. Subclasses say what a step is, and which tensors a checkpoint holds."""

    def __init__(self, run: Run, task: Task | None) -> None:
        self.run, self.task = run, task
        self.arms = parse_arms(run.arms)
        self.step = 0
        self.steps = run.steps
        self.examples = 0
        self.seconds = 0.0
        self.diverged = False
        self.rows: list[Row] = []

    _PROGRESS = ("step", "examples", "seconds", "diverged", "rows")

    def advance(self) -> None:
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""

    @property
    def weights(self) -> dict[str, Tensor]:
        """All that is trained: the tensors of the state, a list of them one by one."""
        lists = {name: value if isinstance(value, list) else [value] for name, value in self.state().items()}
        return {
            f"{name}{k}": one for name, ones in lists.items() for k, one in enumerate(ones) if isinstance(one, Tensor)
        }

    def save(self) -> bytes:
        """All that a later process needs to go on as if nothing had happened."""
        file = io.BytesIO()
        torch.save({"state": self.state(), **{name: getattr(self, name) for name in self._PROGRESS}}, file)
        return file.getvalue()

    def load(self, saved: bytes) -> None:
        stored = torch.load(io.BytesIO(saved), weights_only=True)
        for name in self._PROGRESS:
            setattr(self, name, stored[name])
        self.restore(stored["state"])

    def note(self, arms: list[Arm], quantity: str, values: Tensor) -> None:
        """A row for every arm."""
        self.rows += [(self.step, arm.name, quantity, float(v)) for arm, v in zip(arms, values, strict=True)]

    def note_best(self) -> None:
        """The test result of the arm that validation chooses, of all penalties."""
        for loss in ("rmse", "log_loss"):
            found: dict[str, dict[str, float]] = {"validation": {}, "test": {}}
            for _, arm, quantity, value in self.rows:
                for what in found:
                    if quantity == f"{what}_{loss}":
                        found[what][arm] = value
            if found["validation"]:
                best = min(found["validation"], key=lambda arm: found["validation"][arm])
                self.rows.append((self.step, "", f"best_test_{loss}", found["test"][best]))

    def diverge(self) -> None:
        self.diverged = True
        self.rows.append((self.step, "", "diverged", 1.0))


class LinearTraining(Training):
    """One step, which is all: closed forms."""

    def advance(self) -> None:
        assert self.task is not None
        self.step += 1
        self.examples += len(self.task.train_y)
        self.rows += [(self.step, *row) for row in linear.rows(self.run, self.task)]
        self.note_best()


class Stage:
    """One stacked training: its samples, scaled by themselves, its arms, and the batches that all of them see."""

    def __init__(
        self, run: Run, x: np.ndarray, y: np.ndarray, arms: list[Arm], input_weights: Tensor | None = None
    ) -> None:
        self.scale_x = Scaler(x) if run.data != "simulated" else lambda values: torch.from_numpy(values)
        self.scale_y = Scaler(y) if run.data != "simulated" and not run.is_classification else torch.from_numpy
        self.unit = float(self.scale_y.deviation) if isinstance(self.scale_y, Scaler) else 1.0  # of the target
        self.x, self.y = self.scale_x(x), self.scale_y(y)
        self.penalties = Penalties(arms, metrics(self.x, run.shrinkage, arms), input_weights)
        self.arms = self.penalties.arms
        self.batch_size = min(run.batch_size, len(x))
        generator = torch.Generator().manual_seed(run.seed + 1_000_003)  # apart from the stream of the weights
        per_epoch = len(x) // self.batch_size
        epochs = (
            [
                torch.randperm(len(x), generator=generator)[: per_epoch * self.batch_size].view(per_epoch, -1)
                for _ in range(-(-run.steps // per_epoch))
            ]
            if self.batch_size < len(x)
            else []
        )
        self.batches = torch.cat(epochs) if epochs else None

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of step 0, 1, ...; all samples, in order, where the batch is all of them."""
        if self.batches is None:
            return self.x, self.y
        return self.x[self.batches[step]], self.y[self.batches[step]]


class NetworkTraining(Training):
    """Stacked ReLU networks: once per fold, then on all training samples, then adaptive l1, which needs the l2 fit."""

    def __init__(self, run: Run, task: Task | None) -> None:
        super().__init__(run, task)
        assert task is not None
        self.folds = folds(run, task.train_y) if run.folds else []
        self.adaptive = [arm for arm in self.arms if arm.penalty == "adaptive"]
        self.plain = [arm for arm in self.arms if arm.penalty != "adaptive"]
        self.steps = run.steps * (len(self.folds) + 1 + bool(self.adaptive))
        self.input_weights: Tensor | None = None
        self.begin()

    def begin(self) -> None:
        """The stage that the next step belongs to, from its start."""
        task, run = self.task, self.run
        assert task is not None
        number = min(self.step, self.steps - 1) // run.steps
        x, y, arms, self.outside = task.train_x, task.train_y, self.plain, None
        if number < len(self.folds):
            inside, self.outside = self.folds[number]
            x, y = x[inside], y[inside]
        elif number > len(self.folds):
            arms = self.adaptive
        self.stage = Stage(run, x, y, arms, self.input_weights if arms is self.adaptive else None)
        self.networks = networks.start(run.p, len(arms), run.hidden, run.start_gain, run.seed)
        self.velocities = [torch.zeros_like(parameter) for parameter in self.networks.parameters]

    def advance(self) -> None:
        run = self.run
        place = self.step % run.steps
        if place == 0 and self.step:
            self.begin()
        self.step += 1
        dropped = place >= run.drop_at * run.steps
        lr = run.lr * (run.lr_drop if dropped else 1.0)
        x, y = self.stage.batch(place)
        loss, gradients = self.networks.loss_gradients(x, y, run.is_classification)
        gradients[0] += self.stage.penalties.gradient(self.networks.w1)
        gradients[2] += 2 * self.stage.penalties.strengths[:, None] * self.networks.w2
        if run.clip:
            networks.clip(gradients, run.clip)
        for parameter, velocity, gradient in zip(self.networks.parameters, self.velocities, gradients, strict=True):
            velocity.mul_(run.momentum).add_(gradient)  # heavy ball as in torch.optim.SGD
            parameter.sub_(velocity, alpha=lr)
        self.stage.penalties.prox(self.networks.w1, lr)
        self.examples += len(x)
        if place % DIVERGENCE_CHECK == 0 and not torch.isfinite(loss).any():
            self.diverge()
        elif place == run.steps - 1:
            self.finish()

    def finish(self) -> None:
        """What a stage leaves: validation losses of a fold, or all that is measured of the networks."""
        task, stage = self.task, self.stage
        assert task is not None
        if self.outside is not None:
            for name, values in self.losses(task.train_x[self.outside], task.train_y[self.outside]).items():
                self.note(stage.arms, f"fold_{name}", values)
            return
        splits = {"train": (task.train_x, task.train_y), "test": (task.test_x, task.test_y)}
        if len(task.validation_y):
            splits["validation"] = (task.validation_x, task.validation_y)
        measured = {s: self.losses(*samples) for s, samples in splits.items()}
        for s, losses in measured.items():
            for name, values in losses.items():
                self.note(stage.arms, f"{s}_{name}", values)
        if self.folds:
            self.note_folds()
        self.measure()
        if self.adaptive and self.input_weights is None:
            self.input_weights = 1 / (self.chosen_l2()[1].norm(dim=1) + 0.01)
        if self.step == self.steps:
            self.note_best()
            if self.run.baselines:
                self.fit_baselines()

    def losses(self, x: np.ndarray, y: np.ndarray) -> dict[str, Tensor]:
        """RMSE of each arm in the target's unit, or log-loss and fraction of errors."""
        outputs = self.networks.outputs(self.stage.scale_x(x))
        target = self.stage.scale_y(y)[:, None]
        if self.run.is_classification:
            return log_losses(outputs, target)
        return {"rmse": self.stage.unit * (outputs - target).square().mean(0).sqrt()}

    def note_folds(self) -> None:
        """The validation loss of each arm: the mean over the folds, by samples for log-loss, of squares for RMSE."""
        sizes = [len(outside) for _, outside in self.folds]
        for name in ("rmse", "log_loss"):
            for arm in self.stage.arms:
                values = [v for _, layer, what, v in self.rows if layer == arm.name and what == f"fold_{name}"]
                if values:
                    squares = name == "rmse"
                    mean = float(np.average(np.square(values) if squares else values, weights=sizes))
                    self.rows.append((self.step, arm.name, f"validation_{name}", mean**0.5 if squares else mean))
        self.rows = [row for row in self.rows if not row[2].startswith("fold_")]

    def measure(self) -> None:
        """Sizes and sparsity of the networks, and how they use the inputs."""
        stage, w1 = self.stage, self.networks.w1
        active = (w1 != 0).any(2)  # (p, arms)
        self.note(stage.arms, "nonzeros", (w1 != 0).sum((0, 2)))
        self.note(stage.arms, "active_inputs", active.sum(0))
        self.note(stage.arms, "w1_squared", w1.square().sum((0, 2)))
        self.note(stage.arms, "w2_squared", self.networks.w2.square().sum(1))
        variance, share = top_share(stage.x, w1)
        self.note(stage.arms, "input_variance", variance)
        used = [i for i, value in enumerate(variance) if value > 0]  # weights that are all 0 have no direction
        self.note([stage.arms[i] for i in used], "top_share", share[used])
        if self.run.truth == "sparse":
            assert self.task is not None and self.task.truth is not None
            support = torch.from_numpy((self.task.truth != 0).any(1))[:, None]
            found = (active & support).sum(0)
            self.note(stage.arms, "precision", found / active.sum(0).clamp_min(1))
            self.note(stage.arms, "recall", found / support.sum())

    def chosen_l2(self) -> tuple[float, Tensor]:
        """The strength of the l2 arm that validation chooses, and its W1 (p, m)."""
        values = {layer: v for _, layer, what, v in self.rows if what.startswith("validation_")}
        place, arm = min(
            ((i, arm) for i, arm in enumerate(self.stage.arms) if arm.penalty == "l2"), key=lambda k: values[k[1].name]
        )
        return arm.strength, self.networks.w1[:, place]

    def fit_baselines(self) -> None:
        """The models of scikit-learn, on the same samples in the same scaling."""
        run, task = self.run, self.task
        assert task is not None
        stage = Stage(run, task.train_x, task.train_y, [])
        x, y = stage.x.numpy(), stage.y.numpy()
        if run.is_classification:
            models = [("logistic-cv", *baselines.logistic(x, y, run.seed))]
        else:
            values = {layer: v for _, layer, what, v in self.rows if what == "validation_rmse"}
            l2 = min((a for a in self.plain if a.penalty == "l2"), key=lambda a: values[a.name], default=Arm("l2", 0.0))
            epochs = max(1, run.steps * stage.batch_size // len(x))
            models = list(baselines.regressions(x, y, l2.strength, run.hidden, stage.batch_size, epochs, run.seed))
        for name, predict, weights in models:
            for s, samples in (("train", (task.train_x, task.train_y)), ("test", (task.test_x, task.test_y))):
                output = torch.from_numpy(np.asarray(predict(stage.scale_x(samples[0]).numpy())))[:, None]
                target = stage.scale_y(samples[1])[:, None]
                losses = (
                    log_losses(output, target)
                    if run.is_classification
                    else {"rmse": stage.unit * (output - target).square().mean(0).sqrt()}
                )
                self.rows += [(self.step, name, f"{s}_{what}", float(value)) for what, value in losses.items()]
            self.rows.append((self.step, name, "nonzeros", float((weights != 0).sum())))
            active = (weights != 0).reshape(len(weights), -1).any(1)
            self.rows.append((self.step, name, "active_inputs", float(active.sum())))
            self.rows.append((self.step, name, "w1_squared", float(np.square(weights).sum())))

    def state(self) -> dict[str, Any]:
        return {
            "parameters": self.networks.parameters,
            "velocities": self.velocities,
            "input_weights": self.input_weights,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.input_weights = state["input_weights"]
        # At the border of two stages the next step begins anew; what is restored here is then not used.
        if self.step % self.run.steps:
            self.begin()
            for parameter, stored in zip(self.networks.parameters, state["parameters"], strict=True):
                parameter.copy_(stored)
            self.velocities = state["velocities"]


def log_losses(outputs: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Mean log-loss and fraction of errors of log-odds (samples, arms) at labels 0 and 1 (samples, 1)."""
    return {
        "log_loss": (torch.nn.functional.softplus(outputs) - target * outputs).mean(0),
        "error": ((outputs > 0) != (target > 0.5)).double().mean(0),
    }


def top_share(x: Tensor, w1: Tensor) -> tuple[Tensor, Tensor]:
    """Σ_u Var(w_u'x) of each arm over the samples x, and the share of it in their first principal components."""
    centred = (x - x.mean(0)) / len(x) ** 0.5
    variance = (centred @ w1.flatten(1)).square().sum(0).view(w1.shape[1:]).sum(1)
    _, deviations, components = torch.linalg.svd(centred, full_matrices=False)
    parts = deviations[:TOP, None] * (components[:TOP] @ w1.flatten(1))
    return variance, parts.square().sum(0).view(w1.shape[1:]).sum(1) / variance


class BridgeTraining(Training):
    """W1 under batch normalization, its units' norms held at 1 or free; plain SGD, no momentum.

    Only W1 is penalised. The other parameters have a learning rate of their own: a check of W1 is then undisturbed.
    """

    def __init__(self, run: Run, task: Task | None) -> None:
        super().__init__(run, task)
        assert task is not None
        self.stage = Stage(run, task.train_x, task.train_y, list(self.arms))
        self.networks = networks.start(run.p, len(self.arms), run.hidden, run.start_gain, run.seed, NORM_EPS)
        networks.hold(self.networks.w1)
        self.degree = torch.tensor([degree(arm) for arm in self.stage.arms], dtype=torch.float64)
        self.late_start = min(round(run.steps * (1 - run.late_fraction)), run.steps - 1)
        self.sums: dict[str, Tensor] = {}
        self.samples = {"step": 0, "evaluation": 0}
        self.relaxations = torch.zeros(len(self.arms), dtype=torch.float64)  # before the late part

    def advance(self) -> None:
        run, nets, penalties = self.run, self.networks, self.stage.penalties
        late = self.step >= self.late_start
        x, y = self.stage.batch(self.step)
        self.step += 1
        loss, gradients = nets.loss_gradients(x, y, classes=False)
        before = nets.w1.clone()
        with_penalty = gradients[0] + penalties.gradient(nets.w1)
        nets.w1.sub_(with_penalty, alpha=run.lr)
        for parameter, gradient in zip(nets.parameters[1:], gradients[1:], strict=True):
            parameter.sub_(gradient, alpha=run.other_lr)
        penalties.prox(nets.w1, run.lr)
        if run.held:
            networks.hold(nets.w1)
        elif not late:
            self.relaxations += (self.degree + 2) / 2 * self.predicted_angle(before).mean(1)
        else:
            self.add_step(before, gradients[0])
        self.examples += len(x)
        is_last = self.step == run.steps
        if late and (self.step % LATE_SAMPLING == 0 or is_last):
            self.add_evaluation()
        if self.step % DIVERGENCE_CHECK == 0 and not torch.isfinite(loss).any():
            self.diverge()
        elif is_last:
            self.finish()

    def predicted_angle(self, w1: Tensor) -> Tensor:
        """B5: 2·k·η·R_l(w)/r² of each unit (arms, m), where R_l is the penalty with its strength."""
        penalties = self.stage.penalties
        quadratic = 2 * penalties.l2[:, None] * (w1 * penalties.transformed(w1)).sum(0)
        absolute = penalties.l1[:, None] * w1.abs().sum(0)
        return 2 * self.run.lr * (quadratic + absolute) / w1.square().sum(0)

    def add_step(self, before: Tensor, gradient: Tensor) -> None:
        """Sums of what a late step of free weights shows, over steps and units."""
        r2 = before.square().sum(0)
        u, v = before / r2.sqrt(), self.networks.w1 / self.networks.w1.norm(dim=0)
        angle = 2 * torch.atan2((u - v).norm(dim=0), (u + v).norm(dim=0))
        measured = {
            "angle_squared": angle.square(),
            "predicted_angle_squared": self.predicted_angle(before),
            "norm_squared": r2,
            "g_squared": r2 * gradient.square().sum(0),
            "zero_fraction": (before == 0).double().mean(0),
        }
        self.add({name: value.mean(1) for name, value in measured.items()}, "step")

    def add_evaluation(self) -> None:
        """Test and training RMSE with the statistics of all training samples, and the share of the first components."""
        task = self.task
        assert task is not None
        outputs = {
            "train": self.networks.outputs(self.stage.x) - self.stage.y[:, None],
            "test": self.networks.outputs(torch.from_numpy(task.test_x), self.stage.x)
            - torch.from_numpy(task.test_y)[:, None],
        }
        measured = {f"{s}_rmse": error.square().mean(0).sqrt() for s, error in outputs.items()}
        self.add({**measured, "top_share": top_share(self.stage.x, self.networks.w1)[1]}, "evaluation")

    def add(self, measured: dict[str, Tensor], kind: str) -> None:
        for name, value in measured.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value
        self.samples[kind] += 1

    def finish(self) -> None:
        steps = {"angle_squared", "predicted_angle_squared", "norm_squared", "g_squared", "zero_fraction"}
        for name, total in self.sums.items():
            self.note(self.stage.arms, name, total / self.samples["step" if name in steps else "evaluation"])
        if not self.run.held:
            self.note(self.stage.arms, "relaxations", self.relaxations)
        best = min(value for _, _, what, value in self.rows if what == "test_rmse")
        self.rows.append((self.step, "", "best_test_rmse", best))

    def state(self) -> dict[str, Any]:
        return {
            "parameters": self.networks.parameters,
            "sums": self.sums,
            "samples": self.samples,
            "relaxations": self.relaxations,
        }

    def restore(self, state: dict[str, Any]) -> None:
        for parameter, stored in zip(self.networks.parameters, state["parameters"], strict=True):
            parameter.copy_(stored)
        self.sums, self.samples, self.relaxations = state["sums"], state["samples"], state["relaxations"]


def degree(arm: Arm) -> int:
    """k of the arm's penalty. Penalties of mixed degree have none; 2 stands for them, and no prediction rests on it."""
    return DEGREE.get(arm.penalty, 2)


class WalkTraining(Training):
    """Random gradients, tangent and of norm 1/‖w‖, against a penalty: B7. Weights (D, arms, walkers), all at norm 1
        first.

    S is exact: diag(d) in its own basis, with the AR(1) eigenvalues d, so that tr P = D for CAR; for l1 the basis is
    that of the inputs. All arms see the same noise.
    """

    def __init__(self, run: Run, task: Task | None) -> None:
        super().__init__(run, task)
        self.d = torch.from_numpy(np.linalg.eigvalsh(covariance(run)))
        inverse = 1 / self.d
        d, inverse = self.d[:, None, None], (inverse * len(inverse) / inverse.sum())[:, None, None]
        forms = {FORMS[arm.penalty][0] for arm in self.arms}
        exact = {"car": lambda w: d * w, "inverse": lambda w: inverse * w}
        self.penalties = Penalties(self.arms, {name: metric for name, metric in exact.items() if name in forms})
        self.degree = torch.tensor([degree(arm) for arm in self.penalties.arms], dtype=torch.float64)
        self.generator = torch.Generator().manual_seed(run.seed)
        self.w = torch.randn(run.inputs, len(self.arms), run.walkers, generator=self.generator, dtype=torch.float64)
        networks.hold(self.w)
        self.late_start = min(round(run.steps * (1 - run.late_fraction)), run.steps - 1)
        self.sums: dict[str, Tensor] = {}
        self.samples = 0

    def advance(self) -> None:
        run, w = self.run, self.w
        self.step += 1
        r2 = w.square().sum(0)
        noise = torch.randn(run.inputs, 1, run.walkers, generator=self.generator, dtype=torch.float64)
        radial = (noise * w).sum(0) / r2
        # The tangent part has the squared norm ‖noise‖² − radial²·r².
        length = (noise.square().sum(0) - radial.square() * r2).sqrt()
        sampled = self.step > self.late_start and (self.step % WALK_SAMPLING == 0 or self.step == run.steps)
        before = w.clone() if sampled else w
        gradient = self.penalties.gradient(w)
        gradient += (noise - radial * w) / (length * r2.sqrt())
        w = self.w = torch.sub(w, gradient, alpha=run.lr)
        self.penalties.prox(w, run.lr)
        self.examples += w[0].numel()
        if sampled:
            self.measure(before)
        if self.step == run.steps:
            self.finish()

    def measure(self, before: Tensor) -> None:
        """Sums over walkers and steps. R is that of the arm at strength 1."""
        r2 = before.square().sum(0)
        u, v = before / r2.sqrt(), self.w / self.w.norm(dim=0)
        angle = 2 * torch.atan2((u - v).norm(dim=0), (u + v).norm(dim=0))
        penalties = self.penalties
        is_l1 = penalties.l1[:, None] > 0
        value = torch.where(is_l1, before.abs().sum(0), (before * penalties.transformed(before)).sum(0))
        squares = u.square()
        measured = {
            "squares": squares.mean(2),  # (D, arms)
            "fourths": squares.square().mean((0, 2)),
            "balance": (r2 * value).mean(1) * (2 * self.degree * penalties.strengths) / self.run.lr,
            "angle_squared": angle.square().mean(1),
            "zero_fraction": (before == 0).double().mean((0, 2)),
        }
        for name, sample in measured.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(sample)) + sample
        self.samples += 1

    def finish(self) -> None:
        """`top_share` is E[Σ_top d·u²]/E[u'Su]; thirds are D·E[u_j²] averaged over a third of the components."""
        arms = self.penalties.arms
        mean = {name: total / self.samples for name, total in self.sums.items()}
        squares = mean["squares"]
        energy = self.d[:, None] * squares
        self.note(arms, "top_share", energy[-TOP:].sum(0) / energy.sum(0))
        for j, share in enumerate(energy / energy.sum(0)):
            self.note(arms, f"share_{j}", share)  # of the component with the eigenvalue d[j]
        for name, part in zip(("low", "middle", "high"), squares.tensor_split(3), strict=True):
            self.note(arms, f"third_{name}", len(self.d) * part.mean(0))
        self.note(arms, "kurtosis", mean["fourths"] / squares.mean(0).square())
        for name in ("balance", "angle_squared", "zero_fraction"):
            self.note(arms, name, mean[name])
        slowest = 2 * self.run.lr * self.penalties.l2 * self.d[0]
        self.note(arms, "slowest_times", self.late_start * slowest)

    def state(self) -> dict[str, Any]:
        return {"w": self.w, "sums": self.sums, "samples": self.samples, "noise": self.generator.get_state()}

    def restore(self, state: dict[str, Any]) -> None:
        self.w, self.sums, self.samples = state["w"], state["sums"], state["samples"]
        self.generator.set_state(state["noise"])


KINDS: dict[str, type[Training]] = {
    "linear": LinearTraining,
    "network": NetworkTraining,
    "bridge": BridgeTraining,
    "walk": WalkTraining,
}


@torch.inference_mode()
def train(
    run: Run,
    data: Data,
    saved: bytes | None = None,
    after_step: Callable[[Training], None] = lambda training: None,
) -> Training:
    """Train a run to its end, or from where `saved` left it; `after_step` may look at it, save it, or raise."""
    task = None
    if run.kind != "walk":
        task = simulate(run) if run.data == "simulated" else split(run, data.tensors)
    training = KINDS[run.kind](run, task)
    if saved is not None:
        training.load(saved)
    begun = time.perf_counter() - training.seconds
    while training.step < training.steps and not training.diverged:
        training.advance()
        training.seconds = time.perf_counter() - begun
        after_step(training)
    return training
