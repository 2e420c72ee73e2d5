"""Read or download a data set, split it, and keep it as one file of tensors."""

from __future__ import annotations

from pathlib import Path

from sharpness.data import arrays, catalogue, originals, own_data
from sharpness.runtime.stage import run_stage


def prepare_data(name: str, output: Path) -> None:
    """Write the splits of the data set ``name`` to ``output``; what must be downloaded first goes beside it."""
    if arrays.is_own(name):
        originals.save(own_data.prepare(name), {"data": name}, output)
        return
    tensors = originals.prepare(name, output.parent / "raw" / name)
    originals.save(tensors, {"num_classes": str(catalogue.facts_of(name).num_classes)}, output)


if __name__ == "__main__":
    run_stage(prepare_data)
