# Raw files -> results/data/<dataset>.pt, checked tensors, and .json, a record of their content.

OPTIONAL = set().union(*(chapter.study.optional_data for chapter in CHAPTERS.values()))


rule data:
    """Prepare a dataset, checked against the sums of its authors' files."""
    output:
        tensors="results/data/{dataset}.pt",
        record="results/data/{dataset}.json",
    log:
        "results/data/{dataset}.log",
    priority: 10_000  # trainings, whose priorities are minutes, wait for it
    retries: 2  # of a download
    conda:
        "../../environment.yml"
    params:
        folder=CONFIG.data_folder,
        optional=lambda wildcards: "--is-optional" if wildcards.dataset in OPTIONAL else "",
        code=code_of("prepare.catalog"),
    shell:
        "python -m effective_lr prepare --name {wildcards.dataset} --folder {params.folder:q} {params.optional}"
        " --tensors {output.tensors:q} --record {output.record:q} 2>&1 | tee -i {log:q}"
