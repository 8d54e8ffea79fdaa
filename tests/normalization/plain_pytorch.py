"""The experiment once more, as one would write it in plain PyTorch: torch.nn, torch.optim, and nothing of the package.

    python plain_pytorch.py INPUT.npz OUTPUT.json

INPUT holds `run`, the settings as JSON; images and labels; the initial weights of the four layers; and `batches`, the
images of each step. OUTPUT gets the training loss of each step and the test error by recomputed batch statistics.
"""

import json
import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm


def layer(kind, eps, linear, units, spatial):
    """A linear map or convolution with its normalization."""
    if kind == "batch":
        return nn.Sequential(linear, (nn.BatchNorm2d if spatial else nn.BatchNorm1d)(units, eps=eps, momentum=None))
    if kind == "layer":
        return nn.Sequential(linear, nn.GroupNorm(1, units, eps=eps))
    return nn.Sequential(weight_norm(linear) if kind == "weight" else linear)


def build(run, channels, start, dtype):
    kind, eps, width = run["normalization"], run["norm_eps"], run["width"]
    bias = kind in ("weight", "none")
    sizes = [(channels, width), (width, 2 * width), (2 * width, 4 * width)]
    linears = [nn.Conv2d(a, b, 3, padding=1, bias=bias) for a, b in sizes] + [nn.Linear(4 * width, 10, bias=bias)]
    for linear, weight in zip(linears, start, strict=True):
        linear.weight.data = torch.from_numpy(weight).clone()
        if bias:
            linear.bias.data.zero_()
    conv1, conv2, conv3, last = (
        layer(kind, eps, linear, len(weight), weight.ndim == 4) for linear, weight in zip(linears, start, strict=True)
    )
    if kind == "weight":
        for linear in linears:  # γ starts at 1, not at the norm of the weights
            linear.parametrizations.weight.original0.data.fill_(1.0)
    model = nn.Sequential(
        conv1, nn.ReLU(), nn.MaxPool2d(2), conv2, nn.ReLU(), nn.MaxPool2d(2), conv3, nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), last,
    )  # fmt: skip
    weights = [linear.parametrizations.weight.original1 if kind == "weight" else linear.weight for linear in linears]
    return model.to(dtype), weights


def optimizer(run, model, weights):
    """PyTorch's weight_decay is 2λ, since the penalty λ‖w‖² has no factor ½."""
    own = {id(weight) for weight in weights}
    affine = [parameter for parameter in model.parameters() if id(parameter) not in own]
    groups = [
        {"params": weights, "lr": run["lr"], "weight_decay": 2 * run["l2"]},
        {"params": affine, "lr": run["affine_lr"], "weight_decay": 0.0},
    ]
    name, eps = run["optimizer"], run["optimizer_eps"]
    if name == "adam":
        return torch.optim.Adam(groups, eps=eps)
    if name == "adamw":
        return torch.optim.AdamW(groups, eps=eps)
    if name == "rmsprop":
        return torch.optim.RMSprop(groups, eps=eps)
    momentum = 0.0 if name == "sgd" else run["momentum"]
    return torch.optim.SGD(groups, lr=run["lr"], momentum=momentum, nesterov=name == "nesterov")


def main(source, target):
    torch.set_num_threads(1)
    given = np.load(source)
    run = json.loads(str(given["run"]))
    images, labels = torch.from_numpy(given["images"]), torch.from_numpy(given["labels"])
    start = [given[f"weight{k}"] for k in range(4)]
    model, weights = build(run, images.shape[1], start, images.dtype)
    steps = optimizer(run, model, weights)
    losses = []
    for batch in torch.from_numpy(given["batches"]):
        loss = F.cross_entropy(model(images[batch]), labels[batch])
        steps.zero_grad()
        loss.backward()
        steps.step()
        losses.append(float(loss.detach()))

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.reset_running_stats()  # with momentum=None they become the mean over what follows
        for chunk in images[: run["statistics_size"]].split(512):
            model(chunk)
        model.eval()
        test = torch.from_numpy(given["test_images"]), torch.from_numpy(given["test_labels"])
        wrong = (model(test[0]).argmax(1) != test[1]).double().mean()
    loaded = sorted(name for name in sys.modules if name.startswith("effective_lr"))
    with open(target, "w") as file:
        json.dump({"losses": losses, "test_error": float(wrong), "package": loaded}, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
