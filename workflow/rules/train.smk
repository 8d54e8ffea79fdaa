# Prepared data -> <study>/jobs/<job>.parquet: what the runs of one job measured, with their provenance. Finished runs and
# checkpoints lie beside them in <study>/runs, which no rule declares: what a killed job had finished stays.

KEYS = {} if LAYOUT.is_published else {study: code.training_key(chapter.study) for study, chapter in CHAPTERS.items()}

# Who waits for the paper has something to look at: the jobs of its first two figures come before all others.
FIGURES = [one for one in MANUSCRIPT.floats if one.kind == "figure" and one.study in CHAPTERS]
FIRST = {
    (one.study, table.stem)
    for one in FIGURES[:2]
    for table in LAYOUT.tables_of(one.study, CHAPTERS[one.study].contents.figures[one.item])
}

# Of this machine; a cluster gives each job its own. A job that needs more than there is runs alone.
if workflow.resource_settings.nodes is None and "mem_mb" not in workflow.global_resources:
    NEEDED = [resources.memory_limit(chapter.study, chapter.runs) for chapter in CHAPTERS.values()]
    workflow.register_resource("mem_mb", max([resources.available_megabytes(), *NEEDED]))


rule train:
    """Train the runs of one job, except those in the run cache, from their checkpoints where they have one."""
    input:
        unpack(lambda wildcards: prepared(data_of(job_of(wildcards)[0], job_of(wildcards)[1][0]))),
    output:
        f"{RESULTS}/{{study}}/jobs/{{job}}.parquet",
    log:
        f"{RESULTS}/{{study}}/logs/{{job}}.log",
    # then the longest first, by minutes
    priority: lambda wildcards: resources.time_limit(*job_of(wildcards)) + 5000 * (tuple(wildcards) in FIRST)
    conda:
        "../../environment.yml"
    resources:
        gpu=int(CONFIG.device == "cuda"),
        runtime=lambda wildcards, attempt: resources.time_limit(*job_of(wildcards), attempt, CONFIG.device == "cuda"),
        mem_mb=lambda wildcards, attempt: resources.memory_limit(*job_of(wildcards), attempt),
    params:
        runs=lambda wildcards: grid.runs_hash(job_of(wildcards)[1]),
        key=lambda wildcards: KEYS[wildcards.study],
        code=code_of("engine.jobs"),
    shell:
        command(
            "train --study {wildcards.study} --job {wildcards.job} --code {params.key} --runs-hash {params.runs}"
            " --output {output:q}"
        )
