"""The one style of all figures."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import seaborn as sns
from matplotlib import pyplot as plt

COLUMN_WIDTH, TEXT_WIDTH = 3.3, 7.0  # inches
PALETTE = sns.color_palette("colorblind")


def use() -> None:
    """Draw in the style from here on."""
    plt.style.use(Path(__file__).with_name("style.mplstyle"))
