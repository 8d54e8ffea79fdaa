"""A prepared dataset: one file of tensors, and a record of them that depends on their content alone.

A training job names the record as its input, and checks the tensors against it.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from effective_lr.engine.storage import whole_file
from effective_lr.errors import UserError, reason

Tensors = dict[str, Tensor]


class Prepared(NamedTuple):
    """What a source gives: tensors, facts of their content for the record, and where the files came from."""

    tensors: Tensors
    facts: dict[str, Any]
    source: Path | str


def load(tensors: Path, record: Path) -> Tensors:
    """The tensors of a prepared file; UserError if it is unreadable or not the one that the record describes."""
    remedy = f"delete {tensors} and {record} and prepare the data again"
    try:
        expected = json.loads(record.read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{record} is not a record with a sha256 ({reason(error)}): {remedy}") from error
    try:
        stored: Tensors = torch.load(tensors, weights_only=True)
        if (found := sha256(stored)) != expected:
            raise ValueError(f"their sha256 is {found}")
    except Exception as error:  # a damaged file makes torch.load raise nearly anything
        raise UserError(
            f"{tensors} does not hold the tensors with sha256 {expected} of {record} ({reason(error)}): {remedy}"
        ) from error
    return stored


def sha256(tensors: Tensors) -> str:
    """Over names, types, shapes and bytes: the format of the file that holds the tensors does not matter."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


def write(name: str, prepared: Prepared, tensors: Path, record: Path) -> None:
    """Write the tensors and the record of a dataset, both whole or neither. Raises UserError when the disk refuses."""
    description = {
        "dataset": name,
        **prepared.facts,
        "shapes": {key: list(tensor.shape) for key, tensor in prepared.tensors.items()},
        "sha256": sha256(prepared.tensors),
    }
    with whole_file(tensors) as partial:
        torch.save(prepared.tensors, partial)
        with whole_file(record) as text:
            text.write_text(json.dumps(description, indent=2, sort_keys=True) + "\n", encoding="utf-8")
