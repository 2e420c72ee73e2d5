"""Signals: this process sends them to itself."""

import os
import signal

import pytest

from sharpness.runtime.interruption import Interrupted, Interruption

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def send(number):
    os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def astray():
    """The signals that nobody held back: none of them ends the tests."""
    received = []
    earlier = {number: signal.signal(number, lambda number, _: received.append(number)) for number in SIGNALS}
    yield received
    for number, handler in earlier.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_waits_for_a_good_moment(astray, number):
    done = []
    with Interruption() as interruption:
        interruption.check()
        send(number)
        done.append("the work after it")
        with pytest.raises(Interrupted, match=f"stopped by {number.name}") as caught:
            interruption.check()
    assert done
    assert caught.value.signal == number
    assert astray == []


def test_without_a_signal_every_moment_passes():
    with Interruption() as interruption:
        interruption.check()
        with interruption.at_once():
            interruption.check()


def test_a_signal_that_was_not_obeyed_is_obeyed_at_every_later_moment():
    with Interruption() as interruption:
        send(signal.SIGTERM)
        for _ in range(2):
            with pytest.raises(Interrupted):
                interruption.check()


@pytest.mark.parametrize("number", SIGNALS)
def test_work_that_changes_nothing_ends_where_the_signal_comes(number):
    done = []

    def work(interruption):
        with interruption.at_once():
            done.append("before")
            send(number)
            done.append("after")

    with Interruption() as interruption:
        with pytest.raises(Interrupted, match=number.name):
            work(interruption)
        # Cleaning up is not cut short by the next one.
        send(number)
    assert done == ["before"]


def test_such_work_does_not_begin_after_a_signal():
    done = []
    with Interruption() as interruption:
        send(signal.SIGTERM)
        with pytest.raises(Interrupted), interruption.at_once():
            done.append("the work")
    assert done == []


@pytest.mark.parametrize("fails", [False, True])
def test_after_such_work_signals_wait_again(fails):
    with Interruption() as interruption:
        try:
            with interruption.at_once():
                if fails:
                    raise FloatingPointError
        except FloatingPointError:
            pass
        send(signal.SIGTERM)
        with pytest.raises(Interrupted):
            interruption.check()


def test_a_function_can_be_such_work_at_each_of_its_calls():
    with Interruption() as interruption:
        double = interruption.at_once()(lambda number: 2 * number)
        assert [double(1), double(2)] == [2, 4]
        with pytest.raises(Interrupted):
            interruption.at_once()(send)(signal.SIGTERM)
        with pytest.raises(Interrupted):
            double(3)


def test_code_that_catches_every_error_does_not_catch_it():
    def careless(interruption):
        try:
            interruption.check()
        except Exception:
            pytest.fail("the signal was swallowed")

    with Interruption() as interruption:
        send(signal.SIGTERM)
        with pytest.raises(Interrupted):
            careless(interruption)


@pytest.mark.parametrize("error", [None, ValueError, Interrupted])
def test_the_handlers_that_were_there_come_back(astray, error):
    before = [signal.getsignal(number) for number in SIGNALS]
    try:
        with Interruption() as interruption:
            assert all(signal.getsignal(number) not in before for number in SIGNALS)
            if error is Interrupted:
                send(signal.SIGTERM)
                interruption.check()
            elif error is not None:
                raise error
    except (ValueError, Interrupted):
        pass
    assert [signal.getsignal(number) for number in SIGNALS] == before
    send(signal.SIGTERM)
    send(signal.SIGINT)
    assert astray == [signal.SIGTERM, signal.SIGINT]
