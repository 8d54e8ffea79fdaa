"""The one style of all figures."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

COLUMN_WIDTH, TEXT_WIDTH = 3.3, 7.0  # inches
PALETTE = sns.color_palette("colorblind")


def use() -> None:
    """Draw in the style from here on."""
    plt.style.use(Path(__file__).with_name("style.mplstyle"))


def say(axis: Axes, text: str) -> None:
    """What a panel says that has nothing to draw."""
    axis.set(xticks=[], yticks=[])
    axis.minorticks_off()
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", color="0.4", fontsize=7)
