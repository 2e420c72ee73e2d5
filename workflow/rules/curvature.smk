"""Measurements at a run's checkpoints: one rule for each."""

for measurement in MEASUREMENTS:

    rule:
        name:
            measurement
        input:
            data=lambda wildcards: f"results/data/{STUDY.runs[wildcards.run].data}.safetensors",
            checkpoints=lambda wildcards: part_files(wildcards.run, wildcards.part),
            before=checkpoints_before(measurement),
            record=f"{RUN_FOLDER}/run.yaml",
            code=sources(*code_of(measurement)),
        output:
            table=f"{RUN_FOLDER}/{measurement}/{{settings}}-{{part}}.csv",
            cost=f"{RUN_FOLDER}/benchmarks/{measurement}-{{settings}}-{{part}}.csv",
        log:
            f"{RUN_FOLDER}/logs/{measurement}-{{settings}}-{{part}}.log",
        conda:
            "../../environment.yml"
        threads: 1
        params:
            torch=installed("torch"),
            measurement=measurement,
            settings=settings_of(measurement),
            steps=steps_of(measurement),
            steps_before=step_before(measurement),
        shell:
            "python -m sharpness.stages.measure {params.measurement} {params.settings:q} --part.settings-name {wildcards.settings}"
            " --part.data {input.data:q} --part.checkpoints {input.checkpoints:q} --part.steps {params.steps}"
            " --part.before {input.before:q} --part.steps-before {params.steps_before}"
            " --part.run {wildcards.run} --part.record {input.record:q}"
            " --part.threads {threads} --part.output {output.table:q}"
            " --benchmark {output.cost:q} 2> {log:q}"
