"""The figures of the chapter: each a pure function of tidy tables that returns a Matplotlib figure."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from effective_lr.document.notation import number
from effective_lr.document.style import COLUMN_WIDTH, PALETTE, TEXT_WIDTH, annotate_empty, few_ticks, sequential
from effective_lr.evidence.estimates import geometric_mean
from effective_lr.evidence.tidy import Tables
from effective_lr.studies.stability import theory
from effective_lr.studies.stability.analysis import critical, is_steady, probes
from effective_lr.studies.stability.statistics import EXPERIMENTS, drift_before_the_edge

KINDS = {name: (PALETTE[k], "os^vD"[k]) for k, name in enumerate(EXPERIMENTS)}  # colour and marker
SHOWN = ("MLP", "CNN", "BN", "WN")  # over training
LINE: dict[str, Any] = {"color": "0.4", "linewidth": 0.8, "linestyle": (0, (3, 2)), "zorder": 0}


def penalty_colors(penalties: list[float]) -> dict[float, Any]:
    """Black for λ = 0, then from light to dark."""
    decays = [l2 for l2 in penalties if l2 > 0]
    return {0.0: "black", **dict(zip(decays, sequential(len(decays) + 1)[1:], strict=True))}


def sharpness(tables: Tables) -> Figure:
    """R over training, for each network and λ, at the first seed that has λ = 0."""
    shown = {}
    for name in SHOWN:
        runs = tables[EXPERIMENTS[name]].runs
        shown[name] = runs[runs["seed"] == runs.loc[runs["l2"] == 0, "seed"].min()].sort_values("l2")
    colors = penalty_colors(sorted(pd.concat(shown)["l2"].unique()))
    figure, axes = plt.subplots(1, 4, figsize=(TEXT_WIDTH, 2.2))
    for axis, (name, runs) in zip(axes, shown.items(), strict=True):
        for _, run in runs.iterrows():
            table = probes(tables[EXPERIMENTS[name]].metrics, run)
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
    """What moves the sharpness below the edge, and the degree that sets the sign of decay."""
    figure, axes = plt.subplots(1, 3, figsize=(TEXT_WIDTH, 2.4))
    for name in EXPERIMENTS:
        color, marker = KINDS[name]
        experiment = tables[EXPERIMENTS[name]]
        pairs = drift_before_the_edge(experiment, experiment.runs)
        style: dict[str, Any] = {"color": color, "linestyle": "", "marker": marker, "label": name}
        axes[0].plot(pairs["predicted"], pairs["measured"], **style | {"markersize": 1.5, "alpha": 0.5})
        late = experiment.runs[experiment.runs["settled"].astype(bool)]
        means = late.groupby("l2")[["late_degree", "late_alignment"]].mean()
        for axis, column in [(axes[1], "late_degree"), (axes[2], "late_alignment")]:
            axis.plot(means.index, means[column], **style | {"linestyle": "-", "linewidth": 0.8})
    low, high = axes[0].get_xlim()
    axes[0].plot([low, high], [low, high], **LINE)
    axes[0].set(xlabel=r"predicted $\alpha_0-2\lambda AS$", ylabel=r"measured $dS/dt$")
    for axis, label in [(axes[1], r"late degree $A$"), (axes[2], r"late $\cos(w,\nabla S)$")]:
        axis.set(xlabel=r"penalty $\lambda$", ylabel=label)
        if any(len(line.get_xdata()) for line in axis.lines):
            axis.axhline(0, **LINE)
        else:
            annotate_empty(axis, "no settled run")
    handles, labels = axes[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


PRESSURES = {  # late pressures over the late force, by what they are summed over
    "edge_pressure_top": "top direction alone",
    "edge_pressure_diagonal": "squares $x_i^2$ alone",
    "edge_pressure": "with products $x_ix_j$",
}


def oscillation(tables: Tables) -> Figure:
    """What the oscillation at the edge holds, along how many directions, and how large it is soon after and late."""
    figure, axes = plt.subplots(1, 4, figsize=(TEXT_WIDTH, 2.5))
    networks = {name: tables[EXPERIMENTS[name]].runs for name in ("MLP", "CNN")}
    looked = networks["MLP"][networks["MLP"]["at_edge"].astype(bool)].dropna(subset=["late_edge_force"])
    handles = balances(axes[0], looked)
    color, marker = KINDS["MLP"]
    axes[1].plot(beside(looked), looked["late_edge_directions"], marker, color=color, alpha=0.8)
    for name, runs in networks.items():
        color, marker = KINDS[name]
        soon, late = runs.dropna(subset=["early_spread"]), runs[runs["at_edge"].astype(bool)]
        axes[2].plot(beside(soon), soon["early_spread"], marker, color=color, alpha=0.8)
        for some, face in [(late[~is_steady(late)], color), (late[is_steady(late)], "none")]:
            axes[3].plot(beside(some), some["late_spread"], marker, color=color, markerfacecolor=face, alpha=0.8)
        handles.append(Line2D([], [], color=color, marker=marker, linestyle="", label=name))
    handles.append(
        Line2D([], [], color="0.4", marker="o", linestyle="", markerfacecolor="none", label="top direction alone holds")
    )
    labels = ["pressure over force", "directions at the edge", "sd of $R$ soon after the edge", "late sd of $R$"]
    for axis, label in zip(axes, labels, strict=True):
        axis.set(xlabel=r"penalty $\lambda$", ylabel=label)
        if any(len(line.get_xdata()) for line in axis.lines):
            axis.locator_params(axis="x", nbins=3)
        else:
            annotate_empty(axis, "no run at the edge")
    drawn = [axis for axis in axes[2:] if not axis.texts]
    for axis in drawn:
        axis.set_yscale("log")
    ends = [end for axis in drawn for end in axis.get_ylim()]
    for axis in drawn:
        axis.set_ylim(min(ends), max(ends))
    if axes[0].lines:
        axes[0].axhline(1, **LINE)
    if len(looked):
        axes[1].set_ylim(0, looked["late_edge_directions"].max() + 0.3)
        axes[1].locator_params(axis="y", integer=True)
    # Two rows, filled by columns: the pressures above the networks.
    order = [handle for pair in zip(handles[:3], handles[3:], strict=True) for handle in pair]
    figure.legend(handles=order, loc="outside lower center", ncols=3)
    return figure


def balances(axis: Axes, runs: pd.DataFrame) -> list[Line2D]:
    """Geometric means over seeds of pressure over force at every λ, with intervals; a handle for each kind."""
    handles = []
    for k, (pressure, label) in enumerate(PRESSURES.items()):
        style: dict[str, Any] = {"color": PALETTE[k + 3], "marker": "v^D"[k], "linestyle": ""}
        for l2, some in runs.groupby("l2"):
            ratios = some[f"late_{pressure}"] / some["late_edge_force"]
            if (ratios > 0).all():
                value, low, high, *_ = geometric_mean(ratios)
                axis.plot(l2 + 2e-4 * (k - 1), value, **style)
                axis.vlines(l2 + 2e-4 * (k - 1), low, high, color=style["color"], linewidth=0.8)
        handles.append(Line2D([], [], label=label, **style))
    return handles


def beside(runs: pd.DataFrame) -> pd.Series:
    """λ of each run, with the seeds of one λ beside each other."""
    seeds = runs.groupby("l2")["seed"]
    return runs["l2"] + 1.2e-4 * (seeds.rank() - (seeds.transform("size") + 1) / 2)


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
        else:
            annotate_empty(axis, "no settled run")
    if groups:
        few_ticks(axes[1].yaxis)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure
