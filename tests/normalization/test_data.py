"""The splits of prepared tensors."""

from typing import Any

import pytest
import torch

from effective_lr.errors import UserError
from effective_lr.studies.normalization.data import splits_for
from effective_lr.studies.normalization.settings import VALIDATION_SIZE
from shared import make_run

TENSORS = {
    name: torch.arange(float(size)).view(-1, 1, 1, 1).expand(size, 1, 2, 2) if "images" in name else torch.arange(size)
    for name, size in {"train_images": 60 + VALIDATION_SIZE, "train_labels": 60 + VALIDATION_SIZE,
                       "test_images": 20, "test_labels": 20}.items()
}  # fmt: skip
SIZES = {"batch_size": 4, "statistics_size": 4}


def test_splits_are_the_first_images_and_validation_the_last_of_the_training_files() -> None:
    splits = splits_for(TENSORS, make_run(train_size=7, validation_size=5, test_size=3, **SIZES))
    assert splits.train_labels.tolist() == list(range(7)) and splits.test_labels.tolist() == [0, 1, 2]
    assert splits.validation_labels.tolist() == [60, 61, 62, 63, 64]
    assert splits.validation_images[:, 0, 0, 0].tolist() == splits.validation_labels.tolist()
    moved = splits.to("cpu")
    assert moved.train_images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(moved.test_images, splits.test_images)


@pytest.mark.parametrize(("split", "there"), [("train", 60), ("test", 20)])
def test_a_split_with_fewer_images_is_refused(split: str, there: int) -> None:
    fits = {"train_size": 7, "validation_size": 5, "test_size": 3, **SIZES}
    with pytest.raises(UserError, match=f"{split}_size = {there + 1}: .*{there}"):
        splits_for(TENSORS, make_run(**{**fits, f"{split}_size": there + 1}))


def test_label_noise_redraws_its_share_from_the_seed() -> None:
    tensors = {**TENSORS, "train_labels": torch.full_like(TENSORS["train_labels"], 3)}
    sizes = {"train_size": 60, "validation_size": 5, "test_size": 3, **SIZES}

    def changed(**settings: Any) -> list[int]:
        splits = splits_for(tensors, make_run(**sizes, **settings))
        assert (splits.validation_labels == 3).all()  # nor are those of the test images touched
        return [k for k, label in enumerate(splits.train_labels.tolist()) if label != 3]

    assert changed() == []
    wrong = changed(label_noise=0.5)
    assert 20 <= len(wrong) <= 30  # of 30 redrawn, a tenth by chance right
    assert wrong == changed(label_noise=0.5, l2=0, lr=3, steps=7)
    assert wrong != changed(label_noise=0.5, seed=4)
    assert (tensors["train_labels"] == 3).all()
