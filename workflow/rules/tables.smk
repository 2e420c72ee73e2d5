"""Tidy tables of experiments, and the table of results."""


rule collect:
    """Put one measurement of all runs of an experiment into one tidy table."""
    input:
        records=lambda wildcards: [
            f"{RESULTS}/runs/{run}/run.yaml" for run in STUDY.experiments[wildcards.experiment].runs
        ],
        tables=tables_of_runs,
        code=sources("sharpness.stages.collect"),
    output:
        table=f"{RESULTS}/tables/{{experiment}}_{{measurement}}.csv",
    log:
        f"{RESULTS}/logs/collect-{{experiment}}_{{measurement}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/collect-{{experiment}}_{{measurement}}.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    params:
        grids=lambda wildcards: [
            grid for grid, runs in STUDY.experiments[wildcards.experiment].grids.items() for _ in runs
        ],
        runs=lambda wildcards: [
            run.name for runs in STUDY.experiments[wildcards.experiment].grids.values() for run in runs
        ],
    shell:
        "python -m sharpness.stages.collect --experiment {wildcards.experiment} --grids {params.grids}"
        " --runs {params.runs} --records {input.records:q} --tables {input.tables:q} --output {output.table:q} 2> {log:q}"


rule results_table:
    """The table of results, for reading, for a paper and for computing."""
    input:
        history=f"{RESULTS}/tables/{{table}}_history.csv",
        spectrum=f"{RESULTS}/tables/{{table}}_spectrum.csv",
        code=sources("sharpness.stages.results_table"),
    output:
        markdown=report(
            f"{RESULTS}/tables/{{table}}.md",
            caption="../report/results_table.rst",
            category="Table of results",
        ),
        tex=f"{RESULTS}/tables/{{table}}.tex",
        csv=report(
            f"{RESULTS}/tables/{{table}}.csv",
            caption="../report/results_table.rst",
            category="Table of results",
        ),
    log:
        f"{RESULTS}/logs/{{table}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{table}}.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    params:
        validation_epoch=config["validation_epoch"],
        poster=lambda wildcards: STUDY.is_the_posters(wildcards.table),
        measured=lambda wildcards: STUDY.caption(wildcards.table),
    shell:
        "python -m sharpness.stages.results_table --history {input.history:q} --spectrum {input.spectrum:q}"
        " --validation-epoch {params.validation_epoch} --poster {params.poster} --caption {params.measured:q}"
        " --markdown {output.markdown:q} --tex {output.tex:q} --csv {output.csv:q} 2> {log:q}"


rule agreement:
    """What cheaper settings change, beside the spread over seeds."""
    input:
        history=f"{RESULTS}/tables/{{agreement}}_history.csv",
        spectrum=f"{RESULTS}/tables/{{agreement}}_spectrum.csv",
        code=sources("sharpness.stages.agreement"),
    output:
        markdown=report(
            f"{RESULTS}/tables/{{agreement}}.md",
            caption="../report/agreement.rst",
            category="Agreement",
        ),
        csv=f"{RESULTS}/tables/{{agreement}}.csv",
    log:
        f"{RESULTS}/logs/{{agreement}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{agreement}}.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    params:
        measured=lambda wildcards: STUDY.caption(wildcards.agreement),
    shell:
        "python -m sharpness.stages.agreement --history {input.history:q} --spectrum {input.spectrum:q}"
        " --caption {params.measured:q} --markdown {output.markdown:q} --csv {output.csv:q} 2> {log:q}"
