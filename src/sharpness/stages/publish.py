"""Keep the finished experiments of a study in version control, with the verdicts that follow from them."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

from sharpness.stages import run_stage
from sharpness.stages.claims import claims
from sharpness.study import CLAIMS, KINDS, Experiment, Study, study_of


def publish(config: Path, schema: Path, results: Path) -> None:
    """Copy the tables and figures of each finished experiment to ``results/published``, beside those that rules write.

    A study may be run in parts, on several machines: what was published before stays, and once every experiment is
    there, the poster's claims are decided by the published tables.

    Args:
        config: the study's file.
        schema: that of all studies.
        results: the study's folder.
    """
    study = study_of(yaml.safe_load(config.read_text()), schema, source=str(config))
    published = results / "published"
    for experiment in study.experiments.values():
        missing = [name for name in _files(experiment) if not (results / name).exists()]
        if not missing:
            for name in _files(experiment):
                (published / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(results / name, published / name)
        before = "; what was published before stays" if missing and is_published(experiment, published) else ""
        print(f"{experiment.name}: {f'not finished, {missing[0]} is missing' if missing else 'published'}{before}")
    lacking = [experiment.name for experiment in study.experiments.values() if not is_published(experiment, published)]
    if lacking:
        print(f"The claims are decided once these are published too: {', '.join(lacking)}.")
    else:
        decide(study, published, markdown=published / f"tables/{CLAIMS}.md", csv=published / f"tables/{CLAIMS}.csv")
        print("The claims were decided by the published tables.")


def is_published(experiment: Experiment, published: Path) -> bool:
    """Whether every table that the experiment's figures are drawn from is there."""
    return all(
        (published / f"tables/{experiment.collected[measurement]}.csv").exists()
        for measurement in KINDS[experiment.kind].measurements
    )


def decide(study: Study, published: Path, *, markdown: Path, csv: Path) -> None:
    """Write the verdicts on the claims by all published tables of a study."""
    tables = [
        (experiment.kind, measurement, published / f"tables/{name}.csv")
        for experiment in study.experiments.values()
        for measurement, name in experiment.collected.items()
    ]
    kinds, measurements, paths = zip(*(table for table in tables if table[2].exists()), strict=True)
    claims(list(kinds), list(measurements), list(paths), study.config["validation_epoch"], markdown, csv)


def _files(experiment: Experiment) -> list[str]:
    """An experiment's tables and figures, from the study's folder."""
    tables = [f"{name}.csv" for name in experiment.collected.values()]
    results = {"table": ("md", "tex", "csv"), "agreement": ("md", "csv")}.get(experiment.kind, ())
    tables += [f"{experiment.name}.{ending}" for ending in results]
    figures = [f"{name}.{ending}" for name in experiment.figures for ending in ("pdf", "png")]
    return [*(f"tables/{name}" for name in tables), *(f"figures/{name}" for name in figures)]


if __name__ == "__main__":
    run_stage(publish)
