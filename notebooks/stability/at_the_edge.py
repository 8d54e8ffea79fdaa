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
# # One run at the edge of stability
#
# This notebook trains one network of the chapter three times, with no decay, with some and with much, and watches
# what the chapter only reports as means: the sharpness on its way to $2/\eta$, the oscillation that starts there, and
# the balance between the pressure of the oscillation and the force $\alpha_{\mathrm{eff}}$ that it holds.
#
# It needs the prepared data: `snakemake results/data/fashion-mnist-14.pt --cores 1`. At the scale `smoke` the runs
# are too short to reach the edge.

# %% tags=["parameters"]
scale = "laptop"  # a file of config/stability

record = "results/data/fashion-mnist-14.json"  # the checksum of the prepared data
tensors = "results/data/fashion-mnist-14.pt"  # the prepared data

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from effective_lr.document.style import PALETTE, start
from effective_lr.engine import grid
from effective_lr.engine.study import load as load_study
from effective_lr.prepare.dataset import load as load_tensors
from effective_lr.studies.stability import theory
from effective_lr.studies.stability.curvature import Point
from effective_lr.studies.stability.statistics import drift_pairs
from effective_lr.studies.stability.training import load, train

start()
# The package draws for files; from here on figures appear below their cells.
# %matplotlib inline
# %config InlineBackend.figure_format = "retina"

# %% [markdown]
# ## The runs
#
# From the experiment `mlp` we take the first seed, with no decay, about half and about twice the critical one, and
# probe more often: a probe finds the top eigenpair $S, u$ of the Hessian and the gradient $\nabla S$. In the last
# third a look finds the first six eigenpairs, too.

# %%
experiments = grid.load_scale(Path("config/stability"), scale, load_study("stability"))[1]
penalties = sorted({run.l2 for run in experiments["mlp"]})
chosen = sorted({0.0, min(penalties, key=lambda l2: abs(l2 - 0.004)), penalties[-1]})
first = min(experiments["mlp"], key=lambda run: (run.seed, run.l2))
steps = min(first.steps, 2400)
runs = [first.changed(l2=l2, steps=steps, probes=steps // 10, pairs_every=10, ntk_images=0) for l2 in chosen]
data = load(load_tensors(Path(tensors), Path(record)), first, torch.device("cpu"))


# %%
def watched(run):
    """The probes of a run, one line each, and the displacement of every step along the eigenvector of the time."""
    path = []

    def look(training):
        path.append(training.w)
        if len(path) > 2:
            path.pop(0)
        if len(path) == 2:
            along.append(float(training.top @ (path[1] - path[0])) / 2)

    along = []
    training = train(run, data, after_step=look)
    rows = pd.DataFrame(training.rows, columns=["step", "layer", "quantity", "value"])
    table = rows.pivot_table(index="step", columns="quantity", values="value")
    return training, table, pd.Series(along, index=range(2, len(along) + 2))


trained = {run.l2: watched(run) for run in runs}
pd.DataFrame(
    {
        l2: {
            "edge at step": table["edge_step"].max() if "edge_step" in table else np.nan,
            "R at the end": table["sharpness_total"].iloc[-1] * first.lr / 2,
            "A at the end": table["degree"].iloc[-1],
            "loss at the end": table["train_loss"].iloc[-1],
        }
        for l2, (_, table, _) in trained.items()
    }
).rename_axis("λ", axis=1)

# %% [markdown]
# ## The sharpness and its drift
#
# Prediction: below the edge $\frac{\mathrm{d}S}{\mathrm{d}t}=\alpha_0-2\lambda AS$, with nothing fitted. So the
# points of all three runs lie on one line.

# %%
figure, axes = plt.subplots(1, 2, figsize=(7, 2.6))
for color, (l2, (_, table, _)) in zip(PALETTE, trained.items(), strict=False):
    axes[0].plot(table.index, table["sharpness_total"] * first.lr / 2, color=color, label=f"λ = {l2:g}")
    edge = table["edge_step"].max() if "edge_step" in table else np.inf
    pairs = drift_pairs(table[(table.index > 150) & (table.index < edge)], first.lr, l2)
    axes[1].plot(pairs["predicted"], pairs["measured"], ".", color=color)
axes[0].axhline(1, color="0.4", linestyle="--", linewidth=0.8)
axes[0].set(xlabel="training step", ylabel="sharpness over edge, $R$")
axes[0].legend()
axes[1].axline((0, 0), slope=1, color="0.4", linestyle="--", linewidth=0.8)
axes[1].set(xlabel=r"predicted $\alpha_0-2\lambda AS$", ylabel=r"measured $dS/dt$")
# %% [markdown]
# ## The oscillation
#
# Half of each step, along $u$: $x$. Prediction: below the edge it is the slow flow alone; at the edge it changes its
# sign at every step. Decay damps its bursts to a steady oscillation, and with more of it the oscillation is gone.

# %%
figure, axes = plt.subplots(1, len(trained), figsize=(7, 2.2), sharey=True, squeeze=False)
for axis, color, (l2, (_, _, along)) in zip(axes.flat, PALETTE, trained.items(), strict=False):
    axis.plot(along.index, along, color=color, linewidth=0.4)
    axis.set(title=f"λ = {l2:g}", xlabel="training step")
axes[0, 0].set_ylabel("displacement $x$")
# %% [markdown]
# ## The balance
#
# What pushes the sharpness up across the edge is $\alpha_{\mathrm{eff}}$. Along the top direction the oscillation
# pushes back by $\frac{\beta}{2}x^2$, and along all directions with $R_i>0.95$ by
# $\frac12\langle P\nabla S,\nabla^3L[d,d]\rangle$, where $d$ is the displacement along them. Prediction: where a run is
# at the edge, the mean over time of the latter is that of the force; that of the former is less where a second
# direction oscillates. Means over 20 looks:

# %%
figure, axes = plt.subplots(1, len(trained), figsize=(7, 2.2), squeeze=False)
for axis, (l2, (_, table, _)) in zip(axes.flat, trained.items(), strict=True):
    looks = table.dropna(subset=["edge_pressure"])
    for quantity, color, label in [
        ("edge_force", PALETTE[0], r"$\alpha_{\mathrm{eff}}$"),
        ("edge_pressure_top", PALETTE[3], "top direction"),
        ("edge_pressure", PALETTE[2], "all at the edge"),
    ]:
        mean = looks[quantity].rolling(20, min_periods=1).mean()
        axis.plot(mean.index, mean, color=color, label=label)
    axis.axhline(0, color="0.4", linewidth=0.6)
    axis.set(title=f"λ = {l2:g}, {looks['edge_directions'].mean():.1f} directions", xlabel="training step")
axes[0, 0].legend()
# %% [markdown]
# ## Where the model of the edge comes from
#
# Two numbers are enough for the edge: $x$ and $y=S-S^*$. Their map has a small oscillation of $y$ with the period
# $2\pi/(\eta\sqrt{2\alpha^*})$ and the rate $\eta^2\alpha^*-\eta\kappa/2$, so a restoring force $\kappa=2\lambda A$
# damps it.

# %%
figure, axis = plt.subplots(figsize=(7, 2.2))
for color, restoring in zip(PALETTE, (0.0, 0.03, 0.2), strict=False):
    edge = theory.EdgeMap(lr=0.06, force=0.3, restoring=restoring, beta=1e4)
    y = edge.trajectory((2 * edge.force / edge.beta) ** 0.5, 1.0, round(6 * edge.period))[:, 1]
    axis.plot(y, color=color, label=rf"$\kappa$ = {restoring:g}, rate {edge.rate:.1e} a step")
axis.set(xlabel="step", ylabel="$y = S - S^*$")
axis.legend(loc="upper right")
# %% [markdown]
# ## Is it the sharpness?
#
# The eigenvalue that Lanczos iterations found at the last probe, against $u'Hu$ with a Hessian-vector product made
# anew at the last weights, half a step away.

# %%
pd.DataFrame(
    {
        l2: {
            "S at the last probe": table["sharpness"].iloc[-1],
            "u'Hu at the end": float(training.top @ Point(training.loss, training.w).hessian_times(training.top)),
        }
        for l2, (training, table, _) in trained.items()
    }
).rename_axis("λ", axis=1)
