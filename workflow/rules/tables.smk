# The experiments that each generated piece of LaTeX rests on.
TABLES = {
    "table_1": [],
    "table_2": ["plane_sgd", "plane_nesterov", "plane_adam", "rmsprop", "normalizations"],
    "table_3": [],
    "table_4": [],
    "table_5": ["plane_sgd", "plane_nesterov", "plane_adam", "rmsprop", "adamw"],
    "table_7": list(EXPERIMENTS),
    "table_8": list(EXPERIMENTS),
    "table_9": ["plane_sgd", "starting_norms", "norm_eps", "affine_penalty", "running_statistics", "shared_affine_lr"],
    "macros": list(EXPERIMENTS),
}


# The claims whose verdicts and numbers it shows.
TABLE_CLAIMS = {"table_1": ["C3", "C5"], "table_3": list(CLAIMS), "macros": list(CLAIMS)}


wildcard_constraints:
    table="|".join(TABLES),


rule table:
    """Write a table of the paper, or the macros that hold the numbers of its sentences."""
    input:
        tables=table_tables,
        claims=table_claims,
        checks=table_checks,
    output:
        f"{BUILD}/{{table}}.tex",
    log:
        f"{RESULTS}/logs/{{table}}.log",
    conda:
        "../../environment.yml"
    params:
        scale=SCALE_NAME,
        watermark=SCALE.watermark,
        code=sources("tables", "notation", "analysis", "theory", "config"),
    shell:
        "python -m effective_lr.tables {wildcards.table} --scale {params.scale} --watermark={params.watermark:q}"
        " --tables {input.tables} --claims {input.claims} --checks {input.checks} --output {output} 2>&1 | tee {log}"


rule benchmark_table:
    """Write the table of training speed from the published measurement, which `make bench` repeats on another machine."""
    input:
        "results/published/benchmark.json",
    output:
        f"{BUILD}/table_6.tex",
    log:
        f"{RESULTS}/logs/table_6.log",
    conda:
        "../../environment.yml"
    params:
        code=sources("benchmark", "tables"),
    shell:
        "python -m effective_lr.benchmark table --input {input} --output {output} 2>&1 | tee {log}"
