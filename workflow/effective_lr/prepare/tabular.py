"""Cooling load (ENB2012) and leukemia (Golub et al. 1999; GSE9476 from a user's file), as a few float64 tensors."""

import hashlib
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from effective_lr.errors import UserError, reason
from effective_lr.prepare.dataset import Prepared, Tensors
from effective_lr.prepare.sources import COOLING_LOAD, GOLUB_38, GOLUB_72, GSE9476, Missing, checksums, obtain, own_file


def cooling_load(folder: Path) -> Prepared:
    """`x` (768, 8): X1 to X8, of which X6 (orientation) and X8 (distribution of glazing) are codes; `y` (768,) cooling
    load."""
    content, path = obtain(COOLING_LOAD, folder)
    table = np.loadtxt(BytesIO(content), delimiter=",", skiprows=1)
    return Prepared(as_tensors(table[:, :8], table[:, 9]), path, checksums([COOLING_LOAD]), {})


def leukemia(folder: Path) -> Prepared:
    """`x` (38, 3051) and `y` (38,) with 1 for AML: multtest's matrix, or the same 38 of the 72 samples by
    `preprocessed`."""
    missing = []
    for source, samples in ((GOLUB_38, multtest), (GOLUB_72, preprocessed)):
        try:
            content, path = obtain(source, folder)
        except Missing as error:
            missing.append(str(error))
        else:
            tensors = as_tensors(*samples(read_rdata(content)))
            return Prepared(tensors, path, checksums([source]), {})
    raise Missing("; ".join(missing))


def multtest(stored: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(stored["golub"]).T, np.asarray(stored["golub.cl"])


def preprocessed(stored: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Raw intensities (samples, genes) as multtest prepares them: clip to 100..16000, keep genes with max/min > 5 and
    max − min > 500, log10, standardize each sample (ddof 1). Equal to its matrix up to the rounding of that."""
    samples = stored["golub_train"]
    values = np.clip(np.asarray(samples["x"], dtype=float), 100, 16_000)
    low, high = values.min(0), values.max(0)
    logs = np.log10(values[:, (high / low > 5) & (high - low > 500)])
    x = (logs - logs.mean(1, keepdims=True)) / logs.std(1, ddof=1, keepdims=True)
    return x, np.asarray(samples["y"]) == "AML"


def read_rdata(content: bytes) -> dict[str, Any]:
    import rdata  # it brings xarray along

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of R classes that it has no Python class for
        stored: dict[str, Any] = rdata.read_rda(BytesIO(content))
    return stored


SAMPLES, CLASSES, LEAST_GENES = 64, 5, 2000


def gse9476(folder: Path) -> Prepared:
    """`x` (64, genes) and `y` (64,), classes 0 to 4 in the order of their names, from a user's own file GSE9476:
    CSV with a header, one line for each sample, the class first, then one number for each gene (at least 2,000).

    Raises Missing where there is none, and UserError where it has another shape, a class of one sample, a missing value
    or a constant gene. No other data stand in for it.
    """
    path = own_file(folder, GSE9476, "with a header, and a line for each of 64 samples: its class, then its genes")
    try:
        cells = pd.read_csv(path, header=None, dtype=str)  # which refuses a line longer than the header
    except ValueError as error:
        raise UserError(f"{path}: no table ({reason(error)}); write it again as CSV") from error
    names, classes = cells.iloc[0, 1:], cells.iloc[1:, 0].astype(str)
    x = cells.iloc[1:, 1:].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
    (samples, genes), counts = x.shape, classes.value_counts().sort_index()
    if samples != SAMPLES or genes < LEAST_GENES or len(counts) != CLASSES or counts.min() < 2:
        listed = ", ".join(f"{label} ({count})" for label, count in counts.items())
        raise UserError(
            f"{path}: {samples} samples of {genes} genes, classes {listed}; expected {SAMPLES} samples of at least "
            f"{LEAST_GENES} genes, {CLASSES} classes of at least 2 samples"
        )
    wrong = names[~np.isfinite(x).all(0) | (x == x[0]).all(0)].tolist()
    if wrong:
        raise UserError(f"{path}: {wrong[0]} is not a number in every sample, or constant; fill it or drop the gene")
    tensors = as_tensors(x, counts.index.get_indexer(classes))
    sums = {GSE9476: f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"}
    return Prepared(tensors, path, sums, {"classes": counts.index.tolist()})


def as_tensors(x: np.ndarray, y: np.ndarray) -> Tensors:
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in (("x", x), ("y", y))}
