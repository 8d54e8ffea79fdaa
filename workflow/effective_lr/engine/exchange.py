"""Finished runs between machines that share no disk: they go to a place and come from one, each checked on its way.

A place is a folder, `host:folder` (rsync over ssh), or a URL that fsspec knows, such as s3://bucket/runs where s3fs is
installed. It is laid out like results/, so that the results of another checkout are a place too.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import ValidationError

from effective_lr.engine.storage import read_table
from effective_lr.engine.study import Study
from effective_lr.errors import UserError, reason


def copy_runs(source: str, target: str, scale: str, studies: list[Study]) -> tuple[str, bool]:
    """Copy the finished runs of a scale that the target lacks. What was done, in words, and whether all were whole.

    A run is there already if a file of its name and size is, or one of another size that is whole: two trainings of one
    run differ in their times. Raises UserError where a place cannot be reached, or the source has no run.
    """
    giver, taker = place(source), place(target)
    by_name = {study.name: study for study in studies}
    given = giver.sizes(scale, list(by_name))
    if not given:
        raise UserError(
            f"{source}: no finished run of the scale {scale} (expected {scale}/<study>/runs/*.parquet); "
            "check the address and SCALE, or train or push some first"
        )
    taken = taker.sizes(scale, list(by_name))
    with TemporaryDirectory() as scratch:
        doubtful, arrived = Path(scratch, "doubtful"), Path(scratch, "arrived")

        def faults(folder: Path, names: list[str]) -> dict[str, str]:
            found = {name: fault(folder / name, by_name[name.split("/")[1]]) for name in names}
            return {name: why for name, why in found.items() if why}

        of_other_size = [name for name, size in given.items() if taken.get(name, size) != size]
        taker.get(of_other_size, doubtful)
        damaged = faults(doubtful, of_other_size)
        missing = [name for name in given if name not in taken or name in damaged]
        giver.get(missing, arrived)
        refused = faults(arrived, missing)
        new = [name for name in missing if name not in refused]
        taker.put(arrived, new)
        megabytes = sum((arrived / name).stat().st_size for name in new) / 1e6
    lines = [f"{source}/{name}: refused, because it {why}" for name, why in refused.items()]
    there = len(given) - len(missing)
    lines.append(
        f"{target}: {len(new)} new ({megabytes:.2f} MB), {there} already there, {len(refused)} refused; scale {scale}"
    )
    return "\n".join(lines), not refused


def fault(path: Path, study: Study) -> str:
    """Why a file is not a finished run of a study under its own name; empty where it is one."""
    try:
        table, provenance = read_table(path)
    except UserError:
        return "is damaged: its content does not have the checksum inside it"
    if len(provenance) != 1 or provenance[0].study != study.name:
        holds = ", ".join(f"{record.study}: {record.run_id}" for record in provenance[:2]) or "none"
        return f"holds other runs ({holds}), expected one of the study {study.name}"
    [record] = provenance
    try:
        run = study.run(**record.run)
    except ValidationError:
        return f"has settings that the study {study.name} does not know here: another version of the code wrote it"
    key = run.fingerprint(record.code, record.data)
    if path.stem != key or record.fingerprint != key:
        return f"is named {path.stem}, but the key of its settings, code and data is {key}"
    rows_of = set(table["run_id"].unique().to_pylist())
    if record.run_id != run.run_id or not rows_of <= {run.run_id}:
        return f"says that it is {record.run_id} with rows of {', '.join(sorted(rows_of))}, expected {run.run_id}"
    return ""


def place(address: str) -> "Files | Rsync":
    """What reaches this address."""
    if not address:
        raise UserError(
            "no place was named: type `make push-runs TO=/mnt/runs`, say, or `make pull-runs FROM=host:runs`"
        )
    return Rsync(address) if re.match(r"[^/]+:", address) and "://" not in address else Files(address)


class Files:
    """A folder, or another place that fsspec reaches."""

    def __init__(self, address: str) -> None:
        import fsspec

        self.address = address
        with self._reached():
            self.system, root = fsspec.url_to_fs(address)
        self.root = root.rstrip("/")

    def sizes(self, scale: str, studies: list[str]) -> dict[str, int]:
        """The files of finished runs, named from the root of the place, and their bytes."""
        found = {}
        with self._reached():
            for folder in [f"{scale}/{study}/runs" for study in studies]:
                for path, about in self.system.find(f"{self.root}/{folder}", maxdepth=1, detail=True).items():
                    if path.endswith(".parquet"):
                        found[f"{folder}/{Path(path).name}"] = int(about["size"])
        return found

    def get(self, names: list[str], folder: Path) -> None:
        """Copy files to a folder on this machine."""
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with self._reached():
            self.system.get([f"{self.root}/{name}" for name in names], [str(folder / name) for name in names])

    def put(self, folder: Path, names: list[str]) -> None:
        """Copy files from a folder on this machine; each appears whole, by a rename."""
        targets = [f"{self.root}/{name}" for name in names]
        ending = f".{os.uname().nodename}.{os.getpid()}"
        partial = ["/.".join(target.rsplit("/", 1)) + ending for target in targets]
        with self._reached():
            try:
                for parent in {target.rsplit("/", 1)[0] for target in targets}:
                    self.system.makedirs(parent, exist_ok=True)
                self.system.put([str(folder / name) for name in names], partial)
                for beside, target in zip(partial, targets, strict=True):
                    self.system.mv(beside, target)
            except BaseException:
                for beside in partial:
                    with suppress(Exception):
                        self.system.rm_file(beside)
                raise

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each backend has errors of its own
            raise UserError(f"{self.address}: cannot be read or written ({reason(error)})") from error


class Rsync:
    """A folder of another machine, `host:folder`, over ssh. Rsync itself lets files appear by a rename."""

    def __init__(self, address: str) -> None:
        if not shutil.which("rsync"):
            raise UserError(f"{address}: needs rsync, which is missing: install it, or name a folder or a URL")
        self.address = address
        self.root = address if address[-1] in ":/" else f"{address}/"

    def sizes(self, scale: str, studies: list[str]) -> dict[str, int]:
        """The files of finished runs, named from the root of the place, and their bytes."""
        chosen = [f"/{scale}/", *(f"/{scale}/{study}/" for study in studies)]
        chosen += [f"/{scale}/*/runs/", f"/{scale}/*/runs/*.parquet"]
        options = ["--recursive", "--dry-run", "--out-format=%l %n", *(f"--include={path}" for path in chosen)]
        with TemporaryDirectory() as nothing:
            listed = self._rsync(*options, "--exclude=*", "--", self.root, nothing, may_be_missing=True)
        ours = rf"(\d+) ({re.escape(scale)}/(?:{'|'.join(studies)})/runs/[^/]+\.parquet)"
        return {name: int(size) for size, name in re.findall(f"^{ours}$", listed, flags=re.MULTILINE)}

    def get(self, names: list[str], folder: Path) -> None:
        """Copy files to a folder on this machine."""
        if names:
            self._rsync("--files-from=-", "--", self.root, str(folder), names=names)

    def put(self, folder: Path, names: list[str]) -> None:
        """Copy files from a folder on this machine."""
        if names:
            self._rsync("--files-from=-", "--", f"{folder}/", self.root, names=names)

    def _rsync(self, *words: str, names: list[str] | None = None, may_be_missing: bool = False) -> str:
        command, language = ["rsync", *words], {**os.environ, "LC_ALL": "C"}
        ran = subprocess.run(command, input="\n".join(names or []), env=language, capture_output=True, text=True)
        is_missing = ran.returncode == 23 and "No such file or directory" in ran.stderr
        if ran.returncode and not (may_be_missing and is_missing):
            why = (ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}"])[0]
            raise UserError(f"{self.address}: rsync cannot read or write it ({why})")
        return ran.stdout
