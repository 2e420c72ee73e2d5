"""Tidy tables of experiments, the tables of results, and the verdicts on the poster's claims."""


rule runs:
    """Every field of every run, once: all other tables name a run."""
    input:
        code=sources("sharpness.stages.runs"),
    output:
        table=f"{RESULTS}/tables/{RUNS}.csv",
        cost=f"{RESULTS}/benchmarks/{RUNS}.csv",
    log:
        f"{RESULTS}/logs/{RUNS}.log",
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
        table=f"{RESULTS}/tables/{{experiment}}_{{measurement}}.csv",
        cost=f"{RESULTS}/benchmarks/collect-{{experiment}}_{{measurement}}.csv",
    log:
        f"{RESULTS}/logs/collect-{{experiment}}_{{measurement}}.log",
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
        history=f"{RESULTS}/tables/{{table}}_history.csv",
        spectrum=f"{RESULTS}/tables/{{table}}_spectrum.csv",
        runs=TABLE_OF_RUNS,
        code=sources("sharpness.stages.results_table"),
    output:
        markdown=f"{RESULTS}/tables/{{table}}.md",
        tex=f"{RESULTS}/tables/{{table}}.tex",
        csv=f"{RESULTS}/tables/{{table}}.csv",
        cost=f"{RESULTS}/benchmarks/{{table}}.csv",
    log:
        f"{RESULTS}/logs/{{table}}.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        validation_epoch=STUDY.config["validation_epoch"],
        measured=lambda wildcards: STUDY.caption(wildcards.table),
    shell:
        "python -m sharpness.stages.results_table --history {input.history:q} --spectrum {input.spectrum:q} --runs {input.runs:q}"
        " --validation-epoch {params.validation_epoch} --caption {params.measured:q}"
        " --markdown {output.markdown:q} --tex {output.tex:q} --csv {output.csv:q}"
        " --benchmark {output.cost:q} 2> {log:q}"


rule agreement:
    """What cheaper settings change, beside the spread over seeds."""
    input:
        history=f"{RESULTS}/tables/{{agreement}}_history.csv",
        spectrum=f"{RESULTS}/tables/{{agreement}}_spectrum.csv",
        runs=TABLE_OF_RUNS,
        code=sources("sharpness.stages.agreement"),
    output:
        markdown=f"{RESULTS}/tables/{{agreement}}.md",
        csv=f"{RESULTS}/tables/{{agreement}}.csv",
        cost=f"{RESULTS}/benchmarks/{{agreement}}.csv",
    log:
        f"{RESULTS}/logs/{{agreement}}.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        measured=lambda wildcards: STUDY.caption(wildcards.agreement),
    shell:
        "python -m sharpness.stages.agreement --history {input.history:q} --spectrum {input.spectrum:q} --runs {input.runs:q}"
        " --caption {params.measured:q} --markdown {output.markdown:q} --csv {output.csv:q}"
        " --benchmark {output.cost:q} 2> {log:q}"


rule claims:
    """A verdict on every claim of the poster, from all experiments."""
    input:
        tables=list(collected_tables().values()),
        runs=TABLE_OF_RUNS,
        code=sources("sharpness.stages.claims"),
    output:
        markdown=f"{RESULTS}/tables/claims.md",
        csv=f"{RESULTS}/tables/claims.csv",
        cost=f"{RESULTS}/benchmarks/claims.csv",
    log:
        f"{RESULTS}/logs/claims.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        kinds=[STUDY.experiments[name].kind for name, _ in collected_tables()],
        measurements=[measurement for _, measurement in collected_tables()],
        settings=STUDY.settings_of_spectra,
        study=planned.digest(STUDY),
        validation_epoch=STUDY.config["validation_epoch"],
    shell:
        "python -m sharpness.stages.claims --kinds {params.kinds} --measurements {params.measurements}"
        " --tables {input.tables:q} --runs {input.runs:q} --settings {params.settings:q} --validation-epoch {params.validation_epoch}"
        " --markdown {output.markdown:q} --csv {output.csv:q} --study {params.study}"
        " --benchmark {output.cost:q} 2> {log:q}"
