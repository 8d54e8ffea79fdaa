wildcard_constraints:
    experiment="|".join(EXPERIMENTS),


rule aggregate:
    """Gather an experiment: all that its runs measured, and one summary line for each run."""
    input:
        experiment_shards,
    output:
        metrics=f"{RESULTS}/experiments/{{experiment}}.metrics.parquet",
        runs=f"{RESULTS}/experiments/{{experiment}}.runs.parquet",
    log:
        f"{RESULTS}/logs/aggregate-{{experiment}}.log",
    conda:
        "../../environment.yml"
    params:
        runs=experiment_runs,
        code=sources("analysis", "theory", "storage"),
    shell:
        "python -m effective_lr.analysis --run-ids {params.runs:q} --metrics {output.metrics} --runs {output.runs}"
        " {input} 2>&1 | tee {log}"
