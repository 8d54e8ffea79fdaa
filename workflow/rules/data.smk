rule data:
    """Prepare a dataset at one resolution, checked against the sums of its authors' files."""
    output:
        tensors="results/data/{dataset}-{resolution}.pt",
        record="results/data/{dataset}-{resolution}.json",
    log:
        "results/data/{dataset}-{resolution}.log",
    conda:
        "../../environment.yml"
    params:
        folder=CONFIG.data_folder,
        code=sources("data", "config"),
    shell:
        "python -m effective_lr.data --dataset {wildcards.dataset} --resolution {wildcards.resolution}"
        " --folder {params.folder:q} --tensors {output.tensors} --record {output.record} 2>&1 | tee {log}"
