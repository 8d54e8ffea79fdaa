"""The figures of the chapter: each a pure function of tidy tables that returns a Matplotlib figure."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from effective_lr.document.notation import number
from effective_lr.document.style import COLUMN_WIDTH, PALETTE, TEXT_WIDTH, annotate_empty, sequential
from effective_lr.evidence.tidy import Experiment, Tables
from effective_lr.studies.stability import theory
from effective_lr.studies.stability.analysis import probes
from effective_lr.studies.stability.statistics import EXPERIMENTS, FIRST_STEP, drift_pairs

KINDS = {name: (PALETTE[k], "os^vD"[k]) for k, name in enumerate(EXPERIMENTS)}  # colour and marker
SHOWN = ("MLP", "CNN", "BN", "WN")  # over training
LINE: dict[str, Any] = {"color": "0.4", "linewidth": 0.8, "linestyle": (0, (3, 2)), "zorder": 0}


def penalty_colors(penalties: list[float]) -> dict[float, Any]:
    """Black for λ = 0, then from light to dark."""
    decays = [l2 for l2 in penalties if l2 > 0]
    return {0.0: "black", **dict(zip(decays, sequential(len(decays) + 1)[1:], strict=True))}


def sharpness(tables: Tables) -> Figure:
    """R over training, for each network and λ, at the first seed that has λ = 0."""
    colors = penalty_colors(sorted(tables.runs(*(EXPERIMENTS[name] for name in SHOWN))["l2"].unique()))
    figure, axes = plt.subplots(1, 4, figsize=(TEXT_WIDTH, 2.2))
    for axis, name in zip(axes, SHOWN, strict=True):
        metrics, runs = tables[EXPERIMENTS[name]]
        runs = runs[runs["seed"] == runs.loc[runs["l2"] == 0, "seed"].min()].sort_values("l2")
        for _, run in runs.iterrows():
            table = probes(metrics, run)
            if len(table):
                axis.plot(table.index, table["edge_ratio"], color=colors[run["l2"]], linewidth=0.9)
        axis.axhline(1, **LINE)
        axis.set(title=name, xlabel="training step", xlim=(0, runs["steps"].max()))
        axis.set_xticks([0, runs["steps"].max() / 2, runs["steps"].max()])
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}".replace(",", "\u2009"))
        axis.set_ylim(bottom=0)
    axes[0].set_ylabel(r"sharpness over edge, $R$")
    handles = [Line2D([], [], color=color, label=f"${number(l2)}$") for l2, color in colors.items()]
    figure.legend(
        handles=handles,
        title=r"penalty $\lambda$",
        loc="outside lower center",
        ncols=len(handles),
        columnspacing=1.2,
        handlelength=1.3,
    )
    return figure


def critical(runs: pd.DataFrame) -> float:
    """The fitted λ_c of one network and learning rate: the median of R·λ over settled runs below the edge, or NaN."""
    below = runs[runs["settled"].astype(bool) & ~runs["at_edge"].astype(bool) & (runs["l2"] > 0)]
    return float((below["late_edge_ratio"] * below["l2"]).median()) if len(below) else np.nan


def phase(tables: Tables) -> Figure:
    """Late R and displacement against λ in units of the critical one, where a network has such, and against λ."""
    figure, axes = plt.subplots(1, 3, figsize=(TEXT_WIDTH, 2.4))
    mlps = [(lr, some) for experiment in ("mlp", "mlp_other_lr") for lr, some in tables[experiment].runs.groupby("lr")]
    found = [(lr, some.assign(x=some["l2"] / critical(some))) for lr, some in mlps if np.isfinite(critical(some))]
    for k, (lr, some) in enumerate(found):
        late = some[some["settled"].astype(bool)]
        for axis, values in [
            (axes[0], late["late_edge_ratio"]),
            (axes[1], late["late_displacement"] / late["late_weight_norm_squared"] ** 0.5),
        ]:
            axis.plot(late["x"], values, "os^D"[k % 4], color=PALETTE[k], alpha=0.8, label=rf"MLP, $\eta={number(lr)}$")
    if found:
        x = np.linspace(0, max(some["x"].max() for _, some in found) * 1.05, 200)[1:]
        axes[0].plot(x, theory.plateau(x, 1.0), **LINE, label=r"$\min(1,\lambda_c/\lambda)$")
        axes[0].legend(loc="best")
        axes[1].axvline(1, **LINE)
        axes[1].set_yscale("log")
    for axis in axes[:2]:
        axis.set_xlabel(r"$\lambda/\lambda_c$, with $\lambda_c$ fitted")
        if found:
            axis.set_xlim(left=-0.1)
        else:
            annotate_empty(axis, "no settled run\nbelow the edge")
    others = [name for name in ("CNN", "BN", "WN") if tables[EXPERIMENTS[name]].runs["settled"].any()]
    for name in others:
        runs = tables[EXPERIMENTS[name]].runs
        late = runs[runs["settled"].astype(bool)]
        axes[2].plot(late["l2"], late["late_edge_ratio"], KINDS[name][1], color=KINDS[name][0], alpha=0.8, label=name)
    if others:
        axes[2].axhline(1, **LINE)
        axes[2].legend(loc="best")
    else:
        annotate_empty(axes[2], "no settled run")
    axes[2].set_xlabel(r"penalty $\lambda$")
    axes[0].set_ylabel(r"late $R$")
    axes[1].set_ylabel(r"late rms $x/|w|$")
    axes[2].set_ylabel(r"late $R$")
    return figure


def mechanism(tables: Tables) -> Figure:
    """What moves the sharpness below the edge, what holds it there, and the degree that sets the sign of decay."""
    figure, axes = plt.subplots(1, 4, figsize=(TEXT_WIDTH, 2.3))
    for name in EXPERIMENTS:
        color, marker = KINDS[name]
        experiment = tables[EXPERIMENTS[name]]
        pairs = pairs_before_edge(experiment)
        style: dict[str, Any] = {"color": color, "linestyle": "", "marker": marker, "label": name}
        axes[0].plot(pairs["predicted"], pairs["measured"], **style | {"markersize": 1.5, "alpha": 0.5})
        late = experiment.runs[experiment.runs["settled"].astype(bool)]
        at_edge = late[late["at_edge"].astype(bool) & (late["late_alpha_eff"] > 0)]
        axes[1].plot(at_edge["late_alpha_eff"], at_edge["late_pressure"], **style | {"alpha": 0.8})
        means = late.groupby("l2")[["late_degree", "late_alignment"]].mean()
        for axis, column in [(axes[2], "late_degree"), (axes[3], "late_alignment")]:
            axis.plot(means.index, means[column], **style | {"linestyle": "-", "linewidth": 0.8})
    identity(axes[0])
    axes[0].set(xlabel=r"predicted $\alpha_0-2\lambda AS$", ylabel=r"measured $dS/dt$")
    if any(len(line.get_xdata()) for line in axes[1].lines):
        axes[1].set(xscale="log", yscale="log")
        identity(axes[1])
    else:
        annotate_empty(axes[1], "no run at the edge")
    axes[1].set(xlabel=r"late $\alpha_{\mathrm{eff}}$", ylabel=r"late $\frac{\beta}{2}x^2$")
    for axis, label in [(axes[2], r"late degree $A$"), (axes[3], r"late $\cos(w,\nabla S)$")]:
        axis.set(xlabel=r"penalty $\lambda$", ylabel=label)
        if any(len(line.get_xdata()) for line in axis.lines):
            axis.axhline(0, **LINE)
        else:
            annotate_empty(axis, "no settled run")
    handles, labels = axes[2].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def pairs_before_edge(experiment: Experiment) -> pd.DataFrame:
    """Predicted and measured dS/dt of all runs, between probes before the edge."""
    pairs = []
    for _, run in experiment.runs.iterrows():
        table = probes(experiment.metrics, run)
        table = table[(table.index > FIRST_STEP) & (table.index < run["edge_step"])]
        if len(table) > 1:
            pairs.append(drift_pairs(table, run["lr"], run["l2"]))
    return pd.concat(pairs) if pairs else pd.DataFrame({"predicted": [], "measured": []})


def identity(axis: Axes) -> None:
    """The line where both coordinates are equal, over the data drawn so far."""
    low, high = axis.get_xlim()
    axis.plot([low, high], [low, high], **LINE)


def kernel(tables: Tables) -> Figure:
    """How far the neural tangent kernel moves in one step, and over one probe interval, late in training."""
    figure, axes = plt.subplots(1, 2, figsize=(COLUMN_WIDTH, 2.2))
    groups = [
        (rf"MLP, $\eta={number(lr)}$", some[some["settled"].astype(bool)])
        for experiment in ("mlp", "mlp_other_lr")
        for lr, some in tables[experiment].runs.groupby("lr")
    ]
    groups = [(label, some) for label, some in groups if len(some)]
    for k, (label, some) in enumerate(groups):
        for axis, column in [(axes[0], "late_ntk_jitter"), (axes[1], "late_ntk_drift")]:
            axis.plot(some["l2"], some[column], "os^D"[k % 4], color=PALETTE[k], alpha=0.8, label=label)
    for axis, label in [(axes[0], "kernel change, one step"), (axes[1], "kernel change, one interval")]:
        axis.set(xlabel=r"penalty $\lambda$", ylabel=label)
        if groups:
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if axis is axes[1] else (1,)))
            axis.yaxis.set_minor_formatter(NullFormatter())
        else:
            annotate_empty(axis, "no settled run")
    if groups:
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure
