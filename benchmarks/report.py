"""The table as a page: what was measured, what it was to show, and what was left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from benchmarks.jobs import NETWORKS, PRODUCTS, TOOLS, Job, named, title
from benchmarks.left_out import Reason, by_place
from benchmarks.summary import Costs, Measured, by_setting, disturbed
from benchmarks.targets import verdicts

_PROTOCOL = """\
The loss is the mean cross-entropy on scikit-learn's digits, enlarged to 3x32x32, at weights that the benchmark trains
itself (120 steps, the SimpleCNN by SGD, the ResNet by Adam). Every measurement is a process of its own, with the same
number of threads and settings of malloc; imports do not count, setting up does. Tools take turns. Times are medians
over rounds; residuals and errors are the worst of all rounds and pairs. A residual is |Hv - λv| / max|λ|, computed anew
by double backward; an error is that of an eigenvalue over max|λ|, against ARPACK at machine precision. "And" counts
products that probe for missed pairs or certify in float32. Peak memory is on top of network and examples."""


def report(table: pd.DataFrame, failed: Mapping[Job, str], left_out: Mapping[Reason, Sequence[Job]]) -> str:
    """The whole page, in Markdown.

    Args:
        table: what ``benchmarks.spectrum`` writes.
        failed: jobs that failed, with what they said.
        left_out: jobs that were not done, by reason.
    """
    sections = ["# What a spectrum costs", _machine(table), _PROTOCOL, _trained(table), _tools(table)]
    sections += ["## Spectra", *_spectra(table)]
    sections += ["## One product", _products(table)]
    sections += ["## Targets", _listed(str(verdict) for verdict in verdicts(table))]
    sections += ["## How the cost grows", "![Time of a spectrum](spectrum.png)", _growth(table)]
    sections += ["## Left out", *_left_out(failed, left_out)]
    return "\n\n".join(sections) + "\n"


def _machine(table: pd.DataFrame) -> str:
    machines = table[["cpu", "threads", "versions"]].dropna().drop_duplicates()
    described = "; ".join(f"{row.cpu}, {row.threads:.0f} threads, {row.versions}" for row in machines.itertuples())
    sentence = f"Measured on {described}."
    if (num_sittings := int(table["sitting"].max())) > 1:
        measured = table.loc[table["part"] == "rate", ["network", "width", "sitting"]].drop_duplicates()
        rates = ", ".join(f"{named(row.network, row.width)} in sitting {row.sitting}" for row in measured.itertuples())
        sentence += (
            f" There were {num_sittings} sittings, numbered in the tables: compare times within one, for the machine"
            f" need not have been equally fast in all. Rates of convolutions, which make the floors, are of {rates}."
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


def _spectra(table: pd.DataFrame) -> list[str]:
    found = []
    for setting, tools in by_setting(table).items():
        if all(measured.residual is None for measured in tools.values()):
            continue  # of the figure alone
        own = tools.get("ours float32")
        lines = [_spectrum_line(tools[tool], own) for tool in TOOLS if tool in tools]
        header = [
            "tool",
            "sitting",
            "rounds",
            "time [s]",
            "CPU [s]",
            "over ours",
            "products",
            "and",
            "peak [MiB]",
            "residual",
            "error",
        ]
        found.append(f"### {title(setting)}\n\n{_table(header, lines)}")
    return found


def _spectrum_line(measured: Measured, own: Measured | None) -> list[str]:
    spread = f" ({measured.fastest:.1f} to {measured.slowest:.1f})" if measured.num_rounds > 1 else ""
    return [
        measured.tool,
        measured.sittings,
        f"{measured.num_rounds}{' ~' if measured.disturbed else ''}",
        f"{measured.seconds:.1f}{spread}",
        f"{measured.cpu_seconds:.1f}",
        f"{measured.seconds / own.seconds:.2f}" if own and own.sittings == measured.sittings else "",
        f"{measured.products:g}",
        f"{measured.others:g}" if measured.others else "",
        f"{measured.peak_mib:.0f}",
        _short(measured.residual),
        _short(measured.eigenvalue_error),
    ]


def _trained(table: pd.DataFrame) -> str:
    """How far each network's training went: 2.3, of ten classes, is where it begins."""
    trained = table[(table["part"] == "train") & (table["width"] == 1)]
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


def _growth(table: pd.DataFrame) -> str:
    lines = []
    for setting, tools in by_setting(table).items():
        for tool, measured in tools.items():
            if measured.floor is not None:
                numbers = f"{measured.seconds:.1f}", f"{measured.floor:.1f}", f"{measured.seconds / measured.floor:.2f}"
                lines.append([title(setting), tool, measured.sittings, *numbers])
    explained = (
        "The floor is the floating-point operations of the products at the rate of the network's largest convolution "
        "(forward and its two derivatives)."
    )
    header = ["setting", "tool", "sitting", "time [s]", "floor [s]", "time over floor"]
    return f"{explained}\n\n{_table(header, lines)}"


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
