"""How the chapter writes penalties, truths and data, in figures and tables alike. Imported by the Snakefile."""

NAMES = {
    "none": "none",
    "l2": r"$\ell_2$",
    "l1": r"$\ell_1$",
    "l1+l2": r"$\ell_1+\ell_2$",
    "car": "CAR",
    "scar": "SCAR",
    "inverse": "$a=-1$",
    "adaptive": r"adaptive $\ell_1$",
    "car0": "CAR, $e=0$",
    "scar0": "SCAR, $e=0$",
    "ridge-cv": "RidgeCV",
    "elastic-net-cv": "ElasticNetCV",
    "mlp": "MLPRegressor",
    "logistic-cv": "LogisticRegressionCV",
    "sparse": "sparse",
    "dense": "dense",
    "high": "high",
    "low": "low",
    "prior": "g-prior",
    "ar1": "AR(1)",
    "cooling-load": "cooling load",
    "cooling_small": "cooling load, 60 rows",
    "cooling_full": "cooling load, 460 rows",
    "cooling_shapes": "cooling load, by shape",
    "diabetes_small": "diabetes, 60 rows",
    "diabetes_full": "diabetes, 265 rows",
    "leukemia": "leukemia, nested splits",
    "leukemia_original": "leukemia, original split",
}
# Subjects of claims are a penalty, or a penalty and a truth, or a penalty and what it is tried without.
SUBJECTS = {
    f"{penalty}_{rest}": f"{NAMES[penalty]}, {rest}"
    for penalty in ("l2", "l1", "car", "scar", "inverse")
    for rest in ("high", "low", "sparse", "dense", "momentum")
} | {f"{penalty}_none": f"{NAMES[penalty]}, no normalization" for penalty in ("l2", "l1", "car", "scar")}
