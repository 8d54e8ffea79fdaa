"""A small GPT whose block matrices are kept in stacks of one shape, so that an optimizer handles a stack at once.

    x_0 = (E[token] + P[position])/√2
    x   ← x + a·W_o·attention(W_q x, W_k x, W_v x)      a = 1/√(2L), L blocks
    x   ← x + a·W_down·gelu(W_up x)
    logits = gain · W_head x

RMSNorm has no gains. `pre`: before attention, MLP and head, and on queries and keys per head. `every`: instead, on
the output of every matrix over all its units, which makes each matrix but the embedding exactly scale invariant.
`none`: nowhere.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effective_lr.studies.manifold.settings import Run

ATTENTION = ("query", "key", "value", "output")


@dataclass
class Activations:
    """What the blocks did to one batch. `residuals` (tokens, width): input, then after each block;
    `attention_logits`: the largest |logit| of each block."""

    residuals: list[Tensor]
    attention_logits: list[Tensor]


def starting_rms(shape: torch.Size | tuple[int, ...]) -> float:
    """ρ of the entries of a stack (…, d_out, d_in) at norm R: 1/√d_in, which keeps RMS(Wx) = RMS(x) for random W
    (ours)."""
    return 1 / math.sqrt(shape[-1])


def shapes(run: Run) -> dict[str, tuple[int, int, int]]:
    """The stacks (matrices, d_out, d_in) of a network."""
    width, layers = run.width, run.layers
    return {
        "attention": (4 * layers, width, width),
        "up": (layers, 4 * width, width),
        "down": (layers, width, 4 * width),
        "embedding": (1, run.vocabulary, width),
        "head": (1, run.vocabulary, width),
    }


class GPT(nn.Module):
    """tokens int64 (batch, time) to logits (batch, time, vocabulary). Starting directions depend on the seed alone."""

    def __init__(self, run: Run, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.run = run
        generator = torch.Generator().manual_seed(run.seed)

        def directions(*shape: int, rms: float) -> nn.Parameter:
            """Gaussian directions with this entry RMS, exactly, in each matrix."""
            draw = torch.randn(shape, generator=generator, dtype=torch.float64)
            draw *= rms / draw.square().mean((-2, -1), keepdim=True).sqrt()
            return nn.Parameter(draw.to(dtype))

        sizes = shapes(run)
        self.embedding = directions(*sizes["embedding"], rms=1.0)
        self.positions = directions(run.context, run.width, rms=1.0)
        self.head = directions(*sizes["head"], rms=starting_rms(sizes["head"]))
        self.attention, self.up, self.down = (
            directions(*sizes[stack], rms=starting_rms(sizes[stack]) * run.initial_norm)
            for stack in ("attention", "up", "down")
        )
        self.gain = nn.Parameter(torch.ones((), dtype=dtype))
        self.branch_factor = 1 / math.sqrt(2 * run.layers)

    def blocks(self) -> list[tuple[str, nn.Parameter, list[str]]]:
        """(name of the stack, stack, layer name of each of its matrices)."""
        numbers = range(1, self.run.layers + 1)
        return [
            ("attention", self.attention, [f"block{n}.{what}" for n in numbers for what in ATTENTION]),
            ("up", self.up, [f"block{n}.up" for n in numbers]),
            ("down", self.down, [f"block{n}.down" for n in numbers]),
        ]

    def ends(self) -> list[tuple[str, nn.Parameter, list[str]]]:
        """The embedding and the head, in the form of `blocks`: stacks of one matrix."""
        return [("embedding", self.embedding, ["embedding"]), ("head", self.head, ["head"])]

    def _before(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], eps=self.run.rms_eps) if self.run.rms_norm == "pre" else x

    def _apply_matrix(self, x: Tensor, weight: Tensor) -> Tensor:
        x = F.linear(x, weight)
        return F.rms_norm(x, x.shape[-1:], eps=self.run.rms_eps) if self.run.rms_norm == "every" else x

    def forward(self, tokens: Tensor, record: Activations | None = None) -> Tensor:
        x = (F.embedding(tokens, self.embedding[0]) + self.positions[: tokens.shape[1]]) / math.sqrt(2)
        attention = self.attention.view(-1, 4, *self.attention.shape[1:]).unbind(0)
        for four, up, down in zip(attention, self.up.unbind(0), self.down.unbind(0), strict=True):
            if record is not None:
                record.residuals.append(x.flatten(0, 1))
            x = x + self.branch_factor * self._attend(self._before(x), four, record)
            hidden = F.gelu(self._apply_matrix(self._before(x), up))
            x = x + self.branch_factor * self._apply_matrix(hidden, down)
        if record is not None:
            record.residuals.append(x.flatten(0, 1))
        return self.gain * self._apply_matrix(self._before(x), self.head[0])

    def _attend(self, x: Tensor, weights: Tensor, record: Activations | None) -> Tensor:
        """Causal attention of all heads at once; `weights` (4, width, width): query, key, value, output."""
        query_weight, key_weight, value_weight, output_weight = weights.unbind(0)
        query, key, value = (
            self._apply_matrix(x, weight).unflatten(2, (self.run.heads, -1)).transpose(1, 2)
            for weight in (query_weight, key_weight, value_weight)
        )
        query, key = self._before(query), self._before(key)
        if record is not None:
            logits = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
            record.attention_logits.append(logits.tril().abs().max())
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self._apply_matrix(mixed.transpose(1, 2).flatten(2), output_weight)


def growth_bound(branch_factor: float, output: Tensor, value: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """The most by which a block without norms can raise the largest ‖x‖ of a batch (D7, derived by us):
    (1 + a‖W_o‖₂‖W_v‖_F)(1 + a‖W_up‖₂‖W_down‖₂), from these norms of the block's matrices.

    A head's output is a mean of values, each at most ‖W_v^h‖₂‖x‖; over heads that is ‖W_v‖_F‖x‖. |gelu(z)| ≤ |z|.
    """
    return (1 + branch_factor * output * value) * (1 + branch_factor * up * down)


def loss(network: GPT, windows: Tensor) -> Tensor:
    """Mean cross-entropy, nats per symbol, of the next symbol in windows int64 (batch, context + 1)."""
    logits = network(windows[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
