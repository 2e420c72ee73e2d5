"""What the rules ask about the study: files, steps, settings, captions."""

import re
from dataclasses import asdict

from snakemake.exceptions import WorkflowError

from sharpness.runtime.words import flags, pack
from sharpness.study.jobs import jobs as jobs_of
from sharpness.study.measurement import code_of
from sharpness.study.paths import DATA, data_key, job_of
from sharpness.study.plan import ENDS, KINDS, MEASUREMENTS
from sharpness.study.records import training_stage as stage_of
from sharpness.study.runs import RUNS, as_csv
from sharpness.study.sharing import kept_parts
from sharpness.study.showing import as_yaml
from sharpness.study.trial import name_of_measuring, name_of_trial, trial_of
from sharpness.workflow.captions import caption
from sharpness.workflow.patterns import any_of

CAPTIONS = PROJECT / "workflow" / "report"

RUNS_OF = {name: KEPT.kept(made) if ROOT else FOLDER.runs for name, made in MADE.items()}
RUN = FOLDER.run("{run}")


# What a study names, by the name of its prepared file.
DATA_OF = {data_key(data): data for data in (*catalogue.DATA_SETS, *PREPARED)}


def all_cores():
    """All that the jobs here may use, so that nothing runs beside one that has them; where jobs are submitted, one."""
    try:
        return workflow.cores
    except WorkflowError:
        return 1


ALONE = all_cores()


def own_code(run):
    """The files of a user's own code that a run is trained and measured by."""
    return own.sources(*run.own_code)


def trials_of(wildcards):
    """The trial of a run's network, if that or its data are the user's own."""
    trial = trial_of(STUDY.runs[wildcards.run])
    return [FOLDER.trial(name_of_trial(trial))] if trial else []


def one_of(names):
    """A wildcard's constraint: exactly these names."""
    return any_of(names) or "$^"


def experiments_of(kind):
    """The names of a kind's experiments."""
    return [name for name, experiment in STUDY.experiments.items() if experiment.kind == kind]


wildcard_constraints:
    data=one_of(DATA_OF),
    run=one_of(STUDY.runs),
    trial=one_of(STUDY.trials),
    chunk=r"\d+",
    part=rf"\d+|{ENDS}",
    settings=r"[a-z][a-z0-9_]*",
    measurement=one_of(["history", *MEASUREMENTS]),
    experiment=one_of(MADE),
    table=one_of(experiments_of("table")),
    agreement=one_of(experiments_of("agreement")),


def results_of(rule):
    """What a rule makes, without the file that says what it cost, so that nothing is made anew if that is lost."""
    return [file for file in rule.output if file != rule.output.cost]


def training_stage(wildcards):
    """The stage that trains a run: plain SGD never needs an eigenvector."""
    run = STUDY.runs[wildcards.run]
    return stage_of(run.gamma, run.gamma_outside)


def state_folder(wildcards):
    """Where a run saves how far it is."""
    return FOLDER.state(STUDY.runs[wildcards.run])


def part_files(run, part):
    """The checkpoint files that make up one part of a run."""
    names = ("best", "last") if part == ENDS else (part,)
    return [FOLDER.run(run).checkpoints(name) for name in names]


def measured():
    """The tables of all measurements of all runs, and the folders of eigenvectors that are kept."""
    parts = [
        (run, measurement, settings, part)
        for run, measurement, settings in STUDY.measured
        for part in STUDY.parts(run, measurement, settings)
    ]
    keeping = {measurement: STUDY.keeping(measurement) for measurement in MEASUREMENTS}
    return [
        *(FOLDER.run(run).table(*part) for run, *part in parts),
        *(FOLDER.run(run).vectors(*part) for run, *part in parts if part[1] in keeping[part[0]]),
    ]


def settings_of(measurement):
    """The settings of a measurement, as words for its stage."""
    return lambda wildcards: flags("settings", STUDY.settings(measurement, wildcards.settings))


def steps_of(measurement):
    """The steps of a part that a measurement looks at."""
    return lambda wildcards: STUDY.parts(wildcards.run, measurement, wildcards.settings)[wildcards.part]


def checkpoints_before(measurement):
    """The file with the checkpoint before a part's first one, for a measurement that looks back."""
    return lambda wildcards: [
        file for part, _ in part_before(measurement, wildcards) for file in part_files(wildcards.run, part)
    ]


def step_before(measurement):
    """That checkpoint's step."""
    return lambda wildcards: [step for _, step in part_before(measurement, wildcards)]


def part_before(measurement, wildcards):
    """Part and step of that checkpoint, if there is one."""
    if not MEASUREMENTS[measurement].looks_back:
        return []
    found = STUDY.part_before(wildcards.run, measurement, wildcards.settings, wildcards.part)
    return [] if found is None else [found]


def measuring():
    """The measurements, each with whether it keeps eigenvectors: those with settings that do stand there twice."""
    return [(name, False) for name in MEASUREMENTS] + [(name, True) for name in MEASUREMENTS if STUDY.keeping(name)]


def settings_that(measurement, keep):
    """The settings of a measurement that keep eigenvectors, or those that do not, by name."""
    keeping = STUDY.keeping(measurement)
    return [name for name in STUDY.config.get(measurement, {}) if (name in keeping) == keep]


def vectors_of(measurement):
    """The folder with a part's eigenvectors, as an output."""
    return {"vectors": directory(RUN.vectors(measurement, "{settings}", "{part}"))}


def kept_for(measurement):
    """The folders with eigenvectors that are kept of a part's checkpoints, for a measurement that needs them too."""
    return lambda wildcards: [
        FOLDER.run(wildcards.run).vectors(*kept)
        for kept in kept_parts(STUDY, wildcards.run, measurement, wildcards.settings, wildcards.part)
    ]


def tables_of_runs(wildcards):
    """The tables of one measurement over all runs of an experiment."""
    return [
        f"{RUNS_OF[wildcards.experiment]}/{table}"
        for run in STUDY.experiments[wildcards.experiment].runs
        for table in STUDY.tables(wildcards.experiment, run, wildcards.measurement)
    ]


def words_of_runs(experiment):
    """An experiment's runs, for a command line: not by the table of all, which another experiment's change makes anew."""
    return pack(["--runs", as_csv(STUDY.experiments[experiment].runs.values())])


def words_of_collected(wildcards, input):
    """The members of an experiment, their tables, and what each of these must hold, for a command line."""
    experiment = STUDY.experiments[wildcards.experiment]
    grids, runs = zip(*experiment.members)
    wanted = [asked.words(runs) for _, asked in planned.wanted(STUDY, experiment, wildcards.measurement)]
    return pack(["--grids", *grids, "--runs", *runs, "--tables", *input.tables, "--wanted", *wanted])


def collected_tables():
    """Every collected table that there is or will be, by its experiment and its measurement."""
    tables = {
        (name, measurement): FOLDER.table(table)
        for name, experiment in STUDY.experiments.items()
        for measurement, table in experiment.collected.items()
    }
    return {of: table for of, table in tables.items() if of[0] in MADE or Path(table).exists()}


def tables_of(measurement):
    """Every collected table of a measurement."""
    return [table for (_, measured), table in collected_tables().items() if measured == measurement]


def experiment_tables():
    """The tables of all experiments, and the tables of results."""
    lacking = {experiment.name for experiment in KEPT.lacking() if ROOT}
    tables, agreements = (
        [name for name in experiments_of(kind) if name not in lacking] for kind in ("table", "agreement")
    )
    return [
        *results_of(rules.runs),
        *collected_tables().values(),
        *expand(results_of(rules.results_table), table=tables),
        *expand(results_of(rules.agreement), agreement=agreements),
    ]


def conclusions():
    """The verdicts on the poster's claims, and the report: of what is published once all of it is."""
    return [] if ROOT and KEPT.lacking() else [*results_of(rules.claims), rules.report.output.page]


def is_drawn(name, experiment):
    """Whether a figure is made here: of an experiment that stays published, only one that is not there."""
    files = [Path(FOLDER.figure(name, ending)) for ending in ("pdf", "png")]
    return experiment.name in MADE or (KEPT.has(experiment) and not all(file.exists() for file in files))


# A figure's name to its experiment, by function.
FIGURES = {
    function: {
        name: experiment
        for name, (drawn_by, experiment) in STUDY.figures.items()
        if drawn_by == function and is_drawn(name, experiment)
    }
    for kind in KINDS.values()
    for function in kind.figures
}


def figure_files():
    """All figures, in both formats."""
    names = [name for drawn in FIGURES.values() for name in drawn]
    return expand(FOLDER.figure("{figure}", "{format}"), figure=names, format=("pdf", "png"))


def measured_for(function):
    """What a function's figures are drawn from."""
    return next(kind.measurements for kind in KINDS.values() if function in kind.figures)


def tables_for(function):
    """The tables of a figure, in the order of its measurements."""
    return lambda wildcards: expand(
        rules.collect.output.table,
        experiment=FIGURES[function][wildcards.figure].name,
        measurement=measured_for(function),
    )


def probed_parts(run):
    """The checkpoints that a user's own code measures: all that are planned, or the best and the last."""
    parts = [str(index) for index, steps in enumerate(STUDY.chunks[run]) if steps]
    return [file for part in parts or [ENDS] for file in part_files(run, part)]


def own_tables(experiment):
    """Every collected table of an experiment, by the name of the argument that a figure takes it by."""
    tables = {measurement: FOLDER.table(name) for measurement, name in experiment.collected.items()}
    return tables | {
        own.name_of(code): FOLDER.table(f"{experiment.name}_{own.name_of(code)}")
        for code in experiment.own_measurements
    }


def trials_of_drawing(experiment):
    """The trial of each of an experiment's own measurements, on its first run: they say which columns there will be."""
    first = next(iter(experiment.runs.values()))
    return [FOLDER.trial(name_of_measuring(code, first)) for code in experiment.own_measurements]


def words_of_members(experiment):
    """Grid and run of each member of an experiment, for a command line."""
    grids, members = zip(*experiment.members)
    return pack(["--grids", *grids, "--members", *members])


def own_measurement_of(name):
    """What a table of this name holds: a measurement here, or one of the user's own."""
    return name if name in ("history", *MEASUREMENTS) else "own"
