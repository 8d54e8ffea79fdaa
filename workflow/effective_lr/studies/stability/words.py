"""How the chapter writes the names of settings' values, in figures and tables alike. Imported by the Snakefile."""

NAMES = {
    "mlp": "MLP",
    "cnn": "CNN",
    "batch": "Batch",
    "weight": "Weight",
    "none": "None",
    "mse": "MSE",
    "cross-entropy": "Cross-entropy",
    "fashion-mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "full": "all",
    **{
        f"{name} at {l2:g}": rf"{name}, $\lambda={l2:g}$"
        for name in ("MLP", "cross-entropy")
        for l2 in (0, 1e-3, 2e-3, 4e-3)
    },
}
