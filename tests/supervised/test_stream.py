import pytest

from pliant.errors import UserError
from pliant.streams import STREAMS, random_teacher
from pliant.supervised._stream import made_stream, stream_factory


def _own(*, num_tasks, width=8):
    return random_teacher(num_tasks=num_tasks, width=width)


def test_names_files_factories_and_streams(tmp_path):
    (tmp_path / "own.py").write_text("from pliant.streams import random_teacher as stream\n")
    stream = random_teacher(num_tasks=3)
    assert stream_factory("random-teacher") is stream_factory(f"{tmp_path}/own.py:stream") is STREAMS["random-teacher"]
    assert stream_factory(_own) is _own
    assert made_stream(stream_factory(stream), num_tasks=2) == stream._replace(num_tasks=2)
    assert made_stream(_own, num_tasks=2).num_tasks == 2


def test_a_stream_has_no_more_tasks_than_it_was_made_with():
    with pytest.raises(UserError, match=r"got tasks=4 of the stream 'random-teacher'; wanted at most its 3\. Choose"):
        stream_factory(random_teacher(num_tasks=3))(num_tasks=4)


def test_a_factory_is_told_the_number_of_tasks():
    with pytest.raises(UserError, match=r"got the stream 'lambda', which takes no num_tasks; .*Add `\*, num_tasks`"):
        stream_factory(lambda dataset: None)


def test_a_stream_of_ones_own_is_checked():
    with pytest.raises(UserError, match="got headline='accuracy' in the stream 'random-teacher'"):
        made_stream(lambda *, num_tasks: random_teacher()._replace(headline="accuracy"), num_tasks=1)
