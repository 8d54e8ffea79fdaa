"""A reproduction of van Laarhoven (2017), L2 Regularization versus Batch and Weight Normalization."""

import tarfile
from pathlib import Path


def extract_inside(archive: tarfile.TarFile, path: str | Path = ".", *, filter: str = "data") -> None:
    """`TarFile.extractall` for a Python that has no filters: files and folders alone, none of them outside of `path`.

    Raises tarfile.TarError, and extracts nothing, for anything else.
    """
    root = Path(path).resolve()
    for member in archive.getmembers():
        is_inside = (root / member.name).resolve().is_relative_to(root)
        if not (is_inside and (member.isfile() or member.isdir())):
            raise tarfile.TarError(f"{member.name} is no file or folder inside of the archive")
    _extract_all(archive, path)


# Python 3.11.0 to 3.11.3 has no filters; Debian 12 has 3.11.2. This stands here, not where data.py extracts, because an
# edit of data.py would be a reason to train all published runs again.
_extract_all = tarfile.TarFile.extractall
if not hasattr(tarfile, "data_filter"):
    tarfile.TarFile.extractall = extract_inside  # type: ignore[assignment]
