"""What RMSNorm makes scale invariant, how far a block can grow the residual stream, and that nothing sees ahead."""

import math

import pytest
import torch

from effective_lr.studies.manifold.networks import GPT, Activations, growth_bound, shapes, starting_rms
from effective_lr.studies.manifold.settings import Run
from effective_lr.studies.manifold.theory import output_rms_bound

from .conftest import make_run


def tokens(run: Run) -> torch.Tensor:
    return torch.randint(run.vocabulary, (3, run.context), generator=torch.Generator().manual_seed(run.seed))


@torch.no_grad()
def change(run: Run, stack: str, matrix: int) -> float:
    """How much the logits change, relatively, when one matrix is tripled."""
    network = GPT(run, torch.float64)
    before = network(tokens(run))
    getattr(network, stack)[matrix] *= 3
    return float((network(tokens(run)) - before).norm() / before.norm())


@pytest.mark.parametrize("rms_norm", ["pre", "every", "none"])
def test_which_matrices_are_scale_invariant(rms_norm: str) -> None:
    run = make_run(rms_norm=rms_norm, rms_eps=1e-300)
    for stack, (count, *_) in shapes(run).items():
        for matrix in range(count):
            is_query_or_key = stack == "attention" and matrix % 4 < 2
            expected = (rms_norm == "every" and stack != "embedding") or (rms_norm == "pre" and is_query_or_key)
            assert (change(run, stack, matrix) < 1e-12) is expected, (stack, matrix)


@torch.no_grad()
def test_no_position_sees_what_comes_after_it_and_recording_changes_nothing() -> None:
    run = make_run()
    network, record = GPT(run, torch.float64), Activations([], [])
    first = tokens(run)
    second = first.clone()
    second[:, 7:] = (second[:, 7:] + 1) % run.vocabulary
    a, b = network(first), network(second, record)
    torch.testing.assert_close(a[:, :7], b[:, :7])
    assert float((a[:, 7:] - b[:, 7:]).abs().max()) > 1e-3
    assert (len(record.residuals), len(record.attention_logits)) == (run.layers + 1, run.layers)
    # queries and keys of RMS 1: a logit is at most the root of the head's size
    assert max(float(x) for x in record.attention_logits) <= math.sqrt(run.width / run.heads) * (1 + 1e-12)


def test_matrices_start_at_the_norm_of_their_equilibrium_with_directions_of_the_seed_alone() -> None:
    network, far = GPT(make_run()), GPT(make_run(initial_norm=4.0, optimizer="adam0"))
    for (_, weight, _), (_, other, _) in zip(network.blocks(), far.blocks(), strict=True):
        rms = weight.detach().square().mean((1, 2)).sqrt()
        torch.testing.assert_close(rms, torch.full_like(rms, starting_rms(weight.shape)))
        torch.testing.assert_close(other.detach(), 4 * weight.detach())
    torch.testing.assert_close(far.embedding, network.embedding)
    assert float((GPT(make_run(seed=2)).up - network.up).detach().abs().max()) > 0.1


@torch.no_grad()
@pytest.mark.parametrize("size", [0.3, 1.0, 10.0])
def test_blocks_without_norms_grow_no_more_than_their_bound(size: float) -> None:
    for seed in range(8):
        run = make_run(rms_norm="none", initial_norm=size, seed=seed, width=4, heads=1 + seed % 2)
        network, record = GPT(run, torch.float64), Activations([], [])
        network(tokens(run), record)
        largest = [float(x.norm(dim=1).max()) for x in record.residuals]
        norms = {name: torch.linalg.matrix_norm(weight, 2) for name, weight, _ in network.blocks()}
        values = torch.linalg.matrix_norm(network.attention[2::4])
        bounds = growth_bound(network.branch_factor, norms["attention"][3::4], values, norms["up"], norms["down"])
        for before, after, bound in zip(largest, largest[1:], bounds, strict=False):
            assert after <= before * float(bound) * (1 + 1e-12)


def test_the_bound_on_a_matrix_is_reached_by_its_top_singular_vector() -> None:
    weight = torch.randn(5, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _, singular, right = torch.linalg.svd(weight)
    bound = float(output_rms_bound(float(singular[0]), 5, 9))
    gains = [float((weight @ x).square().mean().sqrt() / x.square().mean().sqrt()) for x in right[:2]]
    assert gains[0] == pytest.approx(bound) and gains[1] < bound
