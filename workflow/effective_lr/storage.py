"""Result tables: Parquet files that appear whole or not at all, carry their provenance, and are checked when read."""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from effective_lr.config import UserError


def write_table(table: pa.Table, path: Path) -> None:
    """Write a Parquet file with page checksums; it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        pq.write_table(table, partial, write_page_checksum=True, compression="zstd")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def with_provenance(table: pa.Table, provenance: list[dict[str, Any]]) -> pa.Table:
    """The table with the provenance of its runs inside, so that the two never part."""
    return table.replace_schema_metadata({"provenance": json.dumps(provenance, sort_keys=True)})


def read_table(path: Path) -> tuple[pa.Table, list[dict[str, Any]]]:
    """A table and the provenance of its runs. Raises UserError when the file is damaged."""
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        return table, json.loads(table.schema.metadata[b"provenance"])
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: damaged ({' '.join(str(error).split())}); delete it and run again") from None
