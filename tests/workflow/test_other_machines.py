"""A machine without a network, by the time capsule: all of a paper in one archive; and a machine that has nothing."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from effective_lr.engine.contents import published_table
from effective_lr.engine.storage import read_provenance
from effective_lr.errors import UserError
from effective_lr.prepare import catalog
from effective_lr.prepare.sources import COOLING_LOAD, FASHION_MNIST, GOLUB_38, GOLUB_72, WHEEL, Missing, Source
from shared import ROOT

BARE = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


def printed(*command: Any, fails: bool = False, **options: Any) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    assert (done.returncode != 0) == fails, done.stdout[-5000:]
    return done.stdout


def test_raw_files_are_collected_and_missing_ones_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, into, damaged = tmp_path / "data", tmp_path / "capsule/data", [WHEEL]

    def obtain(source: Source, where: Path) -> tuple[bytes, Path]:
        if source is GOLUB_72:
            raise Missing("golub_72 is nowhere")
        if source in damaged:
            raise UserError("damaged")
        path = where / Path(source.path).name
        path.parent.mkdir(exist_ok=True)
        path.write_text(path.name)
        return b"", path

    monkeypatch.setattr(catalog, "obtain", obtain)
    with pytest.raises(UserError, match="damaged"):
        catalog.collect(folder, into)
    assert not into.exists()
    damaged.clear()
    assert catalog.collect(folder, into) == "7 files; left out: golub_72 is nowhere"
    expected = {source.path for source in (*FASHION_MNIST.values(), WHEEL, COOLING_LOAD, GOLUB_38)}
    assert {str(path.relative_to(into)) for path in into.rglob("*") if path.is_file()} == expected


@pytest.mark.slow
def test_the_capsule_draws_and_trains_without_a_network(tmp_path: Path) -> None:
    """As in an empty room: no interface but loopback, no settings of pip, no Fashion-MNIST of the system."""
    if os.getuid() or not shutil.which("unshare") or not shutil.which("ip") or not (ROOT / ".git").exists():
        pytest.skip("needs root, unshare, ip and the history of the repository")
    if shutil.disk_usage(tmp_path).free < 25e9:
        pytest.skip("needs 25 GB of disk")
    checkout = tmp_path / "checkout"
    printed("git", "clone", "--quiet", ROOT, checkout)
    inside = {**os.environ, "PYTHONPATH": "workflow", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    printed("bash", "workflow/capsule.sh", cwd=checkout, env=inside)
    [archive] = (checkout / "dist").iterdir()
    printed("tar", "-xf", archive, "-C", tmp_path)
    archive.unlink()
    root = tmp_path / archive.stem

    def make(*words: str, fails: bool = False) -> str:
        hidden = "mount -t tmpfs none /usr/share/datasets" if Path("/usr/share/datasets").exists() else "true"
        alone = ["unshare", "--net", "--mount", "sh", "-c", f'ip link set lo up && {hidden} && exec make "$@"', "sh"]
        python = f"PYTHON={sys._base_executable}"  # type: ignore[attr-defined]  # what the environment was made with
        bare = {**BARE, "HOME": str(tmp_path), "PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1"}
        return printed(*alone, python, *words, fails=fails, cwd=root, env=bare)

    plays = root / "data" / WHEEL.path
    content = plays.read_bytes()
    plays.write_bytes(content[:-1])
    assert f"./data/{WHEEL.path}: FAILED" in make("METRICS=published", fails=True)
    assert not list((root / "results").glob("published-*"))
    plays.write_bytes(content)
    for words, built in [("METRICS=published", "published-study"), ("SCALE=smoke", "smoke")]:
        make(words)
        assert (root / "paper/build" / built / "main.pdf").read_bytes().startswith(b"%PDF")
    assert {path.name for path in (root / "data").iterdir()} >= {"train-images-idx3-ubyte.gz", WHEEL.path}
    shutil.rmtree(root)
    shutil.rmtree(checkout)


# The first command of the README on a bare Debian: of the host it gets the settings of package registries alone.
SETTINGS = ["/etc/pip.conf", "/etc/xdg/pip", "/etc/apt/apt.conf.d", "/etc/ssl/certs", "/usr/share/ca-certificates"]
SETTINGS += ["/usr/local/share/ca-certificates", "/etc/resolv.conf", "/etc/hosts"]
PASSED = re.compile(r"PIP_|SSL_CERT|REQUESTS_CA|CURL_CA|.*_proxy$", flags=re.IGNORECASE)


def folders_of_pip() -> set[str]:
    """Local folders that pip's settings name as an index, or to find links in."""
    named = re.findall(r"(?:file://)?(/[^\s']+)", printed(sys.executable, "-m", "pip", "config", "list"))
    return {f"/{Path(name).parts[1]}/{Path(name).parts[2]}" for name in named if Path(name).is_dir()}


@contextmanager
def mounted(machine: Path) -> Iterator[None]:
    """The registries' settings, /proc and /dev of the host, inside of a folder."""
    done: list[Path] = []
    try:
        for place in filter(os.path.exists, [*SETTINGS, *folders_of_pip(), "/proc", "/dev"]):
            target = machine / place.lstrip("/")
            if Path(place).is_dir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)
                target.touch()
            printed("mount", "--bind", place, target)
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
    printed("debootstrap", "--variant=minbase", "--include=git,make,python3,ca-certificates", release, machine)
    printed("git", "clone", "--quiet", ROOT, machine / "project")
    passed = {name: value for name, value in os.environ.items() if PASSED.match(name)}
    make = ("chroot", machine, "make", "-C", "/project")
    with mounted(machine):
        for words in (["SCALE=smoke"], ["reuse-published"], ["plan", "SCALE=study", "STUDY=normalization"]):
            plan = printed(*make, *words, env={**passed, **BARE, "HOME": "/root"})
    published = len(read_provenance(published_table(ROOT, "normalization", "study")))
    assert f"{published} runs in" in plan and "; 0 runs in 0 jobs to train" in plan  # whatever the version of Python
    assert (machine / "project/paper/build/smoke/main.pdf").read_bytes().startswith(b"%PDF")
    shutil.rmtree(machine)
