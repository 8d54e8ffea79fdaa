"""Result tables: Parquet files that appear whole or not at all, carry their provenance, and are checked when read."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from effective_lr.config import UserError


def write_table(table: pa.Table, path: Path) -> None:
    """Write a Parquet file; it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        pq.write_table(table, partial, compression="zstd")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def with_provenance(table: pa.Table, provenance: list[dict[str, Any]]) -> pa.Table:
    """The table with the provenance of its runs inside, so that the two never part, and a checksum of both."""
    text = json.dumps(provenance, sort_keys=True)
    return table.replace_schema_metadata({"provenance": text, "sha256": _sha256(table, text)})


def read_table(path: Path) -> tuple[pa.Table, list[dict[str, Any]]]:
    """A table and the provenance of its runs. Raises UserError when the file is damaged."""
    try:
        table = pq.read_table(path)
        provenance = table.schema.metadata[b"provenance"].decode()
        found, expected = _sha256(table, provenance), table.schema.metadata[b"sha256"].decode()
        if found != expected:
            raise ValueError(f"its content has sha256 {found}, expected {expected}")
        return table, json.loads(provenance)
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
