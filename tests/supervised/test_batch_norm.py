import pandas as pd
import pytest

from pliant.supervised import RunConfig, run

CONFIG = RunConfig(
    stream="permuted-pixels",
    methods=("adam",),
    seeds=2,
    tasks=2,
    steps=60,
    batch_size=20,
    train_size=100,
    network="resnet18",
    settings=("resnet18.width=4", "resnet18.num_blocks=1,1"),
)


def test_running_statistics_are_carried_used_and_stored(tmp_path):
    """A run that goes on from a checkpoint ends with the same bits: the statistics were in it."""
    whole = run(CONFIG, tmp_path / "whole")

    def interrupt(now):
        if now.task == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(CONFIG, tmp_path / "again", report=interrupt)
    again = run(CONFIG, tmp_path / "again")
    pd.testing.assert_frame_equal(again.metrics, whole.metrics, check_exact=True)
    accuracy = whole.metrics[whole.metrics.metric == "train_accuracy"].value
    assert (accuracy > 0.3).any(), "in eval mode the network must have learned something"
