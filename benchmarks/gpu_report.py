"""The page of what was measured on a GPU."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from benchmarks.jobs import CHUNK_SIZE, NETWORKS, NUM_EXAMPLES, TOOLS
from benchmarks.training_loops import IN_WORDS


def report(table_path: Path) -> str:
    """The whole page, in Markdown, of the table that ``benchmarks.gpu`` wrote."""
    table = pd.read_csv(table_path)
    first = table.iloc[0]
    measured = (
        f"Measured on one {first['gpu']} with torch {first['torch']}; each process has one thread of the CPU. "
        "All compared runs in the same settings: deterministic kernels, and no TensorFloat-32 but where it is named."
    )
    sections = ["# What training and a spectrum cost on a GPU", measured]
    parts = {"training": _training, "sharing": _sharing, "product": _products, "spectrum": _spectra}
    for part, page in parts.items():
        rows = table[table["part"] == part].dropna(axis=1, how="all")
        if len(rows):
            sections += page(rows.assign(network=rows["network"].map(NETWORKS)))
    return "\n\n".join(sections) + "\n"


def _table(values: pd.DataFrame, digits: str) -> str:
    table: str = values.rename_axis(columns=None).reset_index().to_markdown(index=False, floatfmt=digits)
    return table


def _training(rows: pd.DataFrame) -> list[str]:
    speeds = rows.pivot_table("images_per_second", ["network", "batch_size"], "tool")
    words = "\n".join(f"- **{loop}**: {IN_WORDS[loop]}" for loop in speeds)
    return ["## Images per second of training", words, _table(speeds, ".0f")]


def _sharing(rows: pd.DataFrame) -> list[str]:
    speeds = rows.astype({"processes": int}).pivot_table("images_per_second", "network", "processes")
    text = "Runs of batch size 128 with augmentation share the GPU: images per second of all together, by their number."
    return ["## Several runs on one GPU", text, _table(speeds, ".0f")]


def _products(rows: pd.DataFrame) -> list[str]:
    times = rows.pivot_table("seconds", "tool", "network")
    table = (1000 * times).assign(**{f"{network}, in gradients": of / of["gradient"] for network, of in times.items()})
    text = f"On {NUM_EXAMPLES} digits at 3x32x32, {CHUNK_SIZE} at a time: milliseconds."
    return ["## One product with the Hessian", text, _table(table, ".2f")]


def _spectra(rows: pd.DataFrame) -> list[str]:
    ours = rows[rows["tool"] == "ours float32"].set_index("network")["seconds"]
    table = rows.assign(**{"over ours float32": rows["seconds"] / rows["network"].map(ours)})
    columns = ["network", "tool", "seconds", "over ours float32", "products", "residual", "peak_mib"]
    words = "\n".join(f"- **{tool}**: {TOOLS[tool]}" for tool in rows["tool"].unique())
    text = f"The ten largest eigenvalues on {NUM_EXAMPLES} digits, all in one process; residuals computed anew."
    left_out = [f"Not measured here: {name}." for name in NETWORKS.values() if name not in set(rows["network"])]
    return ["## A spectrum", text, words, table[columns].to_markdown(index=False, floatfmt=".3g"), *left_out]
