"""Where the files of a study are. Rules give wildcards for names; other readers give the names."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sharpness.data import arrays
from sharpness.study.nested import short_hash

if TYPE_CHECKING:
    from sharpness.study.run import Run

RESULTS = "results"


@dataclass(frozen=True)
class _Folder:
    root: str

    def log(self, job: str) -> str:
        """What a job said."""
        return f"{self.root}/logs/{job}.log"

    def benchmark(self, job: str) -> str:
        """What a job cost."""
        return f"{self.root}/benchmarks/{job}.csv"


# Of all studies.
DATA = _Folder(f"{RESULTS}/data")


def prepared(data: str, project: str | os.PathLike[str] = ".") -> str:
    """A data set as tensors, which all studies of a project share; ``project`` is the folder of its results."""
    return f"{DATA.root}/{data_key(data, project)}.safetensors"


def data_key(data: str, project: str | os.PathLike[str] = ".") -> str:
    """Name a data set for its file: one's own by its path from there, since other studies may have one of its name."""
    if not arrays.is_own(data):
        return data
    place = os.path.relpath(arrays.path_of(data), project)
    return f"{re.sub('[^A-Za-z0-9_]+', '_', data).strip('_')[:60]}-{short_hash(place)}"


@dataclass(frozen=True)
class RunFolder(_Folder):
    """What a run leaves behind, and what is measured on it."""

    @property
    def history(self) -> str:
        """Losses and accuracies after each epoch that is evaluated."""
        return f"{self.root}/history.csv"

    @property
    def record(self) -> str:
        """Every field of the run, and what trained it."""
        return f"{self.root}/run.yaml"

    def checkpoints(self, name: str | int) -> str:
        """One part of its planned checkpoints, by its number; or the best, or the last."""
        return f"{self.root}/checkpoints/{name}.safetensors"

    def table(self, measurement: str, settings: str, part: str) -> str:
        """What a measurement found in one part."""
        return f"{self.root}/{measurement}/{settings}-{part}.csv"

    def vectors(self, measurement: str, settings: str, part: str) -> str:
        """The folder with the eigenvectors that a measurement keeps of one part."""
        return f"{self.root}/{measurement}/{settings}-{part}-vectors"


@dataclass(frozen=True)
class StudyFolder(_Folder):
    """The results of a study, or what is published of them."""

    @classmethod
    def of(cls, study: str) -> StudyFolder:
        """The results of the study of this name."""
        return cls(f"{RESULTS}/{study}")

    @property
    def published(self) -> StudyFolder:
        """What is kept of it under version control."""
        return StudyFolder(f"{self.root}/published")

    @property
    def study(self) -> str:
        """The whole study, defaults included."""
        return f"{self.root}/study.yaml"

    def trial(self, name: str) -> str:
        """What a network of the user's own and its data are: parameters, shapes and the loss before training."""
        return f"{self.root}/trials/{name}.yaml"

    @property
    def report(self) -> str:
        """All of it on one page."""
        return f"{self.root}/report.html"

    def run(self, name: str) -> RunFolder:
        """The folder of a run."""
        return RunFolder(f"{self.runs}/{name}")

    @property
    def runs(self) -> str:
        """The folder with those of all runs."""
        return f"{self.root}/runs"

    def state(self, run: Run) -> str:
        """Where a run saves how far it is: a folder for each length, since a longer run goes on from a shorter one."""
        return f"{self.root}/state/{run.without_epochs.name}/{run.epochs}"

    @property
    def tables(self) -> str:
        """The folder of tables over several runs."""
        return f"{self.root}/tables"

    def table(self, name: str, ending: str = "csv") -> str:
        """One of them."""
        return f"{self.tables}/{name}.{ending}"

    @property
    def figures(self) -> str:
        """The folder of figures."""
        return f"{self.root}/figures"

    def figure(self, name: str, ending: str) -> str:
        """One of them."""
        return f"{self.figures}/{name}.{ending}"


def job_of(measurement: str, settings: str, part: str) -> str:
    """Name the job that measures one part of a run; unique within the run."""
    return f"{measurement}-{settings}-{part}"
