"""The report: all that the study found, on one page that opens without a network."""

# The figures in the order of the study: name and function, and the experiment they are of.
SHOWN = {
    (name, function): experiment
    for experiment in STUDY.experiments.values()
    for name, function in experiment.figures.items()
}
# Those that the report shows once more, to explore, with the table that each is drawn from.
INTERACTIVE = {
    name: f"{RESULTS}/tables/{experiment.name}_{function}.csv"
    for (name, function), experiment in SHOWN.items()
    if function in ("spectrum", "slices")
}
# The tables of results by name, and the caption of each.
RESULT_TABLES = {
    name: {"table": "results_table", "agreement": "agreement_table"}[experiment.kind]
    for name, experiment in STUDY.experiments.items()
    if experiment.kind in ("table", "agreement")
}


rule report:
    """Findings, figures, tables and what ran. Dates and costs stand here only, so that all else is the same in every run."""
    input:
        claims=rules.claims.output.csv,
        images=[f"{RESULTS}/figures/{name}.png" for name, _ in SHOWN],
        drawn_anew=list(INTERACTIVE.values()),
        texts=[f"{RESULTS}/tables/{name}.md" for name in RESULT_TABLES],
        captions=sorted(
            PROJECT / "workflow" / "report" / f"{name}.md"
            for name in {"claims", *RESULT_TABLES.values(), *(function for _, function in SHOWN)}
        ),
        histories=[table for (_, measurement), table in collected_tables().items() if measurement == "history"],
        citation=PROJECT / "CITATION.cff",
        template=SOURCE / "sharpness" / "report.html.jinja",
        code=sorted(
            {
                *sources("sharpness.stages.report"),
                *(source for _, function in SHOWN for source in sources(f"sharpness.figures.{function}")),
            }
        ),
    output:
        page=f"{RESULTS}/report.html",
    log:
        f"{RESULTS}/logs/report.log",
    benchmark:
        f"{RESULTS}/benchmarks/report.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    params:
        study=STUDY.name,
        results=lambda wildcards, output: str(Path(output.page).parent),
        names=[name for name, _ in SHOWN],
        functions=[function for _, function in SHOWN],
        measured=[STUDY.caption(experiment.name) for experiment in SHOWN.values()],
        interactive=list(INTERACTIVE),
        tables=list(RESULT_TABLES),
        kinds=list(RESULT_TABLES.values()),
    shell:
        "python -m sharpness.stages.report --study {params.study} --results {params.results:q} --claims {input.claims:q}"
        " --figures.names {params.names} --figures.functions {params.functions} --figures.measured {params.measured:q}"
        " --figures.images {input.images:q} --interactive.names {params.interactive}"
        " --interactive.tables {input.drawn_anew:q} --tables.names {params.tables} --tables.kinds {params.kinds}"
        " --tables.texts {input.texts:q} --captions {input.captions:q} --histories {input.histories:q}"
        " --citation {input.citation:q} --output {output.page:q} 2> {log:q}"
