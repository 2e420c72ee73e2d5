"""When the checkpoints of a run are kept, and the parts into which their steps are cut."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_run import RUN

from sharpness.study.schedule import Schedule, chunks_of

DENSE_THEN_EACH_EPOCH = Schedule(dense_epochs=2, dense_images=512, every_epochs=1)


@pytest.mark.parametrize(
    ("batch_size", "steps_per_epoch", "every", "num_dense"),
    [(128, 351, 4, 176), (8, 5625, 64, 176), (512, 87, 1, 174), (1024, 43, 1, 86)],
)
def test_two_epochs_are_kept_every_512_images_and_then_each_epoch(batch_size, steps_per_epoch, every, num_dense):
    kept = DENSE_THEN_EACH_EPOCH.steps(dataclasses.replace(RUN, batch_size=batch_size))

    assert kept[:num_dense] == [number * every for number in range(num_dense)]
    assert kept[num_dense - 1] < 2 * steps_per_epoch <= kept[num_dense - 1] + every
    assert kept[num_dense:] == [epoch * steps_per_epoch for epoch in range(2, 101)]


@pytest.mark.parametrize(
    ("doubling_epochs", "batch_size", "kept"),
    [
        (1, 128, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256]),  # of 351 steps
        (1, 8, [0, *(2**power for power in range(13))]),  # of 5625
        (2, 1024, [0, 1, 2, 4, 8, 16, 32, 64]),  # of 2 x 43
        (1, 45_000, [0, 1]),
        (0, 128, []),
    ],
)
def test_checkpoints_double_through_the_first_epochs(doubling_epochs, batch_size, kept):
    run = dataclasses.replace(RUN, batch_size=batch_size)
    assert Schedule(doubling_epochs=doubling_epochs).steps(run) == kept


@pytest.mark.parametrize(
    ("at_epochs", "kept"),
    [
        ((0, 1, 2), [0, 351, 702]),
        ((2, 0, 1), [0, 351, 702]),
        ((0.25, 0.5), [88, 176]),  # 87.75 and 175.5
        ((0.001, 0.002), [0, 1]),  # 0.351 and 0.702
        ((1, 1.0005), [351]),
        ((99.999, 100, 100.1, 200), [35_100]),  # 35099.65 rounds up to the last step
        ((101,), []),
    ],
)
def test_times_are_rounded_to_steps_and_those_past_the_end_are_left_out(at_epochs, kept):
    assert Schedule(at_epochs=at_epochs).steps(RUN) == kept


def test_the_last_step_is_kept_where_the_epochs_do_not_divide():
    run = dataclasses.replace(RUN, epochs=10)

    assert Schedule(every_epochs=4).steps(run) == [0, 4 * 351, 8 * 351, 10 * 351]


def test_one_in_so_many_epochs_starts_at_the_first_whole_epoch_after_the_dense_ones():
    run = dataclasses.replace(RUN, num_training=40, batch_size=10, epochs=6)  # 4 steps per epoch
    schedule = Schedule(dense_epochs=1.5, dense_images=20, every_epochs=3)

    assert schedule.steps(run) == [0, 2, 4, 8, 20, 24]  # dense: every 2 steps below 6; then epochs 2 and 5; the end


def test_a_dense_start_longer_than_the_run_ends_with_it():
    run = dataclasses.replace(RUN, num_training=40, batch_size=10, epochs=2)

    assert Schedule(dense_epochs=100_000, dense_images=1).steps(run) == list(range(9))


def test_a_schedule_is_the_union_of_what_its_fields_ask_for():
    run = dataclasses.replace(RUN, num_training=40, batch_size=10, epochs=6)
    schedule = Schedule(at_epochs=(0.25, 1, 5.25), dense_epochs=1, dense_images=20, every_epochs=3)

    assert schedule.steps(run) == [0, 1, 2, 4, 16, 21, 24]


@given(
    run=st.builds(
        dataclasses.replace,
        st.just(RUN),
        num_training=st.integers(20, 300),
        batch_size=st.just("full") | st.integers(1, 20),
        epochs=st.integers(1, 12),
    ),
    schedule=st.builds(
        Schedule,
        at_epochs=st.lists(st.floats(0, 20), max_size=5).map(tuple),
        dense_epochs=st.floats(0, 20),
        dense_images=st.integers(1, 500),
        every_epochs=st.none() | st.integers(1, 15),
    ),
)
def test_steps_are_ascending_distinct_and_within_the_run(run, schedule):
    kept = schedule.steps(run)

    assert kept == sorted(set(kept))
    assert all(type(step) is int for step in kept)
    assert all(0 <= step <= run.epochs * run.steps_per_epoch for step in kept)
    if schedule.every_epochs is not None:
        assert kept[-1] == run.epochs * run.steps_per_epoch


@given(st.lists(st.integers(0, 1_000), max_size=60, unique=True).map(sorted), st.integers(1, 20))
def test_chunks_put_together_are_the_steps_and_are_as_equal_as_can_be(kept, num_chunks):
    chunks = chunks_of(kept, num_chunks)

    assert len(chunks) == num_chunks
    assert [step for chunk in chunks for step in chunk] == kept
    sizes = [len(chunk) for chunk in chunks]
    assert max(sizes) - min(sizes) <= 1


def test_seven_steps_in_three_chunks():
    assert chunks_of([0, 1, 2, 4, 8, 16, 32], 3) == [[0, 1, 2], [4, 8], [16, 32]]
