"""The splits of a prepared dataset of images."""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from effective_lr.errors import UserError
from effective_lr.studies.normalization.settings import CLASSES, VALIDATION_SIZE, Run


@dataclass(frozen=True, eq=False)
class Splits:
    """Images (N, C, height, width) and labels int64 (N,) of each split."""

    train_images: Tensor
    train_labels: Tensor
    validation_images: Tensor
    validation_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    def to(self, device: torch.device | str) -> "Splits":
        """The same data on a device, images in the channels_last memory format."""
        formats = {"images": torch.channels_last, "labels": torch.preserve_format}
        moved = {
            name: getattr(self, name).to(device, memory_format=formats[name.split("_")[1]])
            for name in (field.name for field in fields(self))
        }
        return replace(self, **moved)


def noisy(labels: Tensor, run: Run) -> Tensor:
    """The labels, of which a share `label_noise` is drawn anew, uniformly, so that a tenth of these stay right."""
    generator = torch.Generator().manual_seed(run.seed + 2_000_000_011)  # apart from weights and batches
    drawn = torch.randperm(len(labels), generator=generator)[: round(run.label_noise * len(labels))]
    result = labels.clone()
    result[drawn] = torch.randint(CLASSES, (len(drawn),), generator=generator)
    return result


def splits_for(tensors: dict[str, Tensor], run: Run) -> Splits:
    """The first images of each split, as many as the run asks for. Raises UserError where a split has fewer.

    The last `VALIDATION_SIZE` images of the training files are the validation split.
    """
    images, labels = tensors["train_images"], tensors["train_labels"]
    found = {
        "train": (images[:-VALIDATION_SIZE], labels[:-VALIDATION_SIZE], run.train_size),
        "validation": (images[-VALIDATION_SIZE:], labels[-VALIDATION_SIZE:], run.validation_size),
        "test": (tensors["test_images"], tensors["test_labels"], run.test_size),
    }
    for name, (_, there, size) in found.items():
        if not 1 <= size <= len(there):
            raise UserError(
                f"{name}_size = {size}: {run.dataset} has {len(there)} {name} images; choose from 1 to that"
            )
    cut = {name: (images[:size], labels[:size]) for name, (images, labels, size) in found.items()}
    if run.label_noise:
        cut["train"] = (cut["train"][0], noisy(cut["train"][1], run))
    return Splits(*cut["train"], *cut["validation"], *cut["test"])
