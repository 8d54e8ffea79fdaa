"""What weight decay does in your network. This file needs PyTorch alone and may be copied. It was tested on CPUs; GPUs,
DistributedDataParallel (pass its `module`) and GradScaler should work, but were not run.

    monitor = Monitor(model, optimizer, scale_groups(model, images))  # images: a small batch
    for images, labels in batches:
        loss_function(model(images), labels).backward()
        optimizer.step()
        monitor.step()
        optimizer.zero_grad()
    for row in monitor.report():
        print(row["name"], row["sentence"])

Weights w that can be rescaled without a change of the function have a gradient g across them, ⟨w, g⟩ = 0. So steps
lengthen them, weight decay shortens them, and training settles where both balance, to first order in the angle per
step: 2·wd·S + 2⟨w, g⟩ = a⟨g, Pg⟩ + b⟨g, Pm⟩, with

    SGD      a = η/(1 − μ)  b = 2ημ/(1 − μ), Nesterov's μ times that  S = ⟨w, w⟩     k = 4
    Adam     a = η          b = 2ηβ₁/(1 − β₁), RMSprop's 0            S = ⟨w, w⟩     k = 3
    AdamW    a = η          b = 2ηβ₁/(1 − β₁)                         S = ⟨w, P⁻¹w⟩  k = 2

wd is the weight_decay of torch.optim: 2λ for a penalty λ‖w‖². g is the gradient without it, P = 1 or 1/(√ŝ + ε), m what
the optimizer remembers before the step. If w were x times as long, right over left would be x⁻ᵏ times as large, so the
norm at equilibrium is ‖w‖(right/left)^(1/k). There the angle is √(2c·a·wd·S/⟨w, P⁻¹w⟩) by the P of there, where β is μ
or β₁ and c = (1 − β)/(1 + β); Nesterov's c is 1 + 2μ − 2μ³ times that where memory is small.
"""

import copy
import math
import statistics
import warnings
from itertools import chain, groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop
from torch.utils import _pytree as pytree


class Group(NamedTuple):
    """Rows of parameters, each seen as (units, size), that can be rescaled one by one, by one factor in all of them."""

    parameters: tuple[str, ...]
    kind: str  # the smallest that can be rescaled: unit, block (a third) or tensor; none; idle: without any effect
    units: int
    rows: tuple[int, ...]

    @property
    def name(self) -> str:
        part = "" if len(self.rows) == self.units else f"[{len(self.rows)} of {self.units}]"
        return " + ".join(self.parameters) + part

    def of(self, tensors: list[Tensor]) -> Tensor:
        """Its rows of tensors shaped as its parameters, side by side: (rows, size), float32 or wider."""
        parts = [tensor.detach().reshape(self.units, -1) for tensor in tensors]
        seen = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
        seen = seen if len(self.rows) == self.units else seen[list(self.rows)]
        return seen.to(torch.promote_types(seen.dtype, torch.float32))


def scale_groups(model: nn.Module, inputs: Any) -> list[Group]:
    """Which weights can be rescaled by a positive factor without a change of the function, f(αw) = f(w).

    `inputs` is what the model is called with, for a small batch: a tensor, a tuple of arguments or a dict of keywords.
    By trial: a float64 copy in training mode runs on the given inputs and on noisy ones, each time with other weights
    and with every row rescaled by a random factor in [¼, 4], and ∂f/∂α must vanish each time. Rounding, which has none,
    is not seen. Raises ValueError for eval mode, no parameters, inputs that do not fit and infinite outputs.
    """
    if not model.training:
        raise ValueError("The model is in eval mode, where batch norm is another function: call model.train() first.")
    groups: list[Group] = []
    with torch.random.fork_rng(devices={p.device.index for p in model.parameters() if p.is_cuda}):
        looks = _looks(model, inputs)
    for _, names in groupby(looks, lambda name: name.rpartition(".")[0]):
        alone = {name: _free((name,), looks) for name in names}
        rest = tuple(name for name, found in alone.items() if not found)
        groups += chain(*alone.values(), _free(rest, looks) or (Group((name,), "none", 1, (0,)) for name in rest))
    return groups


def _looks(model: nn.Module, inputs: Any) -> dict[str, Tensor]:
    """Of each parameter w, w ∂f/∂w at some inputs and weights, (looks, *shape); f is a random mixture of outputs."""
    torch.manual_seed(0)
    model = copy.deepcopy(getattr(model, "_orig_mod", model)).double()  # without torch.compile
    for module in model.modules():
        small = {n: 1e-15 * e for n, e in vars(module).items() if n.endswith(("eps", "epsilon")) and type(e) is float}
        vars(module).update(small)  # an ε breaks invariance by ε over the variance
    call = ((), inputs) if isinstance(inputs, dict) else (inputs if isinstance(inputs, tuple) else (inputs,), {})
    weights = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    looks = []
    for noise in (0, 3, 30):
        for parameter in model.parameters():  # neither zeros nor tiny scales must hide what is behind them
            size = parameter.detach().square().mean().sqrt()
            parameter.data += 0.3 * (size if size > 1e-3 else 1.0) * torch.randn_like(parameter)
            powers = 2 * torch.rand(parameter.shape[:1] + (1,) * (parameter.dim() - 1)) - 1
            parameter.data *= 4 ** powers.to(parameter)
        arguments, keywords = pytree.tree_map(lambda leaf, noise=noise: _noisy(leaf, noise), call)
        try:
            found = pytree.tree_leaves(model(*arguments, **keywords))
        except Exception as error:
            raise ValueError(f"The model cannot be called with these inputs: {error}") from error
        outputs = torch.cat([leaf.flatten().double() for leaf in found if torch.is_tensor(leaf)])
        if outputs.isfinite().all() and outputs.requires_grad:  # noisy inputs may be out of range
            f = (outputs * torch.randn_like(outputs)).sum() / outputs.detach().norm()
            slopes = torch.autograd.grad(f, list(weights.values()), materialize_grads=True)
            looks.append([w.detach() * slope for w, slope in zip(weights.values(), slopes, strict=True)])
    if not looks:
        raise ValueError("The model's outputs are not finite, or depend on no parameter that requires a gradient.")
    return {name: torch.stack(products) for name, *products in zip(weights, *looks, strict=True)}


def _noisy(leaf: Any, noise: float) -> Any:
    """The input in float64 with noise so many times as large as itself; integers are shuffled instead."""
    if torch.is_tensor(leaf) and leaf.is_floating_point():
        return leaf.double() + noise * leaf.double().square().mean().sqrt() * torch.randn_like(leaf.double())
    return leaf.flatten()[torch.randperm(leaf.numel())].view_as(leaf) if noise and torch.is_tensor(leaf) else leaf


def _free(names: tuple[str, ...], looks: dict[str, Tensor]) -> list[Group]:
    """The smallest groups in which these parameters, or some rows of them, can be rescaled; empty if in none."""
    most = math.gcd(*(looks[name].shape[1:2].numel() for name in names))
    for units, kind in {most: "unit", 3: "block", 1: "tensor"}.items():
        if names and most % units == 0:
            seen = torch.cat([looks[name].reshape(len(looks[name]), units, -1) for name in names], 2)
            slopes, sizes = seen.sum(2).abs(), seen.norm(dim=2)  # the latter as of a sum of random signs
            is_free = (slopes <= 1e-3 * sizes + 1e-9).all(0)  # some compute in float32 whatever they are given
            is_free &= is_free.all() | ((sizes > 1e-9).sum(0) > 1)  # an effect in one look may vanish by chance
            if is_free.any():
                rows, others = (tuple(which.nonzero().flatten().tolist()) for which in (is_free, ~is_free))
                group = Group(names, kind if sizes.max() > 1e-9 else "idle", units, rows)
                return [group, *(Group((name,), "none", units, others) for name in names if others)]
    return []


class Monitor:
    """What weight decay does to `groups`, those of `scale_groups`, while `optimizer` trains `model`.

    Every `every` steps it copies weights and memory and, a step later, sums a few products; it changes nothing. Steps
    with infinite gradients do not count; a GradScaler with a fused optimizer needs `scaler.unscale_(optimizer)` first.
    Raises ValueError for parameters that are frozen, or not in the model or not in the optimizer.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, groups: list[Group], every: int = 50) -> None:
        self.optimizer, self.every, self.count = optimizer, every, 0
        known: dict[str, Any] = dict(getattr(model, "_orig_mod", model).named_parameters())
        self.places = {p: n for n, settings in enumerate(optimizer.param_groups) for p in settings["params"]}
        for name in chain(*(group.parameters for group in groups)):
            if known.get(name) not in self.places or not known[name].requires_grad:
                raise ValueError(f"{name} is frozen, or not in the model or the optimizer: leave its group out.")
        self.parameters = {group: [known[name] for name in group.parameters] for group in groups}
        self.before: dict[Group, tuple[Tensor, Tensor]] = {}  # weights and memory before a step to be measured
        self.sums: dict[Group, Tensor] = {}  # over measured steps
        if not all(self._balance(group)[1] for group in groups):
            warnings.warn(f"{type(optimizer).__name__} gives no predictions for some of the groups.", stacklevel=2)

    def _balance(self, group: Group) -> tuple[dict[str, Any], int, float, float, float]:
        """Its settings in the optimizer, and k, a, b and c at present; k = 0 if unknown, or if it has several."""
        place, *others = {self.places[p] for p in self.parameters[group]}
        absent: dict[str, Any] = {"momentum": 0, "nesterov": False, "betas": (0, 0), "weight_decay": 0}
        settings, kind = absent | self.optimizer.param_groups[place], type(self.optimizer)
        lr, momentum, beta = float(settings["lr"]), settings["momentum"], settings["momentum"] or settings["betas"][0]
        is_other = any(settings.get(option) for option in ("maximize", "dampening", "centered", "amsgrad"))
        if others or is_other or kind not in (SGD, RMSprop, Adam, AdamW) or (kind is RMSprop and momentum):
            return settings, 0, 0.0, 0.0, 0.0
        k = 4 if kind is SGD else 2 if settings.get("decoupled_weight_decay", kind is AdamW) else 3
        ahead, turned = (beta, 1 + 2 * beta - 2 * beta**3) if settings["nesterov"] else (1, 1)
        return settings, k, lr / (1 - momentum), 2 * lr * beta / (1 - beta) * ahead, (1 - beta) / (1 + beta) * turned

    def _kept(self, group: Group, *names: str) -> Tensor:
        """What the optimizer keeps under one of these names, (rows, size); 0 where it keeps nothing."""
        states = [(p, self.optimizer.state.get(p, {})) for p in self.parameters[group]]
        return group.of([next((s[n] for n in names if s.get(n) is not None), torch.zeros_like(p)) for p, s in states])

    @torch.no_grad()
    def step(self) -> None:
        """After each step of the optimizer, before gradients are set to zero."""
        self.count += 1
        for group in self.before:
            if all(p.grad is not None for p in self.parameters[group]):
                values = self._values(group)
                self.sums[group] = self.sums.get(group, 0) + torch.where(values.isfinite().all(0), values, 0)
        self.before = {}
        if (self.count + 1) % self.every == 0:
            for group, now in self.parameters.items():
                self.before[group] = group.of(now).clone(), self._kept(group, "exp_avg", "momentum_buffer").clone()

    def _values(self, group: Group) -> Tensor:
        """Of the step just made, (7, rows): 1, ⟨w,w⟩, angle², ⟨w,P⁻¹w⟩, ⟨w,g⟩, ⟨g,Pg⟩ and ⟨g,Pm⟩."""
        parameters, (w, memory), (settings, k, *_) = self.parameters[group], self.before[group], self._balance(group)
        g, change, inverse = group.of([p.grad for p in parameters]), group.of(parameters) - w, w.new_ones(1)
        if k in (2, 3):
            step = float(self.optimizer.state.get(parameters[0], {}).get("step", 0))  # 0 if AMP skipped all
            squares = self._kept(group, "exp_avg_sq", "square_avg") / (1 - settings["betas"][1] ** step)
            inverse = squares.sqrt_().add_(settings["eps"])
        dot, scaled = torch.linalg.vecdot, g / inverse
        square, along = dot(w, w), dot(w, change)
        across = (dot(change, change) - along**2 / square).clamp(min=0).sqrt()  # what turns w
        angle = torch.atan2(across, (square + along) / square.sqrt())
        pushes = dot(w, inverse * w), dot(w, g), dot(g, scaled), dot(memory, scaled)
        return torch.stack([torch.ones_like(angle), square, angle**2, *pushes]).double()

    def report(self) -> list[dict[str, Any]]:
        """A row for each group: medians over its units of means over the steps measured since the last report.

        Keys: name, kind, units, lr and weight_decay of torch.optim; norm, angle (root mean square, radians per step),
        effective_lr (a/‖w‖² for SGD, a/‖w‖ for the others); these with `equilibrium_` before, at the present lr;
        half_way, steps until half of the distance between both norms is gone; sentence. What is not known is missing.
        Raises ValueError where no step was measured, and for weights that are not finite.
        """
        if not self.sums:
            raise ValueError(f"No step was measured: call step() before zero_grad(), {self.every} times for a report.")
        rows, self.sums = [self._row(group) for group in self.parameters], {}
        return rows

    def _row(self, group: Group) -> dict[str, Any]:
        settings, k, a, b, c = self._balance(group)
        if not all(parameter.isfinite().all() for parameter in self.parameters[group]):
            raise ValueError(f"{group.name} is not finite after {self.count} steps: the training has diverged.")
        row: dict[str, Any] = {"name": group.name, "kind": group.kind, "units": len(group.rows)}
        row |= {"lr": float(settings["lr"]), "weight_decay": float(settings["weight_decay"])}
        if group in self.sums:
            square, turn, inverse, radial, gradient, memory = self.sums[group][1:] / self.sums[group][0]
            found = {"norm": square.sqrt(), "angle": turn.sqrt()}
            if k and group.kind not in ("none", "idle"):
                growth = (a * gradient + b * memory - 2 * radial).clamp(min=0)
                shrinking = settings["weight_decay"] * (inverse if k == 2 else square)
                longer = (growth / (2 * shrinking)) ** (1 / k)  # ‖w*‖/‖w‖
                for when, norm in (("", found["norm"]), ("equilibrium_", found["norm"] * longer)):
                    found |= {f"{when}norm": norm, f"{when}effective_lr": a / norm ** (2 if k == 4 else 1)}
                shrinkage = a * shrinking / inverse * (longer if k == 3 else 1)  # relative, at equilibrium
                found["equilibrium_angle"] = (2 * c * shrinkage).sqrt()
                # ‖w‖ᵏ approaches its end exponentially; Adam's P goes as ‖w‖: we take that of the middle of the way.
                start, middle = 1 / longer, (1 + 1 / longer) / 2
                rate = k * shrinkage * (middle if k == 3 else 1)
                found["half_way"] = (((start**k - 1) / (middle**k - 1)).log() / rate).nan_to_num(math.inf, math.inf)
            row |= {what: statistics.median(v.nan_to_num(posinf=math.inf).tolist()) for what, v in found.items()}
        return {**row, "sentence": _sentence(row)}


def _sentence(row: dict[str, Any]) -> str:
    decay = f"weight_decay = {row['weight_decay']:g}"
    if row["kind"] == "idle":
        return f"no effect on the function: {decay} only shrinks it"
    if row["kind"] == "none":
        return f"not scale invariant: {decay} acts on the function itself"
    sentence = f"scale invariant: {decay} sets its learning rate"
    if "half_way" not in row:
        return sentence
    now, then, steps = row["effective_lr"], row["equilibrium_effective_lr"], row["half_way"]
    return f"{sentence}; effective rate {now:.2g} now, {then:.2g} at equilibrium, half way in {steps:,.0f} steps"
