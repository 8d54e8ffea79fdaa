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
# # What a penalty does to a direction
#
# A normalized layer computes the same function from $w$ and from $2w$: only the direction $u=w/r$, $r=\lVert
# w\rVert$, matters. A penalty makes $w$ shorter. That alone changes an effective learning rate and nothing else,
# whichever penalty it is. But a penalty other than plain $\ell_2$ does one thing more: it **turns** the direction.
#
# Each step here is a prediction, then a simulation that knows nothing of it, then an assertion that the two agree.
# If one did not, this notebook would stop with an error.
#
# **Penalties.** With $S$ the covariance of the inputs: CAR is $R(w)=w'Sw$, $\ell_2$ is $w'w$, the inverse reading is
# $w'S^{-1}w$, and $\ell_1$ is $\sum_j|w_j|$. $R(cw)=c^kR(w)$ with $k=2$, and $k=1$ for $\ell_1$.
# The strength is $\lambda$, the learning rate $\eta$.

# %% tags=["parameters"]
seed = 0  # of every random number below
steps = 12_000  # of the random walks

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from numpy.testing import assert_allclose

from effective_lr.document.style import start
from effective_lr.studies.norms import theory
from effective_lr.studies.norms.figures import COLORS
from effective_lr.studies.norms.words import NAMES

# Figures appear below their cells.
# %matplotlib inline
# %config InlineBackend.figure_format = "retina"
start()

D = 20
rho = 0.5
sigma = rho ** np.abs(np.subtract.outer(np.arange(D), np.arange(D)))
d = np.linalg.eigvalsh(sigma)  # the eigenvalues of S, from small to large; their mean is 1
pd.Series(d).describe()[["min", "mean", "max"]].to_frame("eigenvalues of S")

# %% [markdown]
# In the basis of its eigenvectors, the principal components, $S$ is the diagonal matrix of $d$. We stay in that
# basis, so that $R(w)=\sum_j d_j^a w_j^2$ with $a=1$ (CAR), $0$ ($\ell_2$), $-1$ (inverse).

# %%
random = np.random.default_rng(seed)


def slope(w, penalty):
    """The gradient of R at w (D, ...)."""
    if penalty == "l1":
        return np.sign(w)
    return 2 * (d ** theory.POWER[penalty]).reshape(-1, *[1] * (w.ndim - 1)) * w


def value(w, penalty):
    """R at w (D, ...)."""
    return (w * slope(w, penalty)).sum(0) / theory.DEGREE[penalty]  # Euler: w'∇R = k·R


# %% [markdown]
# ## 1 The pull
#
# A step of the penalty alone, $w\to w-\eta\lambda\nabla R(w)$, turns $u$ by $-\frac{\eta}{r^2}\,\lambda
# r^k\,P_u\nabla R(u)$, where $P_u$ takes away the part along $u$. For $\ell_2$ the gradient is along $u$: there is no
# pull. Let us watch the share of the five components of largest variance in $\mathrm{Var}(w'x)=\sum_j d_jw_j^2$.

# %%
start_w = random.normal(size=D)
paths = {}
for penalty in ("l2", "car", "inverse"):
    w, shares = start_w.copy(), []
    for _ in range(3000):
        energy = d * w**2
        shares.append(energy[-5:].sum() / energy.sum())
        turned = w - 1e-3 * slope(w, penalty)
        predicted = theory.pull(w / np.linalg.norm(w), slope(w / np.linalg.norm(w), penalty), 1e-3)
        # One step, against the formula; what is left is of second order in the step.
        step = turned / np.linalg.norm(turned) - w / np.linalg.norm(w)
        assert_allclose(step, predicted, atol=1e-4)
        w = turned
    paths[penalty] = shares

figure, axis = plt.subplots(figsize=(4.5, 2.4))
for penalty, shares in paths.items():
    axis.plot(shares, color=COLORS[penalty], label=NAMES[penalty])
axis.set(xlabel="steps of the penalty alone", ylabel="share of the top 5", ylim=(0, 1))
axis.legend()

assert_allclose(paths["l2"], paths["l2"][0], atol=1e-9)  # no pull
assert paths["car"][-1] < 0.1 * paths["car"][0] and paths["inverse"][-1] > 0.9

# %% [markdown]
# ## 2 The pull fades by itself
#
# The penalty shortens $w$, and a shorter $w$ feels less of it: the effective strength is
# $\lambda_\mathrm{eff}=\lambda r^k$. In the time $\tau$ of the direction, $d\tau=dt/r^2$, theory says
# $\frac{d}{d\tau}\frac1{\lambda_\mathrm{eff}}=k^2R(u)$ exactly, whatever the loss does.

# %%
lines = {}
for penalty, k in theory.DEGREE.items():
    w, tau, predicted, strength = start_w.copy(), 0.0, 0.0, 0.2
    first = 1 / (strength * np.linalg.norm(w) ** k)
    for _ in range(20_000):
        r, dt = np.linalg.norm(w), 1e-4
        predicted += dt / r**2 * k**2 * value(w / r, penalty)
        tau += dt / r**2
        w = w - dt * strength * slope(w, penalty)
    found = 1 / (strength * np.linalg.norm(w) ** k) - first
    lines[NAMES[penalty]] = {"growth of the inverse strength": found, "predicted": predicted}
    assert_allclose(found, predicted, rtol=5e-3)
pd.DataFrame(lines).T

# %% [markdown]
# ## 3 Random gradients against a penalty
#
# Now the loss is replaced by noise: gradients of norm $1/r$ in random tangent directions, which is what a scale
# invariant loss gives. The noise lengthens $w$, the penalty shortens it, and they balance at $r^{k+2}R(u)=\eta
# G^2/(2k\lambda)$. Nothing in this simulation knows of that, or of the law of $u$, which theory gives as
# $R(u)^{-D/k}$: every direction alike for $\ell_2$, and for CAR an equal share $1/D$ of the variance for every
# component.

# %%
lr, walkers = 0.05, 32


def walk(penalty, strength):
    """Mean balance, squared angle per step and energy shares (D,) over the second half of a walk."""
    w = random.normal(size=(D, walkers))
    w /= np.linalg.norm(w, axis=0)
    balance, angle, energy = [], [], []
    k = theory.DEGREE[penalty]
    for step in range(steps):
        r = np.linalg.norm(w, axis=0)
        noise = random.normal(size=w.shape)
        noise -= (noise * w).sum(0) / r**2 * w
        after = w - lr * (noise / np.linalg.norm(noise, axis=0) / r + strength * slope(w, penalty))
        if step >= steps // 2 and step % 10 == 0:
            cosine = (w * after).sum(0) / r / np.linalg.norm(after, axis=0)
            angle.append(2 * (1 - cosine).mean())
            balance.append((r**2 * value(w, penalty)).mean() * 2 * k * strength / lr)
            energy.append((d[:, None] * w**2 / r**2).mean(1))
        w = after
    energy = np.mean(energy, axis=0)
    return np.mean(balance), np.mean(angle), energy / energy.sum()


results = {penalty: walk(penalty, 0.05) for penalty in ("l2", "car")}
table = pd.DataFrame(
    {NAMES[p]: {"balance (1)": balance, "angle per step": angle**0.5} for p, (balance, angle, _) in results.items()}
)
for balance, _, _ in results.values():
    assert_allclose(balance, 1, atol=0.03)
table

# %%
figure, axis = plt.subplots(figsize=(4.5, 2.6))
for penalty, (_, _, shares) in results.items():
    axis.plot(d, shares, "o", color=COLORS[penalty], label=NAMES[penalty])
    axis.plot(d, theory.direction_shares(d, penalty), color=COLORS[penalty])
    assert_allclose(shares, theory.direction_shares(d, penalty), atol=0.025)
axis.set(xscale="log", yscale="log", xlabel="eigenvalue $d_j$", ylabel="share in the variance")
axis.legend(title="lines: predicted")

# %% [markdown]
# The angle per step of $\ell_2$ is $\sqrt{4\eta\lambda}$, whatever the noise; that of CAR is smaller by its own
# $R(u)$, and follows the same formula $2k\eta\lambda R(w)/r^2$. Theory needs no constant from the simulation:

# %%
assert_allclose(results["l2"][1], theory.equilibrium_angle_squared(lr, 0.05, 2, 1.0, 1.0), rtol=0.03)
mean_r_of_u = 1 / np.mean(1 / d)  # E[u'Su] when every component has the same share
assert_allclose(results["car"][1], theory.equilibrium_angle_squared(lr, 0.05, 2, mean_r_of_u, 1.0), rtol=0.1)
pd.Series(
    {"l2": (4 * lr * 0.05) ** 0.5, "CAR": (4 * lr * 0.05 * mean_r_of_u) ** 0.5}, name="predicted angle"
).to_frame()

# %% [markdown]
# ## 4 The reported penalties in a linear model
#
# A third party reports the penalty of the paper as Covridge, $\lambda_1\mathrm{tr}(W'CW)+\lambda_2\lVert
# W\rVert^2$ with $C=S+\delta I$. In a linear model with $\delta=0$ it is ridge with another strength, over
# $1+\lambda_1$: one factor for all directions, whatever the correlation.

# %%
n, p = 200, 8
x = random.normal(size=(n, p)) @ np.linalg.cholesky(0.3 * np.eye(p) + 0.7).T
x -= x.mean(0)
y = x @ random.normal(size=p) + random.normal(size=n)
covridge = theory.covridge(x, y, 0.5, 0.3, delta=0.0)
ridge = theory.covridge(x, y, 0.0, 0.3 / 1.5, delta=0.0)
assert_allclose(covridge, ridge / 1.5, rtol=1e-9)
pd.DataFrame({"Covridge": covridge, "ridge": ridge, "ratio": covridge / ridge}).T

# %% [markdown]
# Its $\ell_1$ companion, Sparridge, has exact zeros. Theorem 5.2 says that $\sqrt n(b-\beta)$ tends to the minimizer
# of a random convex function if the strengths fall as $n^{-1/2}$. Here are both sides, for a coefficient that is 2 and
# one that is 0.

# %%
beta = np.array([2.0, -1.0, 0, 0, 0, 0, 0, 0])
s = x.T @ x / n
large, draws = 20_000, 4000  # samples of the same covariance, and how often
z = random.multivariate_normal(np.zeros(p), s, size=draws)  # X'noise/√n
l1, gamma = 0.5, 1.5  # times √n
target = s @ beta + z / large**0.5
found = theory.lasso_paths(s * (1 + l1 / large**0.5), target, np.full(p, gamma / large**0.5), np.zeros(p))
scaled = large**0.5 * (found - beta)
limit = theory.sparridge_limit(s, s, beta, random.multivariate_normal(np.zeros(p), s, size=draws), l1, gamma)

figure, axes = plt.subplots(1, 2, figsize=(6, 2.4))
for axis, j in zip(axes, (0, 2), strict=True):
    for values, label in ((scaled, "at n = 20,000"), (limit, "limit")):
        axis.hist(values[:, j], bins=40, histtype="step", density=True, label=label)
    axis.set(xlabel=rf"$\sqrt{{n}}(b-\beta)$, $\beta={beta[j]:g}$")
axes[0].legend()
assert_allclose((scaled[:, 2:] == 0).mean(), (limit[:, 2:] == 0).mean(), atol=0.03)
assert_allclose(scaled.mean(0), limit.mean(0), atol=6 * limit.std(0).max() * (2 / draws) ** 0.5)

# %% [markdown]
# ## What to take home
#
# - Under normalization no homogeneous penalty limits what a network can compute.
# - Every one of them sets a norm, and so an effective learning rate.
# - In a linear model the reported covariance part is one factor for all directions, beside ridge.
# - What tells them apart is a pull on the direction, which plain $\ell_2$ has not. It is tied to the effective
#   learning rate: there is no second knob, unless the norm is held at 1.
