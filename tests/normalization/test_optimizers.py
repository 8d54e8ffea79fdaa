"""Each optimizer against its update rule written out, the factor 2 of the penalty, and the projection. In float64."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from effective_lr.studies.normalization.data import Splits
from effective_lr.studies.normalization.networks import Conv4, build_network, normalized_layers
from effective_lr.studies.normalization.optimizers import Optimizer, project
from effective_lr.studies.normalization.settings import Run
from shared import INVARIANT, OPTIMIZERS, make_run, train_rows

State = dict[str, Tensor]


def update(run: Run, t: int, g: Tensor, state: State) -> Tensor:
    """What the learning rate multiplies in the t-th step: the published rules, with PyTorch's start of momentum."""
    if run.optimizer == "sgd":
        return g
    if run.optimizer in ("momentum", "nesterov"):
        state["b"] = run.momentum * state.get("b", 0) + g
        return g + run.momentum * state["b"] if run.optimizer == "nesterov" else state["b"]
    if run.optimizer == "rmsprop":
        state["v"] = 0.99 * state.get("v", 0) + 0.01 * g**2
        corrected = 1 - 0.99**t if run.corrected_squares else 1
        return g / ((state["v"] / corrected) ** 0.5 + run.optimizer_eps)
    state["m"] = 0.9 * state.get("m", 0) + 0.1 * g
    state["v"] = 0.999 * state.get("v", 0) + 0.001 * g**2
    return state["m"] / (1 - 0.9**t) / ((state["v"] / (1 - 0.999**t)) ** 0.5 + run.optimizer_eps)


class Reference:
    """The objective, mean cross-entropy + λ‖w‖², differentiated as it is written, and steps by hand."""

    def __init__(self, run: Run, network: Conv4) -> None:
        self.run, self.network, self.t = run, copy.deepcopy(network), 0
        self.weights = [self.network.conv1.weight, self.network.conv2.weight]
        self.weights += [self.network.conv3.weight, self.network.linear.weight]
        self.affine = [p for p in self.network.parameters() if p.dim() == 1]
        names = {"none": (), "hidden": ("conv1", "conv2", "conv3"), "last": ("linear",)}
        penalised = names.get(run.affine_l2, names["hidden"] + names["last"])
        named = self.network.named_parameters()
        decayed = self.weights + [p for name, p in named if p.dim() == 1 and name.startswith(penalised)]
        sizes = [w[0].numel() for w in self.weights]
        factors = [max(sizes) / size if run.layer_l2 == "inverse_size" else 1 for size in sizes]
        self.decayed = [(p, run.l2 * (factors[k] if k < len(sizes) else 1)) for k, p in enumerate(decayed)]
        self.states: list[State] = [{} for _ in self.weights + self.affine]

    def step(self, images: Tensor, labels: Tensor) -> None:
        self.t += 1
        run = self.run
        objective = F.cross_entropy(self.network(images), labels)
        if run.optimizer != "adamw":
            objective = objective + sum((l2 * (w**2).sum() for w, l2 in self.decayed), torch.zeros(()))
        parameters = self.weights + self.affine
        gradients = torch.autograd.grad(objective, parameters)
        affine_lr = run.lr if run.affine_lr == "shared" else run.affine_lr
        rates = [run.lr] * len(self.weights) + [affine_lr] * len(self.affine)
        with torch.no_grad():
            if run.optimizer == "adamw":
                for p, rate in zip(parameters, rates, strict=True):
                    for decayed, l2 in self.decayed:
                        if p is decayed:
                            p.sub_(rate * 2 * l2 * p)
            for p, g, rate, state in zip(parameters, gradients, rates, self.states, strict=True):
                p.sub_(rate * update(run, self.t, g, state))


def product_step(network: Conv4, optimizer: Optimizer, images: Tensor, labels: Tensor) -> None:
    optimizer.zero_grad()
    F.cross_entropy(network(images), labels).backward()
    optimizer.step()


@pytest.mark.parametrize(
    "affine",
    [
        {"affine_lr": 0.007},
        {"affine_lr": "shared"},
        {"layer_l2": "inverse_size"},
        *({"affine_l2": n} for n in ("hidden", "last", "all")),
    ],
)
@pytest.mark.parametrize("normalization", ["batch", "weight", "none"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_follow_the_published_rule(
    name: str, normalization: str, affine: dict[str, Any], small_splits: Splits
) -> None:
    run = make_run(optimizer=name, normalization=normalization, lr=0.03, l2=0.2, momentum=0.8, **affine)
    network = build_network(run, torch.float64)
    reference, optimizer = Reference(run, network), Optimizer(run, network)
    start = {key: value.detach().clone() for key, value in network.named_parameters()}
    for step in range(3):
        batch = slice(16 * step, 16 * step + 16)
        images, labels = small_splits.train_images[batch], small_splits.train_labels[batch]
        product_step(network, optimizer, images, labels)
        reference.step(images, labels)
        for (key, ours), theirs in zip(network.named_parameters(), reference.network.parameters(), strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-11), (step, key)
    assert all(not torch.equal(start[key], value) for key, value in network.named_parameters())


def test_corrected_squares_are_those_of_adam(small_splits: Splits) -> None:
    test_steps_follow_the_published_rule("rmsprop", "batch", {"corrected_squares": True}, small_splits)


@pytest.mark.parametrize("affine_l2", ["none", "all"])
def test_frozen_gamma_and_beta_stay(affine_l2: str, small_splits: Splits) -> None:
    network = build_network(run := make_run(affine_lr="frozen", affine_l2=affine_l2), torch.float64)
    before, optimizer = copy.deepcopy(network), Optimizer(run, network)
    for _ in range(2):
        product_step(network, optimizer, small_splits.train_images[:16], small_splits.train_labels[:16])
    for (name, new), (_, old) in zip(network.named_parameters(), before.named_parameters(), strict=True):
        assert torch.equal(new, old) == (not name.endswith("weight")), name


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@given(lr=st.floats(1e-4, 0.5), l2=st.floats(0, 0.9))
@settings(max_examples=15, deadline=None)
def test_without_gradient_the_weights_shrink_by_two_lr_l2(name: str, lr: float, l2: float) -> None:
    run = make_run(optimizer=name, lr=lr, l2=l2)
    network = build_network(run, torch.float64)
    optimizer = Optimizer(run, network)
    with torch.no_grad():
        network.conv2.beta.fill_(0.3)
    before = copy.deepcopy(network)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for (_, layer), (_, old) in zip(normalized_layers(network), normalized_layers(before), strict=True):
        assert_close(layer.weight, (1 - 2 * lr * l2) * old.weight, rtol=1e-13, atol=0)
        assert layer.gamma is not None and old.gamma is not None
        assert torch.equal(layer.beta, old.beta) and torch.equal(layer.gamma, old.gamma)


@pytest.mark.parametrize("normalization", INVARIANT)
def test_projection_sets_norms_to_one_and_keeps_directions(normalization: str) -> None:
    network = build_network(make_run(normalization=normalization, initial_norm=1), torch.float64)
    torch.manual_seed(0)
    for _, layer in normalized_layers(network):
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.beta)
    before = copy.deepcopy(network)
    project(network)
    for (_, layer), (_, old) in zip(normalized_layers(network), normalized_layers(before), strict=True):
        rows = old.weight.detach().flatten(1)
        norms = rows.norm().view(1, 1) if normalization == "layer" else rows.norm(dim=1, keepdim=True)
        assert_close(layer.weight.detach().flatten(1), rows / norms, rtol=1e-13, atol=0)
        assert layer.gamma is not None and old.gamma is not None
        assert torch.equal(layer.beta, old.beta) and torch.equal(layer.gamma, old.gamma)


@pytest.mark.parametrize("normalization", INVARIANT)
def test_projected_training_step_is_that_of_the_paper(normalization: str, small_splits: Splits) -> None:
    """w̃ ← w − η∇L_λ(w), w ← w̃/‖w̃‖₂: the losses of three steps by hand."""
    sizes = {"train_size": 16, "statistics_size": 16}  # one batch: its order does not matter
    run = make_run(normalization=normalization, projected=True, lr=0.5, l2=0.3, steps=3, **sizes)
    losses = [
        value for _, _, quantity, value in train_rows(run, small_splits, torch.float64) if quantity == "train_loss"
    ]
    reference = Reference(run, build_network(run, torch.float64))
    images, labels = small_splits.train_images[:16], small_splits.train_labels[:16]
    for loss in losses:
        assert loss == pytest.approx(F.cross_entropy(reference.network(images), labels).item(), rel=1e-10)
        reference.step(images, labels)
        for w in reference.weights:
            rows = w.data.flatten(1)
            norms = rows.norm() if normalization == "layer" else rows.norm(dim=1).view(-1, *[1] * (w.dim() - 1))
            w.data /= norms
    assert len(losses) == 3


@pytest.mark.parametrize("normalization", INVARIANT)
@given(lr=st.floats(0.01, 0.5), product=st.floats(0, 0.8))
@settings(max_examples=3, deadline=None)
def test_projected_sgd_with_penalty_is_projected_sgd_without(
    normalization: str, small_splits: Splits, lr: float, product: float
) -> None:
    """(η, λ) and (η/(1 − 2ηλ), 0) are one function; `product` is 2ηλ."""

    def losses(lr: float, l2: float, projected: bool = True) -> list[float]:
        run = make_run(normalization=normalization, projected=projected, lr=lr, l2=l2, evaluations=1)
        rows = train_rows(run, small_splits, torch.float64)
        return [value for _, _, quantity, value in rows if quantity in ("train_loss", "test_loss")]

    penalised = losses(lr, product / (2 * lr))
    assert len(penalised) == 21
    assert penalised == pytest.approx(losses(lr / (1 - product), 0), rel=1e-8)
    if product > 0.1:
        assert penalised != pytest.approx(losses(lr, 0), rel=1e-8)
