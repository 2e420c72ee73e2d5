"""The report: all that the study found, on one page that opens without a network; and the study itself, whole."""


rule effective_study:
    """Keep the whole study, defaults included, beside its results."""
    input:
        code=sources("sharpness.stages.effective_study"),
    output:
        study=FOLDER.study,
        cost=FOLDER.benchmark("effective-study"),
    log:
        FOLDER.log("effective-study"),
    localrule: True
    conda:
        "../../environment.yml"
    params:
        lines=lambda wildcards: pack(["--lines", *as_yaml(STUDY.whole).splitlines()]),
    shell:
        "python -m sharpness.stages.effective_study {params.lines} --output {output.study:q}"
        " --benchmark {output.cost:q} 2> {log:q}"


rule report:
    """Findings, figures, tables and what ran. Dates and costs stand here only, so that all else is the same in every run."""
    input:
        claims=rules.claims.output.csv,
        images=[FOLDER.figure(name, "png") for name in STUDY.figures],
        drawn_anew=[FOLDER.table(table) for table in STUDY.interactive.values()],
        texts=[FOLDER.table(name, "md") for name in STUDY.result_tables],
        captions=sorted(
            PROJECT / "workflow" / "report" / f"{name}.md"
            for name in {
                "claims",
                *STUDY.result_tables.values(),
                *(function for function, _ in STUDY.figures.values()),
            }
        ),
        histories=tables_of("history"),
        spectra=tables_of("spectrum"),
        runs=TABLE_OF_RUNS,
        citation=PROJECT / "CITATION.cff",
        template=SOURCE / "sharpness" / "report" / "report.html.jinja",
        code=sorted(
            {
                *sources("sharpness.stages.report"),
                *(
                    source
                    for function, _ in STUDY.figures.values()
                    for source in sources(f"sharpness.analysis.figures.{function}")
                ),
            }
        ),
    output:
        page=FOLDER.report,
        cost=FOLDER.benchmark("report"),
    log:
        FOLDER.log("report"),
    localrule: True
    conda:
        "../../environment.yml"
    params:
        study=STUDY.name,
        digest=DIGEST,
        results=lambda wildcards, output: str(Path(output.page).parents[1 if ROOT else 0]),
        jobs=pack(flags("jobs", asdict(jobs_of(STUDY)))),
        names=list(STUDY.figures),
        functions=[function for function, _ in STUDY.figures.values()],
        measured=[STUDY.caption_for_people(experiment.name) for _, experiment in STUDY.figures.values()],
        interactive=list(STUDY.interactive),
        tables=list(STUDY.result_tables),
        kinds=list(STUDY.result_tables.values()),
    shell:
        "python -m sharpness.stages.report --study {params.study} --digest={params.digest} --results {params.results:q} {params.jobs} --claims {input.claims:q}"
        " --figures.names {params.names} --figures.functions {params.functions} --figures.measured {params.measured:q}"
        " --figures.images {input.images:q} --interactive.names {params.interactive}"
        " --interactive.tables {input.drawn_anew:q} --tables.names {params.tables} --tables.kinds {params.kinds}"
        " --tables.texts {input.texts:q} --captions {input.captions:q} --histories {input.histories:q}"
        " --spectra {input.spectra:q}"
        " --runs {input.runs:q}"
        " --citation {input.citation:q} --output {output.page:q}"
        " --benchmark {output.cost:q} 2> {log:q}"
