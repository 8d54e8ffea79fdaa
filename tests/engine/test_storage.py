"""Tables with their provenance and checksum. What damages do to them is in test_jobs.py."""

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from effective_lr.engine import storage
from effective_lr.engine.storage import SCHEMA, Provenance
from effective_lr.errors import UserError
from effective_lr.studies.normalization.data import Splits
from shared import ROOT, make_run, train_or_reuse


@pytest.fixture
def record(single: Splits, tmp_path: Path) -> Provenance:
    return train_or_reuse(make_run(steps=1, probes=1, evaluations=1), single, tmp_path / "runs")[1]


def test_a_table_of_another_version_of_the_package_is_not_called_damaged(record: Provenance, tmp_path: Path) -> None:
    path = tmp_path / "old.parquet"
    for changes, keys in [({"colour": "red"}, "colour"), ({"seconds": "soon"}, "seconds")]:
        text = json.dumps([{**record.model_dump(by_alias=True), **changes}])
        table = SCHEMA.empty_table()
        metadata = {"provenance": text, "sha256": storage._sha256(table, text)}
        pq.write_table(table.replace_schema_metadata(metadata), path)
        for read in (storage.read_table, storage.read_provenance):
            with pytest.raises(UserError) as error:
                read(path)
            assert f"{path}: whole, but written by another version of this package" in str(error.value)
            assert f"differs in {keys})" in str(error.value) and "damaged" not in str(error.value)


def test_files_keep_the_former_names_of_hashes(record: Provenance, tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    storage.write_table(storage.with_provenance(SCHEMA.empty_table(), [record]), path)
    [stored] = json.loads(pq.read_schema(path).metadata[b"provenance"])
    assert (stored["fingerprint"], stored["code"], stored["data"]) == (record.run_key, "code", "data")
    assert storage.read_table(path)[1] == storage.read_provenance(path) == [record]


def sha256_by_lists(table: pa.Table, text: str) -> str:
    """The checksum as the first published tables have it, by lists of Python."""
    digest = hashlib.sha256(text.encode())
    for field, column in zip(table.schema, table.columns, strict=True):
        is_text = pa.types.is_string(field.type)
        content = "\n".join(column.to_pylist()).encode() if is_text else column.to_numpy().tobytes()
        digest.update(f"{field.name} {field.type} {len(content)}".encode() + content)
    return digest.hexdigest()


def test_the_checksum_is_that_of_its_first_definition() -> None:
    names = pa.array(["é", "", "a\nb", "λ"])
    columns = [names, pa.array([1, 2, 3, 4], pa.int32()), names, names, pa.array([0.0, -0.0, float("nan"), 1e300])]
    table = pa.table(dict(zip(SCHEMA.names, columns, strict=True)), schema=SCHEMA)
    in_chunks = pa.concat_tables([table.slice(0, 1), SCHEMA.empty_table(), table.slice(1)])
    for one in (table, in_chunks, table.slice(2), SCHEMA.empty_table()):
        assert storage._sha256(one, "text") == sha256_by_lists(one, "text")
    assert storage._sha256(in_chunks, "text") == storage._sha256(table, "text")
    paths = [path for path in (ROOT / "results/published").glob("*/*.parquet") if path.stem != "checks"]
    assert paths
    for path in paths:
        table = pq.read_table(path)
        stored = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
        assert stored["sha256"] == sha256_by_lists(table, stored["provenance"])
        assert stored["sha256"] == storage._sha256(table, stored["provenance"])
