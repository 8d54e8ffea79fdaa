"""Closed forms of the chapter, with NumPy alone. L1 to L9 and B1 to B8 are the statements of the paper's section on
theory.

Conventions: n samples, p inputs; S = Xc'Xc/n with eigenvalues d; loss (1/n)‖y − Xb‖², no factor ½; P = S^a with a = 1
(CAR), 0 (ridge), −1 (inverse); l is the strength of a penalty; R is homogeneous of degree k in a unit's weights w =
r·u.
"""

import numpy as np

Array = np.ndarray
Value = float | Array
POWER = {"car": 1, "l2": 0, "inverse": -1}  # a of P = S^a
DEGREE = {"l2": 2, "car": 2, "inverse": 2, "l1": 1}  # k


# The linear model


def centred(x: Array, y: Array) -> tuple[Array, Array]:
    return x - x.mean(0), y - y.mean()


def power(s: Array, a: float, e: float = 0.0) -> Array:
    """S_e^a with S_e = (1−e)S + e·tr(S)/p·I, for symmetric S (p, p). ValueError where S_e is singular and a < 0."""
    d, v = np.linalg.eigh((1 - e) * s + e * np.trace(s) / len(s) * np.eye(len(s)))
    if a < 0 and d[0] <= len(s) * np.finfo(float).eps * d[-1]:
        raise ValueError(f"S has rank below {len(s)}: its power {a:g} does not exist; use e > 0")
    return (v * np.maximum(d, 0) ** a) @ v.T if a else np.eye(len(s))


def solve(x: Array, y: Array, l2: float, p: Array) -> Array:
    """L1: b = (S + l2·P)⁻¹X'y/n for centred x (n, p) and y (n,); the solution of least norm where that is singular."""
    n = len(x)
    return np.linalg.lstsq(x.T @ x / n + l2 * p, x.T @ y / n, rcond=1e-13)[0]


def shrinkage(d: Value, l2: float, a: float) -> Value:
    """L1: what is left of the least-squares coefficient on a principal component of eigenvalue d: 1/(1 +
    l2·d^(a−1))."""
    return 1 / (1 + l2 * np.asarray(d) ** (a - 1.0))


def degrees_of_freedom(d: Array, l2: float, a: float) -> float:
    """L1: Σ_j s_j over the positive eigenvalues."""
    return float(np.sum(shrinkage(d[d > 1e-12 * d.max()], l2, a)))


def car_risk(signal: float, noise: float) -> tuple[float, float]:
    """L4: the best factor c* on least squares and its risk, from B = b'Sb and Q = s²p/n."""
    return signal / (signal + noise), signal * noise / (signal + noise)


def ridge_risk(d: Array, t: Array, l2: float, variance: float, n: int) -> float:
    """L4: Σ_j (l2/(d+l2))²·d·t² + (d/(d+l2))²·s²/n, the excess risk of ridge at the truth's coefficients t."""
    return float(np.sum((l2 / (d + l2)) ** 2 * d * t**2 + (d / (d + l2)) ** 2 * variance / n))


def penalised_risk(d: Array, t: Array, l2: float, a: float, variance: float, n: int) -> float:
    """The excess risk of P = S^a, of which `car_risk` (a = 1, best l2) and `ridge_risk` (a = 0) are cases."""
    s = shrinkage(d, l2, a)
    return float(np.sum((1 - s) ** 2 * d * t**2 + s**2 * variance / n))


def relu_moment(c: Value) -> Value:
    """E[relu(a)relu(b)] of standard normal a and b with correlation c (Cho and Saul 2009)."""
    c = np.asarray(c)
    return (np.sqrt(1 - c**2) + c * (np.pi - np.arccos(c))) / (2 * np.pi)


def soft(w: Value, threshold: Value) -> Value:
    """The proximal map of threshold·|w|."""
    return np.sign(w) * np.maximum(np.abs(w) - threshold, 0)


def lasso(s: Array, c: Array, l1: float, l2: float, p: Array, steps: int = 100_000) -> Array:
    """L7: the minimum of b'Sb − 2c'b + l2·b'Pb + l1‖b‖₁ by coordinate descent, to the last digits. c = X'y/n."""
    h, b = s + l2 * p, np.zeros(len(c))
    for _ in range(steps):
        before = b.copy()
        for j in range(len(b)):
            if h[j, j] > 0:
                b[j] = soft(c[j] - h[j] @ b + h[j, j] * b[j], l1 / 2) / h[j, j]
        if np.abs(b - before).max() <= 1e-16 * max(np.abs(b).max(), 1e-300):
            break
    return b


# The reported penalties in the linear model


def covridge_moments(s: Array, penalty: Array, beta: Array, variance: float, n: int) -> tuple[Array, Array]:
    """Theorem 5.1 for a fixed design: mean and covariance of b = H⁻¹X'y/n, H = S + λ1C + λ2I, y = Xβ + noise.

    E b = H⁻¹Sβ and Cov b = σ²/n · H⁻¹SH⁻¹, the sandwich; exact for any n. `penalty` is λ1C + λ2I.
    """
    inverse = np.linalg.inv(s + penalty)
    return inverse @ s @ beta, variance / n * inverse @ s @ inverse


def covridge(x: Array, y: Array, l1: float, l2: float, delta: float) -> Array:
    """b = (S + λ1(S + δI) + λ2I)⁻¹X'y/n for centred x and y."""
    s = x.T @ x / len(x)
    return np.linalg.solve(s + l1 * (s + delta * np.eye(len(s))) + l2 * np.eye(len(s)), x.T @ y / len(x))


def lasso_paths(h: Array, target: Array, absolute: Array, linear: Array, sweeps: int = 2000) -> Array:
    """The minima of b'Hb − 2t'b + linear'b + Σ_j absolute_j·|b_j| for many t (draws, p) at once, by coordinate
    descent, with exact zeros."""
    b = np.zeros_like(target)
    for _ in range(sweeps):
        before = b.copy()
        for j in range(len(h)):
            rest = target[:, j] - linear[j] / 2 - b @ h[j] + h[j, j] * b[:, j]
            b[:, j] = soft(rest, absolute[j] / 2) / h[j, j]
        if np.abs(b - before).max() <= 1e-10 * np.abs(b).max():
            break
    return b


def sparridge_limit(q: Array, c: Array, beta: Array, z: Array, l1: float, gamma: float) -> Array:
    """Theorem 5.2 [derived, after Knight and Fu 2000]: the minimizers u of V for draws z (draws, p) of N(0, σ²Q), to
    which √n(b − β) tends in law where λ1·√n and γ·√n tend to `l1` and `gamma`:

    V(u) = u'Qu − 2u'Z + 2·l1·β'Cu + gamma·(Σ_{β_j≠0} u_j sign β_j + Σ_{β_j=0} |u_j|).
    """
    return lasso_paths(q, z, np.where(beta == 0, gamma, 0.0), 2 * l1 * c @ beta + gamma * np.sign(beta))


# A normalized layer


def equilibrium_radius(lr: float, grad: Value, strength: float, k: int, r_of_u: Value = 1.0) -> Value:
    """B5: r = (η·G²/(2·k·l·R(u)))^(1/(k+2)), for plain SGD."""
    return (lr * np.asarray(grad) ** 2 / (2 * k * strength * np.asarray(r_of_u))) ** (1 / (k + 2))


def equilibrium_angle_squared(lr: float, strength: float, k: int, r_of_w: Value, radius: Value) -> Value:
    """B5: the squared angle per step, 2·k·η·l·R(w)/r²."""
    return 2 * k * lr * strength * np.asarray(r_of_w) / np.asarray(radius) ** 2


def relaxation_rate(angle_squared: Value, k: int) -> Value:
    """B5: the rate per step at which r^(k+2) relaxes."""
    return (k + 2) / 2 * np.asarray(angle_squared)


def pull(u: Array, gradient: Array, effective_strength: float) -> Array:
    """B6: the penalty's part of du/η_eff, −l_eff·P_u∇R(u), for unit u (p,)."""
    return -effective_strength * (gradient - (u @ gradient) * u)


def direction_shares(d: Array, penalty: str) -> Array:
    """B7: the share of each principal component in Var(w'x) under isotropic gradient noise: equal for CAR, d/Σd for l2,
    d²/Σd² for a = −1."""
    power_of = {"car": 0, "l2": 1, "inverse": 2}[penalty]
    return d**power_of / np.sum(d**power_of)


def held_lr(lr: float, l2: float) -> float:
    """B8: with ‖w‖ held at 1, l2 is the learning rate η/(1 − 2·η·l2) without a penalty."""
    return lr / (1 - 2 * lr * l2)
