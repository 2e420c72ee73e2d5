"""Data sets, prepared once for all studies."""


rule prepare_data:
    """Read or download a data set, split it, and keep it as one file of tensors."""
    input:
        code=sources("sharpness.stages.prepare_data"),
    output:
        tensors=prepared("{data}"),
        cost=DATA.benchmark("{data}"),
    log:
        DATA.log("{data}"),
    # Here and not in a job: nodes that compute often reach no network, and it takes a minute.
    localrule: True
    conda:
        "../../environment.yml"
    threads: 1
    params:
        torch=installed("torch"),
    shell:
        "python -m sharpness.stages.prepare_data --name {wildcards.data} --output {output.tensors:q}"
        " --benchmark {output.cost:q} 2> {log:q}"
