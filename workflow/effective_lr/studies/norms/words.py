"""How the chapter writes penalties, truths and data, in figures and tables alike. Imported by the Snakefile."""

import itertools

NAMES = {
    "none": "none",
    "l2": r"$\ell_2$",
    "l1": r"$\ell_1$",
    "l1+l2": r"$\ell_1+\ell_2$",
    "car": "CAR",
    "scar": "SCAR",
    "inverse": "$a=-1$",
    "adaptive": r"adaptive $\ell_1$",
    "ridge": "ridge",
    "ridge+": "ridge+",
    "lasso": "lasso",
    "lasso+": "lasso+",
    "elastic": "elastic net",
    "covridge": "Covridge",
    "sparridge": "Sparridge",
    "covridge-all": "Covridge, all layers",
    "sparridge-all": "Sparridge, all layers",
    "sparse": "sparse",
    "dense": "dense",
    "high": "high",
    "low": "low",
    "prior": "g-prior",
    "ar1": "AR(1)",
    "equal": "equal",
    "cooling-load": "cooling load",
    "gse9476": "GSE9476",
    "energy": "cooling load, 576 rows",
    "energy_small": "cooling load, 60 rows",
    "leukemia": "leukemia (Golub)",
    "leak": "shuffled classes (Golub)",
}


def cell_name(truth: str, rho: str, noise: str, inputs: str = "") -> str:
    wide = f", $p={inputs}$" if inputs else ""
    return rf"{truth}, $\rho={rho}$, $\sigma={noise}${wide}"


# Subjects of claims are a penalty, or a penalty and a truth, or a penalty and what it is tried without, or a cell.
SUBJECTS = (
    {
        f"{penalty}_{rest}": f"{NAMES[penalty]}, {rest}"
        for penalty in ("l2", "l1", "car", "scar", "inverse")
        for rest in ("high", "low", "sparse", "dense", "momentum")
    }
    | {f"{penalty}_none": f"{NAMES[penalty]}, no normalization" for penalty in ("l2", "l1", "car", "scar")}
    | {f"{penalty}_slow": f"{NAMES[penalty]}, too slow" for penalty in ("covridge", "sparridge")}
    | {
        f"{penalty}_{noise}": rf"{NAMES[penalty]}, $\sigma={noise}$"
        for penalty in ("covridge", "sparridge")
        for noise in ("0.1", "2")
    }
    | {"training": "genes of training samples", "all": "all"}
    | {
        "_".join(cell) + end: cell_name(*cell) + words
        for cell in itertools.product(("linear", "sine"), ("0.25", "0.75"), ("0.1", "2"))
        for end, words in (("", ""), ("_lasso", ", lasso"))
    }
)
