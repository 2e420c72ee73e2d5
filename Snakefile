"""Where SGD goes: from a study's config to its figures and its table of results."""

from snakemake.utils import min_version

min_version("9.0")

# A study given with --configfile replaces the paper's; it never merges with it. --config changes single values of either.
if "experiments" not in config and not workflow.overwrite_configfiles:

    configfile: "config.yaml"


include: "workflow/rules/opening.smk"
include: "workflow/rules/jobs.smk"
include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/curvature.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/own.smk"
include: "workflow/rules/report.smk"


# Every product is a target, not only the last ones: a stale figure never hides a failed measurement.
rule all:
    default_target: True
    input:
        trained=[] if ROOT else expand(results_of(rules.train), run=STUDY.runs),
        measured=[] if ROOT else measured(),
        tables=experiment_tables(),
        figures=figure_files(),
        own=expand(rules.collect_own.output.table, probed=PROBED)
        + expand([rules.figure_own.output.pdf, rules.figure_own.output.png], drawn=DRAWN),
        conclusions=conclusions(),
        study=rules.effective_study.output.study,
    localrule: True
