def shard_data(wildcards):
    """The data of a shard. Its record is compared by content; the tensors are too large for that, and the job checks
    them against the record."""
    data = DATA.format(SHARDS[wildcards.shard][0])
    return {"record": f"{data}.json", "tensors": ancient(f"{data}.pt")}


def shard_runs(wildcards):
    return grid.to_json(SHARDS[wildcards.shard])


# The allocator keeps its memory instead of returning it after every step: faster, the same results.
KEEP_MEMORY = "MALLOC_MMAP_THRESHOLD_=4000000000 MALLOC_TRIM_THRESHOLD_=8000000000"


rule train:
    """Train the runs of one shard, except those that the run cache holds."""
    input:
        unpack(shard_data),
    output:
        f"{RESULTS}/shards/{{shard}}.parquet",
    log:
        f"{RESULTS}/logs/{{shard}}.log",
    params:
        runs=shard_runs,
        code=grid.code_fingerprint(grid.TRAINING_SOURCES),
    threads: 1
    shell:
        "{KEEP_MEMORY} {PYTHON} -m effective_lr.training --runs {params.runs:q} --code {params.code}"
        " --tensors {input.tensors} --record {input.record} --cache {RESULTS}/runs"
        " --device {CONFIG.device} {RETRAIN} --output {output} 2>&1 | tee {log}"


RETRAIN = "--retrain" if CONFIG.retrain else ""


wildcard_constraints:
    shard="[a-z0-9._-]+",
