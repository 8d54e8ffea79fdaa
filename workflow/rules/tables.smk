# The experiments that each generated piece of LaTeX rests on.
TABLES = {
    "table_1": ["rescaling", "plane_sgd", "plane_nesterov", "plane_adam", "rmsprop"],
    "table_2": ["plane_sgd", "plane_nesterov", "plane_adam", "rmsprop", "normalizations"],
    "settings": list(EXPERIMENTS),
    "macros": list(EXPERIMENTS),
}


def table_tables(wildcards):
    return tables_of(TABLES[wildcards.table])


rule table:
    """Write a table of the paper, or the macros that hold the numbers of its sentences."""
    input:
        table_tables,
    output:
        f"{BUILD}/{{table}}.tex",
    log:
        f"{RESULTS}/logs/{{table}}.log",
    params:
        scale=json.dumps([CONFIG.scale, SCALE.watermark]),
        code=sources("tables", "notation", "analysis", "theory", "config"),
    shell:
        "{PYTHON} -m effective_lr.tables {wildcards.table} --scale {CONFIG.scale} --watermark {SCALE.watermark:q}"
        " --tables {RESULTS}/experiments --output {output} 2>&1 | tee {log}"


wildcard_constraints:
    table="|".join(TABLES),
