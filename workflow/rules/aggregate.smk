def experiment_shards(wildcards):
    return shards_of([wildcards.experiment])


def experiment_runs(wildcards):
    return json.dumps([run.run_id for run in EXPERIMENTS[wildcards.experiment]])


rule aggregate:
    """Gather an experiment: all that its runs measured, and one summary line for each run."""
    input:
        experiment_shards,
    output:
        metrics=f"{RESULTS}/experiments/{{experiment}}.metrics.parquet",
        runs=f"{RESULTS}/experiments/{{experiment}}.runs.parquet",
    log:
        f"{RESULTS}/logs/aggregate-{{experiment}}.log",
    params:
        runs=experiment_runs,
        code=sources("analysis", "theory"),
    shell:
        "{PYTHON} -m effective_lr.analysis --run-ids {params.runs:q} --metrics {output.metrics} --runs {output.runs}"
        " {input} 2>&1 | tee {log}"


wildcard_constraints:
    experiment="|".join(EXPERIMENTS),
