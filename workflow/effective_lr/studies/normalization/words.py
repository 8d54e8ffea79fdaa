"""How the chapter writes the names of settings' values, in figures and tables alike. Imported by the Snakefile."""

NAMES = {
    "sgd": "SGD",
    "momentum": "Heavy ball",
    "nesterov": "Nesterov",
    "adam": "Adam",
    "rmsprop": "RMSProp",
    "adamw": "AdamW",
    "rmsprop corrected": "RMSProp, corrected",
    "batch": "Batch",
    "weight": "Weight",
    "layer": "Layer",
    "none": "None",
    "fashion-mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "cifar10-jpeg": "CIFAR-10 (JPEG copy)",
    "projected": r"SGD, $\|w\|=1$",
    "gauss_newton": "Gauss--Newton",
}

NORMALIZATIONS = ("batch", "weight", "layer", "none")  # in the order of figures and tables
