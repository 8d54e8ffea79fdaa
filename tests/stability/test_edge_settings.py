"""Settings: what is refused, in one sentence with the reason, and how runs are named."""

import re
from typing import Any

import pytest
from pydantic import ValidationError

from effective_lr.studies.stability.checks import small_run

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"batch_size": 64}, "batch_size = 64.*minibatches.*use batch_size = full"),
    ({"momentum": 0.9}, "momentum = 0.9.*plain gradient descent.*use momentum = 0.0"),
    ({"activation": "relu"}, "activation = relu.*kinks of ReLU.*use activation = tanh"),
    ({"pooling": "max"}, "pooling = max.*kinks of a maximum.*use pooling = none"),
    ({"precision": "float32"}, "precision = float32.*rounding.*use precision = float64"),
    *(({key: -1}, "greater than") for key in ("lr", "steps", "probes", "train_size")),
    ({"l2": -0.1}, "l2 = -0.1.*use 0 or more"),
    ({"train_size": 60_001}, "train_size = 60001.*60000"),
    ({"test_size": 10_001}, "test_size = 10001.*10000"),
    ({"ntk_images": 11}, "ntk_images = 11.*10"),
    ({"probes": 101}, "probes = 101.*100"),
    ({"resolution": 15}, "resolution = 15.*14"),
    ({"normalization": "batch", "ntk_images": 4}, "ntk_images = 4.*ntk_images = 0"),
    ({"normalization": "batch", "train_size": 1}, "train_size = 1.*at least 2"),
]


def test_what_would_spoil_the_measurement_or_is_impossible_is_refused_with_the_reason() -> None:
    for settings, reason in REFUSED:
        with pytest.raises(ValidationError) as caught:
            small_run(0, **settings)
        [error] = caught.value.errors()
        assert re.search(reason, error["msg"]), error["msg"]


def test_a_name_says_what_is_trained() -> None:
    runs = [small_run(0, l2=l2) for l2 in (0.0, 0.01)]
    assert len({run.run_id for run in runs}) == 2
    assert small_run(3, normalization="weight", l2=0.002).run_id.startswith("mlp-weight-mse-lr_0.05-l2_0.002-seed_3-")
