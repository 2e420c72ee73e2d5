"""Costs in short on the page of benchmarks, from their tables: ``python -m benchmarks.in_short`` writes it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from benchmarks.jobs import LARGER, NUM_EXAMPLES, TRAINED
from benchmarks.larger import verdicts
from benchmarks.plan import ROUNDS
from benchmarks.report import CHECKPOINTS
from benchmarks.spectrum import read
from benchmarks.summary import WITH_MALLOC, Costs, Measured, by_setting
from sharpness.runtime.files import write_text

PAGE = Path("docs/benchmarks.md")
_BLOCK = re.compile(r"(<!-- costs[^>]*-->\n).*(<!-- end of costs -->)", re.DOTALL)
_PEERS = {
    "scipy LM": "scipy's `eigsh` over double backward (the authors' way)",
    "curvlinops": "curvlinops into `eigsh`",
    "eigenthings": "hessian-eigenthings",
    "pyhessian": "PyHessian",
}
_SETTING = ("simple_cnn", NUM_EXAMPLES, 10)


def costs(folder: Path) -> str:
    """What was measured, in Markdown: what took three rounds, or else with the number of rounds.

    Args:
        folder: results/bench.
    """
    spectra = read(folder / "spectrum.csv")
    lines = [line for _, rows in spectra.groupby("kind", sort=False) for line in _spectra(rows)]
    others = [*_larger(folder / "larger.csv"), *_gpu(folder / "gpu.csv"), *_workflow(folder / "workflow.csv")]
    return "\n".join([*lines, *others]) + "\n"


def _larger(path: Path) -> Iterator[str]:
    """A line for each larger network on each kind of processor: what was wanted, and whether it is so."""
    if not path.exists():
        return
    table = pd.read_csv(path, keep_default_na=False, na_values=[""])
    for (_, network), rows in table.groupby(["kind", "network"], sort=False):
        name, unit = LARGER[str(network)]
        told = " ".join(verdicts(str(network), rows))
        yield (
            f"- {rows['cpu'].iloc[0]} ({rows['kind'].iloc[0]}), {name} of {rows['num_weights'].max() / 1e6:.1f} million"
            f" weights, {rows['num_examples'][rows['part'] != 'train'].max():.0f} {unit}, on one thread: {told}"
        )


def _spectra(table: pd.DataFrame) -> Iterator[str]:
    """A line for the settings of a user, and one for those of malloc, of one kind of processor."""
    settings, product = by_setting(table), Costs.of(table, "simple_cnn")
    tools = settings.get(_SETTING, {})
    for aside, words in (("", ""), (WITH_MALLOC, ", all with settings of glibc's malloc")):
        own, low = tools.get("ours float32" + aside), tools.get("ours bfloat16" + aside)
        if own is None:
            continue
        told = [_against(tools[name + aside], own, words) for name, words in _PEERS.items() if name + aside in tools]
        if low is not None:
            told += [f"bfloat16 to 1e-2 takes {100 * low.cpu_seconds / own.cpu_seconds:.0f} % of that time"]
        if aside == "" and (gradients := product.in_gradients(own.seconds, NUM_EXAMPLES)) is not None:
            told += [
                f"{CHECKPOINTS} such spectra take as long as {CHECKPOINTS * gradients:,.0f} gradients of these examples"
            ]
        yield (
            f"- {table['cpu'].iloc[0]} ({table['kind'].iloc[0]}){words}: {own.cpu_seconds:.1f} s of CPU time in"
            f" float32, an eigenvalue's error {own.eigenvalue_error:.0e}; {'; '.join(told)}{_rounds(own)}."
        )


def _against(other: Measured, own: Measured, words: str) -> str:
    few = "" if other.num_rounds == own.num_rounds else _rounds(other)
    return f"{other.cpu_seconds / own.cpu_seconds:.1f} times less than {words}{few}"


def _rounds(measured: Measured) -> str:
    return "" if measured.num_rounds >= ROUNDS else f" ({measured.num_rounds} of {ROUNDS} rounds)"


def _gpu(path: Path) -> Iterator[str]:
    table = pd.read_csv(path)
    spectra = table[(table["part"] == "spectrum") & (table["network"] == "simple_cnn")].set_index("tool")["seconds"]
    ratios = [
        f"{spectra[name] / spectra['ours float32']:.1f} times faster than with {words}"
        for name, words in _PEERS.items()
    ]
    speeds = table[table["part"] == "training"].pivot_table("images_per_second", ["network", "batch_size"], "tool")
    over = speeds["ours"] / speeds["tensors"]
    products = table[table["part"] == "product"].pivot_table("seconds", "network", "tool")
    gradients = [_both(products[f"ours {kind}"] / products["gradient"]) for kind in ("float32", "bfloat16")]
    trained = [f"{_both(over.xs(batch, level=1))} at batch {batch}" for batch in (128, 8)]
    yield (
        f"- {table['gpu'].iloc[0]}, where kernels are recorded and launched as a whole (CUDA graphs), with the same"
        f" bits: SimpleCNN and ResNet-32 train {' and '.join(trained)} times the images per second of a plain loop over"
        f" tensors; a product takes {gradients[0]} of autograd's gradient, which is not recorded, in bfloat16"
        f" {gradients[1]}; ten eigenpairs of SimpleCNN come {', '.join(ratios)} (one round)."
    )


def _both(values: pd.Series) -> str:
    return " and ".join(f"{values[network]:.1f}" for network in TRAINED)


def _workflow(path: Path) -> Iterator[str]:
    table = pd.read_csv(path)
    for kind, rows in table[table["gibibytes"].notna()].groupby("kind", sort=False):
        plans = [
            f"{row['jobs']:,.0f} jobs of {row['what']} are planned in {row['seconds']:.0f} s"
            for _, row in rows.iterrows()
        ]
        yield f"- The workflow, on {rows['cpu'].iloc[0]} ({kind}): {', '.join(plans)}."


def written(page: str, folder: Path) -> str:
    """The page with the costs as they were measured.

    Raises:
        ValueError: it has no place for them.
    """
    text, number = _BLOCK.subn(lambda match: f"{match[1]}{costs(folder)}{match[2]}", page)
    if number != 1:
        raise ValueError(f"{PAGE} must have <!-- costs --> and <!-- end of costs --> once, has them {number} times")
    return text


if __name__ == "__main__":
    write_text(written(PAGE.read_text(encoding="utf-8"), Path("results/bench")), PAGE)
