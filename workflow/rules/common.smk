"""The study, and how its names become wildcards and its values become words of a command line."""

import re
import sys
from dataclasses import asdict
from pathlib import Path
from shlex import quote

SOURCE = Path(workflow.basedir) / "src"
sys.path.insert(0, str(SOURCE))

from sharpness import sources as data_sources
from sharpness.closure import sources
from sharpness.grid import flags
from sharpness.study import ENDS, KINDS, MEASUREMENTS, StudyError, study_of

try:
    STUDY = study_of(
        config,
        Path(workflow.basedir) / "workflow/schemas/config.schema.yaml",
        source=", ".join(map(str, workflow.configfiles)) or "--config",
    )
    for name in {run.data for run in STUDY.runs.values()}:
        if not Path(f"results/data/{name}.safetensors").exists():
            data_sources.check(name)
except (StudyError, data_sources.SourceError) as error:
    # One sentence for the author of the study, without a traceback.
    sys.exit(str(error))

shell.prefix(f"export PYTHONPATH={quote(str(SOURCE))}; ")

RESULTS = f"results/{STUDY.name}"
RUN_FOLDER = f"{RESULTS}/runs/{{run}}"


def one_of(names):
    """A wildcard's constraint: exactly these names."""
    return "|".join(map(re.escape, names)) or "$^"


wildcard_constraints:
    data=one_of(data_sources.DATA_SETS),
    run=one_of(STUDY.runs),
    chunk=r"\d+",
    part=rf"\d+|{ENDS}",
    settings=r"[a-z][a-z0-9_]*",
    measurement=one_of(["history", *MEASUREMENTS]),
    experiment=one_of(STUDY.experiments),
    table=one_of(name for name, experiment in STUDY.experiments.items() if experiment.kind == "table"),
