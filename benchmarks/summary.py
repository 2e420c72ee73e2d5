"""Medians over rounds, products in gradients, and the floor: what the page and the figure are made of."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

SETTING = ["network", "num_examples", "num_pairs"]
OURS = ("ours float32", "ours bfloat16")
# After the name of a tool that was measured with settings of glibc's malloc.
WITH_MALLOC = " *"


def with_floor(table: pd.DataFrame) -> pd.DataFrame:
    """The spectra, with a column ``floor``: seconds of their products' operations at the rate of a convolution.

    Products that certify are computed in float32. The floor is missing for other tools than this project's. A column
    ``layer_floor`` is the same at the rate of each layer's own multiplications.
    """
    spectra = table[(table["part"] == "spectrum") & table["seconds"].notna()].copy()
    rates = table[table["part"] == "rate"].groupby(["network", "tool"])
    columns = [name for name in RATES if name in table]
    fastest = rates[[*columns, "operations_per_product"]].max()
    for column in columns:
        floors = [_floor(row, fastest, column) for _, row in spectra.iterrows()]
        spectra[RATES[column]] = pd.Series(floors, index=spectra.index, dtype=float)
    return spectra


RATES = {"operations_per_second": "floor", "layer_operations_per_second": "layer_floor"}


def _floor(row: pd.Series, rates: pd.DataFrame, column: str) -> float | None:
    low, high = ((row["network"], tool) for tool in (row["tool"], "ours float32"))
    if row["tool"] not in OURS or low not in rates.index or high not in rates.index:
        return None
    operations = row["num_examples"] * rates.loc[high, "operations_per_product"]
    seconds = (row["products"] + row["probing"]) / rates.loc[low, column]
    return float(operations * (seconds + row["certifying"] / rates.loc[high, column]))


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

    tool: str  # with ``WITH_MALLOC`` behind it where that was so
    num_rounds: int
    seconds: float
    fastest: float
    slowest: float
    cpu_seconds: float
    process_cpu_seconds: float | None  # from the start of Python on, imports included
    products: float  # up to convergence
    others: float  # those that probe and certify
    peak_mib: float
    residual: float | None  # the worst of all rounds, as the error
    eigenvalue_error: float | None
    floor: float | None
    layer_floor: float | None
    disturbed: bool  # whether other processes were at work in all rounds

    @classmethod
    def of(cls, tool: str, rounds: pd.DataFrame) -> Measured:
        """From the rows of the rounds: of the quiet ones, where there are any."""
        quiet = rounds[~disturbed(rounds)]
        rows = quiet if len(quiet) else rounds
        return cls(
            tool=tool,
            num_rounds=len(rows),
            seconds=float(rows["seconds"].median()),
            fastest=float(rows["seconds"].min()),
            slowest=float(rows["seconds"].max()),
            cpu_seconds=float(rows["cpu_seconds"].median()),
            process_cpu_seconds=_median(rows, "process_cpu_seconds"),
            products=float(rows["products"].median()),
            others=float((rows["probing"] + rows["certifying"]).median()),
            peak_mib=float(rows["peak_mib"].median()),
            residual=_worst(rounds, "residual"),
            eigenvalue_error=_worst(rounds, "eigenvalue_error"),
            floor=_median(rows, "floor"),
            layer_floor=_median(rows, "layer_floor"),
            disturbed=not len(quiet),
        )


Settings = dict[tuple[str, int, int], dict[str, Measured]]


def by_setting(table: pd.DataFrame) -> Settings:
    """Each tool's medians, by setting and then by tool; ``table`` is of one kind of processor."""
    spectra = with_floor(table)
    names = spectra["tool"] + spectra["malloc"].map({True: WITH_MALLOC, False: ""})
    found: Settings = {}
    for (network, num_examples, num_pairs, tool), rows in spectra.assign(name=names).groupby(
        [*SETTING, "name"], sort=False
    ):
        setting = (str(network), int(num_examples), int(num_pairs))
        found.setdefault(setting, {})[str(tool)] = Measured.of(str(tool), rows)
    return found


def _median(rows: pd.DataFrame, column: str) -> float | None:
    return float(rows[column].median()) if column in rows and rows[column].notna().any() else None


def _worst(rows: pd.DataFrame, column: str) -> float | None:
    return float(rows[column].max()) if column in rows and rows[column].notna().any() else None
