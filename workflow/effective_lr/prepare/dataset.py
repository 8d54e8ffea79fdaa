"""A prepared dataset: one file of tensors, and a record of them that depends on their content alone.

A training job names the record as its input, and checks the tensors against it.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from effective_lr.errors import UserError, reason

Tensors = dict[str, Tensor]


class Prepared(NamedTuple):
    """What raw files give: tensors, the path of the last file, the checksums of all, and other facts for the record."""

    tensors: Tensors
    path: Path
    checksums: dict[str, str]
    facts: dict[str, Any]


def load(tensors: Path, record: Path) -> Tensors:
    """The tensors of a prepared file; UserError if it is unreadable or not the one that the record describes."""
    try:
        expected = json.loads(record.read_text(encoding="utf-8"))["sha256"]
        stored: Tensors = torch.load(tensors, weights_only=True)
        if (found := sha256(stored)) != expected:
            raise ValueError(f"their sha256 is {found}, expected {expected}")
    except Exception as error:  # a damaged file makes torch.load raise nearly anything
        raise UserError(
            f"{tensors} does not hold the tensors that {record} describes ({reason(error)}): delete both files and "
            "prepare the data again"
        ) from error
    return stored


def sha256(tensors: Tensors) -> str:
    """Over names, types, shapes and bytes: the format of the file that holds the tensors does not matter."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
