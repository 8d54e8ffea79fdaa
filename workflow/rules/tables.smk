# The experiments that each generated piece of LaTeX rests on.
TABLES = {
    "table_1": ["rescaling", "plane_sgd", "plane_nesterov", "plane_adam", "rmsprop"],
    "table_2": ["plane_sgd", "plane_nesterov", "plane_adam", "rmsprop", "normalizations"],
    "settings": list(EXPERIMENTS),
    "macros": list(EXPERIMENTS),
}


wildcard_constraints:
    table="|".join(TABLES),


rule table:
    """Write a table of the paper, or the macros that hold the numbers of its sentences."""
    input:
        table_tables,
    output:
        f"{BUILD}/{{table}}.tex",
    log:
        f"{RESULTS}/logs/{{table}}.log",
    conda:
        "../../environment.yml"
    params:
        scale=CONFIG.scale,
        watermark=SCALE.watermark,
        code=sources("tables", "notation", "analysis", "theory", "config"),
    shell:
        "python -m effective_lr.tables {wildcards.table} --scale {params.scale} --watermark={params.watermark:q}"
        " --tables {input} --output {output} 2>&1 | tee {log}"
