# What train.smk asks: which runs a shard has, on which data, and what to ask a scheduler for.

from effective_lr.engine import limits


def shard_of(wildcards):
    """The study of a shard and its runs."""
    chapter = CHAPTERS[wildcards.study]
    return chapter.study, chapter.shards[wildcards.shard]


def shard_data(wildcards):
    study, runs = shard_of(wildcards)
    return prepared_data(study.data(runs[0]))


def shard_runs(wildcards):
    return grid.to_json(shard_of(wildcards)[1])


KEYS = {study: code.training_key(chapter.study) for study, chapter in CHAPTERS.items()}


def shard_code(wildcards):
    return KEYS[wildcards.study]


def shard_minutes(wildcards, attempt):
    return limits.time_limit(*shard_of(wildcards), CONFIG.device == "cuda", attempt)


def shard_priority(wildcards):
    """The longest first, so that none is left to run alone at the end."""
    return shard_minutes(wildcards, attempt=1)


def shard_megabytes(wildcards, attempt):
    study, runs = shard_of(wildcards)
    return limits.memory_limit(study, runs[0], attempt)


def data_options(wildcards, input):
    return f"--tensors {input.tensors} --record {input.record}" if "record" in input.keys() else ""
