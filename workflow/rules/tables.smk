"""Tidy tables of experiments, the tables of results, and the verdicts on the poster's claims."""


rule runs:
    """Every field of every run, once: all other tables name a run."""
    input:
        code=sources("sharpness.stages.runs"),
    output:
        table=FOLDER.table(RUNS),
        cost=FOLDER.benchmark(RUNS),
    log:
        FOLDER.log(RUNS),
    localrule: True
    conda:
        "../../environment.yml"
    params:
        table=lambda wildcards: pack(["--table", as_csv(STUDY.runs.values())]),
    shell:
        "python -m sharpness.stages.runs {params.table} --output {output.table:q}"
        " --benchmark {output.cost:q} 2> {log:q}"


rule collect:
    """Put one measurement of all runs of an experiment into one tidy table."""
    input:
        tables=tables_of_runs,
        code=sources("sharpness.stages.collect"),
    output:
        table=FOLDER.table("{experiment}_{measurement}"),
        cost=FOLDER.benchmark("collect-{experiment}_{measurement}"),
    log:
        FOLDER.log("collect-{experiment}_{measurement}"),
    localrule: True
    conda:
        "../../environment.yml"
    params:
        words=words_of_collected,
    shell:
        "python -m sharpness.stages.collect --experiment {wildcards.experiment} --measurement {wildcards.measurement}"
        " {params.words}"
        " --output {output.table:q}"
        " --benchmark {output.cost:q} 2> {log:q}"


rule results_table:
    """The table of results, for reading, for a paper and for computing."""
    input:
        history=FOLDER.table("{table}_history"),
        spectrum=FOLDER.table("{table}_spectrum"),
        code=sources("sharpness.stages.results_table"),
    output:
        markdown=FOLDER.table("{table}", "md"),
        tex=FOLDER.table("{table}", "tex"),
        csv=report(
            FOLDER.table("{table}"),
            caption=caption(CAPTIONS / "results_table.md"),
            category="Tables",
            labels={"table": "{table}"},
        ),
        cost=FOLDER.benchmark("{table}"),
    log:
        FOLDER.log("{table}"),
    localrule: True
    conda:
        "../../environment.yml"
    params:
        runs=lambda wildcards: words_of_runs(wildcards.table),
        validation_epoch=STUDY.config["validation_epoch"],
        measured=lambda wildcards: STUDY.caption_for_people(wildcards.table),
    shell:
        "python -m sharpness.stages.results_table --history {input.history:q} --spectrum {input.spectrum:q} {params.runs}"
        " --validation-epoch {params.validation_epoch} --caption {params.measured:q}"
        " --markdown {output.markdown:q} --tex {output.tex:q} --csv {output.csv:q}"
        " --benchmark {output.cost:q} 2> {log:q}"


rule agreement:
    """What cheaper settings change, beside the spread over seeds."""
    input:
        history=FOLDER.table("{agreement}_history"),
        spectrum=FOLDER.table("{agreement}_spectrum"),
        code=sources("sharpness.stages.agreement"),
    output:
        markdown=FOLDER.table("{agreement}", "md"),
        csv=FOLDER.table("{agreement}"),
        cost=FOLDER.benchmark("{agreement}"),
    log:
        FOLDER.log("{agreement}"),
    localrule: True
    conda:
        "../../environment.yml"
    params:
        runs=lambda wildcards: words_of_runs(wildcards.agreement),
        measured=lambda wildcards: STUDY.caption_for_people(wildcards.agreement),
    shell:
        "python -m sharpness.stages.agreement --history {input.history:q} --spectrum {input.spectrum:q} {params.runs}"
        " --caption {params.measured:q} --markdown {output.markdown:q} --csv {output.csv:q}"
        " --benchmark {output.cost:q} 2> {log:q}"


rule claims:
    """A verdict on every claim of the poster, from all experiments."""
    input:
        tables=list(collected_tables().values()),
        runs=rules.runs.output.table,
        code=sources("sharpness.stages.claims"),
    output:
        markdown=FOLDER.table("claims", "md"),
        csv=report(
            FOLDER.table("claims"),
            caption=caption(CAPTIONS / "claims.md"),
            category="Tables",
            labels={"table": "claims"},
        ),
        cost=FOLDER.benchmark("claims"),
    log:
        FOLDER.log("claims"),
    localrule: True
    conda:
        "../../environment.yml"
    params:
        kinds=[STUDY.experiments[name].kind for name, _ in collected_tables()],
        measurements=[measurement for _, measurement in collected_tables()],
        settings=STUDY.settings_of_spectra,
        planned=lambda wildcards: pack(["--planned", as_csv(STUDY.runs.values())]),
        study=DIGEST,
    shell:
        "python -m sharpness.stages.claims --kinds {params.kinds} --measurements {params.measurements}"
        " --tables {input.tables:q} --runs {input.runs:q} --settings {params.settings:q} {params.planned}"
        " --markdown {output.markdown:q} --csv {output.csv:q} --study={params.study}"
        " --benchmark {output.cost:q} 2> {log:q}"
