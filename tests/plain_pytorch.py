"""The experiment once more, as one would write it in plain PyTorch: torch.nn, torch.optim, and nothing of the package.

    python plain_pytorch.py INPUT.npz OUTPUT.json

INPUT holds `run`, the settings as JSON; images and labels; the initial weights of the four layers; and `batches`, the
images of each step. OUTPUT gets the test error by recomputed batch statistics. Other tests import the functions.
"""

import json
import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm


def layer(kind, eps, inputs, units, spatial):
    """A linear map or convolution with its normalization; and its weights, γ (None where it has none) and β."""
    bias = kind in ("weight", "none")
    linear = nn.Conv2d(inputs, units, 3, padding=1, bias=bias) if spatial else nn.Linear(inputs, units, bias)
    if kind == "none":
        return nn.Sequential(linear), (linear.weight, None, linear.bias)
    if kind == "weight":
        gamma, weight = weight_norm(linear).parametrizations.weight.parameters()
        return nn.Sequential(linear), (weight, gamma, linear.bias)
    batch_norm = nn.BatchNorm2d if spatial else nn.BatchNorm1d
    norm = batch_norm(units, eps=eps) if kind == "batch" else nn.GroupNorm(1, units, eps=eps)
    return nn.Sequential(linear, norm), (linear.weight, norm.weight, norm.bias)


def build(run, channels, dtype):
    """The network, and the parameters of its layers."""
    kind, eps, width = run["normalization"], run["norm_eps"], run["width"]
    sizes = [(channels, width), (width, 2 * width), (2 * width, 4 * width), (4 * width, 10)]
    layers = [layer(kind, eps, *size, spatial=number < 3) for number, size in enumerate(sizes)]
    (conv1, conv2, conv3, last), parameters = zip(*layers, strict=True)
    relu = nn.LeakyReLU(run["leak"]) if run["leak"] else nn.ReLU()
    first = [conv1, relu, nn.MaxPool2d(2), conv2, relu, nn.MaxPool2d(2), conv3, relu]
    return nn.Sequential(*first, nn.AdaptiveAvgPool2d(1), nn.Flatten(), last).to(dtype), parameters


def begin(parameters, start):
    """Weights as given, γ = 1 and β = 0."""
    with torch.no_grad():
        for (weight, gamma, beta), values in zip(parameters, start, strict=True):
            weight.copy_(torch.from_numpy(values))
            beta.zero_()
            if gamma is not None:
                gamma.fill_(1.0)


def optimizer(name, groups, momentum=0.9, eps=1e-8):
    """PyTorch's; "corrected" is its RMSProp with the start of Adam."""
    if name in ("adam", "corrected"):
        return torch.optim.Adam(groups, eps=eps, betas=(0.0, 0.99) if name == "corrected" else (0.9, 0.999))
    if name == "adamw":
        return torch.optim.AdamW(groups, eps=eps)
    if name == "rmsprop":
        return torch.optim.RMSprop(groups, eps=eps)
    return torch.optim.SGD(groups, lr=0.1, momentum=0.0 if name == "sgd" else momentum, nesterov=name == "nesterov")


def optimizer_of(run, parameters):
    """PyTorch's weight_decay is 2λ, since the penalty λ‖w‖² has no factor ½."""
    sizes = [weight[0].numel() for weight, *_ in parameters]
    held = {"none": [], "hidden": [0, 1, 2], "last": [3], "all": [0, 1, 2, 3]}[run["affine_l2"]]
    affine_lr = {"shared": run["lr"], "frozen": 0.0}.get(run["affine_lr"], run["affine_lr"])
    groups = {}
    for number, ((weight, *affine), size) in enumerate(zip(parameters, sizes, strict=True)):
        l2 = run["l2"] * (max(sizes) / size if run["layer_l2"] == "inverse_size" else 1)
        groups.setdefault((run["lr"], 2 * l2), []).append(weight)
        present = [parameter for parameter in affine if parameter is not None]
        groups.setdefault((affine_lr, 2 * run["l2"] if number in held else 0.0), []).extend(present)
    found = [{"params": params, "lr": lr, "weight_decay": decay} for (lr, decay), params in groups.items()]
    name = "corrected" if run["corrected_squares"] else run["optimizer"]
    return optimizer(name, found, run["momentum"], run["optimizer_eps"])


def step(run, model, parameters, steps, images, labels):
    """One step on a batch; the logits before it. The gradients stay."""
    logits = model(images)
    steps.zero_grad()
    F.cross_entropy(logits, labels).backward()
    steps.step()
    with torch.no_grad():
        for weight, *_ in parameters if run["projected"] else ():
            rows = weight.flatten(1)
            norms = rows.norm() if run["normalization"] == "layer" else rows.norm(dim=1)
            weight.div_(norms.view(-1, *[1] * (weight.dim() - 1)))
    return logits.detach()


def main(source, target):
    torch.set_num_threads(1)
    given = np.load(source)
    run = json.loads(str(given["run"]))
    images, labels = torch.from_numpy(given["images"]), torch.from_numpy(given["labels"])
    model, parameters = build(run, images.shape[1], images.dtype)
    begin(parameters, [given[f"weight{number}"] for number in range(4)])
    steps = optimizer_of(run, parameters)
    for batch in torch.from_numpy(given["batches"]):
        step(run, model, parameters, steps, images[batch], labels[batch])

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.reset_running_stats()
                module.momentum = None  # so that they become the mean over what follows
        for chunk in images[: run["statistics_size"]].split(512):
            model(chunk)
        model.eval()
        test = torch.from_numpy(given["test_images"]), torch.from_numpy(given["test_labels"])
        wrong = (model(test[0]).argmax(1) != test[1]).double().mean()
    loaded = sorted(name for name in sys.modules if name.startswith("effective_lr"))
    with open(target, "w") as file:
        json.dump({"test_error": float(wrong), "package": loaded}, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
