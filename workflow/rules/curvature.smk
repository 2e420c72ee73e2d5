"""Measurements at a run's checkpoints: one rule for each, and another where its settings keep eigenvectors too."""

for measurement, keeps in measuring():

    rule:
        name:
            f"{measurement}_with_vectors" if keeps else measurement
        input:
            data=lambda wildcards: prepared(STUDY.runs[wildcards.run].data),
            checkpoints=lambda wildcards: part_files(wildcards.run, wildcards.part),
            before=checkpoints_before(measurement),
            record=RUN.record,
            kept=kept_for(measurement),
            code=sources(*code_of(measurement)),
            own=lambda wildcards: own_code(STUDY.runs[wildcards.run]),
        output:
            **vectors_of(measurement) if keeps else {},
            table=RUN.table(measurement, "{settings}", "{part}"),
            cost=RUN.benchmark(job_of(measurement, "{settings}", "{part}")),
        log:
            RUN.log(job_of(measurement, "{settings}", "{part}")),
        wildcard_constraints:
            settings=one_of(settings_that(measurement, keeps)),
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
            " --part.run {wildcards.run} --part.record {input.record:q} --part.kept {input.kept:q}"
            " --part.threads {threads} --part.output {output.table:q}"
            " --benchmark {output.cost:q} 2> {log:q}"
