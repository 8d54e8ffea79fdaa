# The modules of the package that each notebook rests on.
NOTEBOOKS = {
    "1_theory": ["analysis", "config", "figures", "notation", "storage", "theory"],
    "2_one_run": [
        "analysis",
        "config",
        "data",
        "figures",
        "grid",
        "networks",
        "notation",
        "optimizers",
        "storage",
        "theory",
        "training",
    ],
    "3_results": ["analysis", "config", "figures", "grid", "notation", "storage", "theory"],
}


wildcard_constraints:
    notebook="|".join(NOTEBOOKS),


rule notebook:
    """Execute a notebook and write it as a page. A cell that fails, fails the job; the logs keep what ran until then."""
    input:
        unpack(notebook_inputs),
        source="notebooks/{notebook}.py",
        style="workflow/effective_lr/style.mplstyle",
    output:
        notebook=f"{RESULTS}/notebooks/{{notebook}}.ipynb",
        page=report(
            f"{RESULTS}/notebooks/{{notebook}}.html",
            caption="../report/notebook.rst",
            category="Notebooks",
            labels={"notebook": "{notebook}"},
        ),
    log:
        text=f"{RESULTS}/logs/notebook-{{notebook}}.log",
        notebook=f"{RESULTS}/logs/notebook-{{notebook}}.ipynb",
    conda:
        "../../environment.yml"
    params:
        parameters=notebook_parameters,
        scale=notebook_scale,
        code=notebook_code,
    shell:
        "python -m effective_lr.notebooks {input.source} --parameters {params.parameters:q} --executed {log.notebook}"
        " --notebook {output.notebook} --page {output.page} > {log.text} 2>&1 || (tail -n 1 {log.text} >&2; exit 1)"
