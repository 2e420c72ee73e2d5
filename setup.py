"""Build the package with the pipeline in it: Snakefile, rules, studies, captions and profiles lie beside the code."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
# Kept in the project's root, where Snakemake looks for them; installed as sharpness/pipeline.
PIPELINE = (
    "Snakefile",
    "config.yaml",
    "environment.yml",
    "CITATION.cff",
    "docs/claims.md",
    "workflow",
    "examples",
    "slurm",
)


class BuildWithPipeline(build_py):
    """Copy the pipeline into the package that is built; an editable installation uses the project's own files."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if not self.editable_mode:
            for source, target in self._pipeline():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Name the copies among what is built."""
        copied = [] if self.editable_mode else [str(target) for _, target in self._pipeline()]
        return [*super().get_outputs(include_bytecode), *copied]

    def _pipeline(self) -> list[tuple[Path, Path]]:
        folder = Path(self.build_lib) / "sharpness" / "pipeline"
        paths = [path for name in PIPELINE for path in (ROOT / name, *sorted((ROOT / name).rglob("*")))]
        return [(path, folder / path.relative_to(ROOT)) for path in paths if path.suffix != ".pyc" and path.is_file()]


setup(cmdclass={"build_py": BuildWithPipeline})
