"""Cooling load (ENB2012) and leukemia (Golub et al. 1999; GSE9476 from a user's file), as a few float64 tensors."""

import hashlib
import warnings
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from effective_lr.errors import UserError
from effective_lr.prepare.dataset import Prepared
from effective_lr.prepare.sources import (
    COOLING_LOAD,
    FOLDER_VARIABLE,
    GOLUB_38,
    GOLUB_72,
    GSE9476,
    Missing,
    Source,
    checksums,
    local_file,
    obtain,
)


def cooling_load(folder: Path) -> Prepared:
    """`x` (768, 8): X1 to X8, of which X6 (orientation) and X8 (distribution of glazing) are codes; `y` (768,) cooling
    load."""
    content, path = obtain(COOLING_LOAD, folder)
    table = np.loadtxt(BytesIO(content), delimiter=",", skiprows=1)
    return prepared({"x": table[:, :8], "y": table[:, 9]}, [COOLING_LOAD], path)


def leukemia(folder: Path) -> Prepared:
    """`x` (38, 3051) and `y` (38,) with 1 for AML: multtest's matrix, or the same 38 of the 72 samples by
    `preprocessed`."""
    try:
        content, path = obtain(GOLUB_38, folder)
    except Missing as missing:
        try:
            found = leukemia_72(folder)
        except Missing as also:
            raise Missing(f"{missing}; {also}") from also
        return Prepared({name: found.tensors[name] for name in ("x", "y")}, found.facts, found.source)
    x, y = multtest(read_rdata(content))
    return prepared({"x": x, "y": y}, [GOLUB_38], path)


def leukemia_72(folder: Path) -> Prepared:
    """`x` (38, 3051), `y` (38,), `test_x` (34, 3051) and `test_y` (34,), from raw intensities by `preprocessed`.

    The 38 samples are multtest's, to its rounding: a test holds that.
    """
    content, path = obtain(GOLUB_72, folder)
    stored = read_rdata(content)
    (train, y), (test, test_y) = (intensities(stored[name]) for name in ("golub_train", "golub_test"))
    x, test_x = preprocessed(train, test)
    return prepared({"x": x, "y": y, "test_x": test_x, "test_y": test_y}, [GOLUB_72], path)


SAMPLES, CLASSES, LEAST_GENES = 64, 5, 2000


def gse9476(folder: Path) -> Prepared:
    """`x` (64, genes) and `y` (64,), classes 0 to 4 in the order of their names, from a user's own file GSE9476:
    CSV with a header, one line for each sample, the class first, then one number for each gene (at least 2,000).

    Raises Missing where there is none, and UserError where it has another shape, a class of one sample, a missing value
    or a constant gene. It is never downloaded, and no other data stand in for it.
    """
    path = local_file(folder, GSE9476, Path(GSE9476).name)
    if path is None:
        raise Missing(
            f"{GSE9476} is neither in {folder} nor in the folder named by {FOLDER_VARIABLE}: it is never downloaded; "
            "put a CSV file there with a header and one line for each of the 64 samples, its class and then its genes"
        )
    raw = path.read_bytes()
    names, *lines = raw.decode().splitlines()
    header, cells = names.split(","), [line.split(",") for line in lines if line.strip()]
    genes = len(header) - 1
    ragged = next((k for k, line in enumerate(cells) if len(line) != len(header)), None)
    if ragged is not None or len(cells) != SAMPLES or genes < LEAST_GENES:
        where = (
            f"line {ragged + 2} has {len(cells[ragged])} columns, the header {len(header)}"
            if ragged is not None
            else ""
        )
        found = where or f"{len(cells)} samples of {genes} genes"
        raise UserError(f"{path}: {found}; expected {SAMPLES} samples of a class and at least {LEAST_GENES} genes")
    labels, y, counts = np.unique([line[0] for line in cells], return_inverse=True, return_counts=True)
    if len(labels) != CLASSES or counts.min() < 2:
        listed = ", ".join(f"{label} ({count})" for label, count in zip(labels, counts, strict=True))
        raise UserError(f"{path}: classes {listed}; expected {CLASSES} classes of at least 2 samples")
    x = np.array([[as_number(value) for value in line[1:]] for line in cells])
    if not np.isfinite(x).all():
        row, column = np.argwhere(~np.isfinite(x))[0]
        value = cells[row][column + 1]
        raise UserError(
            f"{path}: line {row + 2}, {header[column + 1]}: '{value}' is not a number; fill it or drop the gene"
        )
    if (x == x[0]).all(0).any():
        column = int(np.argmax((x == x[0]).all(0)))
        raise UserError(f"{path}: {header[column + 1]} is constant over all samples; drop the gene")
    facts = {"gse9476_sha256": hashlib.sha256(raw).hexdigest(), "classes": labels.tolist()}
    print(f"{path}: sha256 {facts['gse9476_sha256']}")
    return Prepared({"x": torch.from_numpy(x), "y": torch.from_numpy(y.astype(float))}, facts, path)


def as_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def preprocessed(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intensities (samples, genes) as multtest prepares them: clip to 100..16000, keep genes with max/min > 5 and
    max − min > 500 among the training samples, log10, standardize each sample (ddof 1)."""
    clipped = [np.clip(values, 100, 16_000) for values in (train, test)]
    low, high = clipped[0].min(0), clipped[0].max(0)
    kept = (high / low > 5) & (high - low > 500)
    logs = [np.log10(values[:, kept]) for values in clipped]
    x, test_x = ((v - v.mean(1, keepdims=True)) / v.std(1, ddof=1, keepdims=True) for v in logs)
    return x, test_x


def multtest(stored: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(stored["golub"], dtype=float).T, np.asarray(stored["golub.cl"], dtype=float)


def intensities(group: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(group["x"], dtype=float), (np.asarray(group["y"]) == "AML").astype(float)


def read_rdata(content: bytes) -> dict[str, Any]:
    import rdata  # it brings pandas and xarray along

    with TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of R classes that it has no Python class for
        path = Path(scratch, "data.RData")
        path.write_bytes(content)
        stored: dict[str, Any] = rdata.read_rda(path)
    return stored


def prepared(arrays: dict[str, np.ndarray], sources: list[Source], where: Path | str) -> Prepared:
    tensors = {name: torch.tensor(values, dtype=torch.float64) for name, values in arrays.items()}
    return Prepared(tensors, {"source_checksums": checksums(sources)}, where)
