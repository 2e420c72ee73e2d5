"""The study, and what the rules ask about it: files, steps, settings, captions."""

import os
import re
import sys
from dataclasses import asdict
from base64 import urlsafe_b64encode
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shlex import quote

from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

sys.path.insert(0, f"{workflow.basedir}/src")

from sharpness.data import catalogue
from sharpness.runtime import closure, files
from sharpness.study import planned
from sharpness.study.jobs import jobs as jobs_of
from sharpness.workflow import dates, failures, forkserver, locking, utf8
from sharpness.runtime.words import flags
from sharpness.study.measurement import code_of
from sharpness.study.published import Published
from sharpness.study.records import RecordError, training_stage as stage_of
from sharpness.study.runs import RUNS, as_csv
from sharpness.study.schema import StudyError
from sharpness.study.paths import DATA, StudyFolder, job_of, prepared
from sharpness.study.showing import as_yaml
from sharpness.study.plan import ENDS, KINDS, MEASUREMENTS, study_of
from sharpness.study.file import only_study, parse_study
from sharpness.runtime.words import pack

utf8.require()
# By another root, the same rules make tables, figures and report of the runs that are kept there: see stages/publish.py.
ROOT = workflow.config_settings.overwrite_config.get("root")
if ROOT:
    del config["root"]
try:
    only_study(workflow.configfiles)
    STUDY = study_of(
        config,
        source=", ".join(map(str, workflow.configfiles)) or "--config",
        # Snakemake has read it already: of a key that is given twice it keeps the last, unseen.
        known=[sentence for file in workflow.configfiles for sentence in parse_study(Path(file)).twice],
    )
    FOLDER = StudyFolder(ROOT) if ROOT else StudyFolder.of(STUDY.name)
    PREPARED = {run.data: prepared(run.data) for run in STUDY.runs.values()}
    ORIGINALS = [] if ROOT else [name for name, tensors in PREPARED.items() if not Path(tensors).exists()]
    for name in ORIGINALS:
        catalogue.check(name)
    if workflow.is_main_process:
        files.require_space(Path(), 2**20)
        # Jobs on other machines have other clocks.
        dates.check_dates(
            [
                *workflow.configfiles,
                *(Path(workflow.basedir) / name for name in ("src", "workflow", "CITATION.cff", "environment.yml")),
                *(file for name in ORIGINALS for file in catalogue.present(name)),
                *PREPARED.values(),
                *(FOLDER.run(run).root for run in STUDY.runs),
                *(FOLDER.tables, FOLDER.figures, FOLDER.report),
            ]
        )
except (StudyError, catalogue.DataError, dates.DateError, files.DiskFullError) as error:
    # Sentences for the author of the study, without a traceback.
    sys.exit(str(error))

locking.install(STUDY.name, PREPARED.values())

# Imported only where Snakemake submits jobs to Slurm's queue, or could.
if ExecutorPluginRegistry().is_installed("slurm"):
    from sharpness.workflow import slurm

    slurm.install()

# Relative, so that a project may be moved with its results: inputs of another name are other inputs.
PROJECT = Path(os.path.relpath(workflow.basedir))
SOURCE = PROJECT / "src"
if set("{}") & set(str(workflow.basedir)):
    sys.exit(
        f"{workflow.basedir}: Snakemake takes braces in the path of a project for wildcards; give its folder another name"
    )
if ":" in str(PROJECT):
    sys.exit(f"{PROJECT}: Python takes a colon for the end of a path; call snakemake in the project's own folder")


def sources(*modules):
    """Every source file that the modules' behaviour follows from."""
    return [os.path.relpath(path) for path in closure.sources(*modules)]


JOB_ENVIRONMENT = {
    "PYTHONUTF8": "1",  # words and files are the same in every locale
    "PYTHONPATH": str(SOURCE),
    # glibc's malloc gives large tensors back to the system after every use, and gets them again page by page: a tenth of
    # the time of a measurement on a CPU.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "4000000000",
}
EXPORT = f"export {' '.join(f'{name}={quote(value)}' for name, value in JOB_ENVIRONMENT.items())}; "


def run_jobs_by(python):
    """Let this function of the shell be what starts Python for jobs."""
    # Snakemake formats it: its braces are the shell's.
    shell.prefix((EXPORT + python).replace("{", "{{").replace("}", "}}"))


run_jobs_by(forkserver.through(forkserver.NOBODY))


# Jobs of this process, not those that it submits: theirs are other machines and other environments.
onstart:
    if not workflow.deployment_settings.deployment_method:
        run_jobs_by(forkserver.start(JOB_ENVIRONMENT))


onerror:
    # Snakemake tells of a job by its whole command; what it said itself comes last.
    said = [line for file in log for line in failures.last_words(Path(file))]
    if said:
        print("What failed, and the last line of its log:", *said, sep="\n", file=sys.stderr)


def installed(package):
    """Name and version of a package, for the parameters of what computes with it: another one gives other results."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} of the rule's own environment"


DIGEST = "" if ROOT else planned.digest(STUDY)  # of what is published, nobody asks whether it is due
KEPT = Published(STUDY, FOLDER)
# What tables and figures are made of.
MADE = {experiment.name: experiment for experiment in KEPT.whole()} if ROOT else STUDY.experiments


def is_recorded(path):
    """Whether Snakemake has a record of how a file was made, or that it is being made."""
    name = urlsafe_b64encode(path.encode()).decode()
    longest = os.pathconf(".", "PC_NAME_MAX") - 1
    pieces = [name[begin : begin + longest] for begin in range(0, len(name), longest)]
    place = Path(*(f"@{piece}" for piece in pieces[:-1]), pieces[-1])
    return any((Path(".snakemake") / kind / place).exists() for kind in ("metadata", "incomplete"))


# What was made by other settings or other code, Snakemake makes anew where it knows; where not, the results tell.
if workflow.is_main_process and not ROOT:
    try:
        planned.check_finished(STUDY, Path(FOLDER.root), is_recorded=is_recorded, torch=version("torch"))
    except RecordError as error:
        sys.exit(str(error))

# Ancient, since a run of a name has the same fields for ever: those of other runs, added or taken out, change no result.
TABLE_OF_RUNS = ancient(FOLDER.table(RUNS))

RUNS_OF = {name: KEPT.kept(made) if ROOT else FOLDER.runs for name, made in MADE.items()}
RUN = FOLDER.run("{run}")


def one_of(names):
    """A wildcard's constraint: exactly these names."""
    return "|".join(map(re.escape, names)) or "$^"


def experiments_of(kind):
    """The names of a kind's experiments."""
    return [name for name, experiment in STUDY.experiments.items() if experiment.kind == kind]


wildcard_constraints:
    data=one_of(catalogue.DATA_SETS),
    run=one_of(STUDY.runs),
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


def measured_tables():
    """The tables of all measurements of all runs."""
    return [
        FOLDER.run(run).table(measurement, settings, part)
        for run, measurement, settings in STUDY.measured
        for part in STUDY.parts(run, measurement, settings)
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


def tables_of_runs(wildcards):
    """The tables of one measurement over all runs of an experiment."""
    return [
        f"{RUNS_OF[wildcards.experiment]}/{table}"
        for run in STUDY.experiments[wildcards.experiment].runs
        for table in STUDY.tables(wildcards.experiment, run, wildcards.measurement)
    ]


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
