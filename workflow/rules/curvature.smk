"""Measurements at a run's checkpoints: one rule each for spectrum, slices, steps and variants."""


def part_files(run, part):
    """The checkpoint files that make up one part of a run."""
    names = ("best", "last") if part == ENDS else (part,)
    return [f"{RESULTS}/runs/{run}/checkpoints/{name}.safetensors" for name in names]


def measured_tables():
    """The tables of all measurements of all runs."""
    return [
        f"{RESULTS}/runs/{run}/{measurement}/{settings}-{part}.csv"
        for run, measurement, settings in STUDY.measured
        for part in STUDY.parts(run, measurement, settings)
    ]


def settings_of(measurement):
    """The settings of a measurement, as words for its stage."""
    return lambda wildcards: flags("settings", STUDY.settings(measurement, wildcards.settings))


def steps_of(measurement):
    """The steps of a part that a measurement looks at."""
    return lambda wildcards: STUDY.parts(wildcards.run, measurement, wildcards.settings)[wildcards.part]


for measurement in MEASUREMENTS:

    rule:
        name:
            measurement
        input:
            data=lambda wildcards: f"results/data/{STUDY.runs[wildcards.run].data}.safetensors",
            checkpoints=lambda wildcards: part_files(wildcards.run, wildcards.part),
            code=sources(f"sharpness.stages.{measurement}"),
        output:
            table=f"{RUN_FOLDER}/{measurement}/{{settings}}-{{part}}.csv",
        log:
            f"{RUN_FOLDER}/logs/{measurement}-{{settings}}-{{part}}.log",
        benchmark:
            f"{RUN_FOLDER}/benchmarks/{measurement}-{{settings}}-{{part}}.tsv"
        conda:
            "../../environment.yml"
        threads: 1
        resources:
            gpu=1,
        params:
            stage=measurement,
            settings=settings_of(measurement),
            steps=steps_of(measurement),
        shell:
            "python -m sharpness.stages.{params.stage} {params.settings:q} --part.settings-name {wildcards.settings}"
            " --part.data {input.data:q} --part.checkpoints {input.checkpoints:q} --part.steps {params.steps}"
            " --part.threads {threads} --part.output {output.table:q} 2> {log:q}"
