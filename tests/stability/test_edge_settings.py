"""Settings: what is refused, in one sentence with the reason, and how runs and shards are named."""

import pytest
from pydantic import ValidationError

from effective_lr.studies.stability.checks import small_run
from effective_lr.studies.stability.settings import Run


def refusal(**settings: object) -> str:
    with pytest.raises(ValidationError) as caught:
        small_run(0, **settings)
    (error,) = caught.value.errors()
    return error["msg"]


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("batch_size", 64, "minibatches"),
        ("momentum", 0.9, "plain gradient descent"),
        ("activation", "relu", "kinks of ReLU"),
        ("pooling", "max", "kinks of a maximum"),
        ("precision", "float32", "rounding"),
    ],
)
def test_what_would_spoil_the_measurement_is_refused_with_the_reason(key: str, value: object, reason: str) -> None:
    message = refusal(**{key: value})
    assert f"{key} = {value}" in message
    assert reason in message
    assert f"use {key} = {Run.model_fields[key].default}" in message


@pytest.mark.parametrize("key", ["lr", "steps", "probes", "train_size"])
def test_negative_numbers_are_refused(key: str) -> None:
    assert "greater than" in refusal(**{key: -1})


@pytest.mark.parametrize(
    ("settings", "found", "expected"),
    [
        ({"l2": -0.1}, "l2 = -0.1", "use 0 or more"),
        ({"train_size": 60_001}, "train_size = 60001", "60000"),
        ({"test_size": 10_001}, "test_size = 10001", "10000"),
        ({"ntk_images": 11}, "ntk_images = 11", "10"),
        ({"probes": 101}, "probes = 101", "100"),
        ({"resolution": 15}, "resolution = 15", "14"),
        ({"normalization": "batch", "ntk_images": 4}, "ntk_images = 4", "ntk_images = 0"),
        ({"normalization": "batch", "train_size": 1}, "train_size = 1", "at least 2"),
    ],
)
def test_impossible_sizes_are_refused(settings: dict[str, object], found: str, expected: str) -> None:
    message = refusal(**settings)
    assert found in message
    assert expected in message


def test_a_shard_holds_all_penalties_of_otherwise_equal_runs() -> None:
    runs = [small_run(0, l2=l2) for l2 in (0.0, 0.01)]
    assert len({run.run_id for run in runs}) == 2
    assert len({run.shard_id for run in runs}) == 1
    assert small_run(1).shard_id != runs[0].shard_id


def test_a_name_says_what_is_trained() -> None:
    assert small_run(3, normalization="weight", l2=0.002).run_id.startswith("mlp-weight-mse-lr_0.05-l2_0.002-seed_3-")
