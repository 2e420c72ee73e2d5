"""Which jobs a run does, in which order."""

from __future__ import annotations

from benchmarks.jobs import PRODUCTS, RATES, Job

_MAIN = ("scipy LM", "ours float32", "curvlinops", "ours bfloat16", "eigenthings")
_PYHESSIAN = ("pyhessian", "pyhessian one batch")
_OURS = ("ours float32", "ours bfloat16")


def short() -> list[Job]:
    """What ``make bench`` measures, the most important first."""
    jobs = _preparation("simple_cnn")
    jobs += _round("simple_cnn", 0, _MAIN, 10)
    jobs += [Job("reference", "simple_cnn")]
    jobs += _preparation("resnet32")
    jobs += _round("resnet32", 0, (*_OURS, "scipy LM"), 10)
    jobs += [Job("spectrum", "simple_cnn", "pyhessian")]
    jobs += _round("simple_cnn", 0, (*_MAIN, "pyhessian"), 1)
    jobs += _growth(examples=(1024,), widths=(), pairs=())
    jobs += _round("simple_cnn", 1, _MAIN, 10)
    jobs += _growth(examples=(), widths=(2,), pairs=())
    jobs += _round("simple_cnn", 0, _OURS, 30)
    jobs += _round("simple_cnn", 2, _MAIN, 10)
    jobs += _round("simple_cnn", 0, ("scipy LA",), 10)
    jobs += _growth(examples=(2048,), widths=(), pairs=())
    jobs += _round("simple_cnn", 0, ("scipy LM",), 30)
    jobs += [Job("reference", "resnet32")]
    return jobs


def full() -> list[Job]:
    """What ``make bench-full`` measures: all that ``short`` does, and the rest, how the cost grows first."""
    jobs = short()
    jobs += _growth(examples=(5_000, 10_000), widths=(4,), pairs=(2, 5, 20, 50))
    jobs += [Job("reference", network, num_pairs=30) for network in ("simple_cnn", "resnet32")]
    jobs += [Job("spectrum", "simple_cnn", "pyhessian one batch", num_pairs=count) for count in (10, 1)]
    jobs += _round("simple_cnn", 0, ("curvlinops", "eigenthings"), 30)
    for number in range(3):
        jobs += _round("resnet32", number, (*_MAIN, "scipy LA"), 10)
    for count in (1, 30):
        jobs += _round("resnet32", 0, _MAIN, count)
    jobs += [Job("spectrum", "resnet32", "pyhessian", num_pairs=count) for count in (1, 10)]
    return list(dict.fromkeys(jobs))


def _preparation(network: str) -> list[Job]:
    jobs = [Job("train", network)]
    jobs += [Job("product", network, kind, num_examples=256) for kind in PRODUCTS]
    return jobs + [Job("rate", network, kind) for kind in RATES]


def _round(network: str, number: int, tools: tuple[str, ...], num_pairs: int) -> list[Job]:
    # The order turns from round to round: a slow drift of the machine falls on all.
    turned = tools[number:] + tools[:number]
    return [Job("spectrum", network, tool, num_pairs=num_pairs, round=number) for tool in turned]


def _growth(*, examples: tuple[int, ...], widths: tuple[int, ...], pairs: tuple[int, ...]) -> list[Job]:
    """How the cost grows: times alone, without residuals of the benchmark's own."""
    jobs = [
        Job("spectrum", "simple_cnn", tool, num_examples=count, verify=False) for count in examples for tool in _OURS
    ]
    for width in widths:
        jobs.append(Job("train", "simple_cnn", width=width))
        jobs += [Job("rate", "simple_cnn", kind, width=width) for kind in RATES]
        jobs += [Job("spectrum", "simple_cnn", tool, width=width, verify=False) for tool in _OURS]
    return jobs + [
        Job("spectrum", "simple_cnn", tool, num_pairs=count, verify=False) for count in pairs for tool in _OURS
    ]
