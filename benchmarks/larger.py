"""What curvature costs of larger networks, a GPT and a ResNet, beside other libraries: ``python -m benchmarks.larger``.

Writes results/bench/larger.csv and .md from the rows that the jobs of benchmarks/Snakefile left. What was measured on
another kind of processor stays.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from benchmarks.jobs import LARGER, TOOLS
from benchmarks.plan import LARGEST_PAIRS, MOST_CPU_SECONDS, larger
from sharpness.runtime.files import write_table, write_text

# Gradients that a product takes, times less CPU time than the best peer, and memory of training steps beside the basis.
WANTED = {"gpt": 2.2}
WANTED_SPEED, WANTED_STEPS, RESIDUAL = 2.5, 2, 1e-3
_PROTOCOL = f"""\
The mean cross-entropy at weights that the benchmark trains itself: a GPT of 6 layers, 6 heads and width 384, its table
of characters tied, which reads scikit-learn's descriptions of its data sets, on 16 sequences of 128 tokens; and
torchvision's ResNet-18 in evaluation mode on 64 digits, enlarged to 3x64x64. Every measurement is a process of its own,
on one thread, so that CPU time is what was computed. A product is the fastest of three, over the fastest gradient of
the same process. The top {LARGEST_PAIRS} are asked for at a residual of 1e-3 of every library that can be asked, and
residuals are computed anew by double backward; "and" counts products that probe for missed pairs. CPU time is from the
network to the pairs; peak memory is that of the whole process, beside that of one which makes a training step (plain
SGD) on the same examples. torch's fused attention has no second derivative, so that the other libraries get torch's own
formula for it (`sdpa_kernel(SDPBackend.MATH)`); what they say without it stands behind them. After {MOST_CPU_SECONDS} s
of CPU time a library is stopped."""


def main() -> None:
    """Write all that there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("results/bench"), help="of the results")
    options = parser.parse_args()
    cache, path = options.folder / "cache", options.folder / "larger.csv"
    paths = [cache / job.row for job in larger()]
    found = [row for row_path in paths if row_path.exists() for row in json.loads(row_path.read_text(encoding="utf-8"))]
    if not found:
        parser.error(f"nothing was measured: there is no row in {cache / 'rows'}")
    table = pd.DataFrame(found)
    if path.exists():
        others = pd.read_csv(path, keep_default_na=False, na_values=[""])
        table = pd.concat([table, others[others["kind"] != found[0]["kind"]]])
    write_table(table.astype(object).where(table.notna(), None).to_dict("records"), path)
    write_text(report(table), options.folder / "larger.md")


def report(table: pd.DataFrame) -> str:
    """The page, in Markdown; ``table`` is what ``main`` writes."""
    table = _whole(table)
    tools = dict.fromkeys(tool for tool in table["tool"] if tool in TOOLS)
    sections = ["# Larger networks", _PROTOCOL, "\n".join(f"- **{tool}**: {TOOLS[tool]}" for tool in tools)]
    for kind, rows in table.groupby("kind", sort=False):
        sections.append(f"## {rows['cpu'].iloc[0]} ({kind})\n\n{rows['versions'].iloc[0]}.{_beside(rows)}")
        for network, of_network in rows.groupby("network", sort=False):
            sections += _of_network(str(network), of_network)
    return "\n\n".join(sections) + "\n"


def _whole(table: pd.DataFrame) -> pd.DataFrame:
    """With every column, also where nothing was stopped or refused, or spectra are still to come."""
    needed = ["product_cpu_seconds", "gradient_cpu_seconds", "refused", "stopped", "products", "probing"]
    needed += ["residual", "basis_mib"]
    return table.reindex(columns=[*table.columns, *(name for name in needed if name not in table)])


def _beside(rows: pd.DataFrame) -> str:
    """Whether other work ran beside: then memory bandwidth and caches were shared, for all alike."""
    measured = rows[rows["foreign_cpu_seconds"].notna()]
    beside = measured["foreign_cpu_seconds"] > 0.1 * measured["cpu_seconds"]
    return f" Other processes were at work beside {beside.sum()} of {len(beside)} measurements." if beside.any() else ""


def _of_network(network: str, rows: pd.DataFrame) -> Iterator[str]:
    name, unit = LARGER[network]
    weights = rows["num_weights"].max()
    number = rows.loc[rows["part"] != "train", "num_examples"].max()
    yield f"### {name}, {weights:,.0f} weights, {number:.0f} {unit}"
    products, spectra = rows[rows["part"] == "matvec"], rows[rows["part"] == "spectrum"]
    step = rows.loc[rows["part"] == "step", "peak_mib"]
    header = ["tool", "product: CPU [s]", "gradients", "peak [MiB]", "note"]
    lines = [
        [
            row.tool,
            _seconds(row.product_cpu_seconds),
            _ratio(row.product_cpu_seconds, row.gradient_cpu_seconds),
            f"{row.peak_mib:,.0f}",
            _note(row),
        ]
        for row in products.itertuples()
    ]
    yield _markdown(header, lines)
    header = [
        f"tool, top {LARGEST_PAIRS}",
        "CPU [s]",
        "over ours",
        "products",
        "and",
        "residual",
        "peak [MiB]",
        "over a step",
    ]
    own = spectra.loc[spectra["tool"] == "ours float32", "cpu_seconds"]
    base, memory = (float(of.iloc[0]) if len(of) else float("nan") for of in (own, step))
    lines = [
        [
            row.tool,
            _seconds(row.cpu_seconds, row.stopped),
            _ratio(row.cpu_seconds, base),
            _count(row.products),
            _count(row.probing),
            _residual(row.residual),
            f"{row.peak_mib:,.0f}",
            _ratio(row.peak_mib, memory),
        ]
        for row in spectra.itertuples()
    ]
    yield _markdown(header, lines)
    yield "\n".join(f"- {sentence}" for sentence in [*verdicts(network, rows), *_left_out(network, rows)])


def _left_out(network: str, rows: pd.DataFrame) -> Iterator[str]:
    done = set(zip(rows["part"], rows["tool"].fillna(""), strict=True))
    words = {"matvec": "a product", "spectrum": f"the top {LARGEST_PAIRS}"}
    for job in larger():
        if job.network == network and job.part in words and (job.part, job.tool) not in done:
            yield f"Not measured here: {words[job.part]} by {job.tool}."


def verdicts(network: str, rows: pd.DataFrame) -> list[str]:
    """What was wanted of one network, and whether it is so; of what was measured."""
    found, rows = [], _whole(rows)
    products = rows[rows["part"] == "matvec"].set_index("tool")
    spectra = rows[rows["part"] == "spectrum"].set_index("tool")
    step = rows.loc[rows["part"] == "step", "peak_mib"]
    if network in WANTED and "ours float32" in products.index:
        own = products.loc["ours float32"]
        ratio = own["product_cpu_seconds"] / own["gradient_cpu_seconds"]
        found.append(_verdict(f"A product takes {ratio:.2f} gradients, at most {WANTED[network]} wanted", ratio <= 2.2))
    if "ours float32" not in spectra.index:
        return found
    own, peers = spectra.loc["ours float32"], spectra.drop(index="ours float32")
    there = peers[(peers["residual"] <= RESIDUAL) & peers["stopped"].isna()]
    if len(there):
        best = there["cpu_seconds"].idxmin()
        ratio = there.loc[best, "cpu_seconds"] / own["cpu_seconds"]
        words = f"{ratio:.1f} times less CPU time than {best}, the fastest that gets to {RESIDUAL:g}"
        reason = "" if ratio >= WANTED_SPEED else _bound(own, there.loc[best], products, str(best))
        found.append(_verdict(f"{words}; {WANTED_SPEED} wanted", ratio >= WANTED_SPEED, reason))
    elif len(peers):
        found.append(f"No other library gets to {RESIDUAL:g} within {MOST_CPU_SECONDS} s.")
    if len(step):
        allowed = WANTED_STEPS * float(step.iloc[0]) + own["basis_mib"]
        words = f"Peak memory {own['peak_mib']:,.0f} MiB, at most {WANTED_STEPS} training steps' "
        words += f"({float(step.iloc[0]):,.0f}) and the basis ({own['basis_mib']:,.0f}) wanted, {allowed:,.0f}"
        found.append(_verdict(words, own["peak_mib"] <= allowed))
    return found


def _bound(own: pd.Series, peer: pd.Series, products: pd.DataFrame, tool: str) -> str:
    """What the products alone allow: those of the other library over ours, probes included."""
    theirs = tool.removesuffix(" 1e-3")
    if theirs not in products.index or "ours float32" not in products.index:
        return ""
    costs = products["product_cpu_seconds"] / products["gradient_cpu_seconds"]
    numbers, gradients = (peer["products"], own["products"] + own["probing"]), (costs[theirs], costs["ours float32"])
    allowed = numbers[0] * gradients[0] / (numbers[1] * gradients[1])
    return (
        f"; its {numbers[0]:.0f} products of {gradients[0]:.2f} gradients against {numbers[1]:.0f} of"
        f" {gradients[1]:.2f}, those that probe for missed pairs included, allow {allowed:.1f}"
    )


def _verdict(words: str, is_met: bool, reason: str = "") -> str:
    return f"{words}: {'met' if is_met else 'not met'}{reason}."


def _note(row: object) -> str:
    refused = getattr(row, "refused", None)
    return f"without `sdpa_kernel`: {refused}" if isinstance(refused, str) and refused else ""


def _seconds(value: float, stopped: object = None) -> str:
    return f"more than {value:.0f}" if stopped == True else f"{value:.2f}" if value < 10 else f"{value:.0f}"  # noqa: E712


def _ratio(value: float, base: float) -> str:
    return "" if not base > 0 or value != value else f"{value / base:.2f}"


def _count(value: float) -> str:
    return f"{value:.0f}" if value == value and value else ""


def _residual(value: float) -> str:
    return f"{value:.1e}" if value == value else ""


def _markdown(header: list[str], lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, ["---"] * len(header), *lines])


if __name__ == "__main__":
    main()
