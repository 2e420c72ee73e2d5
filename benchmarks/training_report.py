"""The table of training speeds as a page."""

from __future__ import annotations

import itertools

import pandas as pd

from benchmarks.jobs import NETWORKS, TRAINED
from benchmarks.training_loops import FLOOR, IN_WORDS, PEAK

BATCHES = (128, 8, 1024)
# In the order in which they are measured.
SETTINGS = list(itertools.product(BATCHES, TRAINED))

_PROTOCOL = """\
Images of 3x32x32; loops take turns, a number is the median over the rounds. One run uses all cores;
side by side, as many runs as there are cores have one thread each, and their images per second are added up. The target
of a ratio is in brackets."""

_NUDGING = """\
SimpleCNN on 1,536 digits at 3x32x32, batch 128, five directions found anew every epoch from 5 % of the training images,
to the tolerance or with as many products as are allowed; one run on all cores. Cost is the time of an epoch of
Nudged SGD, with the search, over that of an epoch of SGD: at most 2.0 is wanted in float32, at most 1.35 with bfloat16
products on AMX. Medians over the epochs after the first, whose search also compiles the product."""

# network, batch size, ours, its processes (0: one for each core), theirs, at least
_TARGETS = [
    ("simple_cnn", 128, "ours, augmented", 1, "DataLoader", 1.5),
    ("resnet32", 128, "ours, augmented", 1, "DataLoader", 1.2),
    ("simple_cnn", 128, "ours", 1, "tensors", 1.2),
    ("resnet32", 128, "ours", 1, "tensors", 1.2),
    ("simple_cnn", 128, "ours, bfloat16", 1, "tensors", 3.0),
    ("resnet32", 128, "ours, bfloat16", 1, "tensors", None),
    ("simple_cnn", 8, "ours, augmented", 1, "DataLoader", 1.5),
    ("resnet32", 8, "ours, augmented", 1, "DataLoader", 1.5),
    ("simple_cnn", 128, "ours, augmented", 0, "DataLoader", 2.5),
    ("resnet32", 128, "ours, augmented", 0, "DataLoader", 2.5),
    ("simple_cnn", 8, "ours, augmented", 0, "DataLoader", 2.5),
]


def report(table: pd.DataFrame, nudging: pd.DataFrame) -> str:
    """The page, in Markdown: what ``benchmarks.training`` and ``benchmarks.nudging`` measured, by kind of processor."""
    sections = [
        "# What training costs",
        _PROTOCOL,
        "\n".join(f"- **{loop}**: {words}" for loop, words in IN_WORDS.items()),
    ]
    for kind, rows in table.groupby("kind", sort=False):
        sections += _on_one_kind(rows, nudging[nudging["kind"] == kind])
    return "\n\n".join(sections) + "\n"


def _on_one_kind(table: pd.DataFrame, nudging: pd.DataFrame) -> list[str]:
    first = table.iloc[0]
    speeds = _medians(table)
    sections = [
        f"## {first['cpu']} ({first['kind']}), {first['threads']} threads, {first['versions']}",
        "### Images per second",
        _speeds(speeds).to_markdown(),
        "### Targets",
        "\n".join(_targets(speeds)),
        "### Nudged SGD",
        _NUDGING,
        _nudging(nudging).to_markdown(index=False, floatfmt=".2f") if len(nudging) else "No time.",
        "### Projections",
        _projections(speeds),
        "### Threads",
        _threads(speeds),
    ]
    measured = {key[:2] for key in speeds.index}
    left_out = [
        f"- {NETWORKS[name]}, batch {batch}: no time" for batch, name in SETTINGS if (name, batch) not in measured
    ]
    return [*sections, "### Left out", "\n".join(left_out)] if left_out else sections


def _medians(table: pd.DataFrame) -> pd.Series:
    table = table.assign(side_by_side=table["processes"] > 1)
    return table.groupby(["network", "batch_size", "loop", "side_by_side"])["images_per_second"].median()


def _speeds(speeds: pd.Series) -> pd.DataFrame:
    frame = speeds.round().astype(int).reset_index()
    frame["loop"] += frame["side_by_side"].map({True: ", side by side", False: ""})
    frame["network"] = frame["network"].map(NETWORKS) + ", batch " + frame["batch_size"].astype(str)
    order = frame["loop"].unique()
    return frame.pivot(index="network", columns="loop", values="images_per_second")[order]


def _targets(speeds: pd.Series) -> list[str]:
    lines = []
    for network, batch, ours, processes, theirs, wanted in _TARGETS:
        mine, other = (network, batch, ours, processes != 1), (network, batch, theirs, False)
        if mine not in speeds or other not in speeds:
            continue
        ratio = speeds[mine] / speeds[other]
        verdict = "no target" if wanted is None else f"{wanted}: {'met' if ratio >= wanted else 'not met'}"
        aside = "" if processes == 1 else ", side by side"
        line = f"- {NETWORKS[network]}, batch {batch}: {ours}{aside} / {theirs} = {ratio:.2f} [{verdict}]"
        for bound in (FLOOR, PEAK) if "not met" in verdict else ():
            speed = speeds.get((network, batch, bound, processes != 1))
            if speed is not None:
                line += f"; the {bound} is {speed:.0f} images/s, {speed / speeds[other]:.2f} times {theirs}"
        lines.append(line)
    return lines


def _nudging(table: pd.DataFrame) -> pd.DataFrame:
    later = table[table["epoch"] > 0]
    cost = (later["search_seconds"] + later["nudged_seconds"]) / later["plain_seconds"]
    steps = later["nudged_seconds"] / later["plain_seconds"]
    ways = later.assign(cost=cost, updates=steps).groupby(["precision", "tolerance", "most_products"], sort=False)
    medians = ways[["cost", "updates", "products", "residual"]].median().reset_index()
    return medians.rename(columns={"most_products": "most products", "updates": "cost of the updates alone"})


def _projections(speeds: pd.Series) -> str:
    lines = [
        f"- {NETWORKS[network]}, batch {batch}: a step with five directions takes"
        f" {speeds[network, batch, 'ours', False] / speeds[network, batch, 'ours, nudged', False]:.2f} of one without"
        for network, batch in sorted({key[:2] for key in speeds.index})
    ]
    return "\n".join(lines)


def _threads(speeds: pd.Series) -> str:
    lines = [
        f"- {NETWORKS[network]}, batch {batch}: side by side {speeds[network, batch, 'ours', True]:.0f} images/s, one"
        f" run on all cores {speeds[network, batch, 'ours', False]:.0f}:"
        f" {speeds[network, batch, 'ours', True] / speeds[network, batch, 'ours', False]:.2f}"
        for network, batch in sorted({key[:2] for key in speeds.index})
    ]
    return "\n".join(lines)
