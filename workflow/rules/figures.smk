# The experiments that each figure shows.
FIGURES = {
    "figure_1": ["plane_sgd"],
    "figure_2": ["plane_sgd", "plane_nesterov", "plane_adam", "rmsprop", "normalizations"],
    "figure_3": [
        "plane_sgd",
        "projection_sgd",
        "plane_nesterov",
        "projection_nesterov",
        "plane_adam",
        "projection_adam",
    ],
    "figure_4": ["plane_sgd", "plane_nesterov", "plane_adam", "rmsprop", "adamw"],
    "figure_5": ["plane_sgd", "plane_nesterov", "plane_adam", "rmsprop", "adamw"],
    "figure_6": ["plane_sgd", "normalizations", "symmetry"],
    "figure_7": ["growth"],
    "figure_8": ["lr_drop"],
}


wildcard_constraints:
    figure="|".join(FIGURES),


rule figure:
    """Draw a figure from the tables of its experiments."""
    input:
        tables=figure_tables,
        style="workflow/effective_lr/style.mplstyle",
    output:
        f"{BUILD}/{{figure}}.pdf",
    log:
        f"{RESULTS}/logs/{{figure}}.log",
    conda:
        "../../environment.yml"
    params:
        code=sources("figures", "notation", "analysis", "theory"),
    shell:
        "python -m effective_lr.figures {wildcards.figure} --tables {input.tables} --output {output} 2>&1 | tee {log}"
