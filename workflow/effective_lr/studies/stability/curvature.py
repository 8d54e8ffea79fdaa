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


def top_pair(times: Callable[[Tensor], Tensor], near: Tensor, tolerance: float = TOLERANCE) -> tuple[float, Tensor]:
    """The largest algebraic eigenvalue of a symmetric operator, and its unit eigenvector on the side of `near`.

    "LA", not "LM": an eigenvalue far below 0 is no sharpness. `near` (count,) is where the search starts: with the last
    eigenvector one round of KRYLOV products is mostly enough.
    """

    def product(v: np.ndarray) -> np.ndarray:
        result: np.ndarray = times(torch.from_numpy(v.reshape(-1)).to(near.device)).cpu().numpy()
        return result

    count = near.numel()
    operator = LinearOperator((count, count), matvec=product, dtype=np.float64)
    values, vectors = eigsh(
        operator, k=1, which="LA", v0=near.cpu().numpy(), tol=tolerance, ncv=min(KRYLOV, count), rng=0
    )
    vector = torch.from_numpy(vectors[:, 0].copy()).to(near.device)
    return float(values[0]), vector if vector @ near >= 0 else -vector


def sharpness_gradient(loss: Loss, w: Tensor, slope: Tensor, u: Tensor, norm: float) -> Tensor:
    """∇S = ∇(u'Hu) with u held fixed, (count,): the second difference of gradients along u.

    `slope` is ∇L(w) and `norm` the norm of the weights, which sets the distance of the difference.
    """
    distance = 3e-3 * min(1.0, norm / 6)
    ahead, behind = (gradient(loss, w + sign * distance * u)[1] for sign in (1, -1))
    return (ahead - 2 * slope + behind) / distance**2


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
