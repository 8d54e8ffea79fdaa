"""Snakemake, one at a time in a folder, and without ado after a kill.

Snakemake locks its folder with files, which a killed run leaves behind. A run that was started here holds a lock of the
kernel beside them, which ends with its process however that ends, and a note of its host. So where the files are there,
the kernel's lock is free, the note names this host, and no other Snakemake lives in the folder, nobody holds them.
"""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

from effective_lr.errors import UserError

STATE = Path(".snakemake")


def run(words: list[str]) -> int:
    """Run Snakemake with these arguments in the working directory; returns its exit code.

    Raises UserError where another run is at work here, and frees the locks that a killed run left.
    """
    STATE.mkdir(exist_ok=True)
    note = STATE / "running"
    with note.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{Path.cwd()}: another run is at work here; wait for it, or stop it, and try again"
            ) from None
        file.seek(0)
        host_of_the_last = file.read().strip()
        if any((STATE / "locks").glob("*")):
            free_locks(host_of_the_last)
        file.truncate(0)
        file.write(os.uname().nodename)
        file.flush()
        return snakemake(words)  # which does not inherit the file: an orphan of a killed run holds nothing


def free_locks(host_of_the_last: str) -> None:
    """Remove Snakemake's locks where certainly nobody holds them. Raises UserError where somebody does or may."""
    import psutil

    mine = {os.getpid(), os.getppid()}
    here = Path.cwd()
    for process in psutil.process_iter(["pid", "cwd", "cmdline"]):
        words = process.info["cmdline"] or []
        if (
            process.info["cwd"] == str(here)
            and process.info["pid"] not in mine
            and any("snakemake" in w for w in words)
        ):
            raise UserError(f"{here}: another Snakemake is at work here, process {process.info['pid']}; wait for it")
    if host_of_the_last != os.uname().nodename:
        starter = f"on {host_of_the_last}" if host_of_the_last else "without make"
        raise UserError(
            f"{here}: locked by a run that was started {starter}; if it is dead, type `make unlock`, then `make` again"
        )
    if snakemake(["--unlock", "--quiet", "all"]) == 0:
        print("A previous run was killed. Its lock, which nobody holds, was freed; finished trainings are kept.")


def snakemake(words: list[str]) -> int:
    """Run it as a child. A signal to the group reaches it directly; it decides what to do, and we wait."""
    child = subprocess.Popen([sys.executable, "-m", "snakemake", *words])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: child.send_signal(number))
    return child.wait()
