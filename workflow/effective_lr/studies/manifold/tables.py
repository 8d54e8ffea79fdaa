"""The tables of the chapter, beside those that every study has: each a pure function of results."""

import numpy as np

from effective_lr.document.common_tables import earlier_verdicts
from effective_lr.document.notation import number, thousands
from effective_lr.document.table import MISSING, Results, Table, fixed, interval
from effective_lr.evidence.estimates import Estimate, Undecidable, mean_interval
from effective_lr.studies.manifold.analysis import angle, arms, losses, main, measured, select
from effective_lr.studies.manifold.bijection import decoupled, matched_angle
from effective_lr.studies.manifold.words import ARMS, NAMES, RMS_NORMS

# The matrices of one shape, with their outputs and inputs in units of the width.
SHAPES = {
    "query, key, value, output": (("query", "key", "value", "output"), 1, 1),
    "up": (("up",), 4, 1),
    "down": (("down",), 1, 4),
}


def bijection(results: Results) -> Table:
    """What (ρ, e) says of each matrix in both languages, and what was measured of AdamW's norm and angle."""
    runs = main(results.tables["matched"].runs)
    width, e = int(runs["width"].iloc[0]), float(runs["decay_per_step"].iloc[0])
    theta = float(matched_angle(e, float(runs["beta1"].iloc[0])))
    rows = []
    for title, (kinds, outputs, inputs) in SHAPES.items():
        rms = 1 / np.sqrt(inputs * width)
        lr, decay = decoupled(rms, theta, float(runs["beta1"].iloc[0]))
        radius = rms * width * np.sqrt(outputs * inputs)
        found = []
        for experiment in ("matched", "starts"):
            chosen = select(main(results.tables[experiment].runs), optimizer="adamw", lr_factor=1.0)
            for quantity, scale in [("late_norm_ratio", radius), ("late_angle", 1.0)]:
                values = measured(results.tables, experiment, chosen, quantity)
                values = values[values["layer"].str.split(".").str[-1].isin(kinds)]["value"]
                found.append(f"${number(scale * values.median())}$" if len(values) else MISSING)
        shape = rf"${outputs * width}\times{inputs * width}$"
        settings = [f"${number(round(float(x), 6))}$" for x in (rms, lr, decay / 2, radius, theta)]
        rows.append([title, shape, *settings, *found])
    header = ["Matrices", "shape", r"$\rho$", r"$\eta$", r"$\lambda$", "$R$", r"$\theta_0$"]
    header += [r"$\|W\|_F$", "angle", r"$\|W\|_F$", "angle"]
    groups = [
        ("AdamW", 4, 5),
        ("constraint", 6, 7),
        ("measured, before branches", 8, 9),
        ("after every matrix", 10, 11),
    ]
    return Table("llrrrrrrrrr", header, rows, groups)


def late_losses(results: Results) -> Table:
    """The late validation loss of every arm, with its interval over seeds, and how the arm ended."""
    rows: list[list[str]] = []
    last = None
    runs = results.tables.runs()
    places = {name: n for n, name in enumerate((*RMS_NORMS, *ARMS))}
    order = runs[["rms_norm", "optimizer"]].map(places.__getitem__)
    runs = runs.assign(norm=order["rms_norm"], arm=order["optimizer"])
    for names, group in arms(runs.sort_values(["norm", "arm", "decay_per_step", "lr_factor", "initial_norm"])):
        if last not in (None, names["rms_norm"]):
            rows.append([])
        last = names["rms_norm"]
        try:
            loss = mean_interval(losses(group[group["lost"].isna()]))
        except Undecidable:
            loss = Estimate(np.nan, np.nan, np.nan)
        rows.append(
            [
                NAMES[names["rms_norm"]],
                NAMES[names["optimizer"]],
                f"$1/{1 / names['decay_per_step']:.0f}$",
                f"${names['lr_factor']:g}$",
                f"${names['initial_norm']:g}$",
                fixed(1000 * angle(group.iloc[0]), 1),
                thousands(len(group)),
                thousands(int(group["lost"].notna().sum())),
                interval(loss, digits=3),
                fixed(1000 * (group["seconds"] / group["diverged"].fillna(group["steps"])).median(), 1),
            ]
        )
    header = ["RMSNorm", "Optimizer", "$e$", "$f$", r"start$/R$", "mrad", "seeds", "lost", "late loss, nats", "ms/step"]
    return Table("llrrrrrrlr", header, rows)


def second_registration(results: Results) -> Table:
    """The verdicts before the third registration, which a committed file has, and those of now."""
    return earlier_verdicts(results, ["", "Claim", "parts reproduced then", "Verdict then", "Verdict now"])
