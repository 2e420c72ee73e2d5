"""Figures, each a function of tables."""

# A figure's name to its experiment and its function: the first figure of a kind has the experiment's own name.
FIGURES = {
    name if number == 0 else f"{name}_{function}": (name, function)
    for name, experiment in STUDY.experiments.items()
    for number, function in enumerate(KINDS[experiment.kind].figures)
}


def figure_files():
    """All figures, in both formats."""
    return expand(rules.figure.output, figure=FIGURES)


def function_of(wildcards):
    return FIGURES[wildcards.figure][1]


def measurements_of(wildcards):
    """What a figure is drawn from."""
    experiment, function = FIGURES[wildcards.figure]
    return KINDS[STUDY.experiments[experiment].kind].measurements


rule figure:
    """Draw one figure from its tables."""
    input:
        tables=lambda wildcards: expand(
            rules.collect.output.table,
            experiment=FIGURES[wildcards.figure][0],
            measurement=measurements_of(wildcards),
        ),
        style="src/sharpness/style.mplstyle",
        code=lambda wildcards: sorted(
            {*sources("sharpness.stages.figure"), *sources(f"sharpness.figures.{function_of(wildcards)}")}
        ),
    output:
        pdf=f"{RESULTS}/figures/{{figure}}.pdf",
        png=report(
            f"{RESULTS}/figures/{{figure}}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
    log:
        f"{RESULTS}/logs/figure-{{figure}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/figure-{{figure}}.tsv"
    wildcard_constraints:
        figure=one_of(FIGURES),
    conda:
        "../../environment.yml"
    localrule: True
    params:
        function=function_of,
        measurements=measurements_of,
        measured=lambda wildcards: STUDY.caption(FIGURES[wildcards.figure][0]),
    shell:
        "python -m sharpness.stages.figure --name {params.function} --measurements {params.measurements}"
        " --tables {input.tables:q} --outputs {output:q} 2> {log:q}"
