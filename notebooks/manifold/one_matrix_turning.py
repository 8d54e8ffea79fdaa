# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#     notebook_metadata_filter: -jupytext.text_representation
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # One matrix turning
#
# A weight matrix that is scale invariant has a direction, which the network sees, and a norm, which it does not.
# AdamW moves both: the norm forgets its start in about $1/(2e)$ steps, and until then the matrix turns too fast or
# too slowly. A constraint holds the norm, and the matrix turns by one angle from the first step. This notebook trains
# a small GPT four times and follows one of its matrices.
#
# It needs the prepared corpus: `make` prepares it, or `snakemake results/data/shakespeare.pt --cores 1` alone.

# %% tags=["parameters"]
scale = "laptop"  # a file of config/manifold
tensors = "results/data/shakespeare.pt"  # the prepared corpus
record = "results/data/shakespeare.json"  # and its checksum
steps = 240  # of each training here; a run of the study has more
matrix = "block1.up"  # the one to follow

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from effective_lr.document.style import PALETTE, start
from effective_lr.engine import grid
from effective_lr.engine.study import load
from effective_lr.prepare.dataset import load as load_tensors
from effective_lr.studies.manifold import theory, training
from effective_lr.studies.manifold.bijection import decoupled, matched_angle
from effective_lr.studies.manifold.networks import starting_rms

start()
# The package draws for files; from here on figures appear below their cells.
# %matplotlib inline
# %config InlineBackend.figure_format = "retina"

# %% [markdown]
# ## Four trainings
#
# Every matrix has an RMSNorm on its output, so that all of them are scale invariant. Three trainings by AdamW start
# at four times, once and a quarter of the norm $R$ at which theory says that it settles. The fourth is AdamH, which
# holds the norm at $R$.

# %%
study = load("manifold")
_, experiments = grid.load_scale(Path("config/manifold"), scale, study)
settings = {"probes": 200, "decay_per_step": 1 / 30, "warm_up": False, "validation_batches": 2, "seed": 0}
base = experiments["starts"][0].changed(steps=steps, **settings)
runs = {
    "AdamW from 4R": base.changed(optimizer="adamw", initial_norm=4.0),
    "AdamW from R": base.changed(optimizer="adamw", initial_norm=1.0),
    "AdamW from R/4": base.changed(optimizer="adamw", initial_norm=0.25),
    "AdamH": base.changed(optimizer="adamh", initial_norm=1.0),
}
data = training.load(load_tensors(Path(tensors), Path(record)), base, torch.device("cpu"))
trained = {name: training.train(run, data) for name, run in runs.items()}
pd.Series({name: run.run_id for name, run in runs.items()}).to_frame("run")

# %% [markdown]
# AdamW's settings of this matrix follow from $\rho=1/\sqrt{d_\mathrm{in}}$ and $e$ alone: $\eta=\rho\sqrt{2e}$,
# $2\lambda=e/\eta$. They lead to the angle $\theta_0=k\sqrt{2e}$.

# %%
e = base.decay_per_step
theta = float(matched_angle(e, base.beta1))
rms = starting_rms((1, 4 * base.width, base.width))
lr, decay = decoupled(rms, theta, base.beta1)
pd.Series({"ρ": rms, "η": lr, "2λ": decay, "e": lr * decay, "θ₀": theta, "1/(2e)": 1 / (2 * e)}).to_frame("value")

# %% [markdown]
# ## Norm and angle
#
# Dashed lines are the closed forms: the square of the norm relaxes at the rate $2e$, and the angle is inverse to the
# norm, behind Adam's own warm-up of the first steps.


# %%
def follow(name: str, quantity: str) -> pd.Series:
    """A quantity of the matrix by step."""
    return pd.Series({step: v for step, layer, what, v in trained[name].rows if (layer, what) == (matrix, quantity)})


figure, axes = plt.subplots(1, 2, figsize=(9, 3))
t = np.arange(1.0, steps + 1)
for (name, run), color in zip(runs.items(), [PALETTE[3], PALETTE[0], PALETTE[2], "black"], strict=True):
    axes[0].plot(follow(name, "norm_ratio"), color=color, label=name)
    axes[1].plot(follow(name, "angle") / theta, color=color)
    if run.optimizer == "adamw":
        axes[0].plot(t, theory.adamw_norm(t - 1, e, run.initial_norm), "--", color=color, lw=0.8)
        axes[1].plot(t, theory.adamw_angle(t, e, run.initial_norm, run.beta1) / theta, "--", color=color, lw=0.8)
axes[0].set(xscale="log", yscale="log", xlabel="step", ylabel="norm $/R$")
axes[1].set(xscale="log", yscale="log", xlabel="step", ylabel=r"angle per step $/\theta_0$")
axes[0].legend()
plt.show()

# %% [markdown]
# The constraint turns by $\arctan\theta_0$, exactly, in every step:

# %%
constrained = follow("AdamH", "angle")
assert np.allclose(constrained, np.arctan(theta), rtol=1e-4)
constrained.describe().to_frame("angle of AdamH, rad")

# %% [markdown]
# AdamW's start is forgotten: late in training the three have one norm and one angle. The norm is not exactly $R$,
# since successive gradients are not independent; the angle is close to $\theta_0$ all the same.

# %%
late = pd.DataFrame(
    {name: {what: follow(name, f"late_{what}").iloc[-1] for what in ("norm_ratio", "angle", "cosine")} for name in runs}
).T
late["angle / θ₀"] = late["angle"] / theta
assert late.loc[late.index != "AdamH", "norm_ratio"].std() < 0.1
late

# %% [markdown]
# What the network makes of it. Prediction: equal angles in the end, so nearly equal losses.

# %%
pd.Series(
    {name: next(v for *_, what, v in t.rows if what == "late_validation_loss") for name, t in trained.items()}
).to_frame("late validation loss, nats")
