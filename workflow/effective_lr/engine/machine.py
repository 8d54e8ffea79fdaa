"""What may change results on other machines: variables and start-up files. Imported by the Snakefile."""

import os
from collections.abc import MutableMapping
from pathlib import Path

OF_OTHERS = ("PYTHON", "JUPYTER", "MPLBACKEND", "MATPLOTLIBRC", "BASH_FUNC_", "SHELLOPTS", "CDPATH")
KEPT = ("SNAKEMAKE_PROFILE", "BASH_ENV")  # which were read before this


def shield(environment: MutableMapping[str, str], scratch: Path) -> str:
    """Take what the user set for other programs out of the environment of jobs; returns a line about what stays, if
    anything. Where HOME cannot be written, caches are kept in `scratch`."""
    for name in [name for name in environment if name.startswith(OF_OTHERS)]:
        del environment[name]
    if not os.access(environment.get("MPLCONFIGDIR", ""), os.W_OK):
        environment.pop("MPLCONFIGDIR", None)
    if not os.access(environment.get("HOME") or os.path.expanduser("~"), os.W_OK):
        environment["HOME"] = str(scratch / "home")
        (scratch / "home").mkdir(parents=True, exist_ok=True)
    environment["LOGNAME"] = environment.get("LOGNAME") or "nobody"  # Snakemake asks for it
    environment.update({"PYTHONUTF8": "1", "PYTHONSAFEPATH": "1", "PYTHONNOUSERSITE": "1"})
    environment.update(
        dict.fromkeys(("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"), str(scratch / "jupyter"))
    )
    kept = [name for name in KEPT if environment.get(name)]
    kept += ["~/texmf"] if Path(environment.get("HOME", "~"), "texmf").expanduser().is_dir() else []
    own = "set by you, and may change the results; remove what is not meant for this workflow"
    return f"{' and '.join(kept)}: {own}" if kept else ""
