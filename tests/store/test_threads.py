import asyncio
import os
import subprocess
import sys
import threading
import time

import pytest
from diptych_store.threads import Threads


async def test_a_result_and_an_error_come_back():
    threads = Threads("test", count=1)
    assert await threads.run(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await threads.run(divmod, 1, 0)
    threads.close()


async def test_calls_run_at_the_same_time_up_to_the_count():
    threads = Threads("test", count=3)
    meeting = threading.Barrier(3)
    await asyncio.gather(*(threads.run(meeting.wait, 10) for _ in range(3)))
    assert len([one for one in threading.enumerate() if one.name.startswith("test-")]) == 3
    threads.close()


async def test_no_thread_is_started_while_one_is_idle():
    threads = Threads("lazy", count=10)
    for _ in range(20):
        await threads.run(time.sleep, 0)
        await asyncio.sleep(0.001)
    assert len([one for one in threading.enumerate() if one.name.startswith("lazy-")]) == 1
    threads.close()


async def test_a_call_that_hangs_is_given_up_after_the_timeout():
    threads, go_on = Threads("test", count=2, timeout_s=0.05), threading.Event()
    with pytest.raises(TimeoutError):
        await threads.run(go_on.wait, 10)
    assert await threads.run(lambda: "the other thread still works") is not None
    go_on.set()
    threads.close()


async def test_a_call_that_timed_out_in_the_queue_never_begins():
    threads, go_on, begun = Threads("test", count=1, timeout_s=0.05), threading.Event(), []
    first = asyncio.create_task(threads.run(go_on.wait, 10))
    await asyncio.sleep(0.01)
    with pytest.raises(TimeoutError):
        await threads.run(begun.append, 1)
    with pytest.raises(TimeoutError):
        await first
    go_on.set()
    await threads.run(begun.append, 2)
    assert begun == [2]
    threads.close()


async def test_an_error_of_the_call_is_not_mistaken_for_the_timeout():
    def time_out() -> None:
        raise TimeoutError("from the call itself")

    threads = Threads("test", count=1, timeout_s=5)
    with pytest.raises(TimeoutError, match="from the call itself"):
        await threads.run(time_out)
    threads.close()


async def test_a_cancelled_caller_waits_for_a_running_call():
    threads, ended = Threads("test", count=1), []
    started, loop = asyncio.Event(), asyncio.get_running_loop()

    def call() -> None:
        loop.call_soon_threadsafe(started.set)
        time.sleep(0.1)
        ended.append(True)

    task = asyncio.create_task(threads.run(call))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [True]
    threads.close()


async def test_a_cancelled_call_that_had_not_begun_never_does():
    threads, go_on, begun = Threads("test", count=1), threading.Event(), []
    first = asyncio.create_task(threads.run(go_on.wait, 10))
    second = asyncio.create_task(threads.run(begun.append, 1))
    await asyncio.sleep(0.01)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    go_on.set()
    await first
    await threads.run(begun.append, 2)
    assert begun == [2]
    threads.close()


async def test_threads_end_when_they_are_closed():
    threads = Threads("closing", count=2)
    await threads.run(time.sleep, 0)
    threads.close()
    with pytest.raises(RuntimeError, match="closed"):
        await threads.run(time.sleep, 0)
    for thread in threading.enumerate():
        if thread.name.startswith("closing-"):
            thread.join(5)
            assert not thread.is_alive()


def test_a_call_that_hangs_does_not_keep_the_process_from_ending():
    """What an executor of the standard library does, and why it is not used."""
    program = (
        "import asyncio, time\n"
        "from diptych_store.threads import Threads\n"
        "async def main():\n"
        "    threads = Threads('test', count=1, timeout_s=0.01)\n"
        "    try:\n"
        "        await threads.run(time.sleep, 3600)\n"
        "    except TimeoutError:\n"
        "        print('given up')\n"
        "    threads.close()\n"
        "asyncio.run(main())\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    assert ended.stdout == "given up\n"


async def test_threads_may_let_others_go_first():
    threads = Threads("nice", count=1, niceness=3)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert await threads.run(os.getpriority, os.PRIO_PROCESS, 0) == min(own + 3, 19)
    assert os.getpriority(os.PRIO_PROCESS, 0) == own
    threads.close()
