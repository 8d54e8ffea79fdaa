# Prepared data -> <study>/shards/<shard>.parquet: what the runs of one job measured, with their provenance. Finished runs and
# checkpoints lie beside them in <study>/runs, which no rule declares: what a killed job had finished stays.

from effective_lr.engine import limits


wildcard_constraints:
    shard="[a-z0-9._-]+",


def shard_of(wildcards):
    """The study of a shard and its runs."""
    chapter = CHAPTERS[wildcards.study]
    return chapter.study, chapter.shards[wildcards.shard]


def shard_data(wildcards):
    study, runs = shard_of(wildcards)
    return prepared_data(study.data(runs[0]))


def shard_runs(wildcards):
    return grid.to_json(shard_of(wildcards)[1])


def shard_code(wildcards):
    return code.training_key(CHAPTERS[wildcards.study].study)


def shard_minutes(wildcards, attempt):
    return limits.time_limit(*shard_of(wildcards), CONFIG.device == "cuda", attempt)


def shard_megabytes(wildcards, attempt):
    study, runs = shard_of(wildcards)
    return limits.memory_limit(study, runs[0], attempt)


def data_options(wildcards, input):
    return f"--tensors {input.tensors} --record {input.record}" if "record" in input.keys() else ""


def longest_first(wildcards):
    """Its arithmetic, as Snakemake's priority: a long shard that starts last would run alone at the end."""
    study, runs = shard_of(wildcards)
    return int(sum(map(study.operations, runs)) / 1e9)


rule train:
    """Train the runs of one shard, except those that the run cache holds, from their checkpoints where there are any."""
    input:
        unpack(shard_data),
    output:
        f"{RESULTS}/{{study}}/shards/{{shard}}.parquet",
    log:
        f"{RESULTS}/{{study}}/logs/{{shard}}.log",
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
