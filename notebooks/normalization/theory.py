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
# # Theory: the effect of the norm of the weights
#
# A normalized layer computes the same function from $w$ and from $2w$. So an L2 penalty, which makes $w$ shorter,
# cannot make the function simpler. This notebook derives what it does instead.
#
# There are seven short steps. Each has a derivation, a simulation that does not use it, and an assertion that the two
# agree. If they did not agree, the notebook would stop with an error. The closed forms are those of
# `studies/normalization/theory.py`, which the whole study uses.
#
# **Convention.** The objective is $L_\lambda(w)=L(w)+\lambda\lVert w\rVert^2$, without a factor $\frac12$. The gradient
# of the penalty is $2\lambda w$. The learning rate is $\eta$, the momentum $\mu$.

# %% tags=["parameters"]
seed = 0  # of every random number below

# %%
import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from numpy.testing import assert_allclose

from effective_lr.document.style import PALETTE, start
from effective_lr.studies.normalization import theory
from effective_lr.studies.normalization.figures import COLORS, MARKERS
from effective_lr.studies.normalization.words import NAMES

start()
# The package draws for files; from here on figures appear below their cells.
# %matplotlib inline
# %config InlineBackend.figure_format = "retina"
COLORS = {**COLORS, "momentum": PALETTE[9]}
MARKERS = {**MARKERS, "momentum": "P"}
pd.Series(theory.NORM_EXPONENT, name="exponent of ‖w‖ in the effective learning rate").rename(NAMES).to_frame()

# %% [markdown]
# The table is the result of step 2.
#
# ## 1 The gradient is tangent to the sphere, and shorter for longer weights
#
# Take one unit under batch normalization. It sees the inputs $x_i$ and computes
#
# $$ y_i = \frac{z_i-\mathrm{mean}(z)}{\mathrm{std}(z)}, \qquad z_i=\langle w,x_i\rangle . $$
#
# Replace $w$ by $\alpha w$ with $\alpha>0$. Then $z$, its mean and its deviation are all multiplied by $\alpha$, and
# $y$ does not change. Any loss of $y$ does not change either. It is **scale invariant**:
#
# $$ L(\alpha w)=L(w). $$
#
# Differentiate this equation twice. By $w$: $\alpha\nabla L(\alpha w)=\nabla L(w)$. By $\alpha$, at $\alpha=1$:
# $\langle w,\nabla L(w)\rangle=0$. Hence
#
# $$ \nabla L(\alpha w)=\tfrac1\alpha\nabla L(w), \qquad \nabla L(w)\perp w . $$
#
# The code has such a unit with a logistic loss, and its gradient by the chain rule.


# %%
def unit_loss(w, inputs, labels):
    """Loss (groups,) and gradient (groups, dim) of a batch-normalized unit, for several weights w (groups, dim)."""
    z = w @ inputs.T
    deviation = z.std(1, keepdims=True)
    y = (z - z.mean(1, keepdims=True)) / deviation
    loss = np.log1p(np.exp(-labels * y)).mean(1)
    slope = -labels / (1 + np.exp(labels * y)) / len(labels)  # of the loss in y
    slope -= slope.mean(1, keepdims=True) + y * (slope * y).mean(1, keepdims=True)  # now in z, but for 1/std
    return loss, slope / deviation @ inputs


def examples(dim, number=200):
    """Inputs (number, dim) and labels ±1 that a linear unit can learn, though not perfectly."""
    random = np.random.default_rng(seed)
    inputs = random.normal(size=(number, dim))
    return inputs, np.sign(inputs @ random.normal(size=dim) / dim**0.5 + random.normal(size=number) / 2)


inputs, labels = examples(dim=20)
w = np.random.default_rng(seed).normal(size=(1, 20))
direction = np.random.default_rng(seed + 1).normal(size=(1, 20))
loss, gradient = unit_loss(w, inputs, labels)
ahead, behind = (unit_loss(w + h * direction, inputs, labels)[0] for h in (1e-5, -1e-5))

# The gradient is right: it gives the slope in a random direction. The difference quotient is good to about 1e-9.
assert_allclose((gradient * direction).sum(), (ahead - behind) / 2e-5, rtol=1e-6)
pd.Series({"slope by the chain rule": (gradient * direction).sum(), "by a difference": float(*(ahead - behind) / 2e-5)})

# %% [markdown]
# The next cell tests the two statements for $\alpha$ from $\frac1{27}$ to 27. They are exact, so the only residual is
# rounding. It is about $10^{-16}$ for each operation, and we allow $10^{-12}$.

# %%
alphas = 3.0 ** np.arange(-3, 4)
losses, gradients = unit_loss(alphas[:, None] * w, inputs, labels)
sizes = np.linalg.norm(gradients, axis=1)
cosines = (alphas[:, None] * w * gradients).sum(1) / (np.linalg.norm(alphas[:, None] * w, axis=1) * sizes)

assert_allclose(losses, loss.repeat(7), rtol=1e-12)
assert_allclose(alphas[:, None] * gradients, gradient.repeat(7, axis=0), atol=1e-12)
assert_allclose(cosines, 0, atol=1e-12)
pd.DataFrame({"α": alphas, "loss": losses, "‖∇L‖": sizes, "α‖∇L‖": alphas * sizes, "cosine": cosines}).set_index("α")

# %% [markdown]
# With two weights the whole loss surface can be drawn. The loss is constant along rays from the origin. The arrows are
# the negative gradients: they follow circles and are longer near the origin.

# %%
plane, labels_of_plane = examples(dim=2)
ticks = np.linspace(-2, 2, 121)
corners = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
starts = np.concatenate([r * np.stack([np.cos(angles), np.sin(angles)], 1) for r in (0.6, 1.1, 1.7)])
_, slopes = unit_loss(starts, plane, labels_of_plane)

figure, axes = plt.subplots(1, 2, figsize=(7, 3), width_ratios=(1, 1.2))
levels = unit_loss(corners + 1e-9, plane, labels_of_plane)[0].reshape(121, 121)
axes[0].contourf(ticks, ticks, levels, 20, cmap="viridis")
axes[0].quiver(*starts.T, *-slopes.T, color="white", angles="xy", width=0.008)
axes[0].set(xlabel="$w_1$", ylabel="$w_2$", title="loss and negative gradient", aspect="equal")
axes[1].plot(alphas, sizes, "o", color=PALETTE[0], label="measured")
axes[1].plot(alphas, sizes[3] / alphas, color="black", linewidth=0.8, label=r"$\propto 1/\alpha$")
axes[1].set(xscale="log", yscale="log", xlabel=r"$\alpha$", ylabel=r"$\|\nabla L(\alpha w)\|$", title="20 weights")
axes[1].legend()
plt.show()

# %% [markdown]
# ## 2 The effective learning rate
#
# The function depends on the direction $u=w/\lVert w\rVert$ alone. With $\rho=\lVert w\rVert$, a step of SGD is
#
# $$ w' = w-\eta\,(\nabla L(w)+2\lambda w) = \rho\Bigl[(1-2\eta\lambda)\,u-\frac{\eta}{\rho^2}\nabla L(u)\Bigr]. $$
#
# Up to the factor $1-2\eta\lambda\approx1$, the direction is trained with the learning rate
#
# $$ \eta_{\mathrm{eff}}=\frac{\eta}{\lVert w\rVert^2}. $$
#
# **Momentum** adds up gradients: each one eventually moves the weights by $\eta(1+\mu+\mu^2+\dots)$ times itself. So
# $\eta_{\mathrm{eff}}=\eta/((1-\mu)\lVert w\rVert^2)$. **Adam** and **RMSProp** divide the gradient by its root mean
# square, and thereby by its factor $1/\rho$. This leaves $\eta_{\mathrm{eff}}=\eta/\lVert w\rVert$: the norm still
# matters, but only to the power $-1$. If $\lVert w\rVert$ is set to 1 after each step, it does not matter at all.
#
# The code has the optimizers in their usual forms, with a penalty.

# %%
MOMENTUM = BETA1 = 0.9
BETA2 = 0.99  # its usual value, 0.999, settles ten times more slowly


def norms(w):
    return np.linalg.norm(w, axis=1, keepdims=True)


def descend(optimizer, gradient, w, lr, l2=0.0, steps=1, projected=False):
    """The weights (groups, dim) before the first step and after each step, with the penalty l2·‖w‖²."""
    mean, square = np.zeros_like(w), np.zeros_like(w)
    beta1 = 0.0 if optimizer == "rmsprop" else BETA1
    yield w
    for t in range(1, steps + 1):
        g = gradient(w)
        if optimizer == "adamw":
            w = (1 - 2 * lr * l2) * w
        else:
            g = g + 2 * l2 * w
        if optimizer == "sgd":
            update = g
        elif optimizer in ("momentum", "nesterov"):
            mean = MOMENTUM * mean + g
            update = mean if optimizer == "momentum" else g + MOMENTUM * mean
        else:
            mean = beta1 * mean + (1 - beta1) * g
            square = BETA2 * square + (1 - BETA2) * g**2
            update = mean / (1 - beta1**t) / np.sqrt(square / (1 - BETA2**t))
        w = w - lr * update
        if projected:
            w = w / norms(w)
        yield w


def angle(v, w):
    """The angle (groups,) between weights, exact also where it is tiny."""
    u, v = v / norms(v), w / norms(w)
    return 2 * np.arctan2(norms(u - v), norms(u + v))[:, 0]


def unit_gradient(w):
    return unit_loss(w, inputs, labels)[1]


*_, end = descend("sgd", unit_gradient, w, lr=10, steps=200)
pd.Series({"loss before": loss[0], "after 200 steps": unit_loss(end, inputs, labels)[0][0]})

# %% [markdown]
# To measure the effective learning rate we start from $\alpha w$ and take 1000 steps. They are so short that the
# gradient stays the same, up to the factor $1/\alpha$. Then the weights turn by $1000\,\eta_{\mathrm{eff}}$ times a
# constant.
#
# The tolerance is 2 %. The gradient does change a little, and momentum needs its first ten steps to build up, which is
# 1 % of 1000.

# %%
alphas = 2.0 ** np.arange(-2, 3)
start = w / norms(w)
lrs = {"sgd": 1e-7, "momentum": 1e-8, "nesterov": 1e-8, "adam": 1e-8, "rmsprop": 1e-8, "adamw": 1e-8}
turned = {}
for optimizer, lr in lrs.items():
    *_, end = descend(optimizer, unit_gradient, alphas[:, None] * start, lr, steps=1000)
    turned[optimizer] = angle(alphas[:, None] * start, end)
    predicted = theory.effective_lr(optimizer, lr, alphas, MOMENTUM)
    assert_allclose(turned[optimizer] / turned[optimizer][2], predicted / predicted[2], rtol=0.02)
    if theory.NORM_EXPONENT[optimizer] == -2:  # also without a free constant
        assert_allclose(turned[optimizer], 1000 * predicted * norms(unit_gradient(start))[0], rtol=0.02)

exponents = {k: np.polyfit(np.log(alphas), np.log(angles), 1)[0] for k, angles in turned.items()}
pd.DataFrame({"measured exponent of ‖w‖": exponents, "theory": theory.NORM_EXPONENT}).rename(NAMES)

# %%
figure, axis = plt.subplots(figsize=(3.8, 2.8))
for optimizer in ("sgd", "nesterov", "adam", "rmsprop"):
    predicted = theory.effective_lr(optimizer, lrs[optimizer], alphas, MOMENTUM)
    axis.plot(alphas, predicted / predicted[2], color="0.5", linewidth=0.8, zorder=0)
    relative = turned[optimizer] / turned[optimizer][2]
    size = 7 if optimizer in ("sgd", "adam") else 3  # on the same line: one around the other
    axis.plot(alphas, relative, MARKERS[optimizer], markersize=size, color=COLORS[optimizer], label=NAMES[optimizer])
axis.set(xscale="log", yscale="log", xlabel=r"$\|w\|$", ylabel=r"angle, relative to $\|w\|=1$")
axis.set_xticks(alphas, [f"{alpha:g}" for alpha in alphas])
axis.minorticks_off()
axis.legend(title="lines: theory")
plt.show()

# %% [markdown]
# ## 3 The norm reaches an equilibrium
#
# The gradient is tangent, so by Pythagoras **each step lengthens $w$**. The penalty shortens it. By step 1 the gradient
# has a norm of the form $G/\lVert w\rVert$. Then SGD gives, without any approximation,
#
# $$ \lVert w_{t+1}\rVert^2 = (1-2\eta\lambda)^2\lVert w_t\rVert^2+\frac{\eta^2G^2}{\lVert w_t\rVert^2}. $$
#
# The two terms balance at a norm $\rho_*$. For small $\eta\lambda$ the loss of a step is $4\eta\lambda\rho^2$, and the
# gain is $\eta^2G^2/\rho^2$, so
#
# $$ \rho_*^4=\frac{\eta G^2}{4\lambda},
# \qquad \eta_{\mathrm{eff}}=\frac{\eta}{\rho_*^2}=\frac{2\sqrt{\eta\lambda}}{G}. $$
#
# **This is what the penalty does.** Together with $\eta$, and only through $\eta\lambda$, it sets the effective
# learning rate. For small steps the recursion becomes $\mathrm{d}\rho^4/\mathrm{d}t=2\eta^2G^2-8\eta\lambda\rho^4$.
# This is linear in $\rho^4$, so the distance to $\rho_*^4$ decays as $\exp(-8\eta\lambda t)$.
#
# The test needs gradients of this kind. We draw their directions at random, tangent and independent of all earlier
# ones. One group of weights starts at half of $\rho_*$, another at $\frac32\rho_*$.

# %%
DIM, GRAD = 1000, 2.0  # weights in a group; the norm G of the gradient at ‖w‖ = 1
STEPS, LATE = 4000, 1000  # all steps, and those at their end that are taken as the equilibrium
STARTS = np.array([0.5, 1.5])  # over the norm at equilibrium; a group of weights for each


def walk(optimizer, lr, l2, starts, steps=STEPS):
    """Norms (steps + 1, groups) and late angles per step (LATE, groups) under random gradients, from these norms."""
    random = np.random.default_rng(seed)
    start = random.normal(size=(len(starts), DIM))
    start *= np.reshape(starts, (-1, 1)) / norms(start)

    def gradient(w):
        noise = random.normal(size=w.shape)
        tangent = noise - (noise * w).sum(1, keepdims=True) / norms(w) ** 2 * w
        return tangent * (GRAD / norms(tangent) / norms(w))

    path = list(descend(optimizer, gradient, start, lr, l2, steps))
    turns = [angle(before, after) for before, after in itertools.pairwise(path[-LATE - 1 :])]
    return np.array([norms(w)[:, 0] for w in path]), np.array(turns)


lr, l2 = 0.1, 0.004
rho = theory.equilibrium_norm("sgd", lr, l2, GRAD, DIM)
lengths, _ = walk("sgd", lr, l2, STARTS * rho)

recursion = [(STARTS * rho) ** 2]
for _ in range(STEPS):
    recursion.append((1 - 2 * lr * l2) ** 2 * recursion[-1] + (lr * GRAD) ** 2 / recursion[-1])

assert_allclose(lengths**2, recursion, rtol=1e-10)  # exact, up to rounding summed over 4000 steps
pd.Series({"norm after all steps": lengths[-1].mean(), "equilibrium, by theory": rho})

# %% [markdown]
# The recursion is exact. The exponential neglects terms of the size of $\eta\lambda$, here below $10^{-3}$. They shift
# $\rho_*$ a little, which matters where the distance has become small. So we fit the rate while the distance falls to a
# tenth, and allow 2 %.

# %%
distance = np.abs(lengths**4 / rho**4 - 1)
rate = theory.relaxation_rate("sgd", lr, l2)
steps = np.arange(STEPS + 1)
falling = steps < np.log(10) / rate
measured = -np.polyfit(steps[falling], np.log(distance[falling]), 1)[0]
assert_allclose(measured, rate, rtol=0.02)

figure, axes = plt.subplots(1, 2, figsize=(7, 2.6))
axes[0].plot(lengths, color=COLORS["sgd"])
axes[0].axhline(rho, color="0.3", linestyle=(0, (2, 1.5)), linewidth=1)
axes[0].set(xlabel="step", ylabel=r"$\|w\|$", title="from below and from above")
axes[1].plot(distance, color=COLORS["sgd"])
axes[1].plot(distance[0] * np.exp(-rate * steps)[:, None], color="black", linestyle=(0, (2, 1.5)), linewidth=1)
axes[1].set(xlabel="step", yscale="log", ylim=(1e-3, 10), title=r"dashed: $\exp(-8\eta\lambda t)$")
axes[1].set_ylabel(r"$|\,\|w\|^4/\rho_*^4-1\,|$")
plt.show()

# %% [markdown]
# ## 4 All optimizers, and the angle per step
#
# The balance holds for the other optimizers too. Suppose each gradient eventually moves the weights by $c$ times
# itself. In the equations above $c$ then replaces $\eta$. It is $\eta/(1-\mu)$ with momentum, and $\eta\sqrt d\,\rho/G$
# for Adam and RMSProp, which divide by the root mean square of $d$ components. The decay of AdamW is not divided. So
#
# $$ \text{momentum: } \rho_*^4=\frac{\eta G^2}{4\lambda(1-\mu)},
# \qquad \text{Adam: } \rho_*^3=\frac{\eta\sqrt d\,G}{4\lambda},
# \qquad \text{AdamW: } \rho_*^2=\frac{\eta d}{4\lambda}. $$
#
# The **angle per step** is the length of a step over the length of $w$. For SGD it is $\eta G/\rho_*^2$, which is
#
# $$ \sqrt{4\eta\lambda}. $$
#
# It contains neither $G$ nor $d$ and is the same in every layer. With momentum the steps are sums over past gradients,
# and each optimizer has its own factor; `theory.angle_per_step` has them all.
#
# The tolerance is 2 %. The theory is the leading order in small steps. It neglects the change of $w$ while the
# optimizer still remembers a gradient, which is up to 1 % here, and the noise of the estimate that Adam divides by.

# %%
SETTINGS = {
    "sgd": (0.1, 0.004),
    "momentum": (0.01, 0.004),
    "nesterov": (0.01, 0.004),
    "adam": (0.002, 0.016),
    "rmsprop": (0.002, 0.016),
    "adamw": (0.004, 0.1),
}
paths, rows = {}, []
for optimizer, (lr, l2) in SETTINGS.items():
    setting = (optimizer, lr, l2, GRAD, DIM, MOMENTUM)
    rho, turn = theory.equilibrium_norm(*setting), theory.equilibrium_angle(*setting, beta1=BETA1)
    lengths, turns = walk(optimizer, lr, l2, STARTS * rho)
    late_norm, late_turn = lengths[-LATE:].mean(), np.sqrt((turns**2).mean())
    assert_allclose([late_norm, late_turn], [rho, turn], rtol=0.02, err_msg=optimizer)
    paths[optimizer] = lengths
    rows.append((NAMES[optimizer], lr, l2, late_norm, rho, late_norm / rho, late_turn, turn, late_turn / turn))

columns = ["", "η", "λ", "norm", "theory", "ratio", "angle per step", "theory ", "ratio "]
pd.DataFrame(rows, columns=columns).set_index("")

# %%
figure, axes = plt.subplots(2, 3, figsize=(7, 3.6), sharex=True)
for axis, (optimizer, lengths) in zip(axes.flat, paths.items(), strict=True):
    axis.plot(lengths, color=COLORS[optimizer])
    rho = theory.equilibrium_norm(optimizer, *SETTINGS[optimizer], GRAD, DIM, MOMENTUM)
    axis.axhline(rho, color="0.3", linestyle=(0, (2, 1.5)), linewidth=1)
    axis.set(title=NAMES[optimizer], ylim=(0, 1.6 * rho))
for axis in axes[:, 0]:
    axis.set_ylabel(r"$\|w\|$")
for axis in axes[-1]:
    axis.set_xlabel("step")
plt.show()

# %% [markdown]
# **The formula for Adam.** One secondary source prints $\sqrt[3]{\eta^2/\lambda}$ for the effective learning rate of
# Adam, but the balance gives $\sqrt[3]{\eta^2\lambda}$. The next cell varies $\lambda$ by a factor of 16 and measures
# the exponent. The tolerance is 0.02; the two formulas differ by $\frac23$.

# %%
lr, l2s = 0.002, np.array([[0.008], [0.032], [0.128]])  # a column: one row of weights for each λ
predicted = theory.equilibrium_effective_lr("adam", lr, l2s, GRAD, DIM)
lengths, _ = walk("adam", lr, l2s, theory.equilibrium_norm("adam", lr, l2s, GRAD, DIM))
measured = theory.effective_lr("adam", lr, lengths[-LATE:].mean(0))
exponent = np.polyfit(np.log(l2s[:, 0]), np.log(measured), 1)[0]
assert_allclose(exponent, 1 / 3, atol=0.02)
pd.DataFrame({"λ": l2s[:, 0], "measured": measured, "theory": predicted[:, 0]}).set_index("λ")

# %% [markdown]
# ## 5 Without a penalty the norm grows without bound
#
# With $\lambda=0$ nothing shortens $w$. The recursion of step 3 becomes $\mathrm{d}\rho^4/\mathrm{d}t=2\eta^2G^2$, so
# for SGD
#
# $$ \rho_t^4=\rho_0^4+2\eta^2G^2t, \qquad \eta_{\mathrm{eff}}\propto t^{-1/2}\ \text{ for large } t. $$
#
# This is an unintended decay of the learning rate. The tolerance is 2 %: the formula neglects $\eta^2G^2/\rho^4$, which
# is 1 % at the start and less later.

# %%
lr, steps = 0.05, np.arange(1, STEPS + 1)
lengths = walk("sgd", lr, 0.0, [1.0])[0][1:, 0]
predicted = theory.growth_norm(lr, GRAD, steps, initial_norm=1.0)
assert_allclose(lengths, predicted, rtol=0.02)

figure, axes = plt.subplots(1, 2, figsize=(7, 2.5), sharex=True)
thick, dashed = {"alpha": 0.5, "linewidth": 3}, {"color": "black", "linestyle": (0, (2, 1.5))}
for norm, style in [(lengths, thick), (predicted, dashed)]:
    axes[0].plot(steps, norm, **style)
    axes[1].plot(steps, theory.effective_lr("sgd", lr, norm), **style)
axes[0].set(xscale="log", yscale="log", xlabel="step", ylabel=r"$\|w\|$", title="dashed: theory")
axes[1].set(yscale="log", xlabel="step", ylabel=r"$\eta_{\mathrm{eff}}$")
axes[1].plot(steps[99:], 0.1 * steps[99:] ** -0.5, color="0.6", linewidth=0.8)
axes[1].text(400, 0.0025, r"$t^{-1/2}$")
plt.show()

# %% [markdown]
# ## 6 One function, many penalties
#
# This needs no model. Start from $aw$ and train with $(a^2\eta,\lambda/a^2)$. By step 1 the gradient at $aw$ is
# $\frac1a\nabla L(w)$, so a step is $a^2\eta\cdot\frac1a\nabla L(w)$. This is $a$ times the step of the first training,
# just as the weights are $a$ times the first weights. The product $\eta\lambda$ is the same. So the weights are $a$
# times those of the first training **at every step**, and the functions are equal. For Adam the learning rate becomes
# $a\eta$.
#
# So $\lambda$ can have any value; here it covers six decades. This would be impossible if a large penalty made
# functions simpler. The statement is exact, so the only residual is rounding, which 300 steps of training amplify a
# little. We allow $10^{-9}$.

# %%
rows = []
for optimizer, power, lr, l2 in [("sgd", 2, 0.1, 0.01), ("nesterov", 2, 0.01, 0.01), ("adam", 1, 0.005, 0.01)]:
    for a in (0.001, 1.0):
        *_, end = descend(optimizer, unit_gradient, a * start, a**power * lr, l2 / a**2, steps=300)
        loss = unit_loss(end, inputs, labels)[0][0]
        rows.append((NAMES[optimizer], a, a**power * lr, l2 / a**2, norms(end)[0, 0], loss))
losses = np.reshape([row[-1] for row in rows], (-1, 2))
assert_allclose(losses[:, 0], losses[:, 1], rtol=1e-9)
pd.DataFrame(rows, columns=["", "a", "η", "λ", "norm at the end", "loss at the end"]).set_index(["", "a"])

# %% [markdown]
# ## 7 Weights held at norm 1
#
# The original also sets $\lVert w\rVert=1$ after each step. Then the norm has no influence. To see whether the penalty
# has any, write a step of SGD as
#
# $$ \tilde w=(1-2\eta\lambda)\,w-\eta\nabla L(w)
# = (1-2\eta\lambda)\Bigl[w-\frac{\eta}{1-2\eta\lambda}\nabla L(w)\Bigr],
# \qquad w'=\frac{\tilde w}{\lVert\tilde w\rVert}. $$
#
# The projection removes the factor in front. So training with $(\eta,\lambda)$ is exactly training with
# $\bigl(\frac{\eta}{1-2\eta\lambda},0\bigr)$: the penalty changes the learning rate and does not regularize. At
# $\lambda_{\mathrm c}=1/(2\eta)$ this learning rate is infinite, and beyond it $w$ flips its sign at every step. We
# again allow $10^{-9}$.

# %%
lr = 0.2
critical = theory.critical_l2("sgd", lr)


def projected_losses(lr, l2):
    path = descend("sgd", unit_gradient, start, lr, l2, steps=60, projected=True)
    return [unit_loss(w, inputs, labels)[0][0] for w in path]


figure, axis = plt.subplots(figsize=(3.8, 2.6))
for share, color in zip((0.0, 0.5, 0.8), PALETTE, strict=False):
    equivalent = float(theory.projected_effective_lr("sgd", lr, share * critical))
    penalised, free = projected_losses(lr, share * critical), projected_losses(equivalent, 0.0)
    assert_allclose(penalised, free, rtol=1e-9)
    label = rf"$\lambda={share:g}\,\lambda_c$; dashed $\lambda=0$, $\eta={equivalent:g}$"
    axis.plot(penalised, color=color, linewidth=3, alpha=0.5, label=label)
    axis.plot(free, color="black", linestyle=(0, (2, 1.5)))
axis.set(xlabel="step", ylabel="loss", title=rf"$\eta={lr}$")
axis.legend()
plt.show()

# %% [markdown]
# With momentum the penalty also adds to the velocity. To leading order in the angle per step, $\lambda_{\mathrm c}$ is
# $(1-\mu)^2/(2\eta)$ for heavy ball and $(1-\mu)^2/(2\eta(1-\mu+\mu^2))$ for Nesterov. Below $\lambda_{\mathrm c}$
# training ends at the loss that it reaches without a penalty (we allow 1 %). Beyond it, $w$ flips back and forth, and
# the mean loss over the last steps is far higher (we require at least 10 %). With SGD it is even higher than the loss
# of guessing, $\log2$, which is the grey line.

# %%
shares = np.array([0, 0.25, 0.5, 0.75, 0.9, 0.95, 1.05, 1.1, 1.25, 1.5])
figure, axis = plt.subplots(figsize=(3.8, 2.6))
for optimizer, lr in [("sgd", 0.02), ("momentum", 0.002), ("nesterov", 0.002)]:
    l2s = shares[:, None] * theory.critical_l2(optimizer, lr, MOMENTUM)
    path = descend(optimizer, unit_gradient, start.repeat(len(shares), axis=0), lr, l2s, 2000, projected=True)
    last = np.mean([unit_loss(w, inputs, labels)[0] for w in list(path)[-200:]], axis=0)
    assert_allclose(last[shares < 1], last[0], rtol=0.01)
    assert (last[shares > 1] > 1.1 * last[0]).all(), f"{optimizer} trains beyond the critical penalty: {last}"
    axis.plot(shares, last, MARKERS[optimizer] + "-", color=COLORS[optimizer], label=NAMES[optimizer])
axis.axvline(1, color="0.4", linestyle=":", linewidth=1)
axis.axhline(np.log(2), color="0.7", linewidth=0.8, zorder=0)
axis.set(xlabel=r"$\lambda/\lambda_c$", ylabel="loss at the end")
axis.legend()
plt.show()

# %% [markdown]
# ## What to compare in real training
#
# In these simulations the gradients are random, or the network is one unit. In training, gradients of successive steps
# are related, $G$ changes, and each layer has its own $G$. The notebook `one_run` shows one real run. The notebook
# `results` compares all runs with the lines below: in the plane of $\lambda$ and $\eta$, settings on one line should
# have equal errors.

# %%
l2s, lrs = np.geomspace(1e-4, 1, 60), np.geomspace(1e-3, 1, 60)[:, None]
figure, axes = plt.subplots(1, 2, figsize=(7, 2.8), sharey=True)
for axis, optimizer in zip(axes, ("sgd", "adam"), strict=True):
    effective = np.log10(theory.equilibrium_effective_lr(optimizer, lrs, l2s, GRAD, DIM))
    axis.contourf(l2s, lrs[:, 0], effective, 12, cmap="viridis")
    axis.contour(l2s, lrs[:, 0], effective, 12, colors="white", linewidths=0.6, linestyles="solid")
    title = rf"{NAMES[optimizer]}: equal $\eta_{{\mathrm{{eff}}}}$ along slope $-{theory.diagonal_slope(optimizer):g}$"
    axis.set(xscale="log", yscale="log", xlabel=r"penalty $\lambda$", title=title)
axes[0].set_ylabel(r"learning rate $\eta$")
plt.show()
