"""What a package may import: the linter sees a wall that is broken, and the library needs torch and numpy alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command, cwd, source):
    environment = {**os.environ, "PYTHONPATH": str(source)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("module", "line", "said"),
    [
        (
            "study/kinds.py",
            "from sharpness.analysis.tables import trajectory",
            "sharpness.study.kinds -> sharpness.analysis",
        ),
        ("eigen/lanczos.py", "import sharpness.hessian.loss", "sharpness.eigen.lanczos -> sharpness.hessian.loss"),
        (
            "measurements/along.py",
            "import sharpness.analysis.tables",
            "sharpness.measurements.along -> sharpness.analys",
        ),
        ("analysis/tables.py", "def late():\n    import torch", "sharpness.analysis.tables -> torch"),
        ("study/plan.py", "import sharpness.data.datasets", "sharpness.data.datasets -> torch"),
        ("workflow/dates.py", "import pandas", "sharpness.workflow.dates -> pandas"),
        ("hessian/loss.py", "import yaml", "sharpness.hessian.loss -> yaml"),
    ],
)
def test_the_linter_names_the_import_that_breaks_a_wall(tmp_path, module, line, said):
    package = shutil.copytree(ROOT / "src", tmp_path / "src") / "sharpness"
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    command = (str(Path(sys.executable).parent / "lint-imports"), "--no-cache")
    with (package / module).open("a", encoding="utf-8") as file:
        file.write(f"\n\n{line}\n")

    broken = run(*command, cwd=tmp_path, source=package.parent)
    assert broken.returncode == 1
    assert "BROKEN" in broken.stdout
    assert said in broken.stdout


LIBRARY_ALONE = """
import sys

# Besides the library: torch, and what torch imports for itself.
THERE = {"sharpness", "torch", "torchgen", "numpy", "typing_extensions", "sympy", "mpmath", *sys.stdlib_module_names}

class NothingElse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in THERE and not name.startswith("_sysconfigdata"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NothingElse())

import torch
from torch import nn
from sharpness import HessianOperator, top_eigenpairs

generator = torch.Generator().manual_seed(0)
model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)).double()
with torch.no_grad():
    for weight in model.parameters():
        weight.normal_(std=0.5, generator=generator)
inputs = torch.randn(20, 1, 4, 4, generator=generator, dtype=torch.float64)
targets = torch.randint(0, 3, (20,), generator=generator)
operator = HessianOperator(model, inputs, targets, precision="float64")
pairs = top_eigenpairs(operator, num_pairs=2, tolerance=1e-5, max_products=60, generator=generator)

shapes = {name: weight.shape for name, weight in model.named_parameters()}
def loss(weights):
    parts = weights.split([shape.numel() for shape in shapes.values()])
    state = {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts)}
    return nn.functional.cross_entropy(torch.func.functional_call(model, state, inputs), targets)
dense = torch.autograd.functional.hessian(loss, nn.utils.parameters_to_vector(model.parameters()))

torch.testing.assert_close(pairs.eigenvalues, torch.linalg.eigvalsh(dense).flip(0)[:2])
assert pairs.complete, pairs
assert pairs.residuals.max() <= 1e-5, pairs
from sharpness import CurvatureTracker
record = CurvatureTracker(model, (inputs, targets), precision="float64", to="curvature.csv").measure()
torch.testing.assert_close(record.eigenvalues[0], float(torch.linalg.eigvalsh(dense)[-1]), rtol=0.05, atol=0)
for absent in ("pandas", "plotly", "jinja2", "snakemake", "safetensors", "yaml"):
    try:
        __import__(absent)
    except ModuleNotFoundError:
        continue
    raise AssertionError(absent)
"""


@pytest.mark.slow
def test_the_library_certifies_an_eigenpair_where_there_is_nothing_but_torch_and_numpy(tmp_path):
    done = run(sys.executable, "-c", LIBRARY_ALONE, cwd=tmp_path, source=ROOT / "src")

    assert done.returncode == 0, done.stderr
