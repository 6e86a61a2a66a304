"""What a program in the sandbox cannot do."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from diptych_images.imports.plugins import confine
from diptych_images.imports.plugins.sandbox import Ended, Limits, Stopped, run

from tests.waiting import until

MIB = 1024 * 1024
LIMITS = Limits(memory=1024 * MIB, cpu_s=20, time_s=60, file_size=MIB)


async def python(code: str, folder: Path, *, limits: Limits = LIMITS) -> Ended:
    return await run(sys.executable, "-I", "-S", "-c", code, folder=folder, limits=limits)


def is_alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    # Nobody may be there to ask for how it ended.
    return status.rpartition(")")[2].split()[0] != "Z"


@pytest.fixture
def listener() -> Generator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        opened.setblocking(False)
        yield opened


async def test_what_a_program_says_and_how_it_ends_is_told(tmp_path: Path) -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"

    assert await python(code, tmp_path) == Ended(status=7, output=b"out\n", errors="err\n")


async def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    ended = await run(str(tmp_path / "none"), folder=tmp_path, limits=LIMITS)

    assert ended.status == 1
    assert ended.errors.startswith("cannot start")


async def test_memory_is_limited(tmp_path: Path) -> None:
    code = f"block = bytes({512 * MIB}); print(len(block))"
    few = Limits(memory=256 * MIB, cpu_s=20, time_s=60, file_size=0)

    assert (await python(code, tmp_path)).status == 0
    ended = await python(code, tmp_path, limits=few)
    assert ended.status == 1
    assert "MemoryError" in ended.errors


async def test_processor_time_is_limited(tmp_path: Path) -> None:
    limits = Limits(memory=1024 * MIB, cpu_s=1, time_s=60, file_size=0)

    ended = await python("while True: pass", tmp_path, limits=limits)

    assert ended.status == -signal.SIGXCPU


async def test_processor_time_is_limited_for_who_does_not_want_to_know(tmp_path: Path) -> None:
    limits = Limits(memory=1024 * MIB, cpu_s=1, time_s=60, file_size=0)
    code = "import signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"

    ended = await python(code, tmp_path, limits=limits)

    assert ended.status == -signal.SIGKILL


async def test_time_is_limited(tmp_path: Path) -> None:
    limits = Limits(memory=1024 * MIB, cpu_s=20, time_s=0.1, file_size=0)

    with pytest.raises(Stopped, match="took more than"):
        await python("import time; time.sleep(60)", tmp_path, limits=limits)


async def test_files_are_limited(tmp_path: Path) -> None:
    dd = str(shutil.which("dd"))

    ended = await run(
        dd, "if=/dev/zero", "of=big", "bs=64k", "count=64", folder=tmp_path, limits=LIMITS
    )

    assert ended.status == -signal.SIGXFSZ
    assert (tmp_path / "big").stat().st_size == MIB


async def test_output_is_limited(tmp_path: Path) -> None:
    yes = str(shutil.which("yes"))

    with pytest.raises(Stopped, match="said more"):
        await run(yes, folder=tmp_path, limits=LIMITS)


async def test_a_program_sees_nothing_of_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OS_PASSWORD", "secret")
    code = "import os; print(*os.environ); print(sorted(map(int, os.listdir('/proc/self/fd'))))"
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        ended = await python(code, tmp_path)

    environment, files = ended.output.decode().splitlines()
    # Python's own, of any process that has none.
    assert environment in ("", "LC_CTYPE")
    assert files == "[0, 1, 2, 3]"  # the last is the folder that is being read


async def test_what_a_program_writes_is_its_owners_alone(tmp_path: Path) -> None:
    await python("import os; open('file', 'w'); os.mkdir('folder')", tmp_path)

    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o700


async def test_limits_and_privileges_are_what_they_should_be(tmp_path: Path) -> None:
    code = (
        "import os, resource as r\n"
        "kinds = ('CORE', 'FSIZE', 'CPU', 'AS', 'NOFILE')\n"
        "for kind in kinds: print(kind, *r.getrlimit(getattr(r, 'RLIMIT_' + kind)))\n"
        "print(*[line for line in open('/proc/self/status') if line.startswith('NoNew')])\n"
        "print(os.getsid(0) == os.getpid() == os.getpgrp())\n"
    )

    ended = await python(code, tmp_path)

    assert ended.output.decode().split("\n") == [
        "CORE 0 0",
        f"FSIZE {MIB} {MIB}",
        "CPU 20 21",
        f"AS {1024 * MIB} {1024 * MIB}",
        "NOFILE 256 256",
        "NoNewPrivs:\t1",
        "",
        "True",
        "",
    ]


# --- No network -----------------------------------------------------------------------------------


def connecting(listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    return f"import socket; socket.create_connection(('127.0.0.1', {port}), timeout=10)"


async def test_a_program_has_no_network(tmp_path: Path, listener: socket.socket) -> None:
    code = connecting(listener)

    ended = await python(code, tmp_path)

    assert ended.status == 1
    assert "Network is unreachable" in ended.errors
    with pytest.raises(BlockingIOError):
        listener.accept()
    # It would have been there.
    await asyncio.to_thread(subprocess.run, [sys.executable, "-I", "-c", code], check=True)
    listener.accept()[0].close()


def test_a_program_of_an_ordinary_user_has_no_network(listener: socket.socket) -> None:
    dropping = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    unprivileged = dropping if os.geteuid() == 0 else []
    limits = {"parent": os.getpid(), "memory": 1024 * MIB, "cpu": 20, "file_size": 0}
    code = connecting(listener)

    subprocess.run([*unprivileged, sys.executable, "-I", "-c", code], check=True)
    listener.accept()[0].close()
    confined = [sys.executable, "-I", "-S", confine.__file__, json.dumps(limits)]
    ended = subprocess.run(
        [*unprivileged, *confined, sys.executable, "-I", "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )

    assert "Network is unreachable" in ended.stderr
    with pytest.raises(BlockingIOError):
        listener.accept()


# --- It ends with whoever asked -------------------------------------------------------------------

SLEEPING = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(600)"


async def _started(folder: Path) -> int:
    file = folder / "pid"
    await until(lambda: file.exists() and file.read_text() != "")
    return int(file.read_text())


async def test_a_cancellation_ends_a_program(tmp_path: Path) -> None:
    running = asyncio.create_task(python(SLEEPING, tmp_path))
    pid = await _started(tmp_path)
    assert is_alive(pid)

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert not is_alive(pid)


@pytest.mark.parametrize("stays", [True, False])
async def test_a_cancellation_ends_what_a_program_started(tmp_path: Path, stays: bool) -> None:
    code = f"import os, time\nif os.fork(): time.sleep(600 * {stays})\nelse:\n  {SLEEPING}"
    running = asyncio.create_task(python(code, tmp_path))
    pid = await _started(tmp_path)

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    await until(lambda: not is_alive(pid))


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_a_program_dies_with_the_process_that_started_it(tmp_path: Path, loop: str) -> None:
    code = (
        "import asyncio, sys, uvloop\n"
        "from pathlib import Path\n"
        "from diptych_images.imports.plugins.sandbox import Limits, run\n"
        f"limits = Limits(memory={1024 * MIB}, cpu_s=20, time_s=60, file_size=100)\n"
        f"arguments = (sys.executable, '-I', '-S', '-c', {SLEEPING!r})\n"
        f"work = run(*arguments, folder=Path({str(tmp_path)!r}), limits=limits)\n"
        f"{loop}.run(work)\n"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    try:
        pid = await _started(tmp_path)
        assert is_alive(pid)
    finally:
        parent.kill()
        await parent.wait()

    await until(lambda: not is_alive(pid))


def test_a_program_whose_parent_is_gone_does_not_start(tmp_path: Path) -> None:
    limits = {"parent": os.getpid() + 1, "memory": 1024 * MIB, "cpu": 20, "file_size": MIB}
    confined = [sys.executable, "-I", "-S", confine.__file__, json.dumps(limits)]

    ended = subprocess.run(
        [*confined, str(shutil.which("touch")), str(tmp_path / "started")], check=False
    )

    assert ended.returncode == 1
    assert not (tmp_path / "started").exists()
