import threading

import pytest

from pliant.results import SeedBlock
from pliant.supervised import RunConfig, run
from pliant.training import BackgroundWriter, Checkpoints


def test_goes_on_while_work_is_done():
    may_end, was_waited_for = threading.Event(), []
    with BackgroundWriter() as writer:
        writer.submit(lambda: was_waited_for.append(not may_end.wait(60)))
        may_end.set()
    assert was_waited_for == [False]


@pytest.mark.parametrize("which", [0, 1])
def test_errors_are_raised(which):
    """Of the first work when the second is to begin, which then does not; of the last at the end."""
    done = []

    def work(number):
        if number == which:
            raise OSError("disk full")
        done.append(number)

    def do_both():
        with BackgroundWriter() as writer:
            for number in (0, 1):
                writer.submit(lambda number=number: work(number))

    with pytest.raises(OSError, match="disk full"):
        do_both()
    assert done == list(range(which))


def test_no_error_is_lost():
    """Of two, the one that ends the context is raised, with a note of the other."""

    def fail():
        raise OSError("disk full")

    def fail_twice():
        with BackgroundWriter() as writer:
            writer.submit(fail)
            raise ValueError("diverged")

    with pytest.raises(ValueError, match="diverged") as caught:
        fail_twice()
    assert caught.value.__notes__ == ["Before that, writing in the background failed: OSError: disk full"]


@pytest.mark.parametrize("task", [1, 2])
def test_a_run_that_cannot_be_stored_fails_and_goes_on_later(task, tmp_path, monkeypatch):
    config = RunConfig(methods=("adam",), seeds=1, tasks=2, epochs=1, widths=(8,))
    record = SeedBlock.record_task

    def full(self, index, *rest):
        if index == task:
            raise OSError("disk full")
        record(self, index, *rest)

    monkeypatch.setattr(SeedBlock, "record_task", full)
    with pytest.raises(OSError, match="disk full"):
        run(config, tmp_path / "run")
    monkeypatch.undo()
    whole, resumed = run(config, tmp_path / "other").metrics, run(config, tmp_path / "run").metrics
    assert resumed.equals(whole)


def test_a_checkpoint_comes_after_its_metrics(tmp_path, monkeypatch):
    calls = []

    def spy(owner, name):
        original = getattr(owner, name)

        def call(*arguments, **options):
            calls.append(name)
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, call)

    for owner, name in ((SeedBlock, "record_arrays"), (SeedBlock, "record_task"), (Checkpoints, "save")):
        spy(owner, name)
    run(RunConfig(methods=("adam",), seeds=1, tasks=2, epochs=1, widths=(8,)), tmp_path / "run")
    assert calls == ["record_arrays", "record_task", "save"] * 2
