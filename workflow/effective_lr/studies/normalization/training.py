"""The training loop: one network from its first step to its last, and what is measured on the way.

The rows are tidy: step, layer ('' for the whole network), quantity, value. Two clocks: at log-spaced probes
the norms, gradients and angles of single steps, in the late part of a run their time means and the evaluations.

    run       step t    train_loss; per layer norm_squared, g_squared, angle_squared, gamma_norm, beta_norm
              late t    test_error, test_loss, validation_error, validation_loss
              last t    late_train_loss, late_train_error; per layer
                        late_norm_squared, late_gradient_squared, late_g_squared, late_angle_squared
                        late_update_squared     of what η multiplies, where the norm is free
                        late_momentum_cosine    between the gradient and the momentum before it
                        late_root_sum           Σ√ŝ over a scale group; late_norm_to_root, ⟨‖w‖²⟩/⟨Σ√ŝ⟩
                        balance_norm, balance_rooted_norm, balance_gradient, balance_memory: ⟨w, w⟩, ⟨w, √ŝ w⟩,
                        ⟨g, Pg⟩ and ⟨Pm, g⟩, sums over the layer and means over all late steps. P is 1, or 1/(√ŝ + ε)
                        of the step; m what is remembered before it, v of momentum and m̂ of Adam
                        late_without_gradient   the share of scale groups that never had a gradient
                        late_live_inputs        the weights of a scale group that ever had one
                        late_gamma, late_beta   absolute values, medians over units
                        lost_norm_squared, lost_angle_squared, lost_gamma   of groups without gradient alone
                        layer_l2, group_size    λ of the layer, and the number of weights in a scale group
                        growth...               under SGD without a penalty (`_growth`)
              any t     diverged, in place of all that would have followed

Steps count from 1. Norms and gradients are those that a step starts from, the gradient is that of the data term alone,
the angle (radians) is between the weights before and after the step. `g_squared` is ‖∇‖²‖w‖², the G² of the theory.
All are taken for each scale group; a layer's value is the median over its groups (for late values: of time means).
The k-th of the late evaluations sees the k-th part of the test and the validation images, unless the run has them all
seen each time: images are then counted once, and the sampling error over steps is averaged as before.
"""

import io
import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effective_lr.studies.normalization.data import Splits, splits_for
from effective_lr.studies.normalization.networks import (
    NormalizedLayer,
    build_network,
    layer_penalties,
    normalized_layers,
)
from effective_lr.studies.normalization.optimizers import MEAN_DECAY_ADAM, Optimizer, project
from effective_lr.studies.normalization.replay import Replay, norms_squared
from effective_lr.studies.normalization.settings import Run

Row = tuple[int, str, str, float]  # step, layer, quantity, value
EVALUATION_CHUNK = 512
DIVERGENCE_CHECK = 25  # steps between looks at the loss: a diverged run costs little
LATE_SAMPLING = 10  # steps between samples of the late means: norms and angles change slowly


def plain_float32() -> None:
    """One thread, which is faster than two in one process, and no TF32: results should depend on the device alone."""
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def probe_steps(run: Run) -> set[int]:
    """About `run.probes` log-spaced steps from the first to the last; where η drops, as many from there on as well."""
    starts = {0, run.drop_step} if run.lr_drop != 1 else {0}
    return {start + int(step.round()) for start in starts for step in np.geomspace(1, run.steps - start, run.probes)}


def evaluation_steps(run: Run) -> set[int]:
    """`run.evaluations` evenly spaced steps, the last of them the last of the run, all in its late part."""
    late = run.late_fraction * run.steps
    return {round(run.steps - late * k / run.evaluations) for k in range(run.evaluations)}


def batches(run: Run, device: torch.device, done: int = 0) -> Iterator[Tensor]:
    """Indices (batch_size,) of the images of each step after the first `done`.

    An epoch is a random order, its incomplete last batch is left out. The order depends on the seed alone and is drawn
    on the CPU, so that every device, and a run that was interrupted, sees the same batches.
    """
    generator = torch.Generator().manual_seed(run.seed + 1_000_000_007)  # apart from the stream of the weights
    per_epoch = run.train_size // run.batch_size
    for step in range(run.steps):
        if step % per_epoch == 0:
            order = torch.randperm(run.train_size, generator=generator).to(device)
        if step < done:
            continue
        start = step % per_epoch * run.batch_size
        yield order[start : start + run.batch_size]


def angles(before: Tensor, after: Tensor, layer: NormalizedLayer) -> Tensor:
    """The angle (groups,) in radians between two values of a layer's weights, for each scale group.

    2·atan2(‖u − v‖, ‖u + v‖) of the unit vectors: unlike arccos it is exact for the small angles of one step.
    """
    u, v = (w.double() / layer.group_norms(w.double()).view(layer.group_shape) for w in (before, after))
    return 2 * torch.atan2(layer.group_norms(u - v), layer.group_norms(u + v))


def median(groups: Tensor) -> float:
    """The median over scale groups; torch.median would take the lower of the two middle values of an even number."""
    return float(groups.quantile(0.5))


@torch.no_grad()
def recompute_batch_statistics(network: nn.Module, images: Tensor) -> None:
    """Set the running statistics to their mean over `images`, in chunks of one size, at the present weights."""
    network.train()
    layers = [layer for _, layer in normalized_layers(network)]
    for count, chunk in enumerate(images.tensor_split(math.ceil(len(images) / EVALUATION_CHUNK)), start=1):
        for layer in layers:
            layer.running_momentum = 1 / count  # a cumulative mean
        network(chunk)
    for layer in layers:
        layer.running_momentum = 0.1


@torch.no_grad()
def evaluate(network: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Mean cross-entropy and the fraction of errors."""
    network.eval()
    loss = torch.zeros((), dtype=torch.float64, device=images.device)
    errors = torch.zeros((), dtype=torch.int64, device=images.device)
    for x, y in zip(images.split(EVALUATION_CHUNK), labels.split(EVALUATION_CHUNK), strict=True):
        logits = network(x)
        loss += F.cross_entropy(logits, y, reduction="sum")
        errors += (logits.argmax(1) != y).sum()
    network.train()
    return float(loss) / len(labels), float(errors) / len(labels)


class Training:
    """A run under way, on the device that holds `splits`, which are cut to the run's sizes."""

    def __init__(self, run: Run, splits: Splits, dtype: torch.dtype = torch.float32) -> None:
        self.run, self.splits, self.device = run, splits, splits.train_images.device
        self.network = build_network(run, dtype).to(self.device)
        self.optimizer = Optimizer(run, self.network)
        self.replay = None if run.replay == "none" else Replay(run, self.network, dtype, self.device)
        self.layers = list(normalized_layers(self.network))
        self.probes, self.evaluations = probe_steps(run), sorted(evaluation_steps(run))
        self.late_start = min(round(run.steps * (1 - run.late_fraction)), run.steps - 1)

        self.step = 0  # steps done
        self.diverged = False
        self.seconds = 0.0  # wall time so far
        self.rows: list[Row] = []
        self.late_loss = torch.zeros((), device=self.device)
        self.late_errors = torch.zeros((), dtype=torch.int64, device=self.device)
        self.late_sums: dict[tuple[str, str], Tensor] = {}  # (layer, quantity): sum over the samples, for each group
        self.late_samples = 0
        self.live = [torch.zeros_like(layer.weight, dtype=torch.bool) for _, layer in self.layers]

        # Where a penalty acts on a free norm, there is a balance to measure.
        self.is_balanced = run.l2 > 0 and not run.projected and run.replay == "none"
        self.balance: dict[tuple[str, str], Tensor] = {}  # (layer, quantity): sum over the late steps

        # Without a penalty SGD only lengthens the weights, by what is summed at every step, for each group.
        self.is_growing = run.optimizer == "sgd" and run.l2 == 0 and not run.projected
        start = norms_squared([layer for _, layer in self.layers])
        self.norms = {"start": start, "late": start}  # ‖w‖² before the first and the first late step
        self.slopes = [torch.zeros_like(norm) for norm in start]  # Σ‖∇‖²
        self.late_g = [torch.zeros_like(norm) for norm in start]  # Σ‖∇‖²‖w‖² over the late steps

    @property
    def steps(self) -> int:
        """Steps in all."""
        return self.run.steps

    @property
    def examples(self) -> int:
        """Training images seen so far, as often as they were."""
        return self.step * self.run.batch_size

    @property
    def weights(self) -> dict[str, Tensor]:
        """All that is trained, by name."""
        return dict(self.network.named_parameters())

    def save(self) -> bytes:
        """All that a later process needs to go on as if nothing had happened; the batches follow from the step."""
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state(),
            "replay": self.replay.state() if self.replay else None,
            **{name: getattr(self, name) for name in self._MEASURED},
        }
        file = io.BytesIO()
        torch.save(state, file)
        return file.getvalue()

    _MEASURED = ("step", "diverged", "seconds", "rows", "late_loss", "late_errors", "late_sums", "late_samples", "live",
                 "norms", "slopes", "late_g", "balance")  # fmt: skip

    def load(self, saved: bytes) -> None:
        """Go on from what `save` gave, on any device."""
        state = torch.load(io.BytesIO(saved), map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.optimizer.load(state["optimizer"])
        if self.replay:
            self.replay.load(state["replay"])
        for name in self._MEASURED:
            setattr(self, name, state[name])

    def advance(self, batch: Tensor) -> None:
        """One step, on the training images with these indices, and what is to be measured at it."""
        self.step += 1
        if self.step == self.run.drop_step + 1 and self.run.rescaled_at_drop:
            self._rescale()
        self.optimizer.weights.lr = self.run.lr / (self.run.lr_drop if self.step > self.run.drop_step else 1.0)
        images, labels = self.splits.train_images[batch], self.splits.train_labels[batch]
        logits = self.network(images)
        loss = F.cross_entropy(logits, labels)
        self.optimizer.zero_grad()
        loss.backward()
        if self.replay:
            self.optimizer.weights.factors = self.replay.factors(images, labels)

        is_late, is_last = self.step > self.late_start, self.step == self.run.steps
        is_probe = self.step in self.probes
        is_sample = is_late and (self.step % LATE_SAMPLING == 0 or is_last)
        is_balanced = is_late and self.is_balanced
        if is_probe or is_sample or is_balanced:
            before = [layer.weight.detach().clone() for _, layer in self.layers]
            means = [mean.clone() for mean in self.optimizer.weights.means]
        if self.is_growing:
            self._grow(is_late)
        self.optimizer.step()
        if self.run.projected or self.replay:
            project(self.network)
        if is_late:
            self.late_loss += loss.detach()
            self.late_errors += (logits.detach().argmax(1) != labels).sum()
        if is_probe:
            self.rows.append((self.step, "", "train_loss", float(loss.detach())))
        if is_probe or is_sample:
            self._measure(before, means, is_probe, is_sample)
        if is_balanced:
            self._sum_balance(before, means)

        is_evaluation = self.step in self.evaluations
        if self.step % DIVERGENCE_CHECK == 0 or is_evaluation:
            self.diverged = not torch.isfinite(loss)
        if is_evaluation and not self.diverged:
            self._evaluate()
        if self.diverged:
            self.rows.append((self.step, "", "diverged", 1.0))
        elif is_last:
            self._finish()

    @torch.no_grad()
    def _rescale(self) -> None:
        """Take the weights to the norm of the equilibrium after the drop of η: ‖w*‖⁴ is proportional to η."""
        for _, layer in self.layers:
            layer.weight.mul_(self.run.lr_drop**-0.25)

    def _grow(self, is_late: bool) -> None:
        """Sum the squared gradients of a step that is about to be made."""
        layers = [layer for _, layer in self.layers]
        norms = norms_squared(layers)
        if self.step == self.late_start + 1:
            self.norms["late"] = norms
        for k, (layer, norm) in enumerate(zip(layers, norms, strict=True)):
            assert layer.weight.grad is not None
            slope = layer.group_norms(layer.weight.grad).double() ** 2
            self.slopes[k] += slope
            if is_late:
                self.late_g[k] += slope * norm

    def _measure(self, before: list[Tensor], means: list[Tensor], is_probe: bool, is_sample: bool) -> None:
        """Norms, gradients and angles of the step just made from the weights `before` with the momentum `means`."""
        for k, ((name, layer), weight) in enumerate(zip(self.layers, before, strict=True)):
            assert layer.weight.grad is not None
            norm = layer.group_norms(weight).double() ** 2
            slope = layer.group_norms(layer.weight.grad).double() ** 2
            measured = {
                "norm_squared": norm,
                "g_squared": norm * slope,
                "angle_squared": angles(weight, layer.weight.detach(), layer) ** 2,
            }
            if is_probe:
                self.rows += [(self.step, name, what, median(value)) for what, value in measured.items()]
                self.rows.append((self.step, name, "beta_norm", float(layer.beta.detach().norm())))
                if layer.gamma is not None:
                    self.rows.append((self.step, name, "gamma_norm", float(layer.gamma.detach().norm())))
            if is_sample:
                self.live[k] |= layer.weight.grad != 0
                measured |= {"gradient_squared": slope, **self._measured_update(k, weight, means)}
                for what, value in measured.items():
                    self.late_sums[name, what] = self.late_sums.get((name, what), torch.zeros_like(value)) + value
        self.late_samples += is_sample

    def _measured_update(self, k: int, weight: Tensor, means: list[Tensor]) -> dict[str, Tensor]:
        """What the optimizer made of the gradient of the k-th layer, for each of its groups."""
        _, layer = self.layers[k]
        gradient, group, found = layer.weight.grad, self.optimizer.weights, {}
        assert gradient is not None
        if not (self.run.projected or self.replay):
            kept = 1 - 2 * group.lr * group.penalties[k] if self.run.optimizer == "adamw" else 1.0
            update = (weight * kept - layer.weight.detach()) / group.lr
            found["update_squared"] = layer.group_norms(update).double() ** 2
        if means:
            lengths = layer.group_norms(gradient) * layer.group_norms(means[k])
            cosine = layer.group_sums(gradient * means[k]) / lengths.clamp_min(torch.finfo(lengths.dtype).tiny)
            found["momentum_cosine"] = cosine.double()
        if group.squares:
            found["root_sum"] = layer.group_sums(self.optimizer.roots(group)[k]).double()
        return found

    @torch.no_grad()
    def _sum_balance(self, before: list[Tensor], means: list[Tensor]) -> None:
        """Sum what the balance of the penalty and the steps is made of, from the weights `before` a late step."""
        group = self.optimizer.weights
        remembered = 1 - MEAN_DECAY_ADAM ** max(self.step - 1, 1) if group.squares else 1.0
        roots = self.optimizer.roots(group) if group.squares else []
        for k, ((name, layer), weight) in enumerate(zip(self.layers, before, strict=True)):
            assert layer.weight.grad is not None
            gradient = scaled = layer.weight.grad.double()
            found = {"norm": weight.double() ** 2}
            if roots:
                found["rooted_norm"] = roots[k] * found["norm"]
                scaled = gradient / (roots[k] + group.eps)
            found["gradient"] = scaled * gradient
            if means:
                found["memory"] = scaled * means[k] / remembered
            for what, values in found.items():
                key = name, f"balance_{what}"
                self.balance[key] = self.balance.get(key, torch.zeros_like(values.sum())) + values.sum()

    def _evaluate(self) -> None:
        run, splits = self.run, self.splits
        if run.normalization == "batch" and run.batch_statistics == "recomputed":
            recompute_batch_statistics(self.network, splits.train_images[: run.statistics_size])
        count, part = (len(self.evaluations), self.evaluations.index(self.step)) if run.evaluated == "parts" else (1, 0)
        rows: list[Row] = []
        for split, images, labels in [
            ("validation", splits.validation_images, splits.validation_labels),
            ("test", splits.test_images, splits.test_labels),
        ]:
            loss, error = evaluate(self.network, images.tensor_split(count)[part], labels.tensor_split(count)[part])
            self.diverged |= not math.isfinite(loss)
            rows += [(self.step, "", f"{split}_loss", loss), (self.step, "", f"{split}_error", error)]
        if not self.diverged:
            self.rows += rows

    def _finish(self) -> None:
        steps = self.run.steps
        late = steps - self.late_start
        self.rows.append((steps, "", "late_train_loss", float(self.late_loss) / late))
        self.rows.append((steps, "", "late_train_error", int(self.late_errors) / (late * self.run.batch_size)))
        penalties = layer_penalties(self.run, [layer for _, layer in self.layers])
        for k, (name, layer) in enumerate(self.layers):
            sums = {what: total for (where, what), total in self.late_sums.items() if where == name}
            means = {what: total / self.late_samples for what, total in sums.items()}
            inputs = layer.group_sums(self.live[k].double())
            found = {f"late_{what}": median(mean) for what, mean in means.items()}
            if "root_sum" in means:
                found["late_norm_to_root"] = median(means["norm_squared"] / means["root_sum"])
            found["late_without_gradient"] = float((inputs == 0).double().mean())
            found["late_live_inputs"] = median(inputs)
            found["late_beta"] = median(layer.beta.detach().abs())
            if layer.gamma is not None:
                found["late_gamma"] = median(layer.gamma.detach().abs())
            if (inputs == 0).any() and layer.gamma is not None and len(inputs) == len(layer.gamma):
                found["lost_norm_squared"] = median(means["norm_squared"][inputs == 0])
                found["lost_angle_squared"] = median(means["angle_squared"][inputs == 0])
                found["lost_gamma"] = median(layer.gamma.detach().abs()[inputs == 0])
            found |= {what: float(total) / late for (where, what), total in self.balance.items() if where == name}
            found |= {"layer_l2": penalties[k], "group_size": float(layer.group_size)}
            if self.is_growing:
                found |= self._growth(k)
            self.rows += [(steps, name, what, value) for what, value in found.items()]

    def _growth(self, k: int) -> dict[str, float]:
        """What the norms of the k-th layer have grown by, over what the squares of the steps add up to.

        With ρ the norm, t₁ the steps before the late part and T all: (ρ_T² − ρ_0²)/(η²Σ‖∇‖²), which is 1 in every
        group; R₄ = (ρ_T⁴ − ρ₁⁴)/(2η²⟨G²⟩(T − t₁)) over the late part; and the slope of log η_eff on log t there, as
        measured, and as ⟨G²⟩ implies it.
        """
        layer, lr, late = self.layers[k][1], self.run.lr, self.run.steps - self.late_start
        [end] = norms_squared([layer])
        start, before = self.norms["start"][k], self.norms["late"][k]
        ratio = (end - start) / (lr**2 * self.slopes[k])
        grown = 2 * lr**2 * self.late_g[k]  # 2η²⟨G²⟩(T − t₁)
        duration = math.log(self.run.steps / max(self.run.steps - late, 1))
        return {
            "growth_ratio_min": float(ratio.min()),
            "growth_ratio_max": float(ratio.max()),
            "fourth_power_ratio": median((end**2 - before**2) / grown),
            "late_start_norm_squared": median(before),
            "end_norm_squared": median(end),
            "measured_slope": median(-(end / before).log()) / duration,
            "implied_slope": median(-0.5 * (1 + grown / before**2).log()) / duration,
        }


def load(tensors: dict[str, Tensor], run: Run, device: torch.device) -> Splits:
    """What the runs of a shard share: the data, cut to the sizes of `run`, on the device."""
    plain_float32()
    return splits_for(tensors, run).to(device)


def train(
    run: Run,
    splits: Splits,
    saved: bytes | None = None,
    after_step: Callable[[Training], None] = lambda training: None,
    dtype: torch.dtype = torch.float32,
) -> Training:
    """Train one network to its end, or from where `saved` left it; `after_step` may look at it, save it, or raise."""
    training = Training(run, splits, dtype)
    if saved is not None:
        training.load(saved)
    start = time.perf_counter() - training.seconds
    for batch in batches(run, training.device, done=training.step):
        training.advance(batch)
        training.seconds = time.perf_counter() - start
        after_step(training)
        if training.diverged:
            break
    return training
