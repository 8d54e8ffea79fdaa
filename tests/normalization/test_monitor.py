"""The monitor of weight decay: groups against lists written by hand, predictions against theory.py and simulations."""

import copy
import math
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

import plain_pytorch
from effective_lr.engine import grid
from effective_lr.engine.study import load
from effective_lr.monitor import Group, Monitor, scale_groups
from effective_lr.studies.manifold.networks import GPT
from effective_lr.studies.normalization import theory
from effective_lr.studies.normalization.networks import build_network
from effective_lr.studies.normalization.training import batches
from shared import CPU, NORMALIZATIONS, OPTIMIZERS, ROOT, make_run, train_rows
from twins import LAYERS, Plain

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def kinds(model: nn.Module, inputs: Any) -> dict[str, str]:
    """The kind of each group by its name, without those that are not scale invariant."""
    return {group.name: group.kind for group in scale_groups(model, inputs) if group.kind != "none"}


def test_resnet18() -> None:
    """Each convolution has its batch norm. The first norm of a block feeds ReLU and the next such convolution, so γ and
    β scale together; what is added to the residual stream, and the classifier behind it, does not."""
    model = torchvision.models.resnet18(num_classes=10, zero_init_residual=True)  # branches are shut at first
    convolutions = {f"{name}.weight": "unit" for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    first = {name for name, _ in model.named_modules() if name.startswith("layer") and name.endswith("bn1")}
    assert kinds(model, IMAGES) == convolutions | {f"{n}.weight + {n}.bias": "tensor" for n in first}


def test_vgg11_bn() -> None:
    """Batch norm takes each bias away. Each but the last feeds ReLU, pooling and the next convolution; the classifier
    has no normalization."""
    model = torchvision.models.vgg11_bn(init_weights=False)
    model.classifier = nn.Sequential(nn.Linear(25088, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 10))
    places = [number for number, module in enumerate(model.features) if isinstance(module, nn.Conv2d)]
    expected = {f"features.{n}.weight": "unit" for n in places} | {f"features.{n}.bias": "idle" for n in places}
    norms = {f"features.{n + 1}.weight + features.{n + 1}.bias": "tensor" for n in places[:-1]}
    assert kinds(model, IMAGES) == expected | norms


def test_convnext() -> None:
    """The stem and each depthwise convolution are followed by a layer norm over channels, which keeps differences of
    biases: weight and bias scale together, as a whole. Layer scales of 1e-6 must not hide the rest of a block."""
    model = ConvNeXt([CNBlockConfig(8, 16, 2), CNBlockConfig(16, None, 2)], num_classes=10)
    first = ["features.0.0", *(name for name, _ in model.named_modules() if name.endswith("block.0"))]
    assert kinds(model, IMAGES) == {f"{name}.weight + {name}.bias": "tensor" for name in first}


def test_vit() -> None:
    """Layer norms stand before matrices, not behind them: nothing is scale invariant."""
    model = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=10)
    assert kinds(model, IMAGES) == {}


def test_mobilenet_v3_small() -> None:
    """Every convolution with a batch norm, depthwise or not. Hardswish and squeeze-and-excitation are not homogeneous;
    ReLU is, in blocks 1 to 3: what feeds a depthwise convolution scales by channel. Block 1 ends in block 2's
    convolution. A shift before a 1 × 1 convolution with batch norm, through residual sums alone, has no effect."""
    model = torchvision.models.mobilenet_v3_small(num_classes=10)
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    last = [f"features.{n}.block.{2 if n <= 3 else 3}.1.bias" for n in range(1, 12)]
    expected = {f"{name.removesuffix('1')}0.weight": "unit" for name in norms} | dict.fromkeys(last, "idle")
    expected["features.1.block.2.1.weight"] = "tensor"
    for name, kind in (("2.block.0", "unit"), ("2.block.1", "tensor"), ("3.block.0", "unit"), ("3.block.1", "tensor")):
        expected[f"features.{name}.1.weight + features.{name}.1.bias"] = kind
    assert kinds(model, torch.randn(4, 3, 64, 64)) == expected


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_conv4(normalization: str) -> None:
    """The study's own groups. γ and β of batch and layer norm feed ReLU and the next layer, which is normalized too."""
    network = build_network(make_run(normalization=normalization))
    weight = {"batch": "unit", "weight": "unit", "layer": "tensor"}.get(normalization)
    expected = {f"{name}.weight": weight for name in LAYERS if weight}
    if normalization in ("batch", "layer"):
        expected |= {f"{name}.gamma + {name}.beta": "tensor" for name in LAYERS[:-1]}
    assert kinds(network, torch.randn(16, 1, 14, 14)) == expected


@pytest.mark.parametrize("rms_norm", ["pre", "every", "none"])
def test_gpt(rms_norm: str) -> None:
    """A stack is seen matrix by matrix. `pre`: queries and keys are normalized, 0, 1, 4 and 5 of query, key, value,
    output and so on. `every`: the outputs of all matrices. The embedding meets positions and residuals as it is."""
    run = grid.load_scale(ROOT / "config/manifold", "smoke", load("manifold"))[1]["starts"][0]
    groups = scale_groups(GPT(run.changed(rms_norm=rms_norm)), torch.randint(11, (3, 12)))
    every = dict.fromkeys(("attention", "up", "down"), "unit") | {"head": "tensor"}
    expected = {"pre": {"attention[4 of 8]": "unit"}, "every": every, "none": {}}[rms_norm]
    assert {group.name: group.kind for group in groups if group.kind != "none"} == expected
    assert (Group(("attention",), "none", 8, (2, 3, 6, 7)) in groups) == (rms_norm == "pre")


class Net(nn.Module):
    """A layer a, by default a convolution, a batch norm, and what `function` does with them."""

    def __init__(self, function: Any, a: nn.Module | None) -> None:
        super().__init__()
        self.function, self.a, self.bn = function, a or CONV, nn.BatchNorm2d(6, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def qk_norm(s: Any, x: Tensor) -> Tensor:
    q, k, v = F.linear(x.flatten(2).mT[:, :9], s.a.weight).chunk(3, -1)
    return F.scaled_dot_product_attention(F.layer_norm(q, (6,)), F.layer_norm(k, (6,)), v)


torch.manual_seed(0)
CONV = nn.Conv2d(6, 6, 3, bias=False)
CASES: dict[str, tuple[Any, nn.Module | None, dict[str, str]]] = {
    "bias inside": (lambda s, x: s.bn(F.relu(s.a(x))), nn.Conv2d(6, 6, 3), {"a.weight + a.bias": "unit"}),
    "dropout": (lambda s, x: s.bn(F.dropout2d(s.a(F.dropout(x)), 0.2)), None, {"a.weight": "unit"}),
    "grouped": (
        lambda s, x: F.group_norm(s.a(x), 1, eps=1e-12),
        nn.Conv2d(6, 6, 3, groups=2, bias=False),
        {"a.weight": "tensor"},
    ),
    "weight norm": (lambda s, x: s.a(x), weight_norm(nn.Linear(8, 5)), {"a.parametrizations.weight.original1": "unit"}),
    "sum before": (lambda s, x: s.bn(x[..., 1:-1, 1:-1] + s.a(x)), None, {}),
    "shared": (lambda s, x: s.bn(s.a(s.bn(s.a(x)))), None, {"a.weight": "unit"}),
    "shared, one bare": (lambda s, x: s.a(s.bn(s.a(x))), None, {}),
    "queries and keys": (qk_norm, nn.Linear(6, 18), {"a.weight[2 of 3]": "block", "a.bias": "idle"}),
    "a path that opens for large inputs": (lambda s, x: s.bn(y := s.a(x)) + F.relu(y.abs() - 9), None, {}),
    "flat, not beyond": (lambda s, x: s.bn(s.a(x)) + F.relu(s.a.weight.norm() - 1.7), None, {}),
    # Three units have an effect on the given inputs alone: without a slope there, perhaps by chance.
    "shut": (lambda s, x: torch.cat([s.bn(y := s.a(x))[:, :3] * (x.abs().max() < 5), y[:, 3:]], 1), None, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_small_networks(case: str) -> None:
    """What is found can be rescaled without a change of the outputs."""
    function, layer, expected = CASES[case]
    model, x = Net(function, layer), torch.randn(5, 6, 8, 8)
    assert kinds(model, (x,)) == expected
    rescaled = copy.deepcopy(model)
    for group in scale_groups(model, x):
        for name in group.parameters if group.kind != "none" else ():
            rows = rescaled.get_parameter(name).data.view(group.units, -1)
            rows[list(group.rows)] *= torch.arange(2, 2 + len(group.rows))[:, None]
    outputs = [torch.random.manual_seed(0) and net(x) for net in (model, rescaled)]
    torch.testing.assert_close(*outputs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        (nn.ReLU(), IMAGES, "depend on no parameter that requires a gradient"),
        (nn.Linear(3, 2), torch.ones(2, 4), "cannot be called with these inputs: .*shapes"),
        (nn.Linear(3, 2), torch.full((2, 3), math.nan), "not finite"),
        (nn.Linear(3, 2).eval(), torch.ones(2, 3), r"eval mode.*model\.train\(\)"),
    ],
)
def test_bad_input_is_one_sentence(model: nn.Module, inputs: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scale_groups(model, inputs)


DIM, UNITS, GRAD, MOMENTUM = 400, 12, 2.0, 0.9
LR = {"sgd": 0.05, "momentum": 0.005, "nesterov": 0.005, "adam": 1e-3, "rmsprop": 1e-3, "adamw": 2e-3}
L2 = {"sgd": 2e-3, "momentum": 2e-3, "nesterov": 2e-3, "adam": 8e-3, "rmsprop": 8e-3, "adamw": 0.125}
HAS_SQUARES = ("adam", "adamw", "rmsprop")


def walk(name: str, initial_norm: float) -> Any:
    """Takes steps of random tangent gradients of norm GRAD/‖w‖, at angles of at most 0.03; gives the monitor's row."""
    generator = torch.Generator().manual_seed(0)
    w = nn.Parameter(initial_norm * F.normalize(torch.randn(UNITS, DIM, generator=generator, dtype=torch.float64)))
    optimizer = plain_pytorch.optimizer(name, [{"params": [w], "lr": LR[name], "weight_decay": 2 * L2[name]}], MOMENTUM)
    groups = [Group(("w",), "unit", UNITS, tuple(range(UNITS)))]
    monitor = Monitor(nn.ParameterDict({"w": w}), optimizer, groups, every=10)

    def take(steps: int) -> dict[str, Any]:
        for _ in range(steps):
            noise, norm = torch.randn(UNITS, DIM, generator=generator, dtype=torch.float64), w.detach().norm(dim=1)
            tangent = noise - ((noise * w.detach()).sum(1) / norm**2)[:, None] * w.detach()
            w.grad = F.normalize(tangent, dim=1) * GRAD / norm[:, None]
            optimizer.step()
            monitor.step()
        return monitor.report()[0]

    return take


@pytest.mark.parametrize("name", LR)
def test_random_gradients_settle_where_the_monitor_says_from_the_start(name: str) -> None:
    """3 %, at the equilibrium; 6 % seen from 1.5 times its norm, where ŝ lags behind gradients that grow."""
    point = (name, LR[name], L2[name], GRAD, DIM, MOMENTUM)
    take = walk(name, 1.5 * float(theory.equilibrium_norm(*point)))
    take(600)  # of RMSprop's squares, which start at 0, and of Adam's, which are few
    early = take(100)
    take(round(early["half_way"] - 100))
    left = (take(100)["norm"] - early["equilibrium_norm"]) / (early["norm"] - early["equilibrium_norm"])
    assert left == pytest.approx(0.5, abs=0.04)
    take(4000)
    late = take(1000)
    for what in ("norm", "angle", "effective_lr"):
        value = getattr(theory, f"equilibrium_{what}")(*point)
        assert early[f"equilibrium_{what}"] == pytest.approx(value, rel=0.06 if name in HAS_SQUARES else 0.03), what
        assert late[what] == pytest.approx(value, rel=0.03), what
    assert f"weight_decay = {2 * L2[name]:g} sets its learning rate" in late["sentence"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_conv4_has_the_late_numbers_and_the_balance_of_the_study(name: str, small_splits: Any) -> None:
    """The study samples norms and angles every tenth step, and its balance, from which the equilibrium, always."""
    lr, power = 3e-3 if name in HAS_SQUARES else 0.02, {"adam": 3, "rmsprop": 3, "adamw": 2}.get(name, 4)
    run = make_run(optimizer=name, normalization="layer", lr=lr, l2=0.05, steps=100, width=3, norm_eps=1e-12)
    rows = train_rows(run, small_splits, torch.float64)
    for every in (10, 1):
        plain = Plain(run)
        groups = [Group((name,), "tensor", 1, (0,)) for name, p in plain.network.named_parameters() if p.dim() > 1]
        monitor = Monitor(plain.network, plain.optimizer, groups, every)
        for step, batch in enumerate(batches(run, CPU), start=1):
            plain.step(small_splits, batch)
            monitor.step()
            report = monitor.report() if step in (run.steps // 2, run.steps) else []
        for layer, row in zip(LAYERS, report, strict=True):
            of = {what: value for step, where, what, value in rows if where == layer and step == run.steps}
            growth = theory.equilibrium_growth(name, lr, of["balance_gradient"], of.get("balance_memory", 0.0))
            shrinking = 4 * run.l2 * of["balance_rooted_norm" if name == "adamw" else "balance_norm"]
            equilibrium = of["balance_norm"] ** 0.5 * (growth / shrinking) ** (1 / power)
            if every == 10:
                assert row["norm"] == pytest.approx(of["late_norm_squared"] ** 0.5, rel=1e-6)
                assert row["angle"] == pytest.approx(of["late_angle_squared"] ** 0.5, rel=1e-4)
            else:  # but for the start of Adam's memory, which we do not correct
                assert row["equilibrium_norm"] == pytest.approx(equilibrium, rel=1e-3), layer


NETWORK = nn.Sequential(nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 3))


def train(model: nn.Module, optimizer: Any, monitor: Monitor | None = None) -> None:
    """Steps with autocast and accumulated gradients."""
    for step in range(8):
        for part in torch.randn(8, 6, 8, 8, generator=torch.Generator().manual_seed(step)).chunk(2):
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(part).square().mean()
            loss.backward()
        optimizer.step()
        if monitor:
            monitor.step()
        optimizer.zero_grad()


def test_it_changes_nothing_and_takes_compiled_models_autocast_accumulation_and_a_scheduler() -> None:
    plain, watched, x = NETWORK, copy.deepcopy(NETWORK), torch.randn(3, 6, 8, 8)
    random, compiled = torch.get_rng_state(), torch.compile(watched, backend="eager")
    groups = scale_groups(compiled, x)
    assert [group.name for group in groups] == [name for name, _ in plain.named_parameters()]
    sgd = [torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01) for model in (plain, watched)]
    monitor = Monitor(compiled, sgd[1], groups, every=3)
    train(plain, sgd[0])
    train(compiled, sgd[1], monitor)
    torch.testing.assert_close(plain.state_dict(), watched.state_dict(), rtol=0, atol=0)
    sgd[1].param_groups[0] |= {"lr": 0.2, "weight_decay": 0.0}
    first, *_, last, _ = monitor.report()
    assert torch.equal(torch.get_rng_state(), random)
    assert first["effective_lr"] == pytest.approx(0.2 / 0.1 / first["norm"] ** 2, rel=0.05)
    assert first["equilibrium_norm"] == math.inf and "half way in inf steps" in first["sentence"]
    assert "not scale invariant: weight_decay = 0 acts" in last["sentence"]
    assert "equilibrium_norm" not in last and last["angle"] > 0


def test_an_unknown_optimizer_and_wrong_use_are_one_sentence_each() -> None:
    model = copy.deepcopy(NETWORK)
    groups, unknown = scale_groups(model, torch.randn(3, 6, 8, 8)), torch.optim.Adagrad(model.parameters())
    with pytest.warns(match="Adagrad gives no predictions") as said:
        monitor = Monitor(model, unknown, groups, every=1)
        monitor.step()
        monitor.step()  # without gradients
        with pytest.raises(ValueError, match=r"No step was measured: call step\(\) before zero_grad\(\)"):
            monitor.report()
        train(model, unknown, monitor)
        model[0].weight.grad = torch.full_like(model[0].weight, math.inf)
        monitor.step()  # of which GradScaler makes none
    row = monitor.report()[0]
    assert len(said) == 1 and row["norm"] > 0 and row["angle"] > 0 and "effective_lr" not in row
    train(model, unknown, monitor)
    model[0].weight.data[0] = math.nan
    with pytest.raises(ValueError, match=r"0\.weight is not finite after 19 steps"):
        monitor.report()
    model[0].weight.requires_grad_(False)
    with pytest.raises(ValueError, match=r"0\.weight is frozen"):
        Monitor(model, unknown, groups)
