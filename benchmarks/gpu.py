"""What a GPU makes of the trainings of `normalization`: whether it agrees with the CPU, how fast it is, by which way.

    python benchmarks/gpu.py --plan plan.json --output gpu.json

It needs PyTorch and nothing else, so that it runs on any machine with a GPU. `make plan SCALE=paper JSON=plan.json`
writes the plan from which it takes what that scale costs. The network, the step and the optimizers are written out
here as in studies/normalization, which needs more packages; a test holds both equal. Data are synthetic, of the size of
CIFAR-10. What is compared, in training images per second of the device:

    eager       one network after another, as the engine trains
    graph       the same, with the whole step in a CUDA graph
    processes   several of these at work on one device
    stacked     the runs of a shard, which see the same batches, as one program: a product of matrices for each network

Evaluations and the samples that the engine takes late in a run are left out. After `--seconds` nothing more is begun.
"""

import argparse
import json
import math
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

CPU = torch.device("cpu")
CLASSES, CHANNELS, EPS = 10, 3, 1e-5
NORMALIZATIONS = ("batch", "weight", "layer")
RATES = {  # η of the weights, and of γ and β
    "sgd": (0.16, 0.1),
    "projected": (0.16, 0.1),  # SGD that returns to ‖w‖ = 1
    "nesterov": (0.02, 0.02),
    "adam": (0.003, 0.003),
    "rmsprop": (0.003, 0.003),
    "adamw": (0.009, 0.003),
}
PENALTIES = (0.004, 0.0, 0.001, 0.016)  # λ of the networks of a stack, in turn
NIGHT = 12.0  # hours
STEPS_BETWEEN_LOOKS = 25  # at the clock, for which the device is waited for; the engine looks at the loss as often
# The largest relative difference of losses and norms. In float32 signs flip at the kinks of ReLU and pooling.
TOLERANCE = {"float64 on the CPU": 1e-9, "float64": 1e-6, "float32": 1e-2}


@dataclass(frozen=True)
class Setting:
    """What is trained, and how much of everything."""

    normalization: str = "batch"
    optimizer: str = "sgd"
    width: int = 64
    side: int = 32
    batch_size: int = 128
    images: int = 50_000
    seed: int = 200


FULL, SMALL = Setting(), Setting(width=8, side=16, batch_size=32, images=512)
TINY = Setting(width=2, side=8, batch_size=16, images=128)


def operations_per_image(setting: Setting) -> int:
    """Floating point operations of a training image, as STUDY.operations counts them."""
    side, width = setting.side, setting.width
    first = 9 * CHANNELS * width * side**2
    others = 9 * width * 2 * width * (side // 2) ** 2 + 9 * 2 * width * 4 * width * (side // 4) ** 2
    others += 4 * width * CLASSES
    return 2 * (3 * (first + others) - first)


# Training: one network as in studies/normalization, or K of them stacked


def starts(setting: Setting, dtype: torch.dtype) -> list[Tensor]:
    """The weights of the four layers at their start: Gaussian directions, every scale group at norm 1."""
    generator = torch.Generator().manual_seed(setting.seed)
    width = setting.width
    shapes = [(width, CHANNELS, 3, 3), (2 * width, width, 3, 3), (4 * width, 2 * width, 3, 3), (CLASSES, 4 * width)]
    drawn = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    whole = setting.normalization == "layer"
    return [
        (w / torch.linalg.vector_norm(w, dim=tuple(range(0 if whole else 1, w.dim())), keepdim=True)).to(dtype)
        for w in drawn
    ]


def windows(x: Tensor, networks: int) -> Tensor:
    """The 3×3 windows around each pixel: (batch, networks·channels, h, w) → (batch·h·w, networks, 9·channels)."""
    high, wide = x.shape[2:]
    padded = F.pad(x.permute(0, 2, 3, 1).unflatten(3, (networks, -1)), (0, 0, 0, 0, 1, 1, 1, 1))
    nine = [padded[:, i : i + high, j : j + wide] for i in range(3) for j in range(3)]
    return torch.stack(nine, dim=-2).flatten(4).flatten(0, 2)


def products(rows: Tensor, weight: Tensor, like: Tensor) -> Tensor:
    """Rows (batch·h·w, K or 1, inputs) times weights (K, inputs, units), as images (batch, K·units, h, w)."""
    made = rows.new_empty(len(rows), len(weight), weight.shape[2])
    torch.bmm(rows.expand(-1, len(weight), -1).transpose(0, 1), weight, out=made.transpose(0, 1))
    return made.view(len(like), *like.shape[2:], -1).permute(0, 3, 1, 2)


class StackedConvolution(torch.autograd.Function):
    """The 3×3 convolutions of K networks, with weights (K, 9·channels, units): channels last throughout.

    The input is (batch, K·channels, h, w), or (batch, channels, h, w) where all networks see the same. Its gradient is
    a convolution too, by the windows of the output's gradient; autograd would add up nine pieces.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return products(windows(x, x.shape[1] * 9 // weight.shape[1]), weight, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        networks, inputs, units = weight.shape
        rows = windows(x, x.shape[1] * 9 // inputs).expand(-1, networks, -1)
        of_units = gradient.permute(0, 2, 3, 1).reshape(-1, networks, units)
        of_weight = torch.bmm(rows.permute(1, 2, 0), of_units.transpose(0, 1))
        if not ctx.needs_input_grad[0]:
            return None, of_weight
        turned = weight.unflatten(1, (9, -1)).flip(1).transpose(2, 3).flatten(1, 2)
        return products(windows(gradient, networks), turned, x), of_weight


@dataclass
class Group:
    """Parameters that share a learning rate, and what the optimizer remembers of them."""

    parameters: list[Tensor]
    lr: float
    doubled: list[Any] | None  # 2λ of each parameter, a number or a tensor of its shape
    means: list[Tensor] = field(init=False)
    squares: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.means = [torch.zeros_like(p) for p in self.parameters]
        self.squares = [torch.zeros_like(p) for p in self.parameters]


class Training:
    """Networks that differ in λ alone: one, with PyTorch's convolutions, or K stacked.

    Weights of a layer: (units, inputs[, 3, 3]), stacked (K, [9·]inputs, units). γ and β: (K·units,).
    """

    def __init__(
        self, setting: Setting, weights: list[Tensor], penalties: list[float], is_stacked: bool, device: torch.device
    ) -> None:
        self.setting, self.count, self.is_stacked = setting, len(penalties), is_stacked
        units = [len(w) * self.count for w in weights]
        if is_stacked:
            matrices = [w.permute(2, 3, 1, 0).reshape(-1, len(w)) if w.dim() == 4 else w.T for w in weights]
            weights = [matrix.expand(self.count, -1, -1).contiguous() for matrix in matrices]
        else:
            layout = {4: torch.channels_last, 2: torch.contiguous_format}
            weights = [w.clone(memory_format=layout[w.dim()]) for w in weights]
        dtype = weights[0].dtype
        self.weights = [w.to(device).requires_grad_() for w in weights]
        self.gammas = [torch.ones(n, dtype=dtype, device=device).requires_grad_() for n in units]
        self.betas = [torch.zeros(n, dtype=dtype, device=device).requires_grad_() for n in units]
        doubled: list[Any] = [2 * penalties[0]] * len(weights)
        if is_stacked:
            each = 2 * torch.tensor(penalties, dtype=dtype, device=device).view(-1, 1, 1)
            doubled = [each.expand_as(w).contiguous() for w in self.weights]
        lr, affine_lr = RATES[setting.optimizer]
        self.groups = [Group(self.weights, lr, doubled), Group([*self.gammas, *self.betas], affine_lr, None)]
        self.steps = torch.zeros((), dtype=torch.float64, device=device)  # a tensor, so that a CUDA graph counts on

    def norms(self, weight: Tensor) -> Tensor:
        """‖w‖ of each scale group, in a shape that broadcasts against the weights."""
        first = 1 if self.is_stacked or self.setting.normalization != "layer" else 0
        last = 2 if self.is_stacked and self.setting.normalization != "layer" else weight.dim()
        return torch.linalg.vector_norm(weight, dim=tuple(range(first, last)), keepdim=True)

    def linear_map(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not self.is_stacked:
            return F.conv2d(x, weight, bias, padding=1) if weight.dim() == 4 else F.linear(x, weight, bias)
        if x.dim() == 4:
            z = StackedConvolution.apply(x, weight)
        else:
            z = torch.bmm(x.unflatten(1, (self.count, -1)).transpose(0, 1), weight).transpose(0, 1).flatten(1)
        return z if bias is None else z + bias.view(-1, *[1] * (z.dim() - 2))

    def layer(self, x: Tensor, weight: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        if self.setting.normalization == "weight":
            norms = self.norms(weight)
            return self.linear_map(x, weight * (gamma.view_as(norms) / norms), beta)
        z = self.linear_map(x, weight, None)
        if self.setting.normalization == "batch":
            return F.batch_norm(z, None, None, gamma, beta, True, 0.0, EPS)
        return F.group_norm(z, self.count, gamma, beta, EPS)

    def losses(self, images: Tensor, labels: Tensor) -> Tensor:
        """The loss of each network, (K,)."""
        x = images
        for k, parameters in enumerate(zip(self.weights, self.gammas, self.betas, strict=True)):
            x = self.layer(x, *parameters)
            if k < 2:
                x = F.max_pool2d(x, 2)
            if k < 3:
                x = F.relu(x)
            if k == 2:
                x = F.avg_pool2d(x, x.shape[-1]).flatten(1)
        repeated = labels[:, None].expand(-1, self.count).flatten()
        return F.cross_entropy(x.view(-1, CLASSES), repeated, reduction="none").view(len(labels), -1).mean(0)

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        """One step of all networks on one batch; their losses before it."""
        losses = self.losses(images, labels)
        gradients = iter(torch.autograd.grad(losses.sum(), [p for group in self.groups for p in group.parameters]))
        with torch.no_grad():
            self.steps += 1
            for group in self.groups:
                self.move(group, [next(gradients) for _ in group.parameters])
            if self.setting.optimizer == "projected":
                for weight in self.weights:
                    weight.div_(self.norms(weight))
        return losses.detach()

    def move(self, group: Group, gradients: Any) -> None:
        """Change the parameters by the rule, and what it remembers."""
        rule, dtype = self.setting.optimizer, group.parameters[0].dtype
        if group.doubled is not None and rule == "adamw":
            torch._foreach_mul_(group.parameters, [1 - group.lr * doubled for doubled in group.doubled])
        elif group.doubled is not None:
            gradients = torch._foreach_add(gradients, torch._foreach_mul(group.parameters, group.doubled))
        update = gradients
        if rule == "nesterov":
            torch._foreach_mul_(group.means, 0.9)
            torch._foreach_add_(group.means, gradients)
            update = torch._foreach_add(gradients, group.means, alpha=0.9)
        if rule in ("adam", "adamw"):
            torch._foreach_lerp_(group.means, gradients, 0.1)
            update = torch._foreach_mul(group.means, (1 / (1 - 0.9**self.steps)).to(dtype))
        if rule in ("rmsprop", "adam", "adamw"):
            decay = 0.99 if rule == "rmsprop" else 0.999
            torch._foreach_mul_(group.squares, decay)
            torch._foreach_addcmul_(group.squares, gradients, gradients, 1 - decay)
            roots = torch._foreach_sqrt(group.squares)
            if rule != "rmsprop":
                roots = torch._foreach_mul(roots, (1 - decay**self.steps).rsqrt().to(dtype))
            update = torch._foreach_div(update, torch._foreach_add(roots, 1e-8))
        torch._foreach_add_(group.parameters, update, alpha=-group.lr)


Step = Callable[[Tensor], Tensor]  # from the indices of a batch to the loss of each network


@dataclass
class Data:
    images: Tensor
    labels: Tensor

    @classmethod
    def make(cls, setting: Setting, dtype: torch.dtype, device: torch.device) -> "Data":
        generator = torch.Generator(device).manual_seed(setting.seed)
        shape = (setting.images, CHANNELS, setting.side, setting.side)
        images = torch.randn(shape, generator=generator, dtype=dtype, device=device)
        labels = torch.randint(CLASSES, (setting.images,), generator=generator, device=device)
        return cls(images.contiguous(memory_format=torch.channels_last), labels)

    def to(self, device: torch.device) -> "Data":
        return Data(self.images.to(device), self.labels.to(device))

    def batches(self, setting: Setting) -> Iterator[Tensor]:
        """Indices of batches, without an end."""
        device = self.labels.device
        generator = torch.Generator(device).manual_seed(setting.seed)
        while True:
            order = torch.randperm(len(self.labels), generator=generator, device=device)
            yield from order[: len(order) // setting.batch_size * setting.batch_size].split(setting.batch_size)


def trainer(
    setting: Setting, stacked: int = 0, penalties: tuple[float, ...] = PENALTIES[:1],
    dtype: torch.dtype = torch.float32, device: torch.device = CPU,
) -> Training:  # fmt: skip
    """One network with the first λ, or a stack of as many as are asked for, with the λ in turn."""
    given = [penalties[k % len(penalties)] for k in range(stacked or 1)]
    return Training(setting, starts(setting, dtype), given, stacked > 0, device)


def eager(training: Training, data: Data) -> Step:
    return lambda batch: training.step(data.images[batch], data.labels[batch])


def graphed(training: Training, data: Data) -> Step:
    """The whole step in a CUDA graph; three steps on the first image warm it up."""
    batch = torch.zeros(training.setting.batch_size, dtype=torch.int64, device=data.labels.device)
    step, stream = eager(training, data), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step(batch)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        losses = step(batch)

    def replay(indices: Tensor) -> Tensor:
        batch.copy_(indices)
        graph.replay()
        return losses

    return replay


WAYS = {"eager": eager, "graph": graphed}


# Agreement


def trajectory(training: Training, step: Step, batches: list[Tensor]) -> Tensor:
    """The loss and the mean ‖w‖ of each layer at each step, (steps, 5, K), on the CPU."""
    rows = []
    for batch in batches:
        loss = step(batch).clone()
        norms = [training.norms(weight.detach()).reshape(training.count, -1).mean(1) for weight in training.weights]
        rows.append(torch.stack([loss, *norms]))
    return torch.stack(rows).double().cpu()


def difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest relative difference; infinite where a number is none."""
    found = ((ours - theirs).abs() / theirs.abs()).max().item()
    return found if math.isfinite(found) else math.inf


def stacked_and_alone(setting: Setting, dtype: torch.dtype, device: torch.device, steps: int) -> float:
    """How far networks that are trained stacked are from the same trained one after another."""
    data = Data.make(setting, dtype, CPU).to(device)
    batches = [batch for batch, _ in zip(data.batches(setting), range(steps), strict=False)]
    stack = trainer(setting, len(PENALTIES), PENALTIES, dtype, device)
    together = trajectory(stack, eager(stack, data), batches)
    alone = [trainer(setting, penalties=(l2,), dtype=dtype, device=device) for l2 in PENALTIES]
    apart = torch.cat([trajectory(one, eager(one, data), batches) for one in alone], dim=2)
    return difference(together, apart)


def device_and_cpu(setting: Setting, device: torch.device, steps: int, way: str = "eager") -> float:
    """How far float64 training on the device is from that on the CPU."""
    here = Data.make(setting, torch.float64, CPU)
    there = here.to(device)
    batches = [batch for batch, _ in zip(here.batches(setting), range(steps), strict=False)]
    reference = trainer(setting, dtype=torch.float64)
    ours = trainer(setting, dtype=torch.float64, device=device)
    if way == "graph":  # its warm-up
        for _ in range(3):
            eager(reference, here)(torch.zeros(setting.batch_size, dtype=torch.int64))
    step = WAYS[way](ours, there)
    on_device = trajectory(ours, step, [batch.to(device) for batch in batches])
    return difference(on_device, trajectory(reference, eager(reference, here), batches))


# Speed


def images_per_second(step: Step, data: Data, setting: Setting, networks: int, seconds: float) -> float:
    """Training images a second, summed over networks, after a quarter of the time to warm up."""
    batches = data.batches(setting)

    def during(seconds: float) -> float:
        start, done = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            for _ in range(STEPS_BETWEEN_LOOKS):
                step(next(batches))
            if data.labels.is_cuda:
                torch.cuda.synchronize()
            done += STEPS_BETWEEN_LOOKS * setting.batch_size * networks
        return done / (time.perf_counter() - start)

    during(seconds / 4)
    return during(seconds)


def speed(way: str, setting: Setting, stacked: int, device: torch.device, seconds: float) -> float:
    """Images per second of one process, with one network, or with so many stacked."""
    data = Data.make(setting, torch.float32, device)
    step = WAYS[way](trainer(setting, stacked, PENALTIES, device=device), data)
    return images_per_second(step, data, setting, max(stacked, 1), seconds)


def plain_float32() -> None:
    """As the engine trains: one thread, and no TF32."""
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def work(pipe: Any, setting: Setting, device: str) -> None:
    """A process that shares the device: it answers each way and window with its speed."""
    plain_float32()
    torch.zeros(1, device=device)
    pipe.send("ready")
    while True:
        way, seconds = pipe.recv()
        pipe.send(speed(way, setting, 0, torch.device(device), seconds))


class Team:
    """Processes that share the device, as many as started in time."""

    def __init__(self, setting: Setting, device: torch.device, count: int, end: float) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.end, self.pipes, self.processes = end, [], []
        for _ in range(count):
            mine, its = spawn.Pipe()
            self.processes.append(spawn.Process(target=work, args=(its, setting, device.type), daemon=True))
            self.processes[-1].start()
            its.close()
            self.pipes.append(mine)
        started = [pipe for pipe in self.pipes if self.is_ready(pipe)]
        if len(started) < count:
            print(f"only {len(started)} of {count} processes started")
        self.pipes = started

    def is_ready(self, pipe: Any) -> bool:
        try:
            return bool(self.answer(pipe) == "ready")
        except (EOFError, TimeoutError):
            return False

    def answer(self, pipe: Any, seconds: float = 0) -> Any:
        if not pipe.poll(max(self.end - time.monotonic(), 0) + seconds):
            raise TimeoutError("a process did not answer in time")
        try:
            return pipe.recv()
        except EOFError:
            raise EOFError("a process ended early; its message is above") from None

    def speed(self, way: str, count: int, seconds: float) -> float:
        """What the first `count` of them do in a second together."""
        if count > len(self.pipes):
            raise EOFError(f"only {len(self.pipes)} processes are there")
        for pipe in self.pipes[:count]:
            pipe.send((way, seconds))
        try:
            return sum(self.answer(pipe, 10 * seconds) for pipe in self.pipes[:count])
        except (EOFError, TimeoutError):
            self.pipes = []  # what the others answer late would be taken for the next window
            raise

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()


# What is measured, and what it says of a scale


@dataclass
class Report:
    """What was found, and what was not, with the reason; nothing is begun after `end`."""

    end: float = math.inf
    agreement: list[dict[str, Any]] = field(default_factory=list)
    speeds: list[dict[str, Any]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def attempt(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """What the function gives; None where it fails, or where there is no time for it."""
        why = "no time was left"
        if time.monotonic() < self.end:
            try:
                return function(*arguments)
            except (RuntimeError, EOFError, OSError) as error:  # out of memory is a RuntimeError
                why = " ".join(str(error).split())[:200] or type(error).__name__
            torch.cuda.empty_cache()
        self.missing.append(f"{name}: {why}")
        print(f"not measured: {self.missing[-1]}", flush=True)
        return None

    def compare(
        self, what: str, tolerance: str, function: Callable[..., float], setting: Setting, *others: Any
    ) -> None:
        """A difference that the function of these arguments gives, beside its tolerance."""
        name, allowed = f"{what}, {setting.normalization}, {setting.optimizer}", TOLERANCE[tolerance]
        found = self.attempt(name, function, setting, *others)
        if found is not None:
            row = {"what": what, "normalization": setting.normalization, "optimizer": setting.optimizer}
            self.agreement.append({**row, "difference": found, "tolerance": allowed})
            if found > allowed:
                print(f"DISAGREES: {name}: {found:.1e}, more than {allowed:.0e}", flush=True)

    def rate(self, way: str, processes: int, networks: int, function: Callable[..., float], *arguments: Any) -> None:
        """A speed that the function of these arguments gives."""
        name = f"{way}, processes: {processes}, networks in each: {networks}"
        found = self.attempt(name, function, *arguments)
        if found is not None:
            row = {"way": way, "processes": processes, "networks": networks, "images_per_second": found}
            self.speeds.append(row)
            print(f"{name}: {found:,.0f} images/s", flush=True)


def measure(setting: Setting, small: Setting, device: torch.device, is_smoke: bool, seconds: float) -> Report:
    """All of it, each part with its share of the time; what a part leaves over is for the next."""
    report, start = Report(), time.monotonic()
    is_gpu = device.type == "cuda"
    if not is_gpu:
        report.missing.append("graph: a CPU has no CUDA graphs")
        print(f"not measured: {report.missing[-1]}", flush=True)
    ways = list(WAYS) if is_gpu else ["eager"]
    stacks, teams = ((2, 3), (1, 2)) if is_smoke else ((2, 4, 8, 16, 32), (1, 2, 4, 8, 16))
    window = 0.2 if is_smoke else seconds / 100

    report.end = start + 0.25 * seconds
    for normalization in NORMALIZATIONS:
        for optimizer in RATES:
            one = replace(small, normalization=normalization, optimizer=optimizer)
            what = "stacked and alone"
            report.compare(
                f"{what}, float64, CPU", "float64 on the CPU", stacked_and_alone, one, torch.float64, CPU, 20
            )
            for way in ways:
                report.compare(f"{way} on device and CPU, float64", "float64", device_and_cpu, one, device, 20, way)
            if is_gpu:
                report.compare(f"{what}, float64", "float64", stacked_and_alone, one, torch.float64, device, 20)
                report.compare(f"{what}, float32", "float32", stacked_and_alone, one, torch.float32, device, 10)
    for what in dict.fromkeys(row["what"] for row in report.agreement):
        largest = max(row["difference"] for row in report.agreement if row["what"] == what)
        print(f"{what}: largest relative difference {largest:.1e}", flush=True)

    report.end = start + 0.35 * seconds
    for way in ways:
        report.rate(way, 1, 1, speed, way, setting, 0, device, window)
    report.end = start + 0.65 * seconds
    for way in ways:
        for networks in stacks:
            report.rate(f"stacked, {way}", 1, networks, speed, way, setting, networks, device, window)
    report.end = start + seconds
    if is_gpu:
        torch.cuda.empty_cache()
    team = report.attempt("processes", Team, setting, device, max(teams), report.end - 0.1 * seconds)
    if team is not None:
        for way in ways:
            for count in teams:
                report.rate(f"processes, {way}", count, 1, team.speed, way, count, window)
        team.close()
    return report


def costs(speeds: list[dict[str, Any]], images: float) -> list[dict[str, Any]]:
    """Hours of one device for so many images, by each way, and how many devices do it in a night."""
    found = []
    for row in speeds:
        hours = images / row["images_per_second"] / 3600
        found.append({**row, "hours": hours, "devices": math.ceil(hours / NIGHT)})
    return found


def tell(scale: str, images: float, found: list[dict[str, Any]], is_smoke: bool) -> None:
    print(f"\n{scale}: {images:.2e} training images, with those evaluated in proportion to their arithmetic")
    if is_smoke:
        print("a trial of the script with a tiny network: these numbers mean nothing")
    print(
        f"{'way':<20} {'processes':>9} {'networks':>9} {'images/s':>11} {'GPU hours':>10}  GPUs for {NIGHT:.0f} hours"
    )
    for row in found:
        counts = f"{row['processes']:>9} {row['networks']:>9} {row['images_per_second']:>11,.0f}"
        print(f"{row['way']:<20} {counts} {row['hours']:>10,.1f}  {row['devices']}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure a GPU: agreement with the CPU, speed by several ways, cost.")
    parser.add_argument("--plan", type=Path, help="JSON of `make plan JSON=...`: what a scale trains")
    parser.add_argument("--output", type=Path, help="where to write what was found, as JSON")
    parser.add_argument("--seconds", type=float, default=480, help="after which nothing more is begun")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--smoke", action="store_true", help="try the script, tiny; its speeds mean nothing")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU is visible to PyTorch; --device cpu --smoke tries the script without one")
    try:
        plan = json.loads(arguments.plan.read_text()) if arguments.plan else None
        operations = plan["studies"]["normalization"]["operations"] if plan else None
    except (OSError, ValueError, KeyError) as error:
        parser.error(f"{arguments.plan}: no plan of normalization ({error}); `make plan JSON=...` writes one")

    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
    plain_float32()
    setting, small = (TINY, TINY) if arguments.smoke else (FULL, SMALL)
    device, start = torch.device(arguments.device), time.monotonic()
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"{name}, PyTorch {torch.__version__}: {setting}", flush=True)
    report = measure(setting, small, device, arguments.smoke, arguments.seconds)
    per_image = operations_per_image(FULL)
    result: dict[str, Any] = {
        "study": "normalization",
        "device": name,
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(time.monotonic() - start),
        "smoke": arguments.smoke,
        "setting": vars(setting),
        "operations_per_image": per_image,
        "agreement": report.agreement,
        "speeds": report.speeds,
        "not_measured": report.missing,
    }
    # What `make plan` reckons with: jobs as the workflow has them, as many on a device as are fastest together.
    jobs = [row for row in report.speeds if row["way"] in ("eager", "processes, eager")]
    if device.type == "cuda" and not arguments.smoke and jobs:
        best = max(jobs, key=lambda row: row["images_per_second"])
        result |= {"operations_per_second": best["images_per_second"] * per_image, "gpu_slots": best["processes"]}
    if plan:
        result["costs"] = costs(report.speeds, operations / per_image)
        tell(plan["scale"], operations / per_image, result["costs"], arguments.smoke)
    else:
        print("no --plan was given, so nothing is said of what a scale costs")
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if all(row["difference"] <= row["tolerance"] for row in report.agreement) else 1


if __name__ == "__main__":
    sys.exit(main())
