"""Files that appear whole or not at all and are checked when read.

Result tables are Parquet and carry the provenance of their runs; checkpoints are bytes behind their checksum.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from effective_lr.errors import UserError

SCHEMA = pa.schema(
    [
        ("run_id", pa.string()),
        ("step", pa.int32()),
        ("layer", pa.string()),
        ("quantity", pa.string()),
        ("value", pa.float64()),
    ]
)


class Provenance(BaseModel):
    """Where the rows of one run come from; it lies in the file of their table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    study: str
    run_id: str
    run: dict[str, Any]  # its settings
    fingerprint: str
    code: str  # key of the training code
    data: str  # sha256 of the prepared data; empty where the run needs none
    commit: str
    finished: str  # time, UTC
    diverged: int | None  # the step, or None
    resumed: bool  # from a checkpoint
    reused: bool = False  # from the run cache, by the job that wrote this table
    seconds: float
    gpu_seconds: float
    examples_per_second: int
    peak_memory_mb: int
    device: str
    host: str = ""
    versions: dict[str, str]


Result = tuple[pa.Table, Provenance]  # of one run: its rows, and where they come from


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A place to write a file that then appears whole or not at all. Raises UserError when the disk refuses it."""
    partial = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}")
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise UserError(
            f"{path}: cannot be written ({why}); free space there or make it writable, and run the same command again: "
            "what was finished is kept"
        ) from error


def write_table(table: pa.Table, path: Path) -> None:
    """Write a Parquet file."""
    with whole_file(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def write_checked(content: bytes, path: Path) -> None:
    """Write bytes behind their own sha256."""
    with whole_file(path) as partial:
        partial.write_bytes(hashlib.sha256(content).digest() + content)


def read_checked(path: Path) -> bytes:
    """What `write_checked` wrote. Raises UserError when the file is damaged."""
    stored = path.read_bytes()
    digest, content = stored[:32], stored[32:]
    if hashlib.sha256(content).digest() != digest:
        raise UserError(f"{path}: damaged ({len(stored)} bytes that do not have the sha256 they begin with)")
    return content


def with_provenance(table: pa.Table, provenance: list[Provenance]) -> pa.Table:
    """The table with the provenance of its runs inside, so that the two never part, and a checksum of both."""
    text = json.dumps([record.model_dump() for record in provenance], sort_keys=True)
    return table.replace_schema_metadata({"provenance": text, "sha256": _sha256(table, text)})


def read_table(path: Path) -> tuple[pa.Table, list[Provenance]]:
    """A table and the provenance of its runs. Raises UserError when the file is damaged."""
    try:
        table = pq.read_table(path)
        provenance = table.schema.metadata[b"provenance"].decode()
        found, expected = _sha256(table, provenance), table.schema.metadata[b"sha256"].decode()
        if found != expected:
            raise ValueError(f"its content has sha256 {found}, expected {expected}")
        return table, [Provenance(**record) for record in json.loads(provenance)]
    except Exception as error:  # whatever a damaged file makes its reader do
        raise UserError(f"{path}: damaged ({' '.join(str(error).split())}); delete it and run again") from None


def read_provenance(path: Path) -> list[Provenance]:
    """The provenance of a table without its rows, which takes a millisecond and checks nothing of them.

    Raises UserError where there is none that can be read.
    """
    try:
        return [Provenance(**record) for record in json.loads(pq.read_schema(path).metadata[b"provenance"])]
    except Exception as error:  # whatever a damaged file makes its reader do
        raise UserError(f"{path}: damaged ({' '.join(str(error).split())}); delete it and run again") from None


def _sha256(table: pa.Table, provenance: str) -> str:
    """Over the content, not the bytes of the file: Parquet's own checksums leave out its headers."""
    digest = hashlib.sha256(provenance.encode())
    for field, column in zip(table.schema, table.columns, strict=True):
        values = column.to_pylist() if pa.types.is_string(field.type) else column.to_numpy().tobytes()
        content = "\n".join(values).encode() if isinstance(values, list) else values
        digest.update(f"{field.name} {field.type} {len(content)}".encode() + content)
    return digest.hexdigest()
