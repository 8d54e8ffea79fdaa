"""Full-batch gradient descent in float64, and the probes of the curvature on its way.

The rows are tidy: step, layer (always '', the whole network), quantity, value. Steps count from 1; a probe belongs to
the step from w_k to w_(k+1) and looks at the midpoint c of the two, where the oscillation of period 2 cancels.

    every probe   train_loss; sharpness S and its unit eigenvector u; sharpness_total S_F = S + 2λ|u_w|²
                  degree A = ⟨w, ∇S⟩/S; alignment, the cosine of w and ∇S; alpha0 = −⟨∇S, ∇L⟩
                  alpha_eff = −⟨P∇S, ∇L + 2λw⟩ and beta = |P∇S|², with P the projection across u
                  displacement x = ⟨u, w_(k+1) − c⟩; weight_norm_squared |w|²; u_weight_share |u_w|²
      with a kernel           ntk_jitter, of the kernel over the step; ntk_drift and ntk_distance, since the last probe
      with a normalization    spherical_sharpness, at rows of norm 1; angle_squared of the step, mean over rows
      in the last third       test_error
      over RANGE steps from it on     displacement_range, the largest less the smallest x along this u
    every pairs_every-th step of the last third
                  edge_…, the balance of several directions (curvature.py)
    any step      edge_step, the first probe with R = S_F·η/2 > 1; there the weights get one kick along u
                  diverged, in place of all that would have followed
"""

import io
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from effective_lr.errors import UserError
from effective_lr.studies.stability.curvature import Point, edge_balance, gradient, kernel, sharpness_gradient, top_pair
from effective_lr.studies.stability.networks import CLASSES, Network, losses
from effective_lr.studies.stability.settings import Run

Row = tuple[int, str, str, float]  # step, layer, quantity, value
DIVERGENCE_CHECK = 25  # steps between looks at the loss, each of which waits for a GPU
LATE = 2 / 3  # of the steps, after which the test error is measured, and several eigenpairs
RANGE = 20  # steps over which the range of x is taken; at most those between probes


@dataclass(frozen=True)
class Data:
    """What the runs of a shard share: images (n, channels, size, size) in float64, targets (n, 10), labels (n,)."""

    train_images: Tensor
    targets: Tensor
    test_images: Tensor
    test_labels: Tensor


def load(tensors: dict[str, Tensor], run: Run, device: torch.device) -> Data:
    """The first images of the prepared data, on the device. One thread, which is faster than two in one process."""
    torch.set_num_threads(1)
    for split, size in [("train", run.train_size), ("test", run.test_size)]:
        if (found := len(tensors[f"{split}_images"])) < size:
            raise UserError(
                f"{split}_size = {size}: the prepared data hold {found} images; prepare them anew, or lower it"
            )
    labels = tensors["train_labels"][: run.train_size]
    return Data(
        train_images=tensors["train_images"][: run.train_size].to(device, torch.float64),
        targets=torch.nn.functional.one_hot(labels.long(), CLASSES).to(device, torch.float64),
        test_images=tensors["test_images"][: run.test_size].to(device, torch.float64),
        test_labels=tensors["test_labels"][: run.test_size].long().to(device),
    )


class Training:
    """A run under way."""

    def __init__(self, run: Run, data: Data) -> None:
        self.run, self.data, self.steps = run, data, run.steps
        self.network = Network(run, data.train_images.device)
        self.keep = 1 - 2 * run.lr * run.l2 * self.network.penalized  # what a step of decay leaves of a parameter

        self.step = 0  # steps done
        self.seconds = 0.0  # wall time so far
        self.diverged = False
        self.has_edge = False
        self.rows: list[Row] = []
        self.w = self.network.start()
        generator = torch.Generator().manual_seed(run.seed + 1_000_000_007)  # apart from the stream of the weights
        self.top = torch.randn(len(self.w), generator=generator, dtype=torch.float64).to(self.w.device)
        self.spherical_top = self.top  # where the next search for an eigenvector starts
        self.last_kernel: Tensor | None = None
        self.swings: list[float] | None = None  # x at the steps from the last probe on
        self.pairs = self.top  # where the next search for several eigenvectors starts

    _STATE = (
        *("step", "seconds", "diverged", "has_edge", "rows", "w"),
        *("top", "spherical_top", "last_kernel", "swings", "pairs"),
    )

    @property
    def examples(self) -> int:
        """What progress counts: steps."""
        return self.step

    @property
    def weights(self) -> dict[str, Tensor]:
        """All that is trained, one vector."""
        return {"w": self.w}

    def save(self) -> bytes:
        """All that a later process needs to go on as if nothing had happened."""
        file = io.BytesIO()
        torch.save({name: getattr(self, name) for name in self._STATE}, file)
        return file.getvalue()

    def load(self, saved: bytes) -> None:
        """Go on from what `save` gave, on any device."""
        state = torch.load(io.BytesIO(saved), map_location=self.w.device, weights_only=True)
        for name in self._STATE:
            setattr(self, name, state[name])

    def loss(self, w: Tensor) -> Tensor:
        """The data loss L of all training images."""
        return losses(self.network.outputs(w, self.data.train_images), self.data.targets, self.run.loss)

    def require_stable_start(self) -> None:
        """Raises UserError where the first step would already be one beyond the edge; keeps the eigenvector found."""
        sharpness, self.top = top_pair(Point(self.loss, self.w).hessian_times, self.top)
        if sharpness * self.run.lr > 2:
            raise UserError(
                f"lr = {self.run.lr:g}: the sharpness at the start is {sharpness:.4g} (seed {self.run.seed}), above "
                f"the edge 2/lr = {2 / self.run.lr:.4g}, so no approach to the edge can be measured; use an lr below "
                f"{2 / sharpness:.3g}"
            )

    def advance(self) -> None:
        """One step of gradient descent, and what is to be measured at it."""
        self.step += 1
        before = self.w
        loss, slope = gradient(self.loss, before)
        self.w = before * self.keep - self.run.lr * slope
        is_probe = self.step % self.run.probe_every == 0
        if self.step % DIVERGENCE_CHECK == 0 or is_probe or self.step == self.steps:
            self.diverged = not bool(torch.isfinite(loss) & torch.isfinite(self.w).all())
        if self.diverged:
            self.rows.append((self.step, "", "diverged", 1.0))
            return
        after = self.w
        if is_probe:
            self.probe(before, after)
            self.swings = []
        self._swing(before, after)
        every = self.run.pairs_every
        if every and self.step % every == 0 and self.step > LATE * self.steps:
            measured, self.pairs = edge_balance(
                self.loss, before, after, self.network.penalized, self.run.lr, self.run.l2, self.pairs
            )
            self.rows += [(self.step, "", quantity, value) for quantity, value in measured.items()]

    def probe(self, before: Tensor, after: Tensor) -> None:
        """Everything that is measured at the midpoint of a step; one kick when the edge is first crossed."""
        run, network = self.run, self.network
        center = (before + after) / 2
        point = Point(self.loss, center)
        sharpness, u = top_pair(point.hessian_times, self.top)
        self.top = u
        w = center * network.penalized
        norm = float(w.norm())
        slope = sharpness_gradient(self.loss, center, point.gradient, u, norm)
        across = slope - (slope @ u) * u
        share = float((u * network.penalized).square().sum())
        total = sharpness + 2 * run.l2 * share
        measured = {
            "train_loss": float(point.loss),
            "sharpness": sharpness,
            "sharpness_total": total,
            "degree": float(w @ slope) / sharpness,
            "alignment": float(w @ slope) / (norm * float(slope.norm())),
            "alpha0": -float(slope @ point.gradient),
            "alpha_eff": -float(across @ (point.gradient + 2 * run.l2 * w)),
            "beta": float(across @ across),
            "displacement": float(u @ (after - center)),
            "weight_norm_squared": norm**2,
            "u_weight_share": share,
        }
        if run.ntk_images:
            measured |= self._kernels(before, center, after)
        if network.has_gain:
            scales = network.scales(center)
            measured["spherical_sharpness"], self.spherical_top = top_pair(
                lambda v: scales * point.hessian_times(scales * v), self.spherical_top
            )
            measured["angle_squared"] = self._angle_squared(before, after)
        if self.step > LATE * run.steps:
            measured["test_error"] = self._test_error(center)
        self.rows += [(self.step, "", quantity, value) for quantity, value in measured.items()]
        if total * run.lr > 2 and not self.has_edge:
            self.has_edge = True
            self.rows.append((self.step, "", "edge_step", float(self.step)))
            self.w = after + run.kick * norm * u

    def _swing(self, before: Tensor, after: Tensor) -> None:
        """The range of x along the u of the last probe, once RANGE steps have passed."""
        steps = min(RANGE, self.run.probe_every)
        if self.swings is None or len(self.swings) == steps:
            return
        self.swings.append(float(self.top @ (after - before)) / 2)
        if len(self.swings) == steps:
            width = max(self.swings) - min(self.swings)
            self.rows.append((self.step - steps + 1, "", "displacement_range", width))

    def _kernels(self, before: Tensor, center: Tensor, after: Tensor) -> dict[str, float]:
        """How far the kernel moves, relative to its size: over this step, and since the last probe."""
        images = self.data.test_images[: self.run.ntk_images]
        here, ahead, middle = (kernel(self.network, w, images) for w in (before, after, center))
        measured = {"ntk_jitter": float((ahead - here).norm() / here.norm())}
        if (last := self.last_kernel) is not None:
            measured["ntk_drift"] = float((middle - last).norm() / last.norm())
            measured["ntk_distance"] = 1 - float((middle * last).sum() / (middle.norm() * last.norm()))
        self.last_kernel = middle
        return measured

    def _angle_squared(self, before: Tensor, after: Tensor) -> float:
        """The mean over rows of the squared angle of this step: 2·atan2(‖u − v‖, ‖u + v‖) is exact for small ones."""
        u, v = before / self.network.scales(before), after / self.network.scales(after)
        angles = 2 * torch.atan2(self.network.group_norms(u - v), self.network.group_norms(u + v))
        return float(angles.square().mean())

    def _test_error(self, w: Tensor) -> float:
        """The fraction of test images that are misclassified, with the batch statistics of the training images."""
        data, n = self.data, len(self.data.train_images)
        with torch.no_grad():
            if self.run.normalization == "batch":
                outputs = self.network.outputs(w, torch.cat([data.train_images, data.test_images]), batch=n)[n:]
            else:
                outputs = self.network.outputs(w, data.test_images)
        return float((outputs.argmax(1) != data.test_labels).double().mean())


def train(
    run: Run, data: Data, saved: bytes | None = None, after_step: Callable[[Training], None] = lambda training: None
) -> Training:
    """Train one network to its end, or from where `saved` left it; `after_step` may look at it, save it, or raise.

    Raises UserError where the start lies above the edge.
    """
    training = Training(run, data)
    start = time.perf_counter()
    if saved is None:
        training.require_stable_start()
    else:
        training.load(saved)
        start -= training.seconds
    while training.step < training.steps and not training.diverged:
        training.advance()
        training.seconds = time.perf_counter() - start
        after_step(training)
    return training
