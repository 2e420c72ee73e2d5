"""The report: all that the study found, on one page that opens without a network; and the study itself, whole."""


rule effective_study:
    """Keep the whole study, defaults included, beside its results."""
    input:
        code=sources("sharpness.stages.effective_study"),
    output:
        study=FOLDER.study,
        cost=FOLDER.benchmark("effective_study"),
    log:
        FOLDER.log("effective_study"),
    localrule: True
    conda:
        "../../environment.yml"
    params:
        lines=lambda wildcards: pack(["--lines", *as_yaml(STUDY.whole).splitlines()]),
    shell:
        "python -m sharpness.stages.effective_study {params.lines} --output {output.study:q}"
        " --benchmark {output.cost:q} 2> {log:q}"


# Copied without its documentation, the project tells them in short.
RULES_OF_CLAIMS = [path for path in (PROJECT / "docs" / "claims.md",) if path.exists()]


# As its author would type it in the project's folder, and the same where the project was moved.
FILE_OF_STUDY = Path(workflow.configfiles[0]).resolve() if workflow.configfiles else Path(FOLDER.study)
if FILE_OF_STUDY.is_relative_to(PROJECT.resolve()):
    FILE_OF_STUDY = FILE_OF_STUDY.relative_to(PROJECT.resolve())


rule report:
    """Findings, figures, tables and what ran. Dates and costs stand here only, so that all else is the same in every run."""
    input:
        study=rules.effective_study.output.study,
        claims=[rules.claims.output.csv, rules.claims.output.markdown],
        images=[FOLDER.figure(name, "png") for name in (*STUDY.figures, *DRAWN)],
        tables=[*collected_tables().values(), *expand(rules.collect_own.output.table, probed=PROBED)],
        texts=[FOLDER.table(name, "md") for name in STUDY.result_tables],
        captions=sorted(
            PROJECT / "workflow" / "report" / f"{name}.md"
            for name in {
                "claims",
                *STUDY.result_tables.values(),
                *(function for function, _ in STUDY.figures.values()),
            }
        ),
        runs=rules.runs.output.table,
        rules=RULES_OF_CLAIMS,
        citation=PROJECT / "CITATION.cff",
        assets=[
            SOURCE / "sharpness" / "report" / name
            for name in ("report.html.jinja", "report.css", "charts.js", "explorer.js")
        ],
        # What a user's own code says of itself is the caption.
        own=lambda wildcards: own.sources(*(code for _, code in [*PROBED.values(), *DRAWN.values()])),
        code=sources(
            "sharpness.stages.report",
            *dict.fromkeys(f"sharpness.analysis.figures.{function}" for function, _ in STUDY.figures.values()),
            name=f"report-{STUDY.name}",
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
        digest=DIGEST,
        folder=lambda wildcards, output: str(Path(output.page).parent),
        captions=lambda wildcards, input: str(Path(input.captions[0]).parent),
        rules=[word for path in RULES_OF_CLAIMS for word in ("--rules", str(path))],
        file=lambda wildcards: str(FILE_OF_STUDY),  # by a function: braces in it are no wildcards
        results=lambda wildcards, output: str(Path(output.page).parents[1 if ROOT else 0]),
    shell:
        "python -m sharpness.stages.report --folders {params.folder:q} --results {params.results:q} --digest={params.digest}"
        " --study-files {params.file:q} --captions {params.captions:q} {params.rules:q}"
        " --citation {input.citation:q} --output {output.page:q}"
        " --benchmark {output.cost:q} 2> {log:q}"
