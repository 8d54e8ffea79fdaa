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
# # The results, for review
#
# This notebook has the verdicts on the claims, then every figure of the paper. For each figure it says what the figure
# shows and what the theory predicts, shows the data as a table, offers a cell to try other selections, and draws the
# figure with the function that draws it for the paper. The last section makes a plot of your choice.
#
# All of it comes from the tidy tables of one scale. This notebook trains nothing, and your changes here do not change
# the paper.

# %% tags=["parameters"]
scale = "laptop"  # a file of config/scales
metrics = "recompute"  # or published: the committed results of the scale

# %%
import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown

from effective_lr.document.notation import number
from effective_lr.document.style import PALETTE, ROOT, start
from effective_lr.engine.inputs import Layout
from effective_lr.evidence import tidy
from effective_lr.evidence.tidy import Tables
from effective_lr.studies.normalization import figures, theory
from effective_lr.studies.normalization.analysis import (
    FORMS,
    PLANES,
    contour_cells,
    dynamics,
    error_or_chance,
    late_layers,
    lost_by_cause,
    median_error,
    plane,
    with_angle_scales,
)
from effective_lr.studies.normalization.words import NAMES

start()
# The package draws for files; from here on figures appear below their cells.
# %matplotlib inline
# %config InlineBackend.figure_format = "retina"
pd.set_option("display.max_colwidth", None, "display.max_rows", 100, "display.float_format", "{:.4g}".format)


def words(frame):
    """A table of words rather than numbers: all to the left."""
    to_the_left = [{"selector": "th", "props": "text-align: left"}]
    return frame.style.set_properties(**{"text-align": "left"}).set_table_styles(to_the_left)


layout = Layout.load(ROOT, scale=scale, metrics=metrics)
chapter = layout.chapters["normalization"]
design, paths = chapter.scale, layout.tables("normalization")
assert all(path.exists() for path in paths), f"not every run is trained: `make SCALE={scale}` does that"
tables = tidy.read(chapter, paths)
Markdown(f"Scale **{scale}**: {design.about}. " + (f"**{design.watermark.capitalize()}.**" if design.watermark else ""))

# %% [markdown]
# ## What was trained
#
# Each experiment has two tables. `runs` has a line for each run: its settings, its errors as means over the late
# evaluations, and its provenance. `metrics` has a row for each quantity that was measured, as the notebook `one_run`
# shows.

# %%
experiments = pd.DataFrame(
    {
        name: {
            "runs": len(runs),
            "seeds": runs["seed"].nunique(),
            "diverged": runs["diverged"].notna().sum(),
            "minutes": f"{runs['seconds'].sum() / 60:.1f}",
            "rows of metrics": len(metrics),
            "what": design.experiments[name].about,
        }
        for name, (metrics, runs) in tables.items()
    }
).T
words(experiments)

# %%
tables["plane_sgd"].metrics.head()

# %%
tables["plane_sgd"].runs.head(2).astype(str).map("{:.40}".format).T

# %% [markdown]
# ## The claims and their verdicts
#
# A claim has parts. A part is a statistic for a subject, with a tolerance that was fixed before the study was trained
# (`paper/normalization/claims.yaml`). A part is *reproduced* if the 90 % interval of its statistic lies within the
# tolerance, *not reproduced* if it lies outside, and *undecided* otherwise, or where a single seed gives no interval.
# For the subject *none*, a network without normalization, the tolerance is a lower bound: there the claim must fail.
# Statistics marked *explored* were added after the results of the study were seen. They help to explain a verdict and
# do not enter it.

# %%
claims = json.loads(layout.claims("normalization").read_text(encoding="utf-8"))
verdicts = pd.DataFrame(
    [{"claim": name, "title": c["title"], "verdict": c["verdict"], "why": c["why"]} for name, c in claims.items()],
    columns=["claim", "title", "verdict", "why"],
).set_index("claim")
COLORS = {"reproduced": "#d4ecd9", "not reproduced": "#f6d5d0", "reproduced in part": "#fbe9c6"}


def shaded(verdict):
    return f"background-color: {COLORS.get(verdict, '#ececec')}"


words(verdicts).map(shaded, subset=["verdict"])


# %%
def between(ends):
    """Two ends as text; None is missing, or infinite."""
    low, high = ("" if end is None else f"{end:.3g}" for end in ends)
    return f"{low} to {high or '∞'}" if low or high else "–"


parts = pd.DataFrame(
    {
        "claim": name,
        "subject": part["subject"],
        "statistic": part["statistic"],
        "value": "–" if part["value"] is None else f"{part['value']:.3g}",
        "90 % interval": between((part["low"], part["high"])),
        "tolerance": between(part["within"]),
        "unit": part["unit"],
        "verdict": part["verdict"],
    }
    for name, claim in claims.items()
    for part in claim["parts"] + [{**what, "within": (None, None), "verdict": "explored"} for what in claim["explored"]]
)
words(parts).map(shaded, subset=["verdict"]).set_properties(**{"white-space": "nowrap"}).hide(axis="index")

# %% [markdown]
# Choose a claim to see its full text and the reason for its tolerance.

# %%
claim = "C4"
Markdown("\n\n".join(f"**{key}**: {claims[claim][key]}" for key in ("title", "claim", "original", "shown", "reason")))

# %% [markdown]
# ## The norm over training: `dynamics_over_time`
#
# The figure shows the norm (top) and the effective learning rate (bottom) of SGD with batch normalization, for several
# $\lambda$ at one $\eta$. The dashed lines are the predicted equilibria. **Prediction:** each $\lambda>0$ settles at
# its line, and $\lambda=0$ never settles.
#
# The data are squared norms and effective learning rates, by step and layer.

# %%
metrics, runs = dynamics(tables["plane_sgd"])
shown = metrics[metrics["layer"] != ""].merge(runs[["run_id", "l2", "seed"]], on="run_id")
shown.head()

# %%
# Try: a layer (conv1, conv2, conv3, linear) and a quantity (norm_squared, effective_lr, g_squared, angle_squared).
layer, quantity = "conv2", "effective_lr"
chosen = shown[(shown["layer"] == layer) & (shown["quantity"] == quantity)]
chosen.pivot_table(index="step", columns="l2", values="value").tail()

# %%
figures.dynamics_over_time(tables)
plt.show()

# %% [markdown]
# ## The plane of penalty and learning rate: `plane`
#
# The figure shows the test error (%) over $\lambda$ and $\eta$. Along the lines the theory predicts no change in a
# normalized network. **Prediction:** the error changes across the lines and not along them.

# %%
shown_in_plane = ["plane_sgd", "plane_nesterov", "plane_adam", "plane_rmsprop", "normalizations"]
runs = tables.runs(*shown_in_plane)
cells = runs.assign(error=100 * error_or_chance(runs)).groupby(["normalization", "optimizer", "lr", "l2"])["error"]
cells.agg(["mean", "std", "size"]).set_axis(["test error (%)", "deviation over seeds", "seeds"], axis=1).head()

# %%
# Try: a normalization (batch, weight, layer, none) and an optimizer (sgd, nesterov, adam, rmsprop).
normalization, optimizer = "batch", "sgd"
errors = 100 * plane(runs[(runs["normalization"] == normalization) & (runs["optimizer"] == optimizer)])
styled = errors.iloc[::-1].style.format("{:.1f}").format_index("{:g}").format_index("{:g}", axis=1)
styled.background_gradient("viridis_r", axis=None, vmin=10, vmax=90)

# %% [markdown]
# The slope of the contours (claim C5) is measured on the cells that should be at equilibrium with small angles, chosen
# by their settings alone. $u$ increases across the predicted lines, $v$ along them.

# %%
contour_cells(tables["plane_sgd"].runs).round(3)

# %%
figures.plane(Tables({name: tables[name] for name in shown_in_plane}))
plt.show()

# %% [markdown]
# ## Weights held at norm 1: `projection`
#
# The figure shows the test error against $\lambda$, with and without setting $\lVert w\rVert=1$ after each step.
# **Prediction:** with the projection the penalty changes little far below the critical $\lambda_{\mathrm c}$, and
# training fails beyond it. Adam has no such point.

# %%
# Try: sgd, nesterov or adam.
optimizer = "sgd"
held = tables[f"projection_{optimizer}"].runs
runs = tables.runs(f"projection_{optimizer}", f"plane_{optimizer}")
runs = runs[runs["lr"] == held.loc[held["l2"] > 0, "lr"].iloc[0]].assign(error=100 * error_or_chance(runs))
errors = runs.pivot_table(index="l2", columns="projected", values="error")
errors.rename(columns={False: "‖w‖ free: error (%)", True: "‖w‖ = 1: error (%)"}).round(1)

# %%
held = {name: tables[f"projection_{name}"].runs for name in ("sgd", "nesterov")}
lrs = {name: runs.loc[runs["l2"] > 0, "lr"].iloc[0] for name, runs in held.items()}
critical = {NAMES[name]: float(theory.critical_l2(name, lr)) for name, lr in lrs.items()}
pd.Series(critical, name="critical λ").to_frame()

# %%
figures.projection(tables)
plt.show()

# %% [markdown]
# ## The equilibrium, measured and predicted: `equilibrium` and `angles`
#
# Both figures show the runs that are predicted to be at equilibrium. The figure `equilibrium` has the norm and the
# effective learning rate, predicted with the measured $G$ of each layer. The figure `angles` has the angle per step,
# predicted from $\eta\lambda$ alone, and for Adam and RMSProp with $G$. **Prediction:** every point lies on the line,
# in all layers. Points at a constant distance from the line support the exponents but not the prefactor. Layers without
# equilibrium, in which more than 5 % of the units have no gradient, are left out; the table `layers` of the paper
# counts them.
#
# The data have a line for each run and layer. A ratio is measured over predicted. A small scale may have no run at
# equilibrium; then the table is empty.

# %%
at_equilibrium = list(figures.with_gradients(tables).values())
columns = ["optimizer", "lr", "l2", "seed", "layer"]
columns += [f"{before}{what}{after}" for what in ("norm", "angle") for before, after in FORMS]
equilibrium = pd.concat(at_equilibrium, ignore_index=True) if at_equilibrium else pd.DataFrame(columns=columns)
equilibrium[columns].head()

# %%
# Try: group by "layer" as well, or by "lr".
by = ["optimizer"]
ratios = equilibrium.groupby(by, sort=False)[["norm_ratio", "angle_ratio"]]
ratios.median().assign(lines=ratios.size())

# %%
figures.equilibrium(tables)
plt.show()

# %%
figures.angles(tables)
plt.show()

# %% [markdown]
# ## One balance for five optimizers: `equilibrium_law`
#
# The measured side of the balance over the predicted one, by optimizer and layer, without the memory of the optimizer
# and with it. **Prediction:** 1 with the memory, in every layer that has an equilibrium.

# %%
figures.equilibrium_law(tables)
plt.show()

# %% [markdown]
# ## Sweeps of the penalty, and one family of settings: `symmetry`
#
# The left panel shows the test error against $\lambda$ at fixed $\eta$, for each normalization. The others follow the
# family $(\lVert w_0\rVert,\eta,\lambda)=(a,a^2\eta_1,\lambda_1/a^2)$, which should train one function: the change of
# the test error from $a=1$, and that of $\lVert w\rVert/a$ and of the angle per step. **Prediction:** a sweep of
# $\lambda$ changes the error with and without normalization; along the family nothing changes with normalization,
# unless $\varepsilon$ is large against the variance of a unit, and everything changes without it.

# %%
family = tables["symmetry"].runs
family = family.assign(error=100 * error_or_chance(family))
by = {"index": ["initial_norm", "lr", "l2"], "columns": ["normalization", "norm_eps"]}
family.pivot_table(values="error", **by).round(1)

# %%
figures.symmetry(tables)
plt.show()

# %% [markdown]
# ## Wrong labels: `memorization`
#
# A small training set in which a share of the labels is wrong, so that there is something to regularize. The replays
# train without a penalty at the effective learning rate that the penalty would have produced (`replay.py`).
# **Prediction:** the slow replay, one rate for each layer, has the error and the loss of the penalty at every
# $\lambda$. Without normalization the best $\lambda>0$ beats $\lambda=0$.

# %%
runs = tables["memorization"].runs
runs = runs.assign(error=100 * median_error(tables["memorization"], runs))
by = {"index": "l2", "columns": ["normalization", "replay"]}
runs.pivot_table(values="error", **by).round(1)

# %%
# Try: late_train_error, or test_loss.
runs.pivot_table(values="late_train_loss", **by).round(3)

# %%
figures.memorization(tables)
plt.show()

# %% [markdown]
# ## Units without a gradient: `lost_units`
#
# Under Adam and RMSProp a unit with a weak gradient turns by larger angles, which weakens it further.
# $\theta=(4\eta^2\lambda d/G)^{1/3}$ is the scale of that angle. **Prediction:** no unit is lost while $\theta$ of the
# widest layer is at most 0.05, the widest layer is the first to lose half of its units, and the $\eta^2\lambda$ at
# which a layer does so goes as $1/d$.

# %%
shares = with_angle_scales(late_layers(*tables["lost_units"])).round({"widest_theta": 3})
by = {"index": ["optimizer", "widest_theta"], "columns": ["layer"]}
shares.pivot_table(values="late_without_gradient", **by).round(2)

# %%
lost_by_cause(*tables["causes"]).round(3)

# %%
figures.lost_units(tables)
plt.show()

# %% [markdown]
# ## No penalty: `growth`
#
# The figure shows training with $\lambda=0$. The dashed lines, for SGD, are what the mean of $G^2$ over the late part
# implies. **Prediction:** the norm grows without bound along its dashed line, and the effective learning rate falls as
# $t^{-1/2}$ once the norm has grown well beyond its start, while $G$ is constant.

# %%
# Try: norm_squared, effective_lr, g_squared or angle_squared. Columns: optimizer and η. Median over layers.
quantity = "effective_lr"
metrics, runs = tables["growth"]
shown = metrics[(metrics["quantity"] == quantity) & (metrics["layer"] != "")]
shown = shown.merge(runs[["run_id", "optimizer", "lr"]], on="run_id")
shown.pivot_table(index="step", columns=["optimizer", "lr"], values="value", aggfunc="median").tail()

# %%
figures.growth(tables)
plt.show()

# %% [markdown]
# ## A drop of the learning rate: `lr_drop`
#
# $\eta$ is divided in the middle of the run. **Prediction:** the norm needs time to follow, and meanwhile the effective
# learning rate is too small. Weights that are rescaled to the new equilibrium reach it at once.

# %%
metrics, runs = tables["lr_drop"]
shown = metrics[(metrics["quantity"] == "effective_lr") & (metrics["layer"] != "")]
shown = shown.merge(runs[["run_id", "rescaled_at_drop"]], on="run_id")
after = shown[shown["step"] >= runs["steps"].iloc[0] // 2]
after.pivot_table(index="step", columns=["rescaled_at_drop", "layer"], values="value").head()

# %%
figures.lr_drop(tables)
plt.show()

# %% [markdown]
# ## A plot of your choice
#
# The table lists the learning rates that you can choose from.

# %%
choice = tables.runs(*PLANES.values(), "normalizations")
choice.groupby(["normalization", "optimizer"])["lr"].unique().to_frame("learning rates")

# %% [markdown]
# Change the first line and run the cell again. The left panel shows the test error. The right panel shows the norm late
# in training, with the predicted equilibrium for the measured $G$ (dashed), as medians over layers.

# %%
normalization, optimizer, lr = "batch", "sgd", 0.16

picked = choice[(choice["normalization"] == normalization) & (choice["optimizer"] == optimizer) & (choice["lr"] == lr)]
everything = pd.concat([experiment.metrics for experiment in tables.values()])
late = late_layers(everything.drop_duplicates(["run_id", "step", "layer", "quantity"]), picked)
picked = picked.assign(error=100 * error_or_chance(picked))
late = late.assign(norm=np.sqrt(late["late_norm_squared"]))
late["predicted"] = theory.equilibrium_norm(
    optimizer, late["lr"], late["l2"], np.sqrt(late["late_g_squared"]), late["group_size"], late["momentum"]
)
norms = late.groupby("l2")[["norm", "predicted"]].median()

figure, axes = plt.subplots(1, 2, figsize=(7, 2.6))
axes[0].plot(picked["l2"], picked["error"], "o", color=PALETTE[0], alpha=0.5)
axes[0].plot(picked.groupby("l2")["error"].mean(), color=PALETTE[0])
axes[1].plot(norms["norm"], "o-", color=PALETTE[1])
axes[1].plot(norms.loc[norms.index > 0, "predicted"], color="black", linestyle=(0, (2, 1.5)))
smallest = picked.loc[picked["l2"] > 0, "l2"].min()
for axis in axes:
    axis.set_xscale("symlog", linthresh=smallest if len(picked) else 1e-4)
    axis.set_xlabel(r"penalty $\lambda$")
axes[0].set(ylabel="test error (%)", title=f"{NAMES[normalization]}, {NAMES[optimizer]}, $\\eta={number(lr)}$")
axes[1].set(ylabel=r"late norm $\|w\|$", yscale="log", title=f"{len(picked)} runs")
plt.show()
