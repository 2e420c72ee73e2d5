"""The page of findings, from the published tables: ``python -m sharpness.report.findings`` writes it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import yaml

from sharpness.analysis.claims.deciding import decided_by
from sharpness.analysis.claims.poster import IN_SHORT
from sharpness.analysis.results_markup import spread
from sharpness.runtime.files import write_text
from sharpness.study.naming import subject
from sharpness.study.paths import StudyFolder

PAGE = Path("docs/findings.md")
# In the order of their columns; those are shown that are published.
STUDIES = (
    "fashion_mnist",
    "fashion_mnist_full",
    "fashion_mnist_exploring",
    "fashion_mnist_resnet",
    "fashion_mnist_resnet_exploring",
)
# With a table of results; the first that is published is shown.
_TABLES = ("fashion_mnist_resnet", "fashion_mnist_resnet_exploring")
# The claims of which the first study's numbers are told.
_TOLD = "bdogjk"
_BLOCK = re.compile(r"(<!-- findings[^>]*-->\n).*(<!-- end of findings -->)", re.DOTALL)
_PLAIN = {"gamma": "γ", "top_removed": "without it", "top_only": "along it alone", "sgd": "SGD"}


def findings(results: Path) -> str:
    """The findings in Markdown: what was measured, and the verdict on every claim, of each published study.

    Args:
        results: the folder of all studies.
    """
    verdicts = {
        name: pd.read_csv(path)
        for name in STUDIES
        if (path := Path(StudyFolder(str(results / name)).published.table("claims"))).exists()
    }
    return "\n".join([*_told(verdicts, results), "", *_table(verdicts), "", *_table_of_results(results)]) + "\n"


def _told(verdicts: dict[str, pd.DataFrame], results: Path) -> Iterator[str]:
    name, first = next(iter(verdicts.items()))
    network = _subject(results / name)
    yield f"What was measured with {network} (mean ± standard deviation over seeds):\n"
    for row in first[first["claim"].isin(list(_TOLD))].sort_values("claim", key=_place).to_dict("records"):
        yield f"- **{_sentence(row['claim'])}**: {_verdict(row)}. {_plain(row['measured'])}."


def _place(claims: pd.Series) -> pd.Series:
    return claims.map(_TOLD.index)


def _sentence(claim: str) -> str:
    words = IN_SHORT[claim]
    return words[0].upper() + words[1:]


def _plain(measured: str) -> str:
    words = re.compile("|".join(_PLAIN)).sub(lambda match: _PLAIN[match[0]], measured)
    return words[0].upper() + words[1:]


def _verdict(row: dict[str, object]) -> str:
    kind = "" if row["seeds_are"] == "confirming" else ", exploring"
    test = decided_by(row)
    return f"{row['verdict']} ({f'{test}; ' if test else ''}{row['seeds']} seeds{kind})"


def _table(verdicts: dict[str, pd.DataFrame]) -> Iterator[str]:
    links = [f"[{name}](../results/{name}/published/tables/claims.md)" for name in verdicts]
    yield f"| | The poster's claim | {' | '.join(links)} |"
    yield "|---" * (2 + len(verdicts)) + "|"
    for claim, words in IN_SHORT.items():
        cells = [_cell(table[(table["claim"] == claim) & (table["seeds"] > 0)]) for table in verdicts.values()]
        yield f"| {claim} | {words} | {' | '.join(cells)} |"


def _cell(rows: pd.DataFrame) -> str:
    found = []
    for row in rows.to_dict("records"):
        mark = "" if row["seeds_are"] == "confirming" else " *"
        answer = row["verdict"] if row["verdict"] == "undecided" else f"**{row['verdict']}**"
        of = re.search(r"rate (raised|lowered)", str(row["configuration"]))
        test = decided_by(row)
        found.append(f"{f'{of[0]}: ' if of else ''}{answer}{mark}{f' ({test})' if test else ''}")
    return "; ".join(found)


def _table_of_results(results: Path) -> Iterator[str]:
    tables = {name: Path(StudyFolder(str(results / name)).published.table("results_table")) for name in _TABLES}
    name = next(name for name in _TABLES if tables[name].exists())
    folder, table = results / name, pd.read_csv(tables[name])
    yield f"{_subject(folder)}, without batch norm, NSGD on the five sharpest directions (mean ± standard deviation"
    yield f"over seeds; [the whole table](../results/{name}/published/tables/results_table.md)):\n"
    yield "| | training loss, last | norm of the ten largest eigenvalues, last | test accuracy, best |"
    yield "|---|---:|---:|---:|"
    for row in table.to_dict("records"):
        title = f"γ = {row['label']}" if row["grid"] == "gamma" else f"rate {row['label'].removeprefix('SGD')[1:-1]}"
        lost = f" ({row['num_diverged']} of {row['num_seeds']} diverged)" if row["num_diverged"] else ""
        loss, norm = (
            spread(row[f"{column}_mean"], row[f"{column}_std"]) for column in ("training_loss", "frobenius_last")
        )
        accuracy = spread(100 * row["test_accuracy_mean"], 100 * row["test_accuracy_std"], " %")
        yield f"| {title}{lost} | {loss} | {norm} | {accuracy} |"


def _subject(folder: Path) -> str:
    study = yaml.safe_load(Path(StudyFolder(str(folder)).published.study).read_text(encoding="utf-8"))
    fields = study["defaults"]
    return subject(fields["model"], fields["data"], fields["num_training"])


def written(page: str, results: Path) -> str:
    """The page with the findings as they are published.

    Raises:
        ValueError: it has no place for them.
    """
    text, number = _BLOCK.subn(lambda match: f"{match[1]}{findings(results)}{match[2]}", page)
    if number != 1:
        raise ValueError(
            f"{PAGE} must have <!-- findings --> and <!-- end of findings --> once, has them {number} times"
        )
    return text


if __name__ == "__main__":
    write_text(written(PAGE.read_text(encoding="utf-8"), Path("results")), PAGE)
