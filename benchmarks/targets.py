"""What this project sets out to reach, and whether it does: ratios of the table's medians."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from benchmarks.cost import product_operations, step_operations
from benchmarks.jobs import NUM_EXAMPLES, title
from benchmarks.problem import Problem, build, examples
from benchmarks.summary import OURS, WITH_MALLOC, Costs, Measured, Settings, by_setting

# Another tool, our own, and how many times less CPU time ours has to take for ten pairs of a SimpleCNN: without AMX,
# and with it.
_SPEEDS = (
    ("scipy LM", "ours float32", 2.8, 3.2),
    ("scipy LM", "ours bfloat16", 4.0, 6.0),
    ("curvlinops", "ours float32", 3.5, 3.5),
    ("eigenthings", "ours float32", 3.0, 3.0),
)
_MOST_RESIDUAL = {"ours float32": 1e-3, "ours bfloat16": 1e-2}
_MOST_OVER_FLOOR = {"ours float32": 1.35, "ours bfloat16": 1.6}
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
    """Every target at every setting where both sides were measured; ``table`` is of one kind of processor."""
    settings = by_setting(table)
    found = [*_speeds(table, settings), *_one_product(Costs.of(table, "simple_cnn"))]
    return [*found, *_floors(settings), *_residuals(settings)]


def _speeds(table: pd.DataFrame, settings: Settings) -> list[Verdict]:
    setting = ("simple_cnn", NUM_EXAMPLES, 10)
    tools, costs = settings.get(setting, {}), Costs.of(table, "simple_cnn")
    has_amx = (table["kind"] == "AMX").any()
    found = []
    for other, own, without, with_amx in _SPEEDS:
        for aside in ("", WITH_MALLOC):
            if other + aside not in tools or own + aside not in tools:
                continue
            theirs, ours = tools[other + aside], tools[own + aside]
            ratio, least = theirs.cpu_seconds / ours.cpu_seconds, with_amx if has_amx else without
            text = (
                f"{title(setting)}, {ours.tool} against {theirs.tool}: {ratio:.2f} times less CPU time "
                f"({theirs.seconds / ours.seconds:.2f} in time; {_rounds(theirs, ours)}), wanted {least:g}"
            )
            met = ratio >= least
            found.append(Verdict(text, met, "" if met else _why_slow(theirs, ours, least, costs)))
    return found


def _rounds(*measured: Measured) -> str:
    least = min(each.num_rounds for each in measured)
    aside = ", beside other work" if any(each.disturbed for each in measured) else ""
    return ("one round" if least == 1 else f"{least} rounds") + aside


def _why_slow(other: Measured, own: Measured, least: float, costs: Costs) -> str:
    """Where the time went: numbers of products and their cost, and the ratio that the floor would give."""
    total = own.products + own.others
    sentence = (
        f"{other.tool} took {other.products:g} products of {_cost(other, other.products, costs)}, "
        f"{own.tool} {own.products:g} and {own.others:g} to probe and certify, of {_cost(own, total, costs)}"
    )
    if own.floor is not None:
        bound = other.seconds / own.floor
        sentence += f"; at the floor of so many products, {own.floor:.1f} s, it would be {bound:.2f} times"
        sentence += ", so that no speed of so many products meets it" if bound < least else ""
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
    problem = Problem(build("simple_cnn").eval(), *examples(1))
    operations = product_operations(problem) / step_operations(problem)
    reason = f"it has {operations:.2f} times the operations of a gradient, six convolutions a layer in place of three"
    met = ratio <= _MOST_GRADIENTS
    return [Verdict(text, met, "" if met else reason)]


def _floors(settings: Settings) -> list[Verdict]:
    found = []
    for setting, tools in settings.items():
        for own, most in _MOST_OVER_FLOOR.items():
            for name in (own, own + WITH_MALLOC):
                if name not in tools or (floor := tools[name].floor) is None:
                    continue
                measured = tools[name]
                ratio = measured.seconds / floor
                text = f"{title(setting)}, {name}, time over floor: {ratio:.2f} ({_rounds(measured)})"
                text += f", at most {most:g} wanted"
                found.append(Verdict(text, ratio <= most, "" if ratio <= most else _why_above(measured)))
    return found


def _why_above(measured: Measured) -> str:
    if measured.layer_floor is None:
        return ""
    ratio = measured.seconds / measured.layer_floor
    return f"at the rate of its own layers the floor is {measured.layer_floor:.1f} s, and the ratio {ratio:.2f}"


def _residuals(settings: Settings) -> list[Verdict]:
    found = []
    for setting, tools in settings.items():
        for own in OURS:
            for tool in (own, own + WITH_MALLOC):
                residual, most = tools[tool].residual if tool in tools else None, _MOST_RESIDUAL[own]
                if residual is not None:
                    text = f"{title(setting)}, {tool}: worst residual {residual:.1e}, at most {most:g} wanted"
                    found.append(Verdict(text, residual <= most, ""))
    return found
