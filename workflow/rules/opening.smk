"""Read the study, check it, and hold what is finished against it."""

import os
import sys
from base64 import urlsafe_b64encode
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

# The folder that the rules lie in: a checkout, or a part of the installed package. Not that of a workflow that takes them as
# a module.
INSTALLED_IN = Path(workflow.current_basedir.get_path_or_uri(secret_free=False)).parents[1]
IS_CHECKOUT = (INSTALLED_IN / "src").is_dir()
# Relative, so that a project may be moved with its results: inputs of another name are other inputs.
PROJECT = Path(os.path.relpath(INSTALLED_IN)) if IS_CHECKOUT else INSTALLED_IN
SOURCE = PROJECT / "src" if IS_CHECKOUT else PROJECT.parents[1]

sys.path.insert(0, str(SOURCE.absolute()))

from sharpness.command.overrides import overrides
from sharpness.data import arrays, catalogue
from sharpness.runtime import files, own
from sharpness.study import planned
from sharpness.study.file import only_study, parse_study, with_types
from sharpness.study.paths import StudyFolder, prepared
from sharpness.study.plan import study_of
from sharpness.study.published import Published
from sharpness.study.records import RecordError
from sharpness.study.schema import StudyError
from sharpness.workflow import dates, events, locking, stopping, utf8

utf8.require()
if workflow.is_main_process:
    events.install()
    stopping.install()
# By another root, the same rules make tables, figures and report of the runs that are kept there: see stages/publish.py.
ROOT = workflow.config_settings.overwrite_config.get("root")
if ROOT:
    del config["root"]
try:
    only_study(workflow.configfiles)
    if workflow.is_main_process:
        overrides(workflow.config_settings.config_args)  # of a key that is given twice, Snakemake keeps the last
    # What a study names as its own is relative to its file.
    for file in workflow.configfiles:
        os.environ[own.VARIABLE] = os.path.relpath(Path(file).parent)
    STUDY = study_of(
        with_types(config, workflow.config_settings.config or {}),
        source=", ".join(map(str, workflow.configfiles)) or "--config",
        # Snakemake has read it already: of a key that is given twice it keeps the last, unseen.
        known=[sentence for file in workflow.configfiles for sentence in parse_study(Path(file)).wrong],
    )
    FOLDER = StudyFolder(ROOT) if ROOT else StudyFolder.of(STUDY.name)
    PREPARED = {run.data: prepared(run.data) for run in STUDY.runs.values()}
    ORIGINALS = [] if ROOT else [name for name, tensors in PREPARED.items() if not Path(tensors).exists()]
    for name in ORIGINALS:
        if not arrays.is_own(name):
            catalogue.check(name)
    if workflow.is_main_process:
        files.require_space(Path(), 2**20)
        # Jobs on other machines have other clocks.
        dates.check_dates(
            [
                *workflow.configfiles,
                SOURCE / "sharpness",
                *(PROJECT / name for name in ("workflow", "CITATION.cff", "environment.yml")),
                *(file for name in ORIGINALS if not arrays.is_own(name) for file in catalogue.present(name)),
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


def installed_here(package):
    """The version of a package that jobs import; None where rules have an environment of their own."""
    if workflow.deployment_settings.deployment_method:
        return None
    try:
        return version(package)
    except PackageNotFoundError:
        return None


# What was made by other settings or other code, Snakemake makes anew where it knows; where not, the results tell.
if workflow.is_main_process and not ROOT:
    try:
        planned.check_finished(STUDY, Path(FOLDER.root), is_recorded=is_recorded, torch=installed_here("torch"))
    except RecordError as error:
        sys.exit(str(error))
