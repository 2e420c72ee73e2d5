"""A measurement of the user's own: its rows, and what is refused with the line of the user's file."""

from types import SimpleNamespace

import pytest
import torch

from sharpness.measurements.own import Own, _probe
from sharpness.runtime.definitions import OwnError
from sharpness.study.measurement import measurement

CHECKPOINT = SimpleNamespace(weights=torch.tensor([3.0, 4.0]), step=7)


@pytest.fixture
def rows_of(own_folder):
    """What a function ``probe`` in the user's file returns as rows."""

    def measured(body: str, name: str = "probe", checkpoint=CHECKPOINT):
        (own_folder / "probes.py").write_text(body)
        _probe.cache_clear()
        return list(Own(f"probes.py:{name}").rows(SimpleNamespace(run="a run"), checkpoint, None))

    return measured


@pytest.mark.parametrize(
    "body",
    [
        "def probe(landscape, checkpoint):\n    return {'norm': checkpoint.weights.norm()}\n",
        "def probe(landscape, checkpoint, before):\n    return [{'norm': 5.0}]\n",
        "def probe(*all):\n    yield {'norm': all[1].weights.norm().numpy()}\n",
        "class probe:\n    def rows(self, landscape, checkpoint):\n        yield {'norm': 5}\n",
        "class probe:\n    def __call__(self, landscape, checkpoint):\n        return {'norm': 5}\n",
    ],
)
def test_a_function_or_a_class_gives_rows_of_plain_values(rows_of, body):
    assert rows_of(body) == [{"norm": 5.0}]
    assert measurement("own") is Own


def test_an_object_of_a_class_lives_as_long_as_the_job(rows_of):
    body = (
        "class probe:\n    def __init__(self):\n        self.seen = 0\n\n"
        "    def rows(self, landscape, checkpoint):\n        self.seen += 1\n        yield {'seen': self.seen}\n"
    )
    first = rows_of(body)
    again = list(Own("probes.py:probe").rows(SimpleNamespace(), CHECKPOINT, None))
    assert (first, again) == ([{"seen": 1}], [{"seen": 2}])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("def probe(landscape, checkpoint):\n    return 3\n", "probes.py, line 1: must return a row"),
        ("def probe(landscape, checkpoint):\n    return [3]\n", "probes.py, line 1: must return rows by column"),
        (
            "def probe(landscape, checkpoint):\n    return {'step': 3}\n",
            "the column 'step' has a meaning in every table",
        ),
        (
            "def probe(landscape, checkpoint):\n    return {'table_size': 3}\n",
            "the column 'table_size' has a meaning in every table",
        ),
        (
            "def probe(landscape, checkpoint):\n    return {'word': 'a\\rb'}\n",
            "the column 'word' must hold no carriage return, got 'a\\rb'",
        ),
        (
            "def probe(landscape, checkpoint):\n    return {'w': checkpoint.weights}\n",
            "the column 'w' must hold numbers",
        ),
        ("def probe(landscape, checkpoint):\n    yield {'x': 1 / 0}\n", "probes.py, line 2: ZeroDivisionError"),
        ("probe = 3\n", "probes.py, line 1: must be a function, or a class with a method rows"),
    ],
)
def test_what_is_no_row_is_refused_with_the_line(rows_of, body, said):
    with pytest.raises(OwnError) as told:
        rows_of(body)
    assert said in str(told.value)
    assert "\n" not in str(told.value)
