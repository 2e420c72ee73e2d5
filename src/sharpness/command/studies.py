"""Find a study by its name, or begin a new one."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path

import yaml

from sharpness.runtime.files import write_text
from sharpness.study.plan import study_of
from sharpness.study.schema import StudyError
from sharpness.workflow.project import pipeline

PAPER = "paper"
_ENDINGS = (".yaml", ".yml", ".json")
_NEW = """\
# A study: what differs from the defaults. docs/configuration.md has every key, its range and its default.
study: {name}
defaults:
  data: digits # 1,300 training images of scikit-learn's digits, which need no network
  model: simple_cnn
  num_training: 500
  epochs: 4
experiments:
  rates:
    kind: eigenvalues # the figure: the largest eigenvalues of the Hessian over training
    grids: # all values of all axes are combined; the runs of several seeds are shown with their spread
      learning_rate: [{{ learning_rate: [0.05, 0.1, 0.2], seed: [0, 1] }}]
"""


def find(study: str) -> Path:
    """Find the file of a study.

    Args:
        study: its file, or its name: of a file in this folder, in workflow/studies, or of a shipped study.

    Raises:
        StudyError: there is none of that name; the message has the nearest.
    """
    path = Path(study)
    if path.suffix in _ENDINGS or "/" in study:
        if path.is_file():
            return path
        near = {str(other): other for other in sorted(path.parent.glob("*.y*ml")) if _is_study(other)} | known()
    elif study in (near := known()):
        return near[study]
    raise StudyError(f"there is no study {study!r}{_nearest(study, near)}")


def known() -> dict[str, Path]:
    """The studies that can be named here, by name; the nearest file of a name is the one."""
    files: dict[str, Path] = {}
    for root in (Path(), pipeline()):
        folders = (root, root / "workflow" / "studies", root / "examples")
        paths = [path for folder in folders for path in sorted(folder.glob("*.y*ml"))]
        for path in filter(_is_study, paths):
            files.setdefault(PAPER if path.stem == "config" else path.stem, path)
    return files


def begin(name: str) -> Path:
    """Write the file of a small study, to be edited, in this folder.

    Raises:
        StudyError: the name is none, or taken.
    """
    path, text = Path(f"{name}.yaml"), _NEW.format(name=name)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise StudyError(f"a study's name must be of lower-case letters, digits and _, a letter first; got {name!r}")
    study_of(yaml.safe_load(text), source=str(path))  # which knows what else a name must not be
    if path.exists():
        raise StudyError(f"{path} already exists; choose another name, or remove it")
    if name in (taken := known()):
        raise StudyError(f"there already is a study {name}, {taken[name]}; choose another name")
    write_text(text, path)
    return path


def _is_study(path: Path) -> bool:
    """Whether a YAML file is that of a study, as far as its lines tell."""
    try:
        return re.search(r"^[\"']?study[\"']?\s*:", path.read_text(encoding="utf-8"), re.MULTILINE) is not None
    except (OSError, UnicodeDecodeError):
        return False


def _nearest(study: str, names: dict[str, Path]) -> str:
    near = get_close_matches(study, names, n=3) or get_close_matches(Path(study).stem, names, n=3)
    return f"; nearest: {', '.join(near)}" if near else f"; there are {', '.join(sorted(names))}"
