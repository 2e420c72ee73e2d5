"""What this project sets out to reach, and whether it does: ratios of the table's medians."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from benchmarks.cost import product_operations, step_operations
from benchmarks.jobs import NETWORKS, NUM_EXAMPLES, title
from benchmarks.problem import Problem, build, examples
from benchmarks.summary import Costs, Measured, Settings, by_setting

# Another tool, our own, and how many times faster ours has to be at k = 10.
_SPEEDS = (
    ("scipy LM", "ours float32", 4.0),
    ("scipy LM", "ours bfloat16", 6.0),
    ("curvlinops", "ours float32", 3.5),
    ("eigenthings", "ours float32", 3.0),
    ("pyhessian", "ours float32", 15.0),
)
_MOST_RESIDUAL = {"ours float32": 1e-3, "ours bfloat16": 1e-2}
_MOST_PRODUCTS = 0.65
_MOST_GRADIENTS = 1.5  # that a product of a SimpleCNN takes


@dataclass(frozen=True)
class Verdict:
    """One target at one setting."""

    text: str
    met: bool
    reason: str

    def __str__(self) -> str:
        return f"{self.text}: {'met' if self.met else 'not met'}{'; ' + self.reason if self.reason else ''}."


def verdicts(table: pd.DataFrame) -> list[Verdict]:
    """Every target at every setting where both sides were measured."""
    settings = by_setting(table)
    found = [verdict for network in NETWORKS for verdict in _speeds(table, settings, network)]
    found += _one_product(Costs.of(table, "simple_cnn"))
    found += _residuals(settings)
    return found + _products(settings)


def _speeds(table: pd.DataFrame, settings: Settings, network: str) -> list[Verdict]:
    tools = settings.get((network, 1, NUM_EXAMPLES, 10), {})
    costs = Costs.of(table, network)
    found = []
    for other, own, least in _SPEEDS:
        if other not in tools or own not in tools:
            continue
        ratio, of_cpu = (getattr(tools[other], name) / getattr(tools[own], name) for name in ("seconds", "cpu_seconds"))
        text = (
            f"{NETWORKS[network]}, k=10, {own} against {other}: {ratio:.2f} times faster "
            f"({of_cpu:.2f} in CPU time), wanted {least:g}"
        )
        met = ratio >= least
        found.append(Verdict(text, met, "" if met else _why_slow(tools[other], tools[own], least, costs)))
    return found


def _why_slow(other: Measured, own: Measured, least: float, costs: Costs) -> str:
    """Where the time went: numbers of products and their cost, and what the target would take."""
    total = own.products + own.others
    sentence = (
        f"{other.tool} took {other.products:g} products of {_cost(other, other.products, costs)}, "
        f"{own.tool} {own.products:g} and {own.others:g} to probe and certify, of {_cost(own, total, costs)}"
    )
    wanted = other.seconds / least
    per_product = costs.in_gradients(wanted / total, NUM_EXAMPLES)
    if per_product is not None:
        sentence += f"; with as many, the target needs {per_product:.2f} gradients each"
    if own.floor is not None:
        side = "above" if own.floor > wanted else "below" if own.floor < wanted else "just"
        sentence += f" or {wanted:.1f} s in all; the floor is {own.floor:.1f} s, {side} that"
    return sentence


def _cost(measured: Measured, num_products: float, costs: Costs) -> str:
    gradients = costs.in_gradients(measured.seconds / num_products, NUM_EXAMPLES)
    return f"{measured.seconds / num_products:.2f} s" + ("" if gradients is None else f" ({gradients:.2f} gradients)")


def _one_product(costs: Costs) -> list[Verdict]:
    seconds = costs.seconds.get("ours float32")
    if seconds is None or costs.gradient is None:
        return []
    ratio = seconds / costs.gradient
    text = f"SimpleCNN, one product of ours float32: {ratio:.2f} gradients, at most {_MOST_GRADIENTS} wanted"
    problem = Problem(build("simple_cnn", 1).eval(), *examples(1))
    operations = product_operations(problem) / step_operations(problem)
    reason = f"it has {operations:.2f} times the operations of a gradient, six convolutions a layer in place of three"
    met = ratio <= _MOST_GRADIENTS
    return [Verdict(text, met, "" if met else reason)]


def _residuals(settings: Settings) -> list[Verdict]:
    found = []
    for setting, tools in settings.items():
        for tool, most in _MOST_RESIDUAL.items():
            residual = tools[tool].residual if tool in tools else None
            if residual is not None:
                text = f"{title(setting)}, {tool}: worst residual {residual:.1e}, at most {most:g} wanted"
                found.append(Verdict(text, residual <= most, ""))
    return found


def _products(settings: Settings) -> list[Verdict]:
    found = []
    for setting, tools in settings.items():
        for own in _MOST_RESIDUAL:
            for other in ("scipy LM", "scipy LA"):
                if own not in tools or other not in tools:
                    continue
                ratio = tools[own].products / tools[other].products
                counts = f"{tools[own].products:g} against {tools[other].products:g}"
                text = (
                    f"{title(setting)}, products of {own} up to convergence over those of {other}: {ratio:.2f} "
                    f"({counts}), at most {_MOST_PRODUCTS} wanted"
                )
                met = ratio <= _MOST_PRODUCTS
                found.append(Verdict(text, met, "" if met else _why_many(tools[other], tools[own])))
    return found


def _why_many(other: Measured, own: Measured) -> str:
    if other.residual is None or own.residual is None:
        return ""
    return f"{own.tool} stopped at a residual of {own.residual:.1e}, {other.tool} at {other.residual:.1e}"
