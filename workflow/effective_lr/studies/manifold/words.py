"""How the chapter writes the names of settings' values and of subjects. Imported by the Snakefile."""

NAMES = {
    "adamw": "AdamW",
    "adam0": "AdamW, no decay",
    "adamh": "AdamH",
    "macro-F": "MACRO-F",
    "macro-S": "MACRO-S",
    "muonh": "MuonH",
    "pre": "before branches",
    "every": "after every matrix",
    "none": "none",
    "shakespeare": "Shakespeare's plays",
    "tokens": "own tokens",
    "from_4R": r"AdamW from $4R$",
    "residual": "both sides",
    "theta_0": r"AdamW minus AdamH at $\theta_0$",
    "half_theta_0": r"AdamW minus AdamH at $\theta_0/2$",
    "every_at_e": "after every matrix, at $e$",
    "pre_at_e": "before branches, at $e$",
    "none_f_1": "none, $f=1$",
    "pre_others": "before branches, where the scale matters",
    "muonh 0.02": r"MuonH, $\eta=0.02$",
    "muonh 0.04": r"MuonH, $\eta=0.04$",
    "muonh 0.08": r"MuonH, $\eta=0.08$",
}

RMS_NORMS = ("pre", "every", "none")  # in the order of figures and tables
ARMS = ("adamw", "adam0", "adamh", "macro-F", "macro-S", "muonh")  # in that order
