"""Medians over rounds, products in gradients, and the floor: what the report and the figure are made of."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

SETTING = ["network", "width", "num_examples", "num_pairs"]
_OURS = ("ours float32", "ours bfloat16")


def with_floor(table: pd.DataFrame) -> pd.DataFrame:
    """The spectra, with a column ``floor``: seconds of their products' operations at the rate of a convolution.

    Products that certify are computed in float32. The floor is missing for other tools than this project's.
    """
    spectra = table[(table["part"] == "spectrum") & table["seconds"].notna()].copy()
    rates = table[table["part"] == "rate"].groupby(["network", "width", "tool"])
    by_network = rates[["operations_per_second", "operations_per_product"]].median()
    floors = [_floor(row, by_network) for _, row in spectra.iterrows()]
    return spectra.assign(floor=pd.Series(floors, index=spectra.index, dtype=float))


def _floor(row: pd.Series, rates: pd.DataFrame) -> float | None:
    low, high = ((row["network"], row["width"], tool) for tool in (row["tool"], "ours float32"))
    if row["tool"] not in _OURS or low not in rates.index or high not in rates.index:
        return None
    operations = row["num_examples"] * rates.loc[high, "operations_per_product"]
    seconds = (row["products"] + row["probing"]) / rates.loc[low, "operations_per_second"]
    return float(operations * (seconds + row["certifying"] / rates.loc[high, "operations_per_second"]))


def disturbed(table: pd.DataFrame) -> pd.Series:
    """Which rows are spectra beside which other processes took more than a tenth of the tool's own CPU time."""
    return (table["part"] == "spectrum") & (table["foreign_cpu_seconds"] > 0.1 * table["cpu_seconds"])


@dataclass(frozen=True)
class Costs:
    """Seconds of one gradient and of one product of each kind on 256 examples, of one network."""

    seconds: dict[str, float]

    @classmethod
    def of(cls, table: pd.DataFrame, network: str) -> Costs:
        """As far as they were measured."""
        rows = table[(table["part"] == "product") & (table["network"] == network) & table["seconds"].notna()]
        return cls({str(tool): float(value) for tool, value in rows.groupby("tool")["seconds"].median().items()})

    @property
    def gradient(self) -> float | None:
        return self.seconds.get("gradient")

    def in_gradients(self, seconds: float, num_examples: int) -> float | None:
        """A time as a number of gradients on as many examples."""
        return None if self.gradient is None else seconds / (self.gradient * num_examples / 256)


@dataclass(frozen=True)
class Measured:
    """One tool at one setting: medians over rounds."""

    tool: str
    num_rounds: int
    seconds: float
    fastest: float
    slowest: float
    cpu_seconds: float
    products: float  # up to convergence
    others: float  # those that probe and certify
    peak_mib: float
    residual: float | None  # the worst of all rounds, as the error
    eigenvalue_error: float | None
    floor: float | None
    disturbed: bool  # whether other processes were at work in all rounds
    sittings: str  # in which runs of the benchmark it was measured

    @classmethod
    def of(cls, rounds: pd.DataFrame) -> Measured:
        """From the rows of the rounds: of the quiet ones, where there are any."""
        quiet = rounds[~disturbed(rounds)]
        rows = quiet if len(quiet) else rounds
        median = rows.median(numeric_only=True)
        return cls(
            tool=str(rows["tool"].iloc[0]),
            num_rounds=len(rows),
            seconds=float(median["seconds"]),
            fastest=float(rows["seconds"].min()),
            slowest=float(rows["seconds"].max()),
            cpu_seconds=float(median["cpu_seconds"]),
            products=float(median["products"]),
            others=float(median["probing"] + median["certifying"]),
            peak_mib=float(median["peak_mib"]),
            residual=_worst(rounds, "residual"),
            eigenvalue_error=_worst(rounds, "eigenvalue_error"),
            floor=None if pd.isna(median["floor"]) else float(median["floor"]),
            disturbed=not len(quiet),
            sittings=", ".join(str(number) for number in sorted(set(rows["sitting"]))),
        )


Settings = dict[tuple[str, int, int, int], dict[str, Measured]]


def by_setting(table: pd.DataFrame) -> Settings:
    """Each tool's medians, by setting and then by tool."""
    spectra = with_floor(table)
    found: Settings = {}
    for (network, width, num_examples, num_pairs, tool), rows in spectra.groupby([*SETTING, "tool"], sort=False):
        setting = (str(network), int(width), int(num_examples), int(num_pairs))
        found.setdefault(setting, {})[str(tool)] = Measured.of(rows)
    return found


def _worst(rows: pd.DataFrame, column: str) -> float | None:
    worst = rows[column].max() if column in rows else None
    return None if worst is None or pd.isna(worst) else float(worst)
