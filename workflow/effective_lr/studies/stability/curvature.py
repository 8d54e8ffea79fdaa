"""Second and third derivatives of the loss at one point, and the neural tangent kernel.

One backward pass through the graph of the gradient is one Hessian-vector product. The graph is made once for a probe
and serves the eigensolver, the spherical sharpness and the gradient itself; it costs no second forward pass.
"""

from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from effective_lr.studies.stability.networks import Network

Loss = Callable[[Tensor], Tensor]  # of a vector of parameters
TOLERANCE = 1e-3  # of the eigensolver, relative
KRYLOV = 10  # vectors that it holds
PAIRS = 6  # eigenpairs that a look at several directions takes
PAIRS_TOLERANCE = 1e-4  # of their eigenvalues: directions at the edge are close together
NEAR = 0.95  # R above which a direction is at the edge


def gradient(loss: Loss, w: Tensor) -> tuple[Tensor, Tensor]:
    """L(w) and ∇L(w)."""
    w = w.detach().requires_grad_()
    value = loss(w)
    (slope,) = torch.autograd.grad(value, w)
    return value.detach(), slope


class Point:
    """The loss, its gradient (count,) and its Hessian at one vector of parameters."""

    def __init__(self, loss: Loss, w: Tensor) -> None:
        self._w = w.detach().requires_grad_()
        value = loss(self._w)
        (self._slope,) = torch.autograd.grad(value, self._w, create_graph=True)
        self.loss, self.gradient = value.detach(), self._slope.detach()

    def hessian_times(self, v: Tensor) -> Tensor:
        """Hv, (count,)."""
        (product,) = torch.autograd.grad(self._slope, self._w, v, retain_graph=True)
        return product


def top_pairs(
    times: Callable[[Tensor], Tensor], near: Tensor, count: int, tolerance: float = TOLERANCE
) -> tuple[list[float], Tensor]:
    """The largest algebraic eigenvalues of a symmetric operator, falling, and their unit eigenvectors (count, size).

    "LA", not "LM": an eigenvalue far below 0 is no sharpness. `near` (size,) is where the search starts: with the
    last eigenvector one round of KRYLOV products is mostly enough.
    """

    def product(v: np.ndarray) -> np.ndarray:
        result: np.ndarray = times(torch.from_numpy(v.reshape(-1)).to(near.device)).cpu().numpy()
        return result

    size = near.numel()
    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
    held = min(max(KRYLOV, 3 * count), size)
    values, vectors = eigsh(operator, k=count, which="LA", v0=near.cpu().numpy(), tol=tolerance, ncv=held, rng=0)
    falling = np.argsort(-values)
    return [float(value) for value in values[falling]], torch.from_numpy(vectors[:, falling].T.copy()).to(near.device)


def top_pair(times: Callable[[Tensor], Tensor], near: Tensor, tolerance: float = TOLERANCE) -> tuple[float, Tensor]:
    """The largest algebraic eigenvalue, and its unit eigenvector on the side of `near`."""
    (value,), (vector,) = top_pairs(times, near, 1, tolerance)
    return value, vector if vector @ near >= 0 else -vector


def sharpness_gradient(loss: Loss, w: Tensor, slope: Tensor, u: Tensor, norm: float) -> Tensor:
    """∇³L[u, u] = ∇(u'Hu) with a unit vector u held fixed, (count,): the second difference of gradients along u.

    `slope` is ∇L(w) and `norm` the norm of the weights, which sets the distance of the difference. It is ∇S where u is
    the top eigenvector.
    """
    distance = 3e-3 * min(1.0, norm / 6)
    ahead, behind = (gradient(loss, w + sign * distance * u)[1] for sign in (1, -1))
    return (ahead - 2 * slope + behind) / distance**2


def edge_balance(
    loss: Loss, before: Tensor, after: Tensor, penalized: Tensor, lr: float, l2: float, near: Tensor
) -> tuple[dict[str, float], Tensor]:
    """What pushes the sharpness S_1 up and down at one step, by every direction that is at the edge.

    With S_i, u_i the first PAIRS eigenpairs at the midpoint c of the step, R_i = (S_i + 2λ|u_i,w|²)η/2, x_i the
    displacement along u_i, and P the projection across u_1, whose part alternates in sign:

        edge_ratio_1 …          the R_i
        edge_directions         how many are at the edge, R_i > NEAR
        edge_force              −⟨P∇S_1, ∇L + 2λw⟩
        edge_pressure           ½⟨P∇S_1, ∇³L[d, d]⟩ with d = Σx_i u_i over the directions at the edge
        edge_pressure_diagonal  ½Σx_i²⟨P∇S_1, ∇S_i⟩ over them: without the products x_i x_j
        edge_pressure_top       ½x_1²|P∇S_1|²
        edge_pressure_whole     ⟨P∇S_1, (∇L(w_k) + ∇L(w_(k+1)))/2 − ∇L(c)⟩: all directions, all orders

    The products x_i x_j stay in: all x_i alternate in sign together, so their product does not. `near` (count,) is
    where the search for the eigenvectors starts; returns the next such vector, too.
    """
    center, half = (before + after) / 2, (after - before) / 2
    point = Point(loss, center)
    values, vectors = top_pairs(point.hessian_times, near, PAIRS, PAIRS_TOLERANCE)
    w = center * penalized
    norm = float(w.norm())

    def change(u: Tensor) -> Tensor:
        return sharpness_gradient(loss, center, point.gradient, u, norm)

    shares = (vectors * penalized).square().sum(1).tolist()
    ratios = [(value + 2 * l2 * share) * lr / 2 for value, share in zip(values, shares, strict=True)]
    slope = change(vectors[0])
    across = slope - (slope @ vectors[0]) * vectors[0]
    x = vectors @ half
    here = [number for number, ratio in enumerate(ratios) if ratio > NEAR]
    together = sum((x[n] * vectors[n] for n in here), torch.zeros_like(half))
    size = float(together.norm())
    mean = (gradient(loss, before)[1] + gradient(loss, after)[1]) / 2
    measured = {f"edge_ratio_{number}": ratio for number, ratio in enumerate(ratios, start=1)} | {
        "edge_directions": float(len(here)),
        "edge_force": -float(across @ (point.gradient + 2 * l2 * w)),
        "edge_pressure": size**2 / 2 * float(across @ change(together / size)) if size else 0.0,
        "edge_pressure_diagonal": sum(float(x[n] ** 2 * (across @ change(vectors[n]))) / 2 for n in here),
        "edge_pressure_top": float(x[0] ** 2 * (across @ slope)) / 2,
        "edge_pressure_whole": float(across @ (mean - point.gradient)),
    }
    return measured, vectors.sum(0)


def kernel(network: Network, w: Tensor, images: Tensor) -> Tensor:
    """The neural tangent kernel (n, n), summed over the outputs.

    For plain linear layers the Jacobian is the product of what enters a layer and of the derivatives by what leaves it,
    so that the kernel needs no Jacobian: Σ over layers of (DD')∘(HH' + 1).
    """
    with torch.no_grad():
        if network.run.network == "mlp" and not network.has_gain:
            return _kernel_of_linear_layers(network, w, images)
        derivative = torch.func.jacrev(lambda w, image: network.outputs(w, image.unsqueeze(0))[0])
        jacobians = torch.func.vmap(derivative, in_dims=(None, 0))(w, images).flatten(1)
        return jacobians @ jacobians.T


def _kernel_of_linear_layers(network: Network, w: Tensor, images: Tensor) -> Tensor:
    pieces = w.split(network.sizes)
    weights, biases = network.weights(w), pieces[1::2]
    inputs = [images.flatten(1)]
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        inputs.append(torch.tanh(inputs[-1] @ weight.T + bias))
    n, outputs = len(images), weights[-1].shape[0]
    derivative = torch.eye(outputs, dtype=w.dtype, device=w.device).expand(n, -1, -1)  # (n, outputs, units)
    total = torch.zeros(n, n, dtype=w.dtype, device=w.device)
    for number in reversed(range(len(weights))):
        flat = derivative.reshape(n, -1)
        total += (flat @ flat.T) * (inputs[number] @ inputs[number].T + 1)
        if number:
            derivative = (derivative @ weights[number]) * (1 - inputs[number].square()).unsqueeze(1)
    return total
