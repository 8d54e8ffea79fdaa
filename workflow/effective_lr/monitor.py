"""What weight decay does in your network. This file needs PyTorch alone and may be copied.

    monitor = Monitor(model, optimizer, scale_groups(model, images))
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

    SGD      a = η(1 − τ)/(1 − μ)  b = 2ημ/(1 − μ), Nesterov's μ times that  S = ⟨w, w⟩     k = 4
    Adam     a = η                 b = 2ηβ₁/(1 − β₁), RMSprop's 0            S = ⟨w, w⟩     k = 3
    AdamW    a = η                 b = 2ηβ₁/(1 − β₁)                         S = ⟨w, P⁻¹w⟩  k = 2

wd is the weight_decay of torch.optim: 2λ for a penalty λ‖w‖². g is the gradient without it, P = 1 or 1/(√ŝ + ε), m what
the optimizer remembers before the step, μ the momentum, τ its dampening. If w were x times as long, right over left
would be x⁻ᵏ times as large, so the norm at equilibrium is ‖w‖(right/left)^(1/k).
"""

import copy
import itertools
import math
import re
import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop
from torch.utils import _pytree as pytree

TOLERANCE = 1e-3  # of invariance, relative; some models compute in float32 whatever they are given
Rule = tuple[int, float, float, float, float, bool]  # k, η, wd, μ or β₁, 1 − τ or 1 − β₁, whether Nesterov's


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

    def of(self, tensor: Tensor) -> Tensor:
        """The group's part of one of its parameters, or of a tensor of its shape, (rows, size), float32 or wider."""
        seen = tensor.detach().to_dense().reshape(self.units, -1)
        seen = seen if len(self.rows) == self.units else seen[list(self.rows)]
        return seen.to(torch.promote_types(seen.dtype, torch.float32))


def scale_groups(model: nn.Module, inputs: Any) -> list[Group]:
    """Which weights can be rescaled by a positive factor without a change of the function, f(αw) = f(w).

    `inputs` is what the model is called with: a tensor, a tuple of arguments or a dict of keywords, for a small batch.
    Every parameter that requires a gradient is in a group, alone or with the others of its module (weight and bias).

    By trial on a float64 copy in training mode, with fixed seeds: what has ∂f/∂α = 0 is rescaled by random factors, on
    the given inputs and on random ones, which open paths that the given ones leave shut. The copy has other weights,
    not far away, without zeros or tiny scales that would hide what is behind them, and 10⁻⁸ times the `eps` of its
    layers: an ε breaks invariance by ε over the variance, which Monitor measures as ⟨w, g⟩.

    Raises ValueError for eval mode, no parameters, inputs that do not fit, and outputs that are not finite.
    """
    model = _unwrapped(model)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("The model has no parameter that requires a gradient: there is nothing to look at.")
    if not model.training:
        raise ValueError("The model is in eval mode, where batch norm is another function: call model.train() first.")
    groups: list[Group] = []
    with torch.random.fork_rng(devices={p.device.index for p in model.parameters() if p.is_cuda}):
        trial = _Trial(model, inputs)
        for _, names in itertools.groupby(trial.weights, lambda name: name.rpartition(".")[0]):
            alone = {name: trial.find((name,)) for name in names}
            rest = tuple(name for name, found in alone.items() if not found)
            together = (rest and trial.find(rest)) or [Group((name,), "none", 1, (0,)) for name in rest]
            groups += itertools.chain(*alone.values(), together)
    return groups


class _Trial:
    def __init__(self, model: nn.Module, inputs: Any) -> None:
        torch.manual_seed(0)
        self.model = copy.deepcopy(model).double()
        for module in self.model.modules():
            small = {n: e for n, e in vars(module).items() if re.search("(^|_)eps(ilon)?$", n) and isinstance(e, float)}
            vars(module).update({name: 1e-8 * eps for name, eps in small.items()})
        for parameter in self.model.parameters():
            size = parameter.detach().square().mean().sqrt()
            parameter.data += 0.3 * (size if size > 1e-3 else 1.0) * torch.randn_like(parameter)
        self.weights: dict[str, Tensor] = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        self.seen: list[tuple[Any, Tensor, dict[str, Tensor]]] = []  # call, outputs f, w ∂f/∂w of a mixture of f
        call = ((), inputs) if isinstance(inputs, dict) else (inputs if isinstance(inputs, tuple) else (inputs,), {})
        for number in range(3):
            given = pytree.tree_map(lambda leaf, number=number: _variant(leaf, number), call)
            outputs = self.outputs(given, self.weights)
            is_finite = bool(outputs.isfinite().all())
            if number == 0 and not (is_finite and outputs.requires_grad):
                raise ValueError("The model's outputs on these inputs are not finite, or have no gradient.")
            if is_finite:  # random inputs may be out of range
                mixture, weights = (outputs * torch.randn_like(outputs)).sum(), list(self.weights.values())
                slopes = torch.autograd.grad(mixture, weights, allow_unused=True, materialize_grads=True)
                products = [(w * slope).detach() for w, slope in zip(weights, slopes, strict=True)]
                largest = max(float(product.norm()) for product in products) or 1.0
                scaled = {n: product / largest for n, product in zip(self.weights, products, strict=True)}
                self.seen.append((given, outputs.detach(), scaled))

    def outputs(self, call: Any, weights: dict[str, Tensor]) -> Tensor:
        """All outputs as one vector, from the same random numbers and buffers each time."""
        torch.manual_seed(0)
        state = {**weights, **{name: buffer.clone() for name, buffer in self.model.named_buffers()}}
        try:
            found = torch.func.functional_call(self.model, state, *call)
        except Exception as error:
            raise ValueError(f"The model cannot be called with these inputs: {error}") from error
        return torch.cat([leaf.flatten().double() for leaf in pytree.tree_leaves(found) if torch.is_tensor(leaf)])

    def find(self, names: tuple[str, ...]) -> list[Group]:
        """The smallest groups in which these parameters, or some rows of them, have no slope; empty if in none."""
        lengths = {self.weights[name].shape[:1].numel() for name in names}
        most = max(lengths) if len(lengths) == 1 else 1
        for units in sorted({most, 3 if most % 3 == 0 else 1, 1}, reverse=True):
            holds, looks = torch.ones(units, dtype=torch.bool), torch.zeros(units)
            for _, _, products in self.seen:
                seen = torch.cat([products[name].reshape(units, -1) for name in names], 1)
                size = seen.norm(dim=1)  # of a sum of random signs
                holds &= ((seen.sum(1).abs() <= TOLERANCE * size) | (size < 1e-9)).cpu()
                looks += (size >= 1e-9).cpu()
            kind = "tensor" if units == 1 else "unit" if units == most else "block"
            some = holds if holds.all() else holds & (looks > 1)  # on one input alone it may be a coincidence
            rows = tuple(some.nonzero().flatten().tolist())
            group = Group(names, kind if looks.any() else "idle", units, rows)
            if 10 * len(rows) > units and self.change(group) < TOLERANCE:
                others = tuple(row for row in range(units) if not some[row])
                return [group, *(Group((name,), "none", units, others) for name in names if others)]
        return []

    @torch.no_grad()
    def change(self, group: Group) -> float:
        """The largest relative change of the outputs when every row takes a random factor in [¼, 4]."""
        factors = torch.ones(group.units, 1, dtype=torch.float64)
        factors[list(group.rows)] = 4 ** (2 * torch.rand(len(group.rows), 1, dtype=torch.float64) - 1)
        weights = dict(self.weights)
        for name in group.parameters:
            weight = weights[name]
            weights[name] = (weight.reshape(group.units, -1) * factors.to(weight.device)).view_as(weight)
        return max(float((self.outputs(given, weights) - old).norm() / old.norm()) for given, old, _ in self.seen)


def _variant(leaf: Any, number: int) -> Any:
    """The input in float64 (0), random (1), and of the other sign (2); integers are shuffled in 1 and 2."""
    if torch.is_tensor(leaf) and leaf.is_floating_point():
        size = leaf.double().square().mean().sqrt()
        return (leaf.double(), 3 * size * torch.randn_like(leaf.double()), -30 * leaf.double())[number]
    is_shuffled = number > 0 and torch.is_tensor(leaf) and leaf.dtype != torch.bool
    return leaf.flatten()[torch.randperm(leaf.numel())].view_as(leaf) if is_shuffled else leaf


def _unwrapped(model: Any) -> Any:
    model = getattr(model, "_orig_mod", model)  # of torch.compile
    return model.module if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel) else model


def _rule(optimizer: Optimizer, settings: dict[str, Any]) -> Rule | None:
    """Of a parameter group, at its present learning rate; None where the balance is not known."""
    kind, lr, decay = type(optimizer), float(settings["lr"]), float(settings.get("weight_decay", 0))
    if settings.get("maximize"):
        return None
    if kind is SGD:
        mu = settings["momentum"]
        return 4, lr, decay, mu, 1 - settings["dampening"] * (mu > 0), settings["nesterov"]
    if kind is RMSprop and not (settings["momentum"] or settings["centered"]):
        return 3, lr, decay, 0.0, 1.0, False
    if kind in (Adam, AdamW) and not settings["amsgrad"]:
        is_decoupled = settings.get("decoupled_weight_decay", kind is AdamW)
        return 2 if is_decoupled else 3, lr, decay, settings["betas"][0], 1 - settings["betas"][0], False
    return None


class Monitor:
    """What weight decay does to `groups`, those of `scale_groups`, while `optimizer` trains `model`.

    Every `every` steps it copies the weights and, a step later, sums a few products; nothing of the training changes.
    Gradients must be those of the step: a GradScaler with a fused optimizer needs `scaler.unscale_(optimizer)` before
    its step. A step with a gradient that is not finite is not counted.

    Raises ValueError for parameters that are frozen, not in the model or not in the optimizer.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, groups: list[Group], every: int = 50) -> None:
        self.optimizer, self.groups, self.every, self.count = optimizer, groups, every, 0
        known, self.parameters = dict(_unwrapped(model).named_parameters()), dict[str, Tensor]()
        places = {id(p): n for n, part in enumerate(optimizer.param_groups) for p in part["params"]}
        for name in (name for group in groups for name in group.parameters):
            if name not in known or not known[name].requires_grad or id(known[name]) not in places:
                raise ValueError(f"{name} is frozen, or not in the model or the optimizer: leave its group out.")
            self.parameters[name] = known[name]
        self.places = {name: places[id(parameter)] for name, parameter in self.parameters.items()}
        if None in (_rule(optimizer, part) for part in optimizer.param_groups):
            name = type(optimizer).__name__
            warnings.warn(f"{name} with these settings is unknown: norms and angles, no predictions.", stacklevel=2)
        self.sums: dict[int, Tensor] = {}
        self.before: dict[str, Tensor] = {}

    @torch.no_grad()
    def step(self) -> None:
        """After each step of the optimizer, before gradients are set to zero."""
        self.count += 1
        if self.before and all(parameter.grad is None for parameter in self.parameters.values()):
            raise ValueError("No parameter has a gradient: call monitor.step() before optimizer.zero_grad().")
        for number, group in enumerate(self.groups if self.before else ()):
            if all(self.parameters[name].grad is not None for name in group.parameters):
                values = torch.stack([self._products(group, name) for name in group.parameters]).sum(0).double()
                w, change, along = values[:3]
                across = (change - along**2 / w).clamp(min=0).sqrt()  # what turns w
                values[1], values[2] = torch.atan2(across, (w + along) / w.sqrt()) ** 2, 1.0
                counted = torch.where(values.isfinite().all(0), values, 0.0)
                self.sums[number] = self.sums.get(number, torch.zeros_like(counted)) + counted
        is_measured_next = (self.count + 1) % self.every == 0
        self.before = {name: p.detach().clone() for name, p in self.parameters.items()} if is_measured_next else {}

    def _products(self, group: Group, name: str) -> Tensor:
        """Of the step just made, (8, rows): ⟨w,w⟩, ⟨Δw,Δw⟩, ⟨w,Δw⟩, ⟨w,g⟩, ⟨g,Pg⟩, ⟨g,Pm⟩, ⟨Pg,Pg⟩ and S."""
        parameter, settings = self.parameters[name], self.optimizer.param_groups[self.places[name]]
        assert parameter.grad is not None
        state, w, g = self.optimizer.state.get(parameter, {}), group.of(self.before[name]), group.of(parameter.grad)
        dot, change, scaled, measure, recall = (
            torch.linalg.vecdot,
            group.of(parameter) - w,
            g,
            w,
            torch.zeros_like(w[:, 0]),
        )
        if state and (rule := _rule(self.optimizer, settings)):
            k, _, decay, beta, fresh, _ = rule
            step = float(state.get("step", 0))
            if k < 4:
                square = group.of(state["exp_avg_sq" if "betas" in settings else "square_avg"])
                correction = 1 - settings["betas"][1] ** step if "betas" in settings else 1.0
                root = square.sqrt().div_(correction**0.5).add_(settings["eps"])
                scaled, measure = g / root, root.mul_(w) if k == 2 else w
            if beta:  # from what it remembers after this step; Adam corrects that for its start
                now = group.of(state["momentum_buffer" if k == 4 else "exp_avg"])
                recall = dot(now, scaled) - fresh * dot(g if k == 2 else g + decay * w, scaled)
                recall /= beta * (1 - beta ** max(step - 1, 1) if k < 4 else 1.0)
        pushes = dot(g, scaled), recall, dot(scaled, scaled), dot(w, measure)
        return torch.stack([dot(w, w), dot(change, change), dot(w, change), dot(w, g), *pushes])

    def report(self) -> list[dict[str, Any]]:
        """A row for each group: medians over its units of means over the steps measured since the last report.

        Keys: name, kind, units, size (weights of a unit), lr and weight_decay of torch.optim; norm, angle (root mean
        square, radians per step), effective_lr, η(1 − τ)/(1 − μ)/‖w‖² for SGD and η/‖w‖ for the others; these with
        `equilibrium_` before, at the present lr; half_way, steps until half of the distance between both norms is gone;
        memory and radial, b⟨g,Pm⟩ and 2⟨w,g⟩ over a⟨g,Pg⟩; sentence. What is not known is missing.

        Raises ValueError where no step was measured, and for weights that are not finite.
        """
        if not self.sums:
            raise ValueError(f"No step was measured since the last report: step() measures every {self.every} steps.")
        rows = []
        for number, group in enumerate(self.groups):
            parts = [self.optimizer.param_groups[self.places[name]] for name in group.parameters]
            rules = {_rule(self.optimizer, part) for part in parts}
            weights = [self.parameters[name] for name in group.parameters]
            if not all(weight.isfinite().all() for weight in weights):
                raise ValueError(f"{group.name} is not finite after {self.count} steps: the training has diverged.")
            row: dict[str, Any] = {"name": group.name, "kind": group.kind, "units": len(group.rows)}
            row["size"] = sum(weight.numel() for weight in weights) // group.units
            row |= {"lr": float(parts[0]["lr"]), "weight_decay": float(parts[0].get("weight_decay", 0))}
            if number in self.sums:
                is_scaled, sums = group.kind not in ("none", "idle"), self.sums[number].cpu()
                row |= _numbers(sums / sums[2], rules.pop() if len(rules) == 1 else None, is_scaled)
            rows.append({**row, "sentence": _sentence(row)})
        self.sums = {}
        return rows


def _numbers(means: Tensor, rule: Rule | None, is_scaled: bool) -> dict[str, float]:
    """What a row has of the means of `_products`."""
    w, turned, _, radial, gradient, memory, square, s = means
    found = {"norm": w.sqrt(), "angle": turned.sqrt()}
    if rule is not None:
        k, lr, decay, beta, fresh, is_nesterov = rule
        net_lr = lr * fresh / (1 - beta)
        push, recall = net_lr * gradient, 2 * lr * beta / (1 - beta) * (beta if is_nesterov else 1) * memory
        found |= {"memory": recall / push, "radial": 2 * radial / push}
    if rule is not None and is_scaled:
        longer = ((push + recall - 2 * radial).clamp(min=0) / (2 * decay * s)) ** (1 / k)  # ‖w*‖/‖w‖
        # The square of the update, from those of gradient and memory, of which the latter is stationary.
        update = (fresh**2 * gradient + 2 * fresh * beta * memory) / (1 - beta**2)
        if is_nesterov:
            update = (1 + beta) ** 2 * gradient + 2 * (1 + beta) * beta**2 * memory + beta**4 * update
        slower = longer ** (2 if k == 4 else 1)
        found["effective_lr"] = net_lr / w ** (1 if k == 4 else 0.5)
        found["equilibrium_norm"] = w.sqrt() * longer
        found["equilibrium_angle"] = lr * (update.clamp(min=0) * square / gradient / w).sqrt() / slower
        found["equilibrium_effective_lr"] = found["effective_lr"] / slower
        # ‖w‖ᵏ approaches its end exponentially; where P ~ ‖w‖, about so, with the P of the middle of the way.
        x, middle = 1 / longer, (1 + 1 / longer) / 2
        rate = k * net_lr * decay * (square / gradient * longer * middle if k == 3 else 1.0)
        found["half_way"] = (((x**k - 1) / (middle**k - 1)).log() / rate).nan_to_num(math.inf)
    sorted_units = {what: values.nan_to_num(posinf=math.inf).sort().values for what, values in found.items()}
    return {what: float(v[[~(len(v) // 2), len(v) // 2]].mean()) for what, v in sorted_units.items()}


def _sentence(row: dict[str, Any]) -> str:
    decay = f"weight_decay = {row['weight_decay']:g}"
    if row["kind"] == "idle":
        return f"no effect on the function: {decay} only shrinks it"
    if row["kind"] == "none":
        return f"not scale invariant: {decay} acts on the function itself"
    if "effective_lr" not in row:
        return f"scale invariant: {decay} sets its learning rate"
    now, then = f"effective rate {row['effective_lr']:.2g} now", f"{row['equilibrium_effective_lr']:.2g} at equilibrium"
    return f"scale invariant: {decay} sets its learning rate; {now}, {then}, half way in {row['half_way']:,.0f} steps"
