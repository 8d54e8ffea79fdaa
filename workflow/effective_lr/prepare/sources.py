"""The files of tabular data: their names, sums and homes. A page names them without importing PyTorch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """A file by its path below a data folder, its sha256, and its public home: a URL or a Debian package."""

    path: str
    sha256: str
    url: str = ""
    package: str = ""
    inside: str = ""  # the file's path inside the package


COOLING_LOAD = Source(
    "enb2012/ENB2012_data.csv",
    "62a9f8f9edf37b848005eef4a82388b6a20a74707d97eb36030a616ede75d629",
    url="https://raw.githubusercontent.com/pythonandmore/EnergyEfficiency/"
    "66d736a53eb477a2a93dfaa2eb9aff69ffa04e85/ENB2012_data.csv",
)
GOLUB_72 = Source(
    "golub/golub_72.RData",
    "594f5507597fb2352d210c803a88a218fbf6d1f2705372029e5738815216747b",
    url="https://raw.githubusercontent.com/ramhiser/datamicroarray/"
    "a95f6f68ed3debf48ee54f198435fa12aa655b16/data/golub.RData",
)
GOLUB_38 = Source(
    "golub/golub_38.RData",
    "c49407449272725e6e02ef5f609115ee1f6854e8b19d7f477625af012a8e3e47",
    package="r-bioc-multtest",
    inside="usr/lib/R/site-library/multtest/data/golub.RData",
)
