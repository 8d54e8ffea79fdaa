"""The training loop: one GPT from its first step to its last, and what is measured on the way.

The rows are tidy: step, layer ('' for the whole network), quantity, value. Steps count from 1.

    probes          train_loss; per matrix norm_ratio (‖W‖_F/R before the step), angle (of the step, radians), cosine
                    (of the step and W), spectral_norm; per block residual_rms, residual_max (largest RMS of a token
                    after the block), attention_logit and, without RMSNorm, residual_bound and bound_used (growth of
                    the largest ‖x‖ over D7's bound)
    evaluations     validation_loss
    last step       late_train_loss, late_validation_loss; per matrix late_angle (RMS), late_norm_ratio (RMS),
                    late_cosine and, under adamw, late_weighted_square, late_radial, late_noise and late_memory (means
                    over all late steps of ⟨w,√ŝ w⟩, ⟨w,g⟩, ⟨g,Pg⟩ and ⟨d,g⟩); per block late_residual_rms and
                    late_attention_logit (means over the late evaluations)
    any             diverged, in place of all that would have followed

R is the norm that theory gives a matrix, √d·ρ, also where a run starts elsewhere. Blocks are named input, block1, …;
matrices block1.query, …, embedding, head.
"""

import io
import math
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from effective_lr.studies.manifold.data import Data
from effective_lr.studies.manifold.data import load as load_data
from effective_lr.studies.manifold.networks import GPT, Activations, growth_bound, loss, starting_rms
from effective_lr.studies.manifold.optimizers import Optimizer
from effective_lr.studies.manifold.settings import Run

Row = tuple[int, str, str, float]  # step, layer, quantity, value
LATE_SAMPLING = 10  # steps between samples of the late means: norms and angles change slowly


def load(tensors: dict[str, Tensor], run: Run, device: torch.device) -> Data:
    """What the runs of a shard share, on the device. One thread, which is faster than two in one process, and no
    TF32: results should depend on the device alone. Raises UserError where the corpus does not fit the run."""
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return load_data(tensors, run, device)


def probe_steps(run: Run) -> set[int]:
    """About `run.probes` log-spaced steps from the first to the last."""
    return {int(step) for step in np.geomspace(1, run.steps, run.probes).round()}


def evaluation_steps(run: Run) -> list[int]:
    """Log-spaced steps before the late part, then as many equally spaced in it; the last is the last of the run."""
    early = {int(step) for step in np.geomspace(1, max(run.late_start, 1), run.evaluations).round()}
    late = {round(run.steps - (run.steps - run.late_start) * k / run.evaluations) for k in range(run.evaluations)}
    return sorted(early | late)


def angles(before: Tensor, after: Tensor) -> Tensor:
    """The angle (n,) in radians between the matrices of two stacks, in float64.

    2·atan2(‖u − v‖, ‖u + v‖) of the unit vectors: unlike arccos it is exact for the small angles of one step.
    """
    u, v = (torch.nn.functional.normalize(stack.double().flatten(1)) for stack in (before, after))
    return 2 * torch.atan2((u - v).norm(dim=1), (u + v).norm(dim=1))


class Training:
    """A run under way, on the device that holds `data`."""

    def __init__(self, run: Run, data: Data, dtype: torch.dtype = torch.float32) -> None:
        self.run, self.data, self.device = run, data, data.text.device
        self.steps = run.steps
        self.network = GPT(run, dtype).to(self.device)
        self.optimizer = Optimizer(run, self.network)
        self.stacks = [*self.network.blocks(), *self.network.ends()]
        self.probes = probe_steps(run)
        self.evaluations = set(evaluation_steps(run))
        self.generator = torch.Generator().manual_seed(run.seed + 1_000_000_007)  # apart from that of the weights

        self.step = 0  # steps done
        self.diverged = False
        self.seconds = 0.0  # wall time so far
        self.rows: list[Row] = []
        self.late_loss = torch.zeros((), dtype=torch.float64, device=self.device)
        self.late_sums: dict[tuple[str, str], Tensor] = {}  # (stack, quantity): sum over the samples, per matrix
        self.late_samples = 0
        self.late_balance: dict[tuple[str, str], Tensor] = {}  # as late_sums, over all late steps
        self.late_evaluations: list[tuple[str, str, float]] = []  # (layer, quantity, value)

    @property
    def examples(self) -> int:
        """Symbols predicted so far."""
        return self.step * self.run.batch_size * self.run.context

    @property
    def weights(self) -> dict[str, Tensor]:
        """All that is trained, by name."""
        return dict(self.network.named_parameters())

    _MEASURED = (
        "step",
        "diverged",
        "seconds",
        "rows",
        "late_loss",
        "late_sums",
        "late_samples",
        "late_balance",
        "late_evaluations",
    )

    def save(self) -> bytes:
        """All that a later process needs to go on as if nothing had happened."""
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state(),
            "generator": self.generator.get_state(),
            **{name: getattr(self, name) for name in self._MEASURED},
        }
        file = io.BytesIO()
        torch.save(state, file)
        return file.getvalue()

    def load(self, saved: bytes) -> None:
        """Go on from what `save` gave, on any device."""
        state = torch.load(io.BytesIO(saved), map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.optimizer.load(state["optimizer"])
        self.generator.set_state(state["generator"].cpu())
        for name in self._MEASURED:
            setattr(self, name, state[name])

    def next_batch(self) -> Tensor:
        """Windows int64 (batch, context + 1), drawn uniformly from the training part; the seed alone decides which."""
        symbols = self.run.context + 1
        count = self.data.train.windows(symbols)
        places = torch.randint(count, (self.run.batch_size,), generator=self.generator)
        return self.data.windows(self.data.train.window_starts(places, symbols), symbols)

    def advance(self) -> None:
        """One step, and what is to be measured at it."""
        self.step += 1
        is_late, is_last = self.step > self.run.late_start, self.step == self.run.steps
        is_probe = self.step in self.probes
        is_sample = is_late and (self.step % LATE_SAMPLING == 0 or is_last)
        if is_probe:
            self.rows += [(self.step, *row) for row in self._measure_activations()]

        self.optimizer.zero_grad()
        step_loss = torch.zeros((), dtype=torch.float64, device=self.device)
        for part in self.next_batch().chunk(self.run.batch_parts):
            part_loss = self._loss(part) / self.run.batch_parts
            part_loss.backward()
            step_loss += part_loss.detach()
        if is_probe or is_sample:
            before = [weight.detach().clone() for _, weight, _ in self.stacks]
        if is_late and self.run.optimizer == "adamw":
            self._measure_balance()
        self.optimizer.step()

        value = float(step_loss)
        self.diverged = not value <= self.run.stop_above
        if is_late:
            self.late_loss += step_loss
        if is_probe:
            self.rows.append((self.step, "", "train_loss", value))
        if is_probe or is_sample:
            self._measure_matrices(before, is_probe, is_sample)
        if self.step in self.evaluations and not self.diverged:
            self._evaluate(is_late)
        if self.diverged:
            self.rows.append((self.step, "", "diverged", 1.0))
        elif is_last:
            self._finish()

    def _loss(self, windows: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.run.precision == "bfloat16"):
            return loss(self.network, windows)

    @torch.no_grad()
    def _measure_matrices(self, before: list[Tensor], is_probe: bool, is_sample: bool) -> None:
        """Norms, angles and cosines of the step just made from the weights `before`."""
        for (stack, weight, names), old in zip(self.stacks, before, strict=True):
            radius = starting_rms_of(stack, weight) * math.sqrt(weight[0].numel())
            wide, change = old.double().flatten(1), (weight.detach() - old).double().flatten(1)
            norm = wide.norm(dim=1)
            measured = {
                "norm_ratio": norm / radius,
                "angle": angles(old, weight.detach()),
                "cosine": (wide * change).sum(1) / (norm * change.norm(dim=1)).clamp(min=1e-300),
            }
            if is_probe:
                shown = {**measured, "spectral_norm": spectral_norms(old)}
                self.rows += [
                    (self.step, name, what, float(value[n]))
                    for what, value in shown.items()
                    for n, name in enumerate(names)
                ]
            if is_sample:
                for what, value in measured.items():
                    value = value if what == "cosine" else value.square()
                    self.late_sums[stack, what] = self.late_sums.get((stack, what), torch.zeros_like(value)) + value
        self.late_samples += is_sample

    @torch.no_grad()
    def _measure_balance(self) -> None:
        for stack, weight, _ in self.network.blocks():
            for what, value in self.optimizer.balance(weight).items():
                self.late_balance[stack, what] = self.late_balance.get((stack, what), torch.zeros_like(value)) + value

    @torch.no_grad()
    def _measure_activations(self) -> list[tuple[str, str, float]]:
        """What the present weights do to the first validation batch: (layer, quantity, value)."""
        record = Activations([], [])
        self.network(self.data.validation[0][:, :-1], record)
        names = ["input", *(f"block{n}" for n in range(1, self.run.layers + 1))]
        root = math.sqrt(self.run.width)
        largest = [float(x.double().norm(dim=1).max()) for x in record.residuals]
        rows = [
            row
            for name, x, most in zip(names, record.residuals, largest, strict=True)
            for row in [
                (name, "residual_rms", float(x.double().square().mean().sqrt())),
                (name, "residual_max", most / root),
            ]
        ]
        rows += [
            (name, "attention_logit", float(logit))
            for name, logit in zip(names[1:], record.attention_logits, strict=True)
        ]
        if self.run.rms_norm == "none":
            most = largest[0]
            for n, bound in enumerate(self._growth_bounds(), start=1):
                most *= bound
                rows += [
                    (names[n], "residual_bound", most / root),
                    (names[n], "bound_used", largest[n] / (largest[n - 1] * bound)),
                ]
        return rows

    def _growth_bounds(self) -> list[float]:
        """D7's bound on the growth of the largest ‖x‖ in each block, at the present weights."""
        attention, up, down = (spectral_norms(weight.detach()) for _, weight, _ in self.network.blocks())
        values = self.network.attention.detach()[2::4].double().flatten(1).norm(dim=1)
        bounds = growth_bound(self.network.branch_factor, attention[3::4], values, up, down)
        return [float(bound) for bound in bounds]

    @torch.no_grad()
    def _evaluate(self, is_late: bool) -> None:
        losses = [float(self._loss(windows)) for windows in self.data.validation]
        value = math.fsum(losses) / len(losses)
        self.diverged = not value <= self.run.stop_above
        if self.diverged:
            return
        self.rows.append((self.step, "", "validation_loss", value))
        if is_late:
            self.late_evaluations.append(("", "validation_loss", value))
            shown = ("residual_rms", "attention_logit")
            self.late_evaluations += [row for row in self._measure_activations() if row[1] in shown]

    def _finish(self) -> None:
        steps = self.run.steps
        self.rows.append((steps, "", "late_train_loss", float(self.late_loss) / (steps - self.run.late_start)))
        for layer, what in dict.fromkeys((layer, what) for layer, what, _ in self.late_evaluations):
            values = [value for *key, value in self.late_evaluations if key == [layer, what]]
            self.rows.append((steps, layer, f"late_{what}", math.fsum(values) / len(values)))
        means_of = {key: total / self.late_samples for key, total in self.late_sums.items()}
        means_of |= {key: total / (steps - self.run.late_start) for key, total in self.late_balance.items()}
        for (stack, what), means in means_of.items():
            names = next(names for name, _, names in self.stacks if name == stack)
            means = means.sqrt() if what in ("norm_ratio", "angle") else means
            self.rows += [(steps, name, f"late_{what}", float(means[n])) for n, name in enumerate(names)]


def starting_rms_of(stack: str, weight: Tensor) -> float:
    """ρ of the matrices of a stack at norm R; the embedding has 1."""
    return 1.0 if stack == "embedding" else starting_rms(weight.shape)


def spectral_norms(stack: Tensor) -> Tensor:
    """‖W‖₂ (n,) of each matrix in float64, from the smaller Gram matrix; NaN where one is not finite."""
    wide = stack.double()
    wide = wide.mT if wide.shape[-2] > wide.shape[-1] else wide
    gram = wide @ wide.mT
    if not gram.isfinite().all():  # of a run that is lost, which LAPACK refuses
        return torch.full_like(gram[:, 0, 0], torch.nan)
    largest: Tensor = torch.linalg.eigvalsh(gram)[:, -1]
    return largest.clamp(min=0).sqrt()


def train(
    run: Run,
    data: Data,
    saved: bytes | None = None,
    after_step: Callable[[Training], None] = lambda training: None,
    dtype: torch.dtype = torch.float32,
) -> Training:
    """Train one network to its end, or from where `saved` left it; `after_step` may look at it, save it, or raise."""
    training = Training(run, data, dtype)
    if saved is not None:
        training.load(saved)
    start = time.perf_counter() - training.seconds
    while training.step < run.steps and not training.diverged:
        training.advance()
        training.seconds = time.perf_counter() - start
        after_step(training)
    return training
