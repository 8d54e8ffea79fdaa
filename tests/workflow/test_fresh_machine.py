"""The README's first command on a machine that has nothing: a bare Debian in a folder, as root.

Of the host it gets the settings of package registries alone: those of pip and apt, certificates, and folders that pip
is told to look into.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from effective_lr.engine.contents import published_table
from effective_lr.engine.storage import read_provenance
from shared import ROOT

SETTINGS = ["/etc/pip.conf", "/etc/xdg/pip", "/etc/apt/apt.conf.d", "/etc/ssl/certs", "/usr/share/ca-certificates"]
SETTINGS += ["/usr/local/share/ca-certificates", "/etc/resolv.conf", "/etc/hosts"]
PASSED = re.compile(r"PIP_|SSL_CERT|REQUESTS_CA|CURL_CA|.*_proxy$", flags=re.IGNORECASE)


def folders_of_pip() -> set[str]:
    """Local folders that pip's settings name as an index, or to find links in."""
    settings = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    named = re.findall(r"(?:file://)?(/[^\s']+)", settings)
    return {f"/{Path(name).parts[1]}/{Path(name).parts[2]}" for name in named if Path(name).is_dir()}


@contextmanager
def mounted(machine: Path) -> Iterator[None]:
    """The registries' settings, /proc and /dev of the host, inside of a folder."""
    places = [place for place in [*SETTINGS, *folders_of_pip()] if Path(place).exists()]
    done: list[Path] = []
    try:
        for place in [*places, "/proc", "/dev"]:
            target = machine / place.lstrip("/")
            if Path(place).is_dir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)
                target.touch()
            subprocess.run(["mount", "--bind", place, target], check=True)
            done.append(target)
        yield
    finally:
        for target in reversed(done):
            subprocess.run(["umount", "--lazy", target], check=False)


@pytest.mark.slow
@pytest.mark.parametrize("release", ["bookworm", "trixie"])
def test_make_on_a_bare_debian(release: str, tmp_path: Path) -> None:
    if os.getuid() or not shutil.which("debootstrap"):
        pytest.skip("needs root and debootstrap")
    machine = tmp_path / "machine"
    packages = "git,make,python3,ca-certificates"
    made = subprocess.run(["debootstrap", "--variant=minbase", f"--include={packages}", release, machine])
    assert made.returncode == 0
    subprocess.run(["git", "clone", "--quiet", ROOT, machine / "project"], check=True)
    environment = {name: value for name, value in os.environ.items() if PASSED.match(name)}
    environment |= {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}

    def make(*words: str) -> str:
        command = ["chroot", machine, "make", "-C", "/project", *words]
        ran = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert ran.returncode == 0, words
        return ran.stdout

    with mounted(machine):
        make("SCALE=smoke")
        make("reuse-published")
        plan = make("plan", "SCALE=study", "STUDY=normalization")
    published = len(read_provenance(published_table(ROOT, "normalization", "study")))
    assert f"{published} runs in" in plan and "; 0 runs in 0 jobs to train" in plan  # whatever the version of Python
    assert (machine / "project/paper/build/smoke/main.pdf").read_bytes().startswith(b"%PDF")
    shutil.rmtree(machine)
