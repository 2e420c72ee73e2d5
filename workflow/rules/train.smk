"""Training runs: checkpoints and histories."""


rule train:
    """Train one run; keep its planned checkpoints in chunks, the best, the last, and the history."""
    input:
        data=lambda wildcards: prepared(STUDY.runs[wildcards.run].data),
        code=lambda wildcards: sources(f"sharpness.stages.{training_stage(wildcards)}"),
        own=lambda wildcards: own_code(STUDY.runs[wildcards.run]),
        trial=trials_of,
    output:
        chunks=expand(
            RUN.checkpoints("{chunk}"),
            chunk=range(STUDY.num_chunks),
            allow_missing=True,
        ),
        best=RUN.checkpoints("best"),
        last=RUN.checkpoints("last"),
        history=RUN.history,
        record=RUN.record,
        cost=RUN.benchmark("train"),
    log:
        RUN.log("train"),
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        # Not params, of which a change would train again: these change no result.
        state_seconds=STUDY.config["state_seconds"],
        # The same for all runs: those that share a GPU are one Slurm job, with one value of each resource in words.
        tensorboard=str(STUDY.config["tensorboard"]),
    params:
        torch=installed("torch"),
        stage=training_stage,
        state=state_folder,
        run=lambda wildcards: flags("run", STUDY.runs[wildcards.run].fields()),
        steps=lambda wildcards: [step for chunk in STUDY.chunks[wildcards.run] for step in chunk],
        num_evaluated=STUDY.config["evaluation_examples"],
        evaluation_epochs=STUDY.config["evaluation_epochs"],
    shell:
        "python -m sharpness.stages.{params.stage} {params.run:q} --job.data {input.data:q} --job.steps {params.steps}"
        " --job.num-evaluated {params.num_evaluated} --job.evaluation-epochs {params.evaluation_epochs}"
        " --job.threads {threads} --job.state {params.state:q}"
        " --job.state-seconds {resources.state_seconds} --job.tensorboard {resources.tensorboard} --job.chunks {output.chunks:q}"
        " --job.best {output.best:q} --job.last {output.last:q} --job.history {output.history:q}"
        " --job.record {output.record:q}"
        " --benchmark {output.cost:q} 2> {log:q}"
