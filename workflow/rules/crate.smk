# What a run was given and what it made -> paper/build/<scale>/crate.zip, a Workflow Run RO-Crate.


GIVEN = [ROOT / "config/config.yaml"]
MADE = [*rules.pdf.output]
for study, chapter in CHAPTERS.items():
    GIVEN += grid.scale_files(contents.config_folder(ROOT, study), CONFIG.scale_name)
    GIVEN += [ROOT / "paper" / study / "claims.yaml"]
    if PUBLISHED:
        GIVEN += [*shards_of(study, chapter.experiments), checks_of(study)]
    else:
        data = {chapter.study.data(run) for run in chapter.runs_of(list(chapter.experiments))}
        GIVEN += [prepared_data(name)["record"] for name in sorted(filter(None, data))]
        MADE += [checks_of(study)]
    MADE += [*claims_of(study, chapter.claims), *tables_of(study, chapter.experiments)]


rule bundle:
    """Bundle the run with its provenance, as a Workflow Run RO-Crate."""
    input:
        given=list(dict.fromkeys(map(str, GIVEN))),
        made=MADE,
    output:
        f"{BUILD}/crate.zip",
    log:
        f"{RESULTS}/crate.log",
    conda:
        "../../environment.yml"
    params:
        config=CONFIG.model_dump_json(),
        agent=os.environ.get("AGENT", ""),
        code=code.sources(["document.crate"]),
    shell:
        "python -m effective_lr crate --config {params.config:q} --agent={params.agent:q} --given {input.given:q}"
        " --made {input.made:q} --output {output:q} 2>&1 | tee -i {log:q}"
