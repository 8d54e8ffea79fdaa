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
# # A tour of one run
#
# A *run* is one training of one network. The study has hundreds of runs on a grid. This notebook shortens one of them
# and shows everything that the workflow does with it: its settings, its data, the invariance of its network, its
# training step by step, and the resulting table. The same training without normalization is the control.
#
# The notebook needs the prepared data. `make` prepares them; so does
# `snakemake results/data/fashion-mnist-14.pt --cores 1`, which does nothing else.

# %% tags=["parameters"]
scale = "laptop"  # a file of config/scales
tensors = "results/data/fashion-mnist-14.pt"  # the prepared data of this scale
record = "results/data/fashion-mnist-14.json"  # their checksum
steps = 300  # of this notebook; a run of the study has more

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from effective_lr.document.style import PALETTE, start
from effective_lr.engine import grid
from effective_lr.engine.study import load
from effective_lr.prepare.dataset import load as load_tensors
from effective_lr.studies.normalization import theory
from effective_lr.studies.normalization.analysis import DYNAMICS_LR, late_layers
from effective_lr.studies.normalization.data import splits_for
from effective_lr.studies.normalization.networks import build_network, normalized_layers
from effective_lr.studies.normalization.optimizers import MEAN_DECAY_ADAM, SQUARE_DECAY_ADAM, Optimizer
from effective_lr.studies.normalization.settings import Run
from effective_lr.studies.normalization.training import Training, batches, plain_float32
from effective_lr.studies.normalization.words import NAMES, NORMALIZATIONS

start()
# The package draws for files; from here on figures appear below their cells.
# %matplotlib inline
# %config InlineBackend.figure_format = "retina"
pd.set_option("display.max_colwidth", None, "display.max_rows", 100, "display.float_format", "{:.4g}".format)
plain_float32()
pd.Series({"PyTorch": torch.__version__, "threads": torch.get_num_threads()}).to_frame("")

# %% [markdown]
# ## The settings
#
# A scale holds experiments, an experiment is a grid, and a grid expands to runs. From the experiment `plane_sgd` we
# take the run whose predicted angle per step at equilibrium, $\sqrt{4\eta\lambda}$, is nearest to 0.1. This run gets
# close to equilibrium within the few steps of this notebook.

# %%
experiments = grid.load_scale(Path("config/normalization"), scale, load("normalization"))[1]
penalised = [run for run in experiments["plane_sgd"] if run.l2 > 0]
candidates = [run for run in penalised if run.lr == DYNAMICS_LR] or penalised
angles = [theory.equilibrium_angle("sgd", run.lr, run.l2, 1.0, 1.0) for run in candidates]
of_the_grid = candidates[np.argmin(np.abs(np.log(angles) - np.log(0.1)))]

changes = {
    "steps": steps,
    "probes": 20 * steps,  # log-spaced: enough of them for every step
    "evaluations": 2,
    "width": min(of_the_grid.width, 16 * 14 // of_the_grid.resolution),  # larger images take longer
    "batch_size": min(of_the_grid.batch_size, 64),
    "validation_size": min(of_the_grid.validation_size, 1000),
    "test_size": min(of_the_grid.test_size, 1000),
}
run = Run(**{**of_the_grid.model_dump(), **changes})
settings = pd.DataFrame({"in the grid": of_the_grid.model_dump(), "in this tour": run.model_dump()}).map(str)
settings["meaning"] = [field.description for field in Run.model_fields.values()]
to_the_left = [{"selector": "th", "props": "text-align: left"}]
settings.style.set_properties(**{"text-align": "left"}).set_table_styles(to_the_left)

# %% [markdown]
# The name of a run states its main settings. It ends with a hash of all settings, so a changed setting changes the
# name.

# %%
names = {"run of the grid": of_the_grid.run_id, "this tour": run.run_id}
pd.Series(names).to_frame("")

# %% [markdown]
# ## The data
#
# Images are normalized and kept in memory as one tensor. Loading them compares their checksum with that in the record.

# %%
splits = splits_for(load_tensors(Path(tensors), Path(record)), run)
figure, axes = plt.subplots(1, 10, figsize=(7, 1))
for axis, image, label in zip(axes, splits.train_images, splits.train_labels, strict=False):
    axis.imshow(image.mean(0), cmap="gray")
    axis.set(title=f"class {label}", xticks=[], yticks=[])
plt.show()

# %% [markdown]
# ## The network does not depend on the norm of its weights
#
# We multiply **all** weights by $\alpha$ and compare the output of the network and the gradient. With normalization,
# the theory predicts the same output and a gradient that is $1/\alpha$ times as large and orthogonal to the weights.
#
# This is exact, so we calculate in float64, with an $\varepsilon$ of batch and layer normalization that is nearly 0.
# The last column has the usual $\varepsilon$, which breaks the invariance for small weights. The assertion allows
# $10^{-9}$, as claim C1 of the paper does: rounding is $10^{-16}$ for each operation, and it adds up in sums over a
# layer.

# %%
images, labels = splits.train_images[:64].double(), splits.train_labels[:64]


def scaled(normalization, alpha=1.0, eps=1e-20):
    """The network of the run with its weights multiplied by alpha, and these weights."""
    network = build_network(run.model_copy(update={"normalization": normalization, "norm_eps": eps}), torch.float64)
    weights = [layer.weight for _, layer in normalized_layers(network)]
    with torch.no_grad():
        for weight in weights:
            weight *= alpha
    return network, weights


def vector(parts):
    return torch.cat([part.detach().flatten() for part in parts])


def look(normalization, alpha, eps=1e-20):
    """The logits, all weights and all gradients, each as one vector."""
    network, weights = scaled(normalization, alpha, eps)
    logits = network(images)
    gradients = torch.autograd.grad(F.cross_entropy(logits, labels), weights)
    return logits.detach(), vector(weights), vector(gradients)


def compare(normalization, alpha):
    """How far output and gradient at αw are from what invariance demands, relative to their size, and the cosine."""
    (logits, _, gradient), (others, weights, smaller) = look(normalization, 1.0), look(normalization, alpha)
    usual = look(normalization, alpha, run.norm_eps)[0] - look(normalization, 1.0, run.norm_eps)[0]
    return {
        "normalization": NAMES[normalization],
        "α": alpha,
        "change of the output": float((others - logits).abs().max() / logits.abs().max()),
        "α∇L(αw) − ∇L(w)": float((alpha * smaller - gradient).norm() / gradient.norm()),
        "cosine of w and ∇L": float(weights @ smaller / weights.norm() / smaller.norm()),
        "‖∇L(αw)‖/‖∇L(w)‖": float(smaller.norm() / gradient.norm()),
        "change of the output, usual ε": float(usual.abs().max() / logits.abs().max()),
    }


alphas = (0.1, 0.3, 1.0, 3.0, 10.0)
invariance = pd.DataFrame([compare(normalization, alpha) for normalization in NORMALIZATIONS for alpha in alphas])
exact = invariance[invariance["normalization"] != NAMES["none"]].iloc[:, 2:5]
assert (exact.abs() < 1e-9).all(axis=None), exact
invariance.set_index(["normalization", "α"]).style.format("{:.1e}").format_index("{:g}", level="α")

# %%
figure, axes = plt.subplots(1, 2, figsize=(7, 2.6))
for k, (name, rows) in enumerate(invariance.groupby("normalization", sort=False)):
    style = {"color": PALETTE[k], "marker": "osD^"[k], "markersize": 8 - 1.5 * k, "label": name}
    axes[0].plot(rows["α"], rows["‖∇L(αw)‖/‖∇L(w)‖"], **style)
    axes[1].plot(rows["α"], rows["cosine of w and ∇L"].abs().clip(lower=1e-18), **style)
axes[0].set(xscale="log", yscale="log", xlabel=r"$\alpha$", ylabel=r"$\|\nabla L(\alpha w)\|/\|\nabla L(w)\|$")
axes[1].set(xscale="log", yscale="log", xlabel=r"$\alpha$", ylabel=r"|cosine of $w$ and $\nabla L(w)$|")
axes[1].legend()
plt.show()

# %% [markdown]
# ## One step of SGD
#
# If the gradient is orthogonal to $w$, then after a step
# $\lVert w'\rVert^2=(1-2\eta\lambda)^2\lVert w\rVert^2+\eta^2\lVert\nabla L\rVert^2$. The penalty shortens $w$, the
# step lengthens it, and by Pythagoras the squares add up. This is exact too, so the assertion again allows $10^{-9}$.
# It does not hold without normalization.


# %%
def pythagoras(normalization):
    """‖w‖² before and after a step, and the norm that Pythagoras gives."""
    network, weights = scaled(normalization)
    optimizer = Optimizer(run, network)
    before = vector(weights).square().sum()
    F.cross_entropy(network(images), labels).backward()
    lengthening = run.lr**2 * vector([weight.grad for weight in weights]).square().sum()
    optimizer.step()
    after, expected = vector(weights).square().sum(), (1 - 2 * run.lr * run.l2) ** 2 * before + lengthening
    return {"before": before, "after": after, "by Pythagoras": expected, "difference": after - expected}


norms = pd.DataFrame({NAMES[kind]: pythagoras(kind) for kind in NORMALIZATIONS}).T.astype(float)
assert (norms["difference"].drop(NAMES["none"]).abs() < 1e-9 * norms["before"].iloc[0]).all(), norms
norms.style.format("{:.6g}")

# %% [markdown]
# ## The training
#
# `Training`, from `studies/normalization/training.py`, is the training loop of the workflow. It runs in float32, as in
# the study. We take its steps one by one and record for each layer the weights before the step, their gradient, and the
# cosine of the two.


# %%
def train(run):
    """Train to the end, or until it diverges. The training, and what was seen of each layer at each step."""
    training = Training(run, splits)
    seen = []
    for batch in batches(run, training.device):
        before = [layer.weight.detach().clone().flatten() for _, layer in training.layers]
        training.advance(batch)
        for (name, layer), weights in zip(training.layers, before, strict=True):
            gradient = layer.weight.grad.flatten()
            cosine = torch.cosine_similarity(weights, gradient, dim=0)
            seen.append((training.step, name, float(weights.norm()), float(gradient.norm()), float(cosine)))
        if training.diverged:
            break
    return training, pd.DataFrame(seen, columns=["step", "layer", "‖w‖", "‖∇L‖", "cosine"])


def at_a_few_steps(seen):
    return seen[(seen["layer"] == "conv2") & (seen["step"] % (steps // 6) == 0)]


training, seen = train(run)
at_a_few_steps(seen)

# %% [markdown]
# The cosine stays at the rounding of float32. The control has the same settings without normalization.

# %%
training_of_control, seen_of_control = train(run.model_copy(update={"normalization": "none"}))
at_a_few_steps(seen_of_control)

# %% [markdown]
# ## The result: rows
#
# A training writes rows of four columns: at this *step*, in this *layer* (empty for the whole network), this *quantity*
# had this *value*. All tables of the repository consist of such rows, so any selection is a filter.
#
# The *late* rows are means over the last part of the run. Norms, gradients and angles are computed for each scale
# group, and the value of a layer is the median over its groups.

# %%
rows = pd.DataFrame(training.rows, columns=["step", "layer", "quantity", "value"])
by_quantity = rows.groupby("quantity", sort=False)
by_quantity.agg({"step": ["min", "max"], "layer": "unique", "value": ["size", "first", "last"]})

# %%
rows[(rows["step"] == steps) & (rows["layer"] == "conv2")]

# %%
rows[rows["quantity"].isin(["test_error", "test_loss", "validation_error"])].pivot(
    index="step", columns="quantity", values="value"
)

# %% [markdown]
# ## The norm and the angle against the theory
#
# By the equation above, the gradients alone determine the norm at every step:
# $\lVert w_{t+1}\rVert^2=(1-2\eta\lambda)^2\lVert w_t\rVert^2+\eta^2\lVert\nabla L_t\rVert^2$. The dashed line on the
# left is this sum, computed from the measured gradients. The angle per step at equilibrium is predicted without any
# measurement: it is $\sqrt{4\eta\lambda}$ in all layers, the dashed line on the right. The lower row is the control.
# Its gradient is not tangent, and both predictions fail.

# %%
figure, axes = plt.subplots(2, 2, figsize=(7, 4.8), sharex=True)
expected = theory.equilibrium_angle("sgd", run.lr, run.l2, 1.0, 1.0)
pairs = [(training, seen), (training_of_control, seen_of_control)]
for (trained, looked), (left, right) in zip(pairs, axes, strict=True):
    for color, (layer, path) in zip(PALETTE, looked.groupby("layer", sort=False), strict=False):
        squared = [path["‖w‖"].iloc[0] ** 2]
        for slope in path["‖∇L‖"].iloc[:-1]:
            squared.append((1 - 2 * run.lr * run.l2) ** 2 * squared[-1] + run.lr**2 * slope**2)
        left.plot(path["step"], path["‖w‖"], color=color, linewidth=2.5, alpha=0.6, label=layer)
        left.plot(path["step"], np.sqrt(squared), color="black", linestyle=(0, (2, 1.5)), linewidth=0.8)
        angle = [(step, v**0.5) for step, where, what, v in trained.rows if (where, what) == (layer, "angle_squared")]
        right.plot(*zip(*angle, strict=True), color=color, linewidth=0.6)
    right.axhline(expected, color="black", linestyle=(0, (2, 1.5)), linewidth=1, zorder=3)
    left.set(title=f"normalization: {NAMES[trained.run.normalization]}", ylabel=r"norm $\|w\|$", yscale="log")
    right.set(title=left.get_title(), ylabel="angle per step (rad)", yscale="log", ylim=(1e-3, 1))
for left in axes[:, 0]:
    left.yaxis.set_major_formatter("{x:g}")
    left.yaxis.set_minor_formatter("{x:g}")
for axis in axes[-1]:
    axis.set_xlabel("step")
axes[1, 0].legend(ncols=2)
plt.show()

# %% [markdown]
# The table has the same in numbers, from the late rows. The prediction of the norm uses the late $G$ of each layer. A
# ratio of 1 is agreement. This short run ends near equilibrium, not at it; the study measures for longer.


# %%
def against_theory(training):
    """Late norm and angle of each layer, over what is predicted for equilibrium."""
    identity = {"run_id": training.run.run_id}
    rows = pd.DataFrame(training.rows, columns=["step", "layer", "quantity", "value"]).assign(**identity)
    late = late_layers(rows, pd.DataFrame([training.run.model_dump() | identity])).set_index("layer")
    setting = ("sgd", run.lr, run.l2, np.sqrt(late["late_g_squared"]), late["group_size"])
    norm, angle = np.sqrt(late["late_norm_squared"]), np.sqrt(late["late_angle_squared"])
    return pd.DataFrame(
        {
            "‖w‖": norm,
            "‖w‖ / predicted": norm / theory.equilibrium_norm(*setting),
            "angle": angle,
            "angle / predicted": angle / theory.equilibrium_angle(*setting),
        }
    )


tables = {NAMES[t.run.normalization]: against_theory(t) for t in (training, training_of_control) if not t.diverged}
pd.concat(tables, names=["normalization"])

# %% [markdown]
# ## The effective learning rate
#
# The norm of a scale group gives the learning rate with which its direction is trained, $\eta/\lVert w\rVert^2$. It
# starts at $\eta$, because the groups start at norm 1, and moves to a value that $\eta\lambda$ and the size of the
# gradient determine.

# %%
figure, axis = plt.subplots(figsize=(3.8, 2.6))
groups = rows[rows["quantity"] == "norm_squared"]
for color, (layer, path) in zip(PALETTE, groups.groupby("layer", sort=False), strict=False):
    axis.plot(path["step"], theory.effective_lr("sgd", run.lr, path["value"] ** 0.5), color=color, label=layer)
axis.set(xlabel="step", ylabel=r"effective learning rate $\eta_{\mathrm{eff}}$")
axis.legend()
plt.show()

# %% [markdown]
# ## Where the theory of Adam falls short
#
# The theory predicts $\lVert w\rVert^2=\eta d/4\lambda$ at equilibrium under AdamW, for $d$ weights in a group.
# Measured norms are smaller. To find the reason, let $\hat g=\nabla L/\sqrt{\hat s}$ be the gradient over its root mean
# square, $\hat m=m/\sqrt{\hat s}$ the momentum, and $y=w-\eta\frac{\beta_1}{1-\beta_1}\hat m$ the place where $w$ would
# settle if all later gradients vanished. Where $\hat s$ hardly changes, $y'=y-2\eta\lambda w-\eta\hat g$. So at
# equilibrium
#
# $$ 4\eta\lambda\langle y,w\rangle=\eta^2\lVert\hat g\rVert^2-2\eta\langle y,\hat g\rangle
# =\eta^2d\,(A+B+C), $$
#
# $$ A=\frac{\lVert\hat g\rVert^2}{d},\qquad B=-\frac{2\langle w,\hat g\rangle}{\eta d},\qquad
# C=\frac{2\beta_1}{1-\beta_1}\frac{\langle\hat m,\hat g\rangle}{d}, \qquad
# \frac{\lVert w\rVert^2}{\eta d/4\lambda}=(A+B+C)\,F,\qquad F=\frac{\lVert w\rVert^2}{\langle y,w\rangle}. $$
#
# The theory assumes $A=F=1$ and $B=C=0$. That is, the divisor is the size of the gradient that it divides, the divided
# gradient is still tangent and independent of earlier gradients, and steps are infinitely small. The table has the
# values of a run, as means over its second half and medians over the groups of a layer. No number here is fitted.


# %%
def account(run):
    """A, B, C, F and the norm squared over its prediction, for each layer of an AdamW run."""
    training, lag = Training(run, splits), MEAN_DECAY_ADAM / (1 - MEAN_DECAY_ADAM)
    totals = {}
    for batch in batches(run, training.device):
        means = [mean.clone() for mean in training.optimizer.weights.means]
        weights = [layer.weight.detach().clone() for _, layer in training.layers]
        training.advance(batch)
        if training.step <= run.steps // 2:
            continue
        looked_at = zip(training.layers, weights, means, training.optimizer.weights.squares, strict=True)
        for (name, layer), w, mean, square in looked_at:
            root = (square / (1 - SQUARE_DECAY_ADAM**training.step)).sqrt()
            w, g, m = (x.double().flatten(1) for x in (w, layer.weight.grad / root, mean / root))
            unit = run.lr * layer.group_size
            terms = (run.lr * g**2, -2 * w * g, 2 * run.lr * lag * m * g, w * (w - run.lr * lag * m), w**2)
            totals[name] = totals.get(name, 0) + torch.stack([term.sum(1) / unit for term in terms])
    table = {}
    for name, total in totals.items():
        a, b, c, rest, norm = total / (run.steps - run.steps // 2)
        parts = {"A": a, "B": b, "C": c, "F": norm / rest, "(A + B + C) F": (a + b + c) * norm / rest}
        parts["‖w‖² / predicted"] = norm * 4 * run.l2
        table[name] = {what: float(value.quantile(0.5)) for what, value in parts.items()}
    return pd.DataFrame(table).T


runs_of_adamw = [run for run in experiments["equilibrium"] if run.optimizer == "adamw"]
of_adamw = min(runs_of_adamw, key=lambda run: abs(np.log(run.lr * run.l2 / 0.01)))
account(Run(**{**of_adamw.model_dump(), **changes, "steps": 3 * steps, "probes": 1}))

# %% [markdown]
# The last two columns agree as far as the run has settled. Compare $A$, $C$ and $F$ with the theory. A negative $C$
# means that a gradient undoes part of what earlier gradients did, and $F$ is smaller for larger $\eta\lambda$. $B$ is
# near 0: dividing the gradient of each weight by its own size hardly tilts it out of the tangent.

# %% [markdown]
# ## Next
#
# The workflow does this for each run of the grid. `engine/jobs.py` trains, keeps checkpoints and writes the rows with
# their provenance, and `evidence/tidy.py` gathers them by experiment. The notebook `results` starts from these tables.
#
# To try other settings, edit `changes` above, for example to `"normalization": "layer"` or `"lr": 0.16`, and run the
# cells again.
