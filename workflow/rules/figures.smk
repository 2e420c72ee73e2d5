"""Figures, each a function of tables: one rule for each function, so that each has its own code."""

for function in FIGURES:

    rule:
        name:
            f"figure_{function}"
        input:
            tables=tables_for(function),
            style=f"{SOURCE}/sharpness/analysis/figures/style.mplstyle",
            code=sources("sharpness.stages.figure", f"sharpness.analysis.figures.{function}"),
        output:
            pdf=FOLDER.figure("{figure}", "pdf"),
            png=report(
                FOLDER.figure("{figure}", "png"),
                caption=caption(CAPTIONS / f"{function}.md"),
                category="Figures",
                labels={"figure": "{figure}"},
            ),
            cost=FOLDER.benchmark("figure-{figure}"),
        log:
            FOLDER.log("figure-{figure}"),
        wildcard_constraints:
            figure=one_of(FIGURES[function]),
        localrule: True
        conda:
            "../../environment.yml"
        params:
            function=function,
            runs=lambda wildcards: words_of_runs(STUDY.figures[wildcards.figure][1].name),
            measurements=measured_for(function),
        shell:
            "python -m sharpness.stages.figure --name {params.function} --measurements {params.measurements}"
            " --tables {input.tables:q} {params.runs} --outputs {output.pdf:q} {output.png:q}"
            " --benchmark {output.cost:q} 2> {log:q}"
