# The experiments that each figure shows.
FIGURES = {
    "figure_1": ["plane_sgd"],
    "figure_2": ["plane_sgd", "plane_nesterov", "plane_adam"],
    "figure_3": [
        "projection_sgd",
        "plane_nesterov",
        "projection_nesterov",
        "plane_adam",
        "projection_adam",
    ],
}


def tables_of(experiments):
    return [f"{RESULTS}/experiments/{name}.{kind}.parquet" for name in experiments for kind in ("metrics", "runs")]


def figure_tables(wildcards):
    return tables_of(FIGURES[wildcards.figure])


rule figure:
    """Draw a figure from the tables of its experiments."""
    input:
        figure_tables,
    output:
        f"{BUILD}/{{figure}}.pdf",
    log:
        f"{RESULTS}/logs/{{figure}}.log",
    params:
        code=sources("figures", "notation", "analysis", "theory"),
    shell:
        "{PYTHON} -m effective_lr.figures {wildcards.figure} --tables {RESULTS}/experiments --output {output} 2>&1 | tee {log}"


wildcard_constraints:
    figure="|".join(FIGURES),
