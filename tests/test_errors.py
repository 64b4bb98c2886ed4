"""A stop comes where it does no harm, and a script ends with the status that says why."""

import os
import signal
import subprocess
import sys
import threading

import pytest
from conftest import ROOT

from zodiac import errors
from zodiac.errors import Stopped


@pytest.fixture
def stopping():
    """The handlers of a script."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    errors.stop_on_signals()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(('number', 'status'), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_waits_until_the_end_of_a_block_that_does_not_bear_it(stopping, number, status):
    done = []
    with pytest.raises(Stopped) as stopped:
        with errors.signals_wait():
            os.kill(os.getpid(), number)
            done.append('all')
        done.append('more')
    assert (done, stopped.value.status) == (['all'], status)
    with pytest.raises(Stopped):  # the handlers are back
        os.kill(os.getpid(), number)


def test_a_signal_that_came_is_not_lost_where_the_block_fails(stopping):
    with pytest.raises(Stopped), errors.signals_wait():
        os.kill(os.getpid(), signal.SIGTERM)
        raise ValueError


def test_in_another_thread_there_is_nothing_to_wait_for():
    done = []

    def work():
        with errors.signals_wait():
            done.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [1]


def test_a_stop_that_a_library_makes_anew_from_its_text_is_one_still():
    assert type(Stopped(signal.SIGTERM))('In transformed code:\n...').status == 130
    assert Stopped(signal.SIGTERM).status == 143


def test_a_reader_that_leaves_ends_the_script_as_sigpipe_does_and_without_a_word():
    code = 'from zodiac.errors import run\ndef main():\n    for _ in range(10**5): print("a line")\nrun(main)'
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
    with subprocess.Popen([sys.executable, '-c', code], cwd=ROOT, **pipes) as process:
        assert process.stdout.readline() == 'a line\n'
        process.stdout.close()
        assert process.stderr.read() == ''
        assert process.wait(20) == 141
