"""The monitor of weight decay: groups against lists written by hand, predictions against theory.py and simulations."""

import copy
import math
import warnings
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
from effective_lr.studies.normalization.data import Splits
from effective_lr.studies.normalization.networks import build_network
from effective_lr.studies.normalization.optimizers import HAS_SQUARES
from effective_lr.studies.normalization.training import batches
from shared import CPU, NORMALIZATIONS, OPTIMIZERS, ROOT, make_run, train_rows
from twins import LAYERS, Plain

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randint(11, (3, 12), generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def kinds(model: nn.Module, inputs: Any) -> dict[str, str]:
    """The kind of each group by its name, without those that are not scale invariant."""
    return {group.name: group.kind for group in scale_groups(model, inputs) if group.kind != "none"}


def test_resnet18() -> None:
    """Each convolution has its batch norm. The first norm of a block feeds ReLU and the next such convolution, so γ and
    β scale together; what is added to the residual stream, and the classifier behind it, does not."""
    model = torchvision.models.resnet18(num_classes=10)
    for module in model.modules():
        if isinstance(module, torchvision.models.resnet.BasicBlock):
            nn.init.zeros_(module.bn2.weight)  # as training recipes start: the branch is shut, and must be opened
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
    for n in (2, 3):
        for place, kind in ((0, "unit"), (1, "tensor")):
            name = f"features.{n}.block.{place}.1"
            expected[f"{name}.weight + {name}.bias"] = kind
    expected["features.1.block.2.1.weight"] = "tensor"
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
    groups = scale_groups(GPT(run.changed(rms_norm=rms_norm)), TOKENS)
    found = {group.parameters: (group.kind, group.rows) for group in groups if group.kind != "none"}
    every = {("attention",): ("unit", tuple(range(8))), ("up",): ("unit", (0, 1)), ("down",): ("unit", (0, 1))}
    every |= {("head",): ("tensor", (0,))}
    assert found == {"pre": {("attention",): ("unit", (0, 1, 4, 5))}, "every": every, "none": {}}[rms_norm]
    if rms_norm == "pre":
        assert Group(("attention",), "none", 8, (2, 3, 6, 7)) in groups


class Net(nn.ModuleDict):
    """A small network of one idea."""

    def __init__(self, function: Any, **modules: nn.Module) -> None:
        super().__init__(modules)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def conv(outputs: int = 6, bias: bool = False, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(6, outputs, 3, bias=bias, **options)


def norm(channels: int = 6) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, affine=False)


def qk_norm(net: Any, x: Tensor) -> Tensor:
    q, k, v = F.linear(x.flatten(2).mT[:, :9], net.qkv.weight).chunk(3, -1)
    return F.scaled_dot_product_attention(F.layer_norm(q, (6,)), F.layer_norm(k, (6,)), v)


def shut(net: Any, x: Tensor) -> Tensor:
    first, second = net.a(x).chunk(2, 1)
    return torch.cat([net.bn(first) if x.abs().max() < 5 else torch.zeros_like(first), second], 1)


torch.manual_seed(0)
CASES: dict[str, tuple[nn.Module, dict[str, str]]] = {
    # Batch norm does not see the bias behind a convolution, but does behind ReLU.
    "bias": (nn.Sequential(conv(bias=True), norm()), {"0.weight": "unit", "0.bias": "idle"}),
    "bias inside": (nn.Sequential(conv(bias=True), nn.ReLU(), norm()), {"0.weight + 0.bias": "unit"}),
    "classifier": (nn.Sequential(conv(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5)), {}),
    "dropout": (nn.Sequential(nn.Dropout(), conv(), nn.Dropout2d(0.2), norm()), {"1.weight": "unit"}),
    "depthwise": (nn.Sequential(conv(groups=6), norm()), {"0.weight": "unit"}),
    "grouped": (nn.Sequential(conv(groups=2), nn.GroupNorm(1, 6, affine=False)), {"0.weight": "tensor"}),
    "weight norm": (nn.Sequential(weight_norm(conv())), {"0.parametrizations.weight.original1": "unit"}),
    "residual": (Net(lambda s, x: x[..., 1:-1, 1:-1] + s.bn(s.a(x)), a=conv(), bn=norm()), {"a.weight": "unit"}),
    "sum before": (Net(lambda s, x: s.bn(x[..., 1:-1, 1:-1] + s.a(x)), a=conv(), bn=norm()), {}),
    "shared": (Net(lambda s, x: s.bn(s.a(s.bn(s.a(x)))), a=conv(), bn=norm()), {"a.weight": "unit"}),
    "shared, one bare": (Net(lambda s, x: s.a(s.bn(s.a(x))), a=conv(), bn=norm()), {}),
    "queries and keys": (Net(qk_norm, qkv=nn.Linear(6, 18)), {"qkv.weight[2 of 3]": "block", "qkv.bias": "idle"}),
    # A path that opens only where the convolution's output is large, which on the given inputs it is not.
    "hidden path": (Net(lambda s, x: s.bn(y := s.a(x)) + F.relu(y.abs() - 9), a=conv(), bn=norm()), {}),
    # Flat around the given weights, and not beyond.
    "step": (Net(lambda s, x: s.bn(s.a(x)) + F.relu(s.a.weight.norm() - 1.7), a=conv(), bn=norm()), {}),
    # Three units that have an effect on the given inputs alone: without a slope there, perhaps by chance.
    "shut": (Net(shut, a=conv(), bn=norm(3)), {}),
}


@pytest.mark.parametrize("case", CASES)
def test_small_networks(case: str) -> None:
    """What is found can be rescaled without a change of the outputs; the search itself changes nothing."""
    model, expected = CASES[case]
    x = torch.randn(5, 6, 8, 8, generator=torch.Generator().manual_seed(1))
    model(x)
    state, random = {key: value.clone() for key, value in model.state_dict().items()}, torch.get_rng_state()
    assert kinds(model, (x,)) == expected
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    rescaled = copy.deepcopy(model)
    for group in scale_groups(model, x):
        for name in group.parameters if group.kind != "none" else ():
            rows = rescaled.get_parameter(name).data.view(group.units, -1)
            rows[list(group.rows)] *= torch.arange(2, 2 + len(group.rows))[:, None]
    outputs = [torch.random.manual_seed(0) and net(x) for net in (model, rescaled)]
    torch.testing.assert_close(*outputs, rtol=1e-3, atol=1e-3)


BAD: dict[str, tuple[nn.Module, Any, str]] = {
    "no parameters": (nn.ReLU(), IMAGES, "no parameter that requires a gradient"),
    "inputs that do not fit": (nn.Linear(3, 2), torch.ones(2, 4), "cannot be called with these inputs: .*shapes"),
    "NaN": (nn.Linear(3, 2), torch.full((2, 3), math.nan), "not finite"),
    "eval mode": (nn.Linear(3, 2).eval(), torch.ones(2, 3), r"eval mode.*model\.train\(\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence(case: str) -> None:
    model, inputs, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        scale_groups(model, inputs)


# Predictions

DIM, UNITS, GRAD, MOMENTUM = 400, 12, 2.0, 0.9
SETTINGS = {  # (η, λ): angles of at most 0.03
    "sgd": (0.05, 2e-3),
    "momentum": (0.005, 2e-3),
    "nesterov": (0.005, 2e-3),
    "adam": (1e-3, 8e-3),
    "rmsprop": (1e-3, 8e-3),
    "adamw": (2e-3, 0.125),
}


class Walk:
    """Weights (UNITS, DIM) of random tangent gradients of norm GRAD/‖w‖, and their monitor."""

    def __init__(self, name: str, initial_norm: float, l2: float) -> None:
        self.generator = torch.Generator().manual_seed(0)
        w = torch.randn(UNITS, DIM, generator=self.generator, dtype=torch.float64)
        model = nn.ParameterDict({"w": w * (initial_norm / w.norm(dim=1, keepdim=True))})
        self.w = model["w"]
        settings = [{"params": [self.w], "lr": SETTINGS[name][0], "weight_decay": 2 * l2}]
        self.optimizer = plain_pytorch.optimizer(name, settings, MOMENTUM)
        self.monitor = Monitor(model, self.optimizer, [Group(("w",), "unit", UNITS, tuple(range(UNITS)))], every=10)

    def __call__(self, steps: int) -> dict[str, Any]:
        for _ in range(steps):
            noise = torch.randn(UNITS, DIM, generator=self.generator, dtype=torch.float64)
            w = self.w.detach()
            norm = w.norm(dim=1, keepdim=True)
            tangent = noise - (noise * w).sum(1, keepdim=True) / norm**2 * w
            self.w.grad = tangent / tangent.norm(dim=1, keepdim=True) * GRAD / norm
            self.optimizer.step()
            self.monitor.step()
        return self.monitor.report()[0]


@pytest.mark.parametrize("name", theory.NORM_EXPONENT)
def test_random_gradients_settle_where_the_monitor_says_from_the_start(name: str) -> None:
    """3 %, at the equilibrium; 6 % seen from 1.5 times its norm, where ŝ lags behind gradients that grow."""
    point = (name, *SETTINGS[name], GRAD, DIM, MOMENTUM)
    expected = {
        "norm": theory.equilibrium_norm(*point),
        "angle": theory.equilibrium_angle(*point),
        "effective_lr": theory.equilibrium_effective_lr(*point),
    }
    walk = Walk(name, 1.5 * float(expected["norm"]), SETTINGS[name][1])
    walk(600)  # of RMSprop's squares, which start at 0, and of Adam's, which are few
    early = walk(100)
    walk(round(early["half_way"] - 100))
    left = (walk(100)["norm"] - early["equilibrium_norm"]) / (early["norm"] - early["equilibrium_norm"])
    assert left == pytest.approx(0.5, abs=0.04)
    walk(4000)
    late = walk(1000)
    for what, value in expected.items():
        assert early[f"equilibrium_{what}"] == pytest.approx(value, rel=0.06 if name in HAS_SQUARES else 0.03), what
        assert late[f"equilibrium_{what}"] == pytest.approx(value, rel=0.03), what
        assert late[what] == pytest.approx(value, rel=0.03), what
    assert f"weight_decay = {2 * SETTINGS[name][1]:g} sets its learning rate" in late["sentence"]


def monitored(run: Any, splits: Splits, every: int) -> dict[str, dict[str, Any]]:
    """A run of the study in plain PyTorch under a monitor: its report on the late part, by layer."""
    plain = Plain(run)
    names = {id(parameter): name for name, parameter in plain.network.named_parameters()}
    groups = [Group((names[id(weight)],), "tensor", 1, (0,)) for weight in plain.weights.values()]
    monitor = Monitor(plain.network, plain.optimizer, groups, every)
    for step, batch in enumerate(batches(run, CPU), start=1):
        plain.step(splits, batch)
        monitor.step()
        report = monitor.report() if step in (run.steps // 2, run.steps) else []
    return dict(zip(LAYERS, report, strict=True))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_conv4_has_the_late_numbers_and_the_balance_of_the_study(name: str, small_splits: Splits) -> None:
    """Its recorded balance and theory.equilibrium_growth give the norm at equilibrium."""
    lr = 3e-3 if name in HAS_SQUARES else 0.02
    run = make_run(optimizer=name, normalization="layer", lr=lr, l2=0.05, steps=100, width=3, norm_eps=1e-12)
    rows = train_rows(run, small_splits, torch.float64)
    sampled, every = monitored(run, small_splits, 10), monitored(run, small_splits, 1)
    for layer in LAYERS:
        of = {what: value for step, where, what, value in rows if where == layer and step == run.steps}
        growth = theory.equilibrium_growth(name, lr, of["balance_gradient"], of.get("balance_memory", 0.0))
        shrinking = 4 * run.l2 * of["balance_rooted_norm" if name == "adamw" else "balance_norm"]
        power = {"adam": 3, "rmsprop": 3, "adamw": 2}.get(name, 4)
        equilibrium = of["balance_norm"] ** 0.5 * (growth / shrinking) ** (1 / power)
        assert sampled[layer]["norm"] == pytest.approx(of["late_norm_squared"] ** 0.5, rel=1e-6)
        assert sampled[layer]["angle"] == pytest.approx(of["late_angle_squared"] ** 0.5, rel=1e-4)
        assert every[layer]["equilibrium_norm"] == pytest.approx(equilibrium, rel=1e-3), layer  # Adam corrects memory


# How it is used


def network() -> nn.Module:
    return nn.Sequential(conv(4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


def train(model: nn.Module, monitor: Monitor | None, optimizer: Any, steps: int = 8, parts: int = 1) -> None:
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        for part in torch.randn(8, 6, 8, 8, generator=generator).chunk(parts):
            with torch.autocast("cpu", torch.bfloat16, enabled=parts > 1):
                loss = model(part).square().mean()
            loss.backward()
        optimizer.step()
        if monitor:
            monitor.step()
        optimizer.zero_grad()


def test_it_changes_nothing_and_takes_compiled_models_autocast_accumulation_and_a_scheduler() -> None:
    plain = network()
    watched = copy.deepcopy(plain)
    compiled = torch.compile(watched, backend="eager")
    groups = scale_groups(compiled, torch.randn(3, 6, 8, 8))
    assert [group.name for group in groups] == [name for name, _ in plain.named_parameters()]
    sgd = [torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01) for model in (plain, watched)]
    monitor = Monitor(compiled, sgd[1], groups, every=3)
    train(plain, None, sgd[0], parts=2)
    train(compiled, monitor, sgd[1], parts=2)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), watched.parameters(), strict=True))
    sgd[1].param_groups[0]["lr"] = 0.2
    report = {row["name"]: row for row in monitor.report()}
    assert report["0.weight"]["effective_lr"] == pytest.approx(0.2 / 0.1 / report["0.weight"]["norm"] ** 2, rel=0.05)
    assert "not scale invariant: weight_decay = 0.01 acts" in report["4.weight"]["sentence"]
    assert "equilibrium_norm" not in report["4.weight"] and report["4.weight"]["angle"] > 0


def test_without_decay_and_by_an_unknown_optimizer() -> None:
    row = Walk("sgd", 1.0, l2=0.0)(20)
    assert row["equilibrium_norm"] == math.inf and row["equilibrium_effective_lr"] == 0
    assert "inf steps" in row["sentence"]
    model = network()
    unknown = torch.optim.Adagrad(model.parameters(), lr=0.1)
    groups = scale_groups(model, torch.randn(3, 6, 8, 8))
    with warnings.catch_warnings(record=True) as said:
        monitor = Monitor(model, unknown, groups, every=2)
        train(model, monitor, unknown)
    assert [str(warning.message).split()[0] for warning in said] == ["Adagrad"]
    row = monitor.report()[0]
    assert row["angle"] > 0 and "effective_lr" not in row


def test_wrong_use_is_one_sentence() -> None:
    model = network()
    groups = scale_groups(model, torch.randn(3, 6, 8, 8))
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = Monitor(model, sgd, groups, every=1)
    for _ in range(3):
        monitor.step()  # without gradients
    with pytest.raises(ValueError, match=r"No step was measured: call step\(\) before zero_grad\(\)"):
        monitor.report()
    train(model, monitor, sgd, steps=2)
    model[0].weight.data[0] = math.nan
    with pytest.raises(ValueError, match=r"0\.weight is not finite after 5 steps"):
        monitor.report()
    model[0].weight.requires_grad_(False)
    with pytest.raises(ValueError, match=r"0\.weight is frozen"):
        Monitor(model, sgd, groups)
