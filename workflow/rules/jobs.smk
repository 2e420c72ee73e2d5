"""How jobs start: by which sources, in which environment, on this machine as forks of one process."""

from shlex import quote

from snakemake.io import contains_wildcard

from sharpness.workflow import failures, forkserver, jobserver
from sharpness.workflow.listing import listing

if set("{}") & set(str(INSTALLED_IN)):
    sys.exit(
        f"{INSTALLED_IN}: Snakemake takes braces in the path of a project for wildcards; give its folder another name"
    )
OWN_CODE = {
    *filter(arrays.is_function, PREPARED),
    *(code for run in STUDY.runs.values() for code in run.own_code),
    *(code for each in STUDY.experiments.values() for code in (*each.own_measurements, *each.own_drawings.values())),
}
for file in own.sources(*sorted(OWN_CODE)):
    if contains_wildcard(file):
        sys.exit(
            f"{file}: Snakemake takes a name in braces in a path for a wildcard; give the file or its folder another name"
        )
if ":" in str(PROJECT):
    sys.exit(f"{PROJECT}: Python takes a colon for the end of a path; call snakemake in the project's own folder")


def sources(stage, *modules, name=""):
    """A file that changes when a source file does that a stage, or one of the modules, follows from."""
    parts = [module.rpartition(".")[2] for module in (stage, *modules)]
    return listing(name or "-".join(parts), stage, *modules)


JOB_ENVIRONMENT = {
    "PYTHONUTF8": "1",  # words and files are the same in every locale
    "PYTHONPATH": str(SOURCE),
    own.VARIABLE: str(own.folder()),  # a study's own files are relative to it
}
EXPORT = f"export {' '.join(f'{name}={quote(value)}' for name, value in JOB_ENVIRONMENT.items())}; "


def run_jobs_by(python):
    """Let this function of the shell be what starts Python for jobs."""
    # Snakemake formats it: its braces are the shell's.
    shell.prefix((EXPORT + python).replace("{", "{{").replace("}", "}}"))


run_jobs_by(jobserver.through(forkserver.NOBODY))


# Jobs of this process, not those that it submits: theirs are other machines and other environments.
onstart:
    if not workflow.deployment_settings.deployment_method:
        run_jobs_by(jobserver.start(JOB_ENVIRONMENT))


onerror:
    # Snakemake tells of a job by its whole command; what it said itself comes last.
    said = [line for file in log for line in failures.last_words(Path(file))]
    if said:
        print("What failed, and the last line of its log:", *said, sep="\n", file=sys.stderr)


def installed(package):
    """Name and version of a package, for the parameters of what computes with it: another one gives other results."""
    found = installed_here(package)
    return f"{package} of the rule's own environment" if found is None else f"{package} {found}"
