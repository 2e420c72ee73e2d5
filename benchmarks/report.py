"""The table as a page: what was measured, what it was to show, and what was left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import pandas as pd

from benchmarks.figure import kind_drawn
from benchmarks.jobs import NETWORKS, NUM_EXAMPLES, PRODUCTS, TOOLS, Job, title
from benchmarks.left_out import Reason, by_place
from benchmarks.summary import OURS, WITH_MALLOC, Costs, Measured, by_setting, disturbed
from benchmarks.targets import verdicts

_PROTOCOL = f"""\
The loss is the mean cross-entropy on scikit-learn's digits, enlarged to 3x32x32, at weights that the benchmark trains
itself. Every measurement is a process of its own, a script as a user would write it: each tool with its own defaults,
no environment variables, as many threads as torch takes by itself. A star{WITH_MALLOC} marks the same with two
settings of glibc's malloc (`MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=4000000000`), for all tools alike. Tools take
turns. Times are medians over rounds; residuals and errors are the worst of all rounds and pairs. Time and CPU time are
from the network to the pairs, set-up included; whole-process CPU time also has Python's start and all imports. Peak
memory is that of the whole process. A residual is |Hv - λv| / max|λ|, computed anew by double backward; an error is
that of an eigenvalue over max|λ|, against ARPACK at machine precision. "And" counts products that probe for missed
pairs or certify in float32. Processors of different kinds are not compared."""

# Checkpoints of the trajectory whose cost the page tells, and the images of its epochs of training.
CHECKPOINTS, _IMAGES = 30, (5_000, 50_000)


def report(table: pd.DataFrame, failed: Mapping[Job, str], left_out: Mapping[Reason, Sequence[Job]]) -> str:
    """The whole page, in Markdown.

    Args:
        table: what ``benchmarks.spectrum`` writes.
        failed: jobs that failed on the first of the table's processors, with what they said.
        left_out: jobs that were not done there, by reason.
    """
    sections, drawn = ["# What a spectrum costs", _PROTOCOL, _tools(table)], kind_drawn(table)
    for number, (kind, rows) in enumerate(table.groupby("kind", sort=False)):
        sections += [f"## {rows['cpu'].iloc[0]} ({kind})", *_on_one_kind(rows, is_drawn=kind == drawn)]
        sections += ["### Left out", *_left_out(failed, left_out)] if number == 0 else []
    return "\n\n".join(sections) + "\n"


def _on_one_kind(table: pd.DataFrame, *, is_drawn: bool) -> Iterator[str]:
    yield _machine(table)
    yield from ("### Spectra", *_spectra(table))
    yield from ("### One product, and the rates of the machine", _products(table), _rates(table))
    yield from ("### Time over floor", *(["![Time of a spectrum](spectrum.png)"] if is_drawn else []), _floors(table))
    yield from ("### A trajectory", _trajectory(table))
    yield from ("### Targets", _listed(str(verdict) for verdict in verdicts(table)))


def _machine(table: pd.DataFrame) -> str:
    machines = table[["cpu", "threads", "versions"]].dropna().drop_duplicates()
    described = "; ".join(f"{row.threads:.0f} threads, {row.versions}" for row in machines.itertuples())
    sentence = f"{described}. {_trained(table)}"
    if table["malloc"].fillna(True).all():
        sentence += (
            " All of it was measured with malloc's settings, by an earlier version, over several runs of the benchmark;"
            " its peak memory is on top of network and examples."
        )
    if num_disturbed := int(disturbed(table).sum()):
        sentence += (
            f" During {num_disturbed} of {int((table['part'] == 'spectrum').sum())} spectra other processes used more"
            " than a tenth of the tool's CPU time: these count only where there is no quiet round (marked ~)."
        )
    return sentence


def _tools(table: pd.DataFrame) -> str:
    measured = set(table.loc[table["part"] == "spectrum", "tool"])
    return _listed(f"**{tool}**: {words}" for tool, words in TOOLS.items() if tool in measured)


def _spectra(table: pd.DataFrame) -> Iterator[str]:
    header = ["tool", "rounds", "time [s]", "CPU [s]", "over ours", "whole process: CPU [s]", "peak [MiB]"]
    header += ["products", "and", "residual", "error"]
    for setting, tools in by_setting(table).items():
        lines = [
            _spectrum_line(tools[tool + aside], tools.get(f"ours float32{aside}"))
            for aside in ("", WITH_MALLOC)
            for tool in TOOLS
            if tool + aside in tools
        ]
        yield f"#### {title(setting)}\n\n{_table(header, lines)}"


def _spectrum_line(measured: Measured, own: Measured | None) -> list[str]:
    spread = f" ({measured.fastest:.1f} to {measured.slowest:.1f})" if measured.num_rounds > 1 else ""
    whole = measured.process_cpu_seconds
    return [
        measured.tool.replace("*", "\\*"),
        f"{measured.num_rounds}{' ~' if measured.disturbed else ''}",
        f"{measured.seconds:.1f}{spread}",
        f"{measured.cpu_seconds:.1f}",
        f"{measured.cpu_seconds / own.cpu_seconds:.2f}" if own else "",
        "" if whole is None else f"{whole:.1f}",
        f"{measured.peak_mib:.0f}",
        f"{measured.products:g}",
        f"{measured.others:g}" if measured.others else "",
        _short(measured.residual),
        _short(measured.eigenvalue_error),
    ]


def _trained(table: pd.DataFrame) -> str:
    """How far each network's training went: 2.3, of ten classes, is where it begins."""
    trained = table[table["part"] == "train"]
    rows = trained.dropna(subset="training_loss") if "training_loss" in trained else trained.iloc[:0]
    losses = [f"{NETWORKS[row['network']]} {row['training_loss']:.2g}" for row in rows.to_dict("records")]
    return f"Training loss at the end (2.3 is a network that has not learnt): {', '.join(losses) or 'not measured'}."


def _products(table: pd.DataFrame) -> str:
    lines = []
    for network, name in NETWORKS.items():
        costs = Costs.of(table, network)
        for kind in PRODUCTS:
            if (seconds := costs.seconds.get(kind)) is not None:
                gradients = costs.in_gradients(seconds, 256)
                lines.append([name, kind, f"{1000 * seconds:.0f}", "" if gradients is None else f"{gradients:.2f}"])
    return "On 256 examples, the fastest of seven.\n\n" + _table(["network", "what", "time [ms]", "gradients"], lines)


def _rates(table: pd.DataFrame) -> str:
    """The floor as rates: of the largest convolution, of all layers, and of a product of matrices, by precision."""
    rows = table[table["part"] == "rate"]
    columns = {
        "operations_per_second": "largest convolution",
        "layer_operations_per_second": "all layers",
        "matrix_operations_per_second": "product of matrices",
    }
    columns = {name: words for name, words in columns.items() if name in rows and rows[name].notna().any()}
    fastest = rows.groupby(["network", "tool"], sort=False)[list(columns)].max() / 1e9
    lines = [
        [NETWORKS[network], tool.removeprefix("ours "), *(f"{rate:.0f}" for rate in rates)]
        for (network, tool), rates in zip(fastest.index, fastest.to_numpy(), strict=True)
    ]
    header = ["network", "precision", *(f"{words} [GFLOP/s]" for words in columns.values())]
    return f"Multiplications alone, forward and both derivatives, with all threads:\n\n{_table(header, lines)}"


def _floors(table: pd.DataFrame) -> str:
    lines = []
    for setting, tools in by_setting(table).items():
        for tool, measured in tools.items():
            if measured.floor is not None:
                own = "" if measured.layer_floor is None else f"{measured.seconds / measured.layer_floor:.2f}"
                numbers = f"{measured.seconds:.1f}", f"{measured.floor:.1f}", f"{measured.seconds / measured.floor:.2f}"
                lines.append([title(setting), tool.replace("*", "\\*"), str(measured.num_rounds), *numbers, own])
    explained = (
        "The floor is the floating-point operations of the products at the rate of the network's largest convolution "
        "(forward and its two derivatives); the last column is over the same at the rate of each of its layers' own."
    )
    header = ["setting", "tool", "rounds", "time [s]", "floor [s]", "time over floor", "over the layers' own"]
    return f"{explained}\n\n{_table(header, lines)}"


def _trajectory(table: pd.DataFrame) -> str:
    """What spectra at many checkpoints cost, in gradients on as many examples and in epochs of training."""
    lines = []
    for (network, num_examples, num_pairs), tools in by_setting(table).items():
        costs = Costs.of(table, network)
        if num_examples != NUM_EXAMPLES or costs.gradient is None:
            continue
        for name in (*OURS, *(tool + WITH_MALLOC for tool in OURS)):
            if name in tools:
                gradients = costs.in_gradients(CHECKPOINTS * tools[name].seconds, num_examples)
                assert gradients is not None
                epochs = [f"{gradients * num_examples / images:.1f}" for images in _IMAGES]
                words = [title((network, num_examples, num_pairs)), name.replace("*", "\\*")]
                lines.append([*words, f"{gradients / CHECKPOINTS:.0f}", f"{gradients:.0f}", *epochs])
    header = ["setting", "tool", "gradients a spectrum", f"gradients of {CHECKPOINTS}"]
    header += [f"epochs on {images:,} images" for images in _IMAGES]
    text = (
        f"Spectra at {CHECKPOINTS} checkpoints, in gradients on as many examples as the spectrum has, and in epochs of "
        "training, at one gradient of each image an epoch."
    )
    return f"{text}\n\n{_table(header, lines)}"


def _left_out(failed: Mapping[Job, str], left_out: Mapping[Reason, Sequence[Job]]) -> list[str]:
    sections = {"Failed": [f"{job}: {said}" for job, said in failed.items()]}
    sections |= {reason: by_place(jobs) for reason, jobs in left_out.items()}
    return [f"{heading}:\n\n{_listed(lines)}" for heading, lines in sections.items() if lines] or ["Nothing."]


def _table(header: list[str], lines: list[list[str]]) -> str:
    rule = ["---"] * len(header)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *lines))


def _listed(entries: Iterable[str]) -> str:
    return "\n".join(f"- {entry}" for entry in entries)


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"
