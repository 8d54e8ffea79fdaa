"""A machine without a network, by the time capsule: all of a paper in one archive; and a machine that has nothing."""

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
from effective_lr.errors import UserError
from effective_lr.prepare import catalog
from effective_lr.prepare.sources import COOLING_LOAD, FASHION_MNIST, GOLUB_38, GOLUB_72, WHEEL, Missing, Source
from shared import ROOT

GB = 10**9


def test_raw_files_are_collected_and_missing_ones_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, into = tmp_path / "data", tmp_path / "capsule" / "data"
    is_damaged = True

    def obtain(source: Source, where: Path) -> tuple[bytes, Path]:
        if source is GOLUB_72:
            raise Missing("golub_72 is nowhere")
        if source is WHEEL and is_damaged:
            raise UserError("damaged")
        path = where / Path(source.path).name
        path.parent.mkdir(exist_ok=True)
        path.write_text(path.name)
        return b"", path

    monkeypatch.setattr(catalog, "obtain", obtain)
    with pytest.raises(UserError, match="damaged"):
        catalog.collect(folder, into)
    assert not into.exists()

    is_damaged = False
    assert catalog.collect(folder, into) == "7 files; left out: golub_72 is nowhere"
    expected = {source.path for source in (*FASHION_MNIST.values(), WHEEL, COOLING_LOAD, GOLUB_38)}
    assert {str(path.relative_to(into)) for path in into.rglob("*") if path.is_file()} == expected


@pytest.mark.slow
def test_the_capsule_draws_and_trains_without_a_network(tmp_path: Path) -> None:
    """As in an empty room: no interface but loopback, no settings of pip, no Fashion-MNIST of the system."""
    if os.getuid() or not shutil.which("unshare") or not shutil.which("ip") or not (ROOT / ".git").exists():
        pytest.skip("needs root, unshare, ip and the history of the repository")
    if shutil.disk_usage(tmp_path).free < 25 * GB:
        pytest.skip("needs 25 GB of disk")
    checkout = tmp_path / "checkout"
    subprocess.run(["git", "clone", "--quiet", ROOT, checkout], check=True)
    inside = {**os.environ, "PYTHONPATH": "workflow", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(["bash", "workflow/capsule.sh"], cwd=checkout, env=inside, check=True)
    [archive] = (checkout / "dist").iterdir()
    subprocess.run(["tar", "-xf", archive, "-C", tmp_path], check=True)
    archive.unlink()
    root = tmp_path / archive.stem

    def make(*words: str) -> subprocess.CompletedProcess[str]:
        hidden = "mount -t tmpfs none /usr/share/datasets" if Path("/usr/share/datasets").exists() else "true"
        command = ["unshare", "--net", "--mount", "sh", "-c", f'ip link set lo up && {hidden} && exec make "$@"', "sh"]
        python = f"PYTHON={sys._base_executable}"  # type: ignore[attr-defined]  # what the environment was made with
        bare = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(tmp_path), "LANG": "C.UTF-8"}
        alone = {**bare, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1"}
        return subprocess.run(
            [*command, python, *words], cwd=root, env=alone, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    plays = root / "data" / WHEEL.path
    content = plays.read_bytes()
    plays.write_bytes(content[:-1])
    refused = make("METRICS=published")
    assert refused.returncode != 0 and f"./data/{WHEEL.path}: FAILED" in refused.stdout
    assert not list((root / "results").glob("published-*"))
    plays.write_bytes(content)

    for words, built in [("METRICS=published", "published-study"), ("SCALE=smoke", "smoke")]:
        done = make(words)
        assert done.returncode == 0, done.stdout[-5000:]
        assert (root / "paper/build" / built / "main.pdf").read_bytes().startswith(b"%PDF")
    carried = {path.name for path in (root / "data").iterdir()}
    assert carried >= {"train-images-idx3-ubyte.gz", WHEEL.path}
    shutil.rmtree(root)
    shutil.rmtree(checkout)


# The first command of the README on a bare Debian: of the host it gets the settings of package registries alone.
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
