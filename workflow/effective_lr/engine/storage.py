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
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from effective_lr.errors import UserError, reason

SCHEMA = pa.schema(
    [
        ("run_id", pa.string()),
        ("step", pa.int32()),
        ("layer", pa.string()),
        ("quantity", pa.string()),
        ("value", pa.float64()),
    ]
)
IN_FILES = {"run_key": "fingerprint", "code_key": "code", "data_sha256": "data"}  # former names, which files keep


class Provenance(BaseModel):
    """Where the rows of one run come from; it lies in the file of their table."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        populate_by_name=True,
        alias_generator=lambda name: IN_FILES.get(name, name),
    )

    study: str
    run_id: str
    run: dict[str, Any]  # its settings
    run_key: str
    code_key: str
    data_sha256: str  # of the prepared data, if any
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
    except (OSError, RuntimeError) as error:  # as which PyTorch reports a full disk
        number = getattr(error, "errno", None)
        why = os.strerror(number) if number else reason(error)
        raise UserError(
            f"{path}: cannot be written ({why}); free space there or make it writable, and run the same command again: "
            "what was finished is kept"
        ) from error


def write_table(table: pa.Table, provenance: list[Provenance], path: Path) -> None:
    """Write a Parquet file with the provenance of its runs inside, so that the two never part, and their checksum."""
    text = json.dumps([record.model_dump(by_alias=True) for record in provenance], sort_keys=True)
    whole = table.replace_schema_metadata({"provenance": text, "sha256": _sha256(table, text)})
    with whole_file(path) as partial:
        pq.write_table(whole, partial, compression="zstd")


def write_json(content: Any, path: Path) -> None:
    """Write a JSON file for people and programs."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


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


def read_table(path: Path) -> tuple[pa.Table, list[Provenance]]:
    """A table and the provenance of its runs. Raises UserError where the file is damaged, or of another version of this
    package."""
    with _named(path):
        table = pq.read_table(path)
        text = table.schema.metadata[b"provenance"].decode()
        found, expected = _sha256(table, text), table.schema.metadata[b"sha256"].decode()
        if found != expected:
            raise ValueError(f"its content has sha256 {found}, expected {expected}")
        return table, [Provenance(**record) for record in json.loads(text)]


def read_provenance(path: Path) -> list[Provenance]:
    """The provenance of a table without its rows, which takes a millisecond and checks nothing of them.

    Raises UserError where it cannot be read.
    """
    with _named(path):
        return [Provenance(**record) for record in json.loads(pq.read_schema(path).metadata[b"provenance"])]


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Make a UserError of whatever a damaged file makes its reader do."""
    try:
        yield
    except Exception as error:
        raise UserError(
            f"{path}: damaged, or written by another version of this package ({reason(error)}); move it away and run "
            "the same command again"
        ) from None


def _sha256(table: pa.Table, provenance: str) -> str:
    """Over the content, not the bytes of the file: Parquet's own checksums leave out its headers."""
    digest = hashlib.sha256(provenance.encode())
    for field, column in zip(table.schema, table.columns, strict=True):
        if pa.types.is_string(field.type):  # one a line
            texts = pa.ListArray.from_arrays([0, len(column)], column.combine_chunks())
            content = pc.binary_join(texts, "\n")[0].as_buffer().to_pybytes()
        else:
            content = column.to_numpy().tobytes()
        digest.update(f"{field.name} {field.type} {len(content)}".encode() + content)
    return digest.hexdigest()
