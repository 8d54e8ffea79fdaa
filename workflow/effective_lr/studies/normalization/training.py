"""The training loop: one network from its first step to its last, and what is measured on the way.

The rows are tidy: step, layer ('' for the whole network), quantity, value. Two clocks: at log-spaced probes
the norms, gradients and angles of single steps, in the late part of a run their time means and the evaluations.

    run       step t    train_loss; per layer norm_squared, gradient_squared, g_squared, angle_squared, gamma_norm
              late t    test_error, test_loss, validation_error, validation_loss
              last t    late_train_loss; per layer late_norm_squared, late_gradient_squared, late_g_squared,
                        late_angle_squared, group_size (weights in a scale group)
              any t     diverged, in place of all that would have followed

Steps count from 1. Norms and gradients are those that a step starts from, the gradient is that of the data term alone,
the angle (radians) is between the weights before and after the step. `g_squared` is ‖∇‖²‖w‖², the G² of the theory.
All are taken for each scale group; a layer's value is the median over its groups (for late values: of time means).
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
from effective_lr.studies.normalization.networks import NormalizedLayer, build_network, normalized_layers
from effective_lr.studies.normalization.optimizers import Optimizer, project
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
    shape = (-1, *[1] * (before.dim() - 1))
    u, v = (w.double() / layer.group_norms(w.double()).view(shape) for w in (before, after))
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
        self.layers = list(normalized_layers(self.network))
        self.probes, self.evaluations = probe_steps(run), evaluation_steps(run)
        self.late_start = min(round(run.steps * (1 - run.late_fraction)), run.steps - 1)

        self.step = 0  # steps done
        self.diverged = False
        self.seconds = 0.0  # wall time so far
        self.rows: list[Row] = []
        self.late_loss = torch.zeros((), device=self.device)
        self.late_sums: dict[tuple[str, str], Tensor] = {}  # (layer, quantity): sum over the samples, for each group
        self.late_samples = 0

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
            **{name: getattr(self, name) for name in self._MEASURED},
        }
        file = io.BytesIO()
        torch.save(state, file)
        return file.getvalue()

    _MEASURED = ("step", "diverged", "seconds", "rows", "late_loss", "late_sums", "late_samples")

    def load(self, saved: bytes) -> None:
        """Go on from what `save` gave, on any device."""
        state = torch.load(io.BytesIO(saved), map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.optimizer.load(state["optimizer"])
        for name in self._MEASURED:
            setattr(self, name, state[name])

    def advance(self, batch: Tensor) -> None:
        """One step, on the training images with these indices, and what is to be measured at it."""
        self.step += 1
        if self.step == self.run.drop_step + 1 and self.run.rescaled_at_drop:
            self._rescale()
        self.optimizer.weights.lr = self.run.lr / (self.run.lr_drop if self.step > self.run.drop_step else 1.0)
        images, labels = self.splits.train_images[batch], self.splits.train_labels[batch]
        loss = F.cross_entropy(self.network(images), labels)
        self.optimizer.zero_grad()
        loss.backward()

        is_late, is_last = self.step > self.late_start, self.step == self.run.steps
        is_probe = self.step in self.probes
        is_sample = is_late and (self.step % LATE_SAMPLING == 0 or is_last)
        if is_probe or is_sample:
            before = [layer.weight.detach().clone() for _, layer in self.layers]
        self.optimizer.step()
        if self.run.projected:
            project(self.network)
        if is_late:
            self.late_loss += loss.detach()
        if is_probe:
            self.rows.append((self.step, "", "train_loss", float(loss.detach())))
        if is_probe or is_sample:
            self._measure(before, is_probe, is_sample)

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

    def _measure(self, before: list[Tensor], is_probe: bool, is_sample: bool) -> None:
        """Norms, gradients and angles of the step just made from the weights `before`."""
        for (name, layer), weight in zip(self.layers, before, strict=True):
            assert layer.weight.grad is not None
            norm = layer.group_norms(weight).double() ** 2
            slope = layer.group_norms(layer.weight.grad).double() ** 2
            measured = {
                "norm_squared": norm,
                "gradient_squared": slope,
                "g_squared": norm * slope,
                "angle_squared": angles(weight, layer.weight.detach(), layer) ** 2,
            }
            if is_probe:
                self.rows += [(self.step, name, what, median(value)) for what, value in measured.items()]
                if layer.gamma is not None:
                    self.rows.append((self.step, name, "gamma_norm", float(layer.gamma.detach().norm())))
            if is_sample:
                for what, value in measured.items():
                    self.late_sums[name, what] = self.late_sums.get((name, what), torch.zeros_like(value)) + value
        self.late_samples += is_sample

    def _evaluate(self) -> None:
        run, splits = self.run, self.splits
        if run.normalization == "batch" and run.batch_statistics == "recomputed":
            recompute_batch_statistics(self.network, splits.train_images[: run.statistics_size])
        rows: list[Row] = []
        for split, images, labels in [
            ("validation", splits.validation_images, splits.validation_labels),
            ("test", splits.test_images, splits.test_labels),
        ]:
            loss, error = evaluate(self.network, images, labels)
            self.diverged |= not math.isfinite(loss)
            rows += [(self.step, "", f"{split}_loss", loss), (self.step, "", f"{split}_error", error)]
        if not self.diverged:
            self.rows += rows

    def _finish(self) -> None:
        steps = self.run.steps
        self.rows.append((steps, "", "late_train_loss", float(self.late_loss) / (steps - self.late_start)))
        for (name, what), total in self.late_sums.items():
            self.rows.append((steps, name, f"late_{what}", median(total / self.late_samples)))
        self.rows += [(steps, name, "group_size", float(layer.group_size)) for name, layer in self.layers]


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
