"""A run is itself whoever trains beside it, whenever it is interrupted, and whatever becomes of it."""

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from effective_lr.studies.manifold import STUDY
from effective_lr.studies.manifold.data import Data
from effective_lr.studies.manifold.networks import loss
from effective_lr.studies.manifold.training import Training, evaluation_steps, probe_steps, train

from .conftest import make_run

ARMS = {"adamw": "pre", "adam0": "none", "adamh": "every", "macro-F": "none", "macro-S": "none", "muonh": "pre"}


def values(found: Training, quantity: str) -> dict[tuple[int, str], float]:
    return {(step, layer): value for step, layer, what, value in found.rows if what == quantity}


@pytest.mark.parametrize("optimizer", ARMS)
def test_an_interrupted_run_is_the_uninterrupted_one_bit_for_bit(data: Data, optimizer: str) -> None:
    run = make_run(optimizer=optimizer, rms_norm=ARMS[optimizer])
    saved: dict[int, bytes] = {}
    whole = train(run, data, after_step=lambda training: saved.update({training.step: training.save()}))
    for step in (1, 13, 20):
        resumed = train(run, data, saved=saved[step])
        assert resumed.rows == whole.rows
        for a, b in zip(resumed.network.parameters(), whole.network.parameters(), strict=True):
            assert torch.equal(a, b)
    assert train(run.changed(seed=4), data).rows != whole.rows


def test_a_diverged_run_ends_and_spares_its_mates(data: Data) -> None:
    alone = train(make_run(), data).rows
    lost = train(make_run(optimizer="adam0", rms_norm="none", initial_norm=300.0, lr_factor=400.0), data)
    assert lost.diverged and lost.step < lost.steps
    assert lost.rows[-1] == (lost.step, "", "diverged", 1.0)
    assert not values(lost, "late_train_loss")
    mate = train(make_run(), data)
    assert mate.rows == alone and not mate.diverged and mate.step == mate.steps
    assert train(make_run(stop_above=2.0), data).rows[-1] == (1, "", "diverged", 1.0)  # a uniform guess has 2.4
    broken = Training(make_run(optimizer="macro-F", rms_norm="none", stop_above=1e9, probes=24), data)
    broken.network.up.data[0, 0, 0] = math.nan
    broken.advance()  # measures what is not finite, and ends there
    assert broken.diverged and broken.rows[-1] == (1, "", "diverged", 1.0)


def test_arms_of_one_seed_share_batches_and_starting_directions(data: Data) -> None:
    a, b = Training(make_run(optimizer="adamw"), data), Training(make_run(optimizer="macro-F"), data)
    assert torch.equal(a.next_batch(), b.next_batch())
    assert torch.equal(a.network.up, b.network.up)
    assert not torch.equal(Training(make_run(seed=5), data).next_batch(), Training(make_run(), data).next_batch())


def test_parts_of_a_batch_have_the_gradient_of_the_whole(data: Data) -> None:
    whole, parts = (train(make_run(steps=4, batch_parts=count), data, dtype=torch.float64) for count in (1, 2))
    for a, b in zip(whole.network.parameters(), parts.network.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("optimizer", ["adamh", "macro-F"])
def test_a_constrained_matrix_turns_by_one_angle_from_the_first_step(data: Data, optimizer: str) -> None:
    run = make_run(optimizer=optimizer, lr_factor=0.25)
    found = train(run, data)
    expected = math.atan(math.sqrt(0.1 / 1.9 * 2 * run.decay_per_step) / 2)
    measured, late = values(found, "angle"), values(found, "late_angle")
    assert {step for step, _ in measured} == probe_steps(run)
    assert set(late) == {(run.steps, layer) for step, layer in measured if step == 1}
    assert [*measured.values(), *late.values()] == pytest.approx([expected] * (len(measured) + len(late)), rel=1e-4)


def test_the_rows_are_what_the_loop_measured(data: Data) -> None:
    run = make_run(rms_norm="none", optimizer="adamw", initial_norm=1.25)
    found = train(run, data)
    last = values(found, "validation_loss")
    assert {step for step, _ in last} == set(evaluation_steps(run))
    with torch.no_grad():
        now = sum(float(loss(found.network, windows)) for windows in data.validation) / len(data.validation)
    assert last[run.steps, ""] == pytest.approx(now)
    late = [value for (step, _), value in last.items() if step > run.late_start]
    assert values(found, "late_validation_loss")[run.steps, ""] == pytest.approx(sum(late) / len(late))
    norms = values(found, "norm_ratio")
    assert [norms[1, layer] for layer in ("block1.query", "block2.down", "head")] == pytest.approx([1.25, 1.25, 1])
    start = Training(run, data).network.attention.detach()[0]
    expected = float(torch.linalg.matrix_norm(start, 2))
    assert values(found, "spectral_norm")[1, "block1.query"] == pytest.approx(expected, rel=1e-5)
    assert max(values(found, "bound_used").values()) <= 1
    terms = {what: values(found, f"late_{what}") for what in ("weighted_square", "radial", "noise", "memory")}
    assert all({layer for _, layer in by} == {layer for _, layer in norms if "." in layer} for by in terms.values())
    assert min(*terms["weighted_square"].values(), *terms["noise"].values()) > 0
    assert not values(train(make_run(optimizer="adamh"), data), "late_noise")
    assert set(STUDY.summarized) <= {what for _, _, what, _ in found.rows}


def test_evaluations_are_early_and_late_and_end_with_the_run() -> None:
    steps = evaluation_steps(make_run(steps=1200, evaluations=8))
    assert steps[-8:] == [675, 750, 825, 900, 975, 1050, 1125, 1200]
    assert len(steps) == 16 and steps[0] == 1 and steps[7] <= 600


IMPOSSIBLE: list[tuple[dict[str, Any], list[str]]] = [
    ({"heads": 3}, ["heads = 3", "width = 8"]),
    ({"batch_parts": 3}, ["batch_parts = 3", "batch_size = 4"]),
    ({"optimizer": "adamh", "initial_norm": 4.0}, ["initial_norm = 4", "adamh", "adamw or adam0"]),
    ({"context": 2000}, ["context = 2000", "1999"]),
    ({"optimizer": "macro"}, ["optimizer", "macro-F"]),
    ({"decay_per_step": 0}, ["decay_per_step", "greater than 0"]),
]


def test_an_impossible_run_is_told() -> None:
    for wrong, expected in IMPOSSIBLE:
        with pytest.raises(ValidationError) as error:
            make_run(**wrong)
        assert all(text in str(error.value) for text in expected), error.value
