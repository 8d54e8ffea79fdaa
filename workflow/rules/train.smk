# Prepared data -> <study>/shards/<shard>.parquet: what the runs of one job measured, with their provenance. Finished runs and
# checkpoints lie beside them in <study>/runs, which no rule declares: what a killed job had finished stays.


include: "train_functions.smk"


wildcard_constraints:
    shard="[a-z0-9._-]+",


rule train:
    """Train the runs of one shard, except those that the run cache holds, from their checkpoints where there are any."""
    input:
        unpack(shard_data),
    output:
        f"{RESULTS}/{{study}}/shards/{{shard}}.parquet",
    log:
        f"{RESULTS}/{{study}}/logs/{{shard}}.log",
    priority: shard_priority
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=int(CONFIG.device == "cuda"),
        runtime=shard_minutes,
        mem_mb=shard_megabytes,
    params:
        runs=shard_runs,
        key=shard_code,
        job=code.sources(["engine.jobs"]),
        cache=f"{RESULTS}/{{study}}",
        data=data_options,
    shell:
        "python -m effective_lr train --study {wildcards.study} --runs {params.runs:q} --code {params.key}"
        " --cache {params.cache:q}/runs {params.data} --output {output:q} 2>&1 | tee -i {log:q}"
