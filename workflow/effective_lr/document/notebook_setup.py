"""What a notebook begins with, in the workflow and in Jupyter alike."""

import os
from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt

from effective_lr.document import style

ROOT = Path(__file__).parents[3]


def start() -> None:
    """Draw in the paper's style, on the screen; where Jupyter started in the notebooks' folder, work in the root."""
    if Path.cwd().is_relative_to(ROOT / "notebooks"):
        os.chdir(ROOT)
    style.use()
    plt.rcParams["figure.dpi"] = 120
    pd.options.display.float_format = "{:.5g}".format
