"""Measurements and figures of the user's own: beside those of each experiment, by the study's keys measurements and figures."""

# The user's code by its name, and by the name of a table or figure.
PROBES = {own.name_of(code): code for experiment in STUDY.experiments.values() for code in experiment.own_measurements}
PROBED = {name: (experiment, code) for experiment in MADE.values() for name, code in experiment.own_tables.items()}
DRAWN = {name: (experiment, code) for experiment in MADE.values() for name, code in experiment.own_drawings.items()}
TRIED = STUDY.trials_of_measuring


rule try_probe:
    """Try a measurement of the user's own on a run's first weights, before anything has trained for it."""
    input:
        data=lambda wildcards: prepared(TRIED[wildcards.tried][1].data),
        code=sources("sharpness.stages.try_probe"),
        own=lambda wildcards: own.sources(*TRIED[wildcards.tried][1].own_code, TRIED[wildcards.tried][0]),
    output:
        trial=FOLDER.trial("{tried}"),
        cost=FOLDER.benchmark("tried-{tried}"),
    log:
        FOLDER.log("tried-{tried}"),
    wildcard_constraints:
        tried=one_of(TRIED),
    priority: 1000
    localrule: True
    conda:
        "../../environment.yml"
    threads: ALONE
    params:
        torch=installed("torch"),
        code=lambda wildcards: TRIED[wildcards.tried][0],
        run=lambda wildcards: flags("run", TRIED[wildcards.tried][1].fields()),
    shell:
        "python -m sharpness.stages.try_probe {params.run:q} --data {input.data:q} --code {params.code:q}"
        " --output {output.trial:q} --benchmark {output.cost:q} 2> {log:q}"


rule try_figure:
    """Try a figure of the user's own on tables that are made up, before anything has trained for it."""
    input:
        trials=lambda wildcards: trials_of_drawing(DRAWN[wildcards.drawn][0]),
        style=f"{SOURCE}/sharpness/analysis/figures/style.mplstyle",
        code=sources("sharpness.stages.try_figure"),
        own=lambda wildcards: own.sources(DRAWN[wildcards.drawn][1]),
    output:
        trial=FOLDER.trial("{drawn}"),
        cost=FOLDER.benchmark("tried-{drawn}"),
    log:
        FOLDER.log("tried-{drawn}"),
    wildcard_constraints:
        drawn=one_of(DRAWN),
    priority: 1000
    localrule: True
    conda:
        "../../environment.yml"
    threads: ALONE
    params:
        code=lambda wildcards: DRAWN[wildcards.drawn][1],
        runs=lambda wildcards: words_of_runs(DRAWN[wildcards.drawn][0].name),
        members=lambda wildcards: words_of_members(DRAWN[wildcards.drawn][0]),
        names=lambda wildcards: list(own_tables(DRAWN[wildcards.drawn][0])),
        measurements=lambda wildcards: [own_measurement_of(name) for name in own_tables(DRAWN[wildcards.drawn][0])],
    shell:
        "python -m sharpness.stages.try_figure --code {params.code:q} --names {params.names}"
        " --measurements {params.measurements} --trials {input.trials:q} {params.members} {params.runs}"
        " --output {output.trial:q} --benchmark {output.cost:q} 2> {log:q}"


rule measure_own:
    """Measure all checkpoints of a run by the user's own code."""
    input:
        trial=lambda wildcards: FOLDER.trial(name_of_measuring(PROBES[wildcards.probe], STUDY.runs[wildcards.run])),
        data=lambda wildcards: prepared(STUDY.runs[wildcards.run].data),
        checkpoints=lambda wildcards: probed_parts(wildcards.run),
        record=RUN.record,
        code=sources(*code_of("own")),
        own=lambda wildcards: own.sources(*STUDY.runs[wildcards.run].own_code, PROBES[wildcards.probe]),
    output:
        table=RUN.table("own", "{probe}", "all"),
        cost=RUN.benchmark("own-{probe}"),
    log:
        RUN.log("own-{probe}"),
    wildcard_constraints:
        probe=one_of(PROBES),
    conda:
        "../../environment.yml"
    threads: 1
    params:
        torch=installed("torch"),
        probe=lambda wildcards: PROBES[wildcards.probe],
    shell:
        "python -m sharpness.stages.measure own --settings.code {params.probe:q} --part.settings-name {wildcards.probe}"
        " --part.data {input.data:q} --part.checkpoints {input.checkpoints:q} --part.steps --part.before --part.steps-before"
        " --part.run {wildcards.run} --part.record {input.record:q} --part.kept"
        " --part.threads {threads} --part.output {output.table:q}"
        " --benchmark {output.cost:q} 2> {log:q}"


rule collect_own:
    """Put what the user's own code measured of all runs of an experiment into one table."""
    input:
        tables=lambda wildcards: [
            f"{RUNS_OF[PROBED[wildcards.probed][0].name]}/{run}/own/{own.name_of(PROBED[wildcards.probed][1])}-all.csv"
            for _, run in PROBED[wildcards.probed][0].members
        ],
        code=sources("sharpness.stages.collect_own"),
    output:
        table=FOLDER.table("{probed}"),
        cost=FOLDER.benchmark("collect-{probed}"),
    log:
        FOLDER.log("collect-{probed}"),
    wildcard_constraints:
        probed=one_of(PROBED),
    localrule: True
    conda:
        "../../environment.yml"
    params:
        experiment=lambda wildcards: PROBED[wildcards.probed][0].name,
        members=lambda wildcards, input: pack(
            [
                *("--grids", *(grid for grid, _ in PROBED[wildcards.probed][0].members)),
                *("--runs", *(run for _, run in PROBED[wildcards.probed][0].members)),
                *("--tables", *input.tables),
            ]
        ),
    shell:
        "python -m sharpness.stages.collect_own --experiment {params.experiment} {params.members}"
        " --output {output.table:q} --benchmark {output.cost:q} 2> {log:q}"


rule figure_own:
    """Draw a figure by the user's own function."""
    input:
        # What is published was tried where it was computed.
        trial=[] if ROOT else FOLDER.trial("{drawn}"),
        tables=lambda wildcards: list(own_tables(DRAWN[wildcards.drawn][0]).values()),
        style=f"{SOURCE}/sharpness/analysis/figures/style.mplstyle",
        code=sources("sharpness.stages.figure_own"),
        own=lambda wildcards: own.sources(DRAWN[wildcards.drawn][1]),
    output:
        pdf=FOLDER.figure("{drawn}", "pdf"),
        png=FOLDER.figure("{drawn}", "png"),
        cost=FOLDER.benchmark("figure-{drawn}"),
    log:
        FOLDER.log("figure-{drawn}"),
    wildcard_constraints:
        drawn=one_of(DRAWN),
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=lambda wildcards: DRAWN[wildcards.drawn][1],
        runs=lambda wildcards: words_of_runs(DRAWN[wildcards.drawn][0].name),
        names=lambda wildcards: list(own_tables(DRAWN[wildcards.drawn][0])),
        measurements=lambda wildcards: [own_measurement_of(name) for name in own_tables(DRAWN[wildcards.drawn][0])],
    shell:
        "python -m sharpness.stages.figure_own --code {params.code:q} --names {params.names}"
        " --measurements {params.measurements} --tables {input.tables:q} {params.runs}"
        " --outputs {output.pdf:q} {output.png:q} --benchmark {output.cost:q} 2> {log:q}"
