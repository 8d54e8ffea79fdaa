wildcard_constraints:
    shard="[a-z0-9._-]+",


rule train:
    """Train the runs of one shard, except those that the run cache holds, from their checkpoints where there are any."""
    input:
        unpack(shard_data),
    output:
        f"{RESULTS}/shards/{{shard}}.parquet",
    log:
        f"{RESULTS}/logs/{{shard}}.log",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=int(CONFIG.device == "cuda"),
        runtime=shard_minutes,
        mem_mb=shard_megabytes,
    params:
        runs=shard_runs,
        code=grid.code_fingerprint(grid.TRAINING_SOURCES),
        job=sources("jobs", "devices", "storage"),
        cache=f"{RESULTS}/runs",
    shell:
        "python -m effective_lr.jobs --runs {params.runs:q} --code {params.code} --cache {params.cache}"
        " --tensors {input.tensors} --record {input.record} --output {output} 2>&1 | tee {log}"
