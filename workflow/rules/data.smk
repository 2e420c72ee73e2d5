"""Data sets, prepared once for all studies."""


rule prepare_data:
    """Read or download a data set, split it, and keep it as one file of tensors."""
    input:
        code=sources("sharpness.stages.prepare_data"),
        own=lambda wildcards: own.sources(*filter(arrays.is_function, [DATA_OF[wildcards.data]])),
    output:
        tensors=f"{DATA.root}/{{data}}.safetensors",
        cost=DATA.benchmark("{data}"),
    log:
        DATA.log("{data}"),
    priority: 1000
    # Here and not in a job: nodes that compute often reach no network, and it takes a minute.
    localrule: True
    conda:
        "../../environment.yml"
    threads: 1
    params:
        torch=installed("torch"),
        name=lambda wildcards: DATA_OF[wildcards.data],
        # Of one's own file or folder: by its content, whatever its size and date.
        content=lambda wildcards: [
            arrays.fingerprint(name) for name in [DATA_OF[wildcards.data]] if arrays.is_own(name)
        ],
    shell:
        "python -m sharpness.stages.prepare_data --name {params.name:q} --output {output.tensors:q}"
        " --benchmark {output.cost:q} 2> {log:q}"


rule try_own:
    """Try a network or data set of the user's own before anything trains, and write down what it is."""
    input:
        data=lambda wildcards: prepared(STUDY.trials[wildcards.trial].data),
        code=sources("sharpness.stages.try_own"),
        own=lambda wildcards: own_code(STUDY.trials[wildcards.trial]),
    output:
        trial=FOLDER.trial("{trial}"),
        cost=FOLDER.benchmark("tried-{trial}"),
    log:
        FOLDER.log("tried-{trial}"),
    priority: 1000
    # Here and first, so that a mistake is told at once, and not when a job was queued or others have trained.
    localrule: True
    conda:
        "../../environment.yml"
    threads: ALONE
    params:
        torch=installed("torch"),
        run=lambda wildcards: flags("run", STUDY.trials[wildcards.trial].fields()),
    shell:
        "python -m sharpness.stages.try_own {params.run:q} --data {input.data:q} --output {output.trial:q}"
        " --benchmark {output.cost:q} 2> {log:q}"
