"""The table of results as a person reads it: Markdown and TeX, with the poster's columns, and its own numbers below."""

import math
import re
from typing import Any

import pandas as pd

from sharpness.analysis.tables import QUANTITIES, WHOLE_NORMS
from sharpness.study.naming import subject

# The poster's own table, on CIFAR-10; its rows carry neither a spread nor a number of seeds.
POSTER_HEADING = "For comparison, the poster: Resnet-32 on CIFAR-10, Val. acc. (50), no spread"
POSTER_EPOCH = 50
POSTER = [
    ["0.01", "672 / 1,559", "87.4 %", "58.3 %", "0.06067", "22.99"],
    ["0.1", "487 / 816", "87.2 %", "57.0 %", "0.06128", "23.41"],
    ["1.0", "119 / 121", "86.6 %", "54.0 %", "0.06443", "24.62"],
    ["10", "39 / 19", "85.2 %", "43.8 %", "0.10194", "29.39"],
    ["SGD(0.1)", "21 / 13", "89.7 %", "82.6 %", "0.10787", "34.90"],
    ["SGD(0.0025)", "890 / 1,190", "84.8 %", "30.9 %", "0.10304", "18.65"],
    ["SGD(0.005)", "377 / 511", "85.6 %", "41.7 %", "0.08392", "21.21"],
]
TEX = {
    "‖H‖_F": r"$\|\mathbf{H}\|_F$",
    "γ": r"$\gamma$",
    "±": r"$\pm$",
    "–": "--",
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%_#$"},
}
# What stands as an index in TeX, as papers print it, or closer: otherwise the table would be wider than a page.
NARROWER = [
    (re.compile(" / "), r"\\,/\\,"),
    (re.compile(r" \$\\pm\$ ([\d.,]*\d)"), r"$_{\\pm \1}$"),
    (re.compile(r" \((\d+) of (\d+) diverged\)"), r"$_{\1/\2}$"),
]


def as_markdown(table: pd.DataFrame, *, caption: str, loss: str = "cross-entropy") -> str:
    """The table of results as Markdown, one table per model on its data, and the poster's own.

    Args:
        table: from ``results_table``.
        caption: what was measured on what; the definitions of the columns follow it.
        loss: that was trained on, in words.
    """
    parts = [f"{caption}. {_definitions(table, loss)}"]
    for heading, header, rows in _blocks(table):
        lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
        parts += [f"**{heading}**", "\n".join(f"| {' | '.join(cells)} |" for cells in lines)]
    return "\n\n".join(parts) + "\n"


def as_tex(table: pd.DataFrame, *, caption: str, loss: str = "cross-entropy") -> str:
    """The table of results as a LaTeX table for ``\\input``; the document loads the package booktabs.

    Args:
        table: from ``results_table``.
        caption: what was measured on what, plain text; the definitions of the columns follow it.
        loss: that was trained on, in words.
    """
    header = _header(table)
    diverged = " The fraction beside a γ: of its seeds, those that diverged and are left out."
    notes = f" Accuracies in per cent.{diverged if table['num_diverged'].any() else ''}"
    lines = []
    for heading, _, rows in _blocks(table):
        # The poster has no column for the stochastic norm.
        rows = [[*cells[:2], *[""] * (len(header) - len(cells)), *cells[2:]] for cells in rows]
        lines += [r"\midrule", rf"\multicolumn{{{len(header)}}}{{l}}{{\itshape {_tex(heading)}}} \\", r"\addlinespace"]
        lines += [_tex_row([cell.removesuffix(" %") for cell in cells]) for cells in rows]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            r"\scriptsize",
            r"\setlength{\tabcolsep}{1.7pt}",
            rf"\caption{{{_tex(f'{caption}. {_definitions(table, loss)}{notes}')}}}",
            rf"\begin{{tabular}}{{@{{}}l{'r' * (len(header) - 1)}@{{}}}}",
            r"\toprule",
            _tex_row(header),
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _has_whole_norms(table: pd.DataFrame) -> bool:
    return f"{WHOLE_NORMS[0]}_mean" in table


def _header(table: pd.DataFrame) -> list[str]:
    whole = ["stochastic"] if _has_whole_norms(table) else []
    epoch = table["validation_epoch"].iloc[0]
    return [_first(table), "‖H‖_F best / last", *whole, "Test acc.", f"Val. acc. ({epoch:g})", "Loss", "Dist."]


def _first(table: pd.DataFrame) -> str:
    """What names the rows: γ where some are of one, as those of the poster."""
    is_gamma = [str(label).replace(".", "", 1).replace("e-", "").isdigit() for label in table.get("label", ["1"])]
    return "γ" if any(is_gamma) or "label" not in table else "Run"


def _definitions(table: pd.DataFrame, loss: str) -> str:
    """What each column is, in words."""
    epoch = table["validation_epoch"].iloc[0]
    norm = f"‖H‖_F: root of the sum of squares of the {_range(table['num_eigenvalues'])} largest eigenvalues"
    has_accuracy = table["validation_accuracy_mean"].notna().any() or table["num_diverged"].any()
    best = "best validation accuracy" if has_accuracy else "lowest validation loss"
    sentences = [f"{norm}, at the checkpoint of the {best} and at the last"]
    if _has_whole_norms(table):
        error = table[[f"{name}_error" for name in WHOLE_NORMS]].max(axis=None)
        known = f", with a standard error of at most {error:.2g}" if math.isfinite(error) else ""
        sentences.append(
            "Stochastic: that of the whole Hessian there, these eigenvalues exact and the rest estimated from random "
            f"vectors{known}"
        )
    sentences.append("Test acc. and Dist. (from the first weights, Euclidean): at the best checkpoint")
    sentences.append(f"Val. acc. ({epoch:g}): validation accuracy after epoch {epoch:g}")
    sentences.append(f"Loss: training {loss} after the last epoch, without the L2 term")
    return ". ".join(sentences) + "."


def _blocks(table: pd.DataFrame) -> list[tuple[str, list[str], list[list[str]]]]:
    """Heading, header and cells of each block; the poster's own is the last."""
    blocks = [
        (
            _heading(subject(model, data), rows),
            _header(table),
            [_cells(row) for row in rows.to_dict("records")],
        )
        for (data, model), rows in table.groupby(["data", "model"], sort=False)
    ]
    header = _header(pd.DataFrame({"validation_epoch": [POSTER_EPOCH]}))
    return [*blocks, (POSTER_HEADING, header, POSTER)]


def _heading(name: str, rows: pd.DataFrame) -> str:
    seeds = _range(rows["num_seeds"])
    spread = "one seed" if seeds == "1" else f"mean ± standard deviation over {seeds} seeds"
    return f"{name}, {spread}"


def _range(counts: pd.Series) -> str:
    values = [f"{count:g}" for count in sorted(counts.dropna().unique())]
    return " to ".join(dict.fromkeys([values[0], values[-1]])) if values else "no"


def _cells(row: dict[str, Any]) -> list[str]:
    diverged = f" ({row['num_diverged']} of {row['num_seeds']} diverged)" if row["num_diverged"] else ""
    names = [name for name in (*QUANTITIES, *WHOLE_NORMS) if f"{name}_mean" in row]
    value = {name: spread(row[f"{name}_mean"], row[f"{name}_std"]) for name in names}
    percent = {
        name: spread(100 * row[f"{name}_mean"], 100 * row[f"{name}_std"], unit=" %")
        for name in ("test_accuracy", "validation_accuracy")
    }
    return [
        row["label"] + diverged,
        f"{value['frobenius_best']} / {value['frobenius_last']}",
        *([" / ".join(value[name] for name in WHOLE_NORMS)] if WHOLE_NORMS[0] in value else []),
        percent["test_accuracy"],
        percent["validation_accuracy"],
        value["training_loss"],
        value["distance"],
    ]


def spread(mean: float, deviation: float, unit: str = "") -> str:
    """``mean ± deviation``, to three digits of the mean or two of the deviation, what is fewer; "–" without a mean."""
    if not math.isfinite(mean):
        return "–"
    decimals = _decimals(mean, 3)
    beside = ""
    if math.isfinite(deviation):
        decimals = min(decimals, _decimals(deviation, 2)) if deviation else decimals
        beside = f" ± {deviation:,.{decimals}f}"
    return f"{mean:,.{decimals}f}{beside}{unit}"


def _decimals(value: float, digits: int) -> int:
    """Decimals with which a value has so many significant digits."""
    return max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else digits - 1


def _tex(text: str) -> str:
    text = re.sub("|".join(map(re.escape, TEX)), lambda found: TEX[found[0]], text)
    for pattern, narrower in NARROWER:
        text = pattern.sub(narrower, text)
    return text


def _tex_row(cells: list[str]) -> str:
    return " & ".join(map(_tex, cells)) + r" \\"
