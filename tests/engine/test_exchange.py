"""Finished runs between machines: two halves become a whole, and what is not a whole run of its name is refused."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem

from checkouts import Checkout
from effective_lr.__main__ import main
from effective_lr.engine import grid
from effective_lr.engine.code import training_key
from effective_lr.engine.exchange import copy_runs
from effective_lr.engine.jobs import RunCache
from effective_lr.engine.storage import SCHEMA, Provenance, Result, read_table, with_provenance, write_table
from effective_lr.engine.study import BaseRun, Study
from effective_lr.errors import UserError
from shared import ENVIRONMENT, STUDY, make_run

RUNS = [make_run(seed=seed) for seed in range(4)]
SSH = """#!/bin/sh
[ "$1" = host ] || { echo "ssh: no route to $1" >&2; exit 255; }
shift
exec sh -c "$*"
"""
SERVER = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/key
AuthorizedKeysFile {folder}/key.pub
StrictModes no
PidFile none
"""


def fabricate(study: Study, run: BaseRun, results: Path, seconds: float = 1.0) -> Path:
    """A finished run as a job leaves it, in no time."""
    cache = RunCache(results / study.name / "runs", training_key(study), "data" if study.data(run) else "")
    path = cache.table_path(run)
    record = Provenance(
        study=study.name, run_id=run.run_id, run=run.model_dump(), fingerprint=path.stem, code=cache.code,
        data=cache.data, commit="", finished="", diverged=None, resumed=False, seconds=seconds, gpu_seconds=0,
        examples_per_second=1, peak_memory_mb=1, device="", versions={},
    )  # fmt: skip
    rows = [[run.run_id], [1], [""], ["loss"], [0.5]]
    write_table(with_provenance(pa.table(rows, schema=SCHEMA), [record]), path)
    return path


def written(folder: Path) -> dict[str, bytes]:
    """All files below a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The results of the smoke scale, of a working directory in which nothing was trained."""
    (tmp_path / "machine").mkdir()
    monkeypatch.chdir(tmp_path / "machine")
    return Path("results/smoke")


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a folder on `host`, which an ssh on PATH takes for this machine, and no other name."""
    if not shutil.which("rsync"):
        pytest.skip("no rsync")
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(SSH)
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
    return f"host:{tmp_path}/remote"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a folder that a real ssh server on loopback reaches, with a key of its own."""
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if os.getuid() or not sshd or not shutil.which("rsync"):
        pytest.skip("needs root, rsync and an ssh server (openssh-server)")
    folder = tmp_path / "ssh"
    folder.mkdir()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "config").write_text(SERVER.format(port=port, folder=folder))
    Path("/run/sshd").mkdir(exist_ok=True)  # which it insists on
    options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes -o ConnectionAttempts=20"
    monkeypatch.setenv("RSYNC_RSH", f"ssh -F none -p {port} -i {folder}/key {options}")
    process = subprocess.Popen([sshd, "-D", "-f", folder / "config"])
    yield f"127.0.0.1:{tmp_path}/remote"
    process.terminate()
    process.wait()


@pytest.mark.parametrize("kind", ["folder", pytest.param("remote", marks=pytest.mark.slow)])
def test_two_who_train_halves_end_with_the_whole(
    kind: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def command(checkout: Checkout, *words: str) -> str:
        monkeypatch.chdir(checkout.root)
        assert main([*words, "--scale", "smoke"]) == 0
        return capsys.readouterr().out

    address = request.getfixturevalue("remote") if kind == "remote" else str(tmp_path / "shared")
    first = Checkout.new(tmp_path / "first")
    second = first.copy(tmp_path / "second")
    planned = [(c.study, run) for c in first.chapters().values() for run in grid.unique(c.experiments)]
    for half, checkout in enumerate((first, second)):
        (checkout.root / "results/data").mkdir(parents=True)
        for name in {study.data(run) for study, run in planned} - {None}:
            (checkout.root / f"results/data/{name}.json").write_text(json.dumps({"sha256": "data"}))
        for study, run in planned[half::2]:
            fabricate(study, run, checkout.root / "results/smoke")
    mine, theirs = len(planned[0::2]), len(planned[1::2])
    assert f"{mine} new" in command(first, "push", "--to", address)
    assert f"{theirs} new" in command(second, "push", "--to", address)
    assert f"{theirs} new" in (told := command(first, "pull", "--from", address)) and f"{mine} already" in told
    assert f"{mine} new" in command(second, "pull", "--from", address)
    for checkout in (first, second):
        told = command(checkout, "pull", "--from", address)
        assert f"0 new (0.00 MB), {len(planned)} already there, 0 refused" in told
        assert command(checkout, "plan").count(", 0 to train") == len(checkout.chapters())
    assert written(first.root / "results/smoke") == written(second.root / "results/smoke")


def record_of(path: Path) -> tuple[pa.Table, Provenance]:
    table, [record] = read_table(path)
    return table, record


def rewritten(path: Path, *results: Result) -> None:
    """A file with a checksum that is right, whatever it says."""
    tables, records = zip(*results, strict=True)
    write_table(with_provenance(pa.concat_tables(tables), list(records)), path)


def test_what_is_not_a_whole_run_of_its_name_is_refused(
    machine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "place"
    good, *files = [fabricate(STUDY, make_run(seed=seed), place / "smoke") for seed in range(9)]
    cut, edited, other_name, of_two, other_study, other_key, other_rows, other_settings = files
    cut.write_bytes(cut.read_bytes()[:-9])
    table = pq.read_table(edited)
    values = pa.array([0.1], pa.float64())  # a better loss
    write_table(table.set_column(table.schema.get_field_index("value"), "value", values), edited)
    shutil.copy(good, other_name)
    rewritten(of_two, record_of(of_two), record_of(good))
    table, record = record_of(other_study)
    rewritten(other_study, (table, record.model_copy(update={"study": "norms"})))
    table, record = record_of(other_key)
    rewritten(other_key, (table, record.model_copy(update={"code": "of another commit"})))
    rewritten(other_rows, (record_of(good)[0], record_of(other_rows)[1]))
    table, record = record_of(other_settings)
    rewritten(other_settings, (table, record.model_copy(update={"run": {**record.run, "colour": "red"}})))

    assert main(["pull", "--scale", "smoke", "--from", str(place)]) == 1
    told = capsys.readouterr().out.splitlines()
    assert "1 new" in told.pop() and len(told) == len(files)
    sentences = dict(zip(sorted(files), sorted(told), strict=True))
    for path, sentence in sentences.items():
        assert sentence.startswith(f"{path}: refused")
    for path in (cut, edited):
        assert "damaged" in sentences[path]
    assert good.stem in sentences[other_name] and other_name.stem in sentences[other_name]
    assert "norms" in sentences[other_study] and "another version" in sentences[other_settings]
    assert record_of(good)[1].run_id in sentences[other_rows]
    assert written(machine) == {f"normalization/runs/{good.name}": good.read_bytes()}

    assert main(["pull", "--scale", "smoke", "--from", str(place), "--study", "norms"]) == 1  # of which there is none
    assert "no finished run" in capsys.readouterr().err


def test_a_whole_file_stays_and_a_damaged_one_is_replaced(machine: Path, tmp_path: Path) -> None:
    place = tmp_path / "place" / "smoke"
    sent = [fabricate(STUDY, run, place, seconds=12345.678) for run in RUNS[:3]]
    whole, truncated = [fabricate(STUDY, run, machine) for run in RUNS[:2]]
    trained_here = whole.read_bytes()
    assert len(trained_here) != sent[0].stat().st_size
    truncated.write_bytes(truncated.read_bytes()[:-1])
    told, all_whole = copy_runs(str(place.parent), "results", "smoke", [STUDY])
    assert all_whole and "2 new" in told and "1 already there" in told
    assert whole.read_bytes() == trained_here
    assert truncated.read_bytes() == sent[1].read_bytes()
    assert {path.name for path in whole.parent.iterdir()} == {path.name for path in sent}


@pytest.mark.parametrize(
    "kind", ["memory", "file", "relative", "remote", pytest.param("server", marks=pytest.mark.slow)]
)
def test_places(kind: str, machine: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    addresses = {"memory": f"memory://{uuid4()}/runs", "file": f"file://{tmp_path}/new/runs", "relative": "new/runs/"}
    address = addresses.get(kind) or request.getfixturevalue(kind)
    paths = [fabricate(STUDY, run, machine) for run in RUNS]
    expected = written(machine)
    (paths[0].parent / ".partial.parquet.elsewhere.1").write_bytes(b"")  # what another job is writing, and a checkpoint
    (paths[0].parent / "abc.checkpoint").write_bytes(b"")
    assert "4 new" in copy_runs("results", address, "smoke", [STUDY])[0]
    assert "4 already there" in copy_runs("results", address, "smoke", [STUDY])[0]
    shutil.rmtree(machine)
    assert "4 new" in copy_runs(address, "results", "smoke", [STUDY])[0]
    assert written(machine) == expected


def test_what_cannot_be_read_or_written_is_one_sentence(
    machine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()

    def refused(*words: str) -> str:
        assert main([*words, "--scale", "smoke"]) == 1
        out, err = capsys.readouterr()
        assert out == "" and len(err.splitlines()) == 1
        return err

    for address in (f"{tmp_path}/missing", f"{tmp_path}/empty", "memory://nothing"):
        told = refused("pull", "--from", address)
        assert address in told and "no finished run" in told
    assert "results: no finished run" in refused("push", "--to", f"{tmp_path}/place")
    assert "TO=" in refused("pull", "--from", "")
    assert "nowhere" in refused("pull", "--from", "nowhere://bucket/runs")
    assert not machine.exists() and not (tmp_path / "place").exists()

    fabricate(STUDY, RUNS[0], machine)
    assert f"{tmp_path}/file" in refused("push", "--to", f"{tmp_path}/file")
    monkeypatch.setenv("PATH", "")
    assert "rsync" in refused("push", "--to", "host:runs")


def test_another_machine_that_cannot_be_had_is_one_sentence(remote: str, machine: Path) -> None:
    fabricate(STUDY, RUNS[0], machine)
    with pytest.raises(UserError, match=r"^elsewhere:runs: .*no route to elsewhere\)$"):
        copy_runs("results", "elsewhere:runs", "smoke", [STUDY])
    with pytest.raises(UserError, match=rf"^{remote}: no finished run"):
        copy_runs(remote, "results", "smoke", [STUDY])


def test_no_half_written_file_remains(machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fabricate(STUDY, RUNS[0], machine)

    def full(*_: object) -> None:
        assert len(written(tmp_path / "place")) == 1  # beside its place
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LocalFileSystem, "mv", full)
    with pytest.raises(UserError, match="No space left"):
        copy_runs("results", str(tmp_path / "place"), "smoke", [STUDY])
    assert written(tmp_path / "place") == {}


def test_exchange_imports_no_torch(machine: Path, tmp_path: Path) -> None:
    fabricate(STUDY, RUNS[0], machine)
    program = (
        "import sys; from effective_lr.__main__ import main; code = main(sys.argv[1:]); "
        "sys.exit(code or 'torch' in sys.modules)"
    )
    words = ["push", "--scale", "smoke", "--to", str(tmp_path / "place")]
    assert subprocess.run([sys.executable, "-c", program, *words], env=ENVIRONMENT, check=False).returncode == 0
