"""The figure of the chapter."""

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from effective_lr.document.style import COLUMN_WIDTH
from effective_lr.evidence.tidy import Tables


def noise_floor(tables: Tables) -> Figure:
    """The mean of x² against η, with the prediction."""
    figure, axis = plt.subplots(figsize=(COLUMN_WIDTH, 2.2))
    runs = tables["rates"].runs
    axis.scatter(runs["lr"], runs["late_square"], s=9)
    lr = np.geomspace(runs["lr"].min(), runs["lr"].max())
    axis.plot(lr, lr / (2 - lr), color="0.5", linewidth=1)
    axis.set(xscale="log", yscale="log", xlabel=r"learning rate $\eta$", ylabel=r"mean of $x^2$")
    return figure
