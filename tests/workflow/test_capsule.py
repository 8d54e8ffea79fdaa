"""The time capsule: all of a paper in one archive, which needs no network."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from effective_lr.errors import UserError
from effective_lr.prepare import images, raw, sources, tabular, text
from effective_lr.prepare.dataset import Missing, Prepared
from shared import ROOT

GB = 10**9


def test_raw_files_are_collected_and_missing_ones_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, into = tmp_path / "data", tmp_path / "capsule" / "data"
    (folder / "fashion-mnist").mkdir(parents=True)
    names = [f"{name}.gz" for name in images.FASHION_MNIST]
    for path in [*(folder / "fashion-mnist" / name for name in names), folder / text.WHEEL]:
        path.write_text(path.name)
    (folder / "cifar-10-python.tar.gz").touch()

    def obtain(source: sources.Source, where: Path) -> tuple[bytes, str]:
        if source is sources.GOLUB_72:
            raise Missing("golub_72 is nowhere")
        return source.path.encode(), f"{where}"

    def damaged(*_: object) -> Prepared:
        raise UserError("damaged")

    monkeypatch.setattr(tabular, "obtain", obtain)
    monkeypatch.setattr(images, "read", damaged)
    monkeypatch.setattr(text, "shakespeare", lambda folder: None)
    with pytest.raises(UserError, match="damaged"):
        raw.collect(folder, into)
    assert not into.exists()

    monkeypatch.setattr(images, "read", lambda *_: None)
    assert raw.collect(folder, into) == "7 files; left out: golub_72 is nowhere"
    expected = {*names, text.WHEEL, sources.COOLING_LOAD.path, sources.GOLUB_38.path}
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

    plays = root / "data" / text.WHEEL
    content = plays.read_bytes()
    plays.write_bytes(content[:-1])
    refused = make("METRICS=published")
    assert refused.returncode != 0 and f"./data/{text.WHEEL}: FAILED" in refused.stdout
    assert not list((root / "results").glob("published-*"))
    plays.write_bytes(content)

    for words, built in [("METRICS=published", "published-study"), ("SCALE=smoke", "smoke")]:
        done = make(words)
        assert done.returncode == 0, done.stdout[-5000:]
        assert (root / "paper/build" / built / "main.pdf").read_bytes().startswith(b"%PDF")
    carried = {path.name for path in (root / "data").iterdir()}
    assert carried >= {"train-images-idx3-ubyte.gz", text.WHEEL}
    shutil.rmtree(root)
    shutil.rmtree(checkout)
