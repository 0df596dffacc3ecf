"""The embedded nats-server, the real one: start, stop, who may connect, who may start, and what is left on disk."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest
import trio

from arc_es.journal import server_files
from arc_es.journal.server import (
    DataDirLocked,
    EmbeddedServer,
    NatsServerTooOld,
    ServerDidNotStart,
    checked_nats_server,
    config_path,
    disk_free_bytes,
    find_nats_server,
    lock_holder,
    nats_server_version,
    run_server,
)
from arc_es.journal.server_process import Endpoint, answers

SECONDS_MAX = 15


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def holder_pid(data_dir: Path) -> int | None:
    holder = lock_holder(data_dir)
    return None if holder is None else holder.pid


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def greeting(server: EmbeddedServer, connect: bytes) -> bytes:
    """What the server says to this CONNECT, until it says pong or hangs up."""
    received = b""
    async with await trio.open_tcp_stream("127.0.0.1", int(server.endpoint.url.rpartition(":")[2])) as stream:
        await stream.send_all(b"CONNECT " + connect + b"\r\nPING\r\n")
        while b"PONG" not in received and b"-ERR" not in received:
            some = await stream.receive_some()
            if not some:
                break
            received += some
    return received


async def restarted(server: EmbeddedServer, times: int) -> None:
    while server.restarts < times:
        await server.wait_changed()


async def test_it_runs_for_the_length_of_the_body_and_comes_back_the_same(tmp_path: Path) -> None:
    data_dir = tmp_path / "data, ä b"
    with trio.fail_after(SECONDS_MAX):
        async with run_server(data_dir) as server:
            first, pid = server.endpoint, server.pid
            assert server.running
            assert server.restarts == 0
            assert await answers(first)
        assert not server.running
        assert not alive(pid)
        assert lock_holder(data_dir) is None
        async with run_server(data_dir, max_file_store_bytes=1_000_000_000) as server:
            assert first == server.endpoint, "port and password are kept"
    assert (data_dir / "nats" / "jetstream").is_dir()


async def test_nobody_connects_without_the_password(tmp_path: Path) -> None:
    with trio.fail_after(SECONDS_MAX):
        async with run_server(tmp_path) as server:
            right = b'{"user":"arc","pass":"%s","verbose":false}' % server.endpoint.password.encode()
            assert b"PONG" in await greeting(server, right)
            for wrong in (b'{"verbose":false}', b'{"user":"arc","pass":"arc"}', b'{"user":"sys","pass":""}'):
                assert b"Authorization Violation" in await greeting(server, wrong)
            assert not await answers(Endpoint(server.endpoint.url, "arc", "arcwrong"))


async def test_the_password_is_in_one_file_of_the_owner_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data_dir = tmp_path / "data"
    caplog.set_level("DEBUG")
    with trio.fail_after(SECONDS_MAX):
        async with run_server(data_dir) as server:
            password = server.endpoint.password
            processes = (await trio.run_process(["ps", "-ww", "-eo", "args"], capture_stdout=True)).stdout
            assert b"nats-server" in processes
            assert password.encode() not in processes
            assert password not in repr(server.endpoint)
    assert password not in caplog.text
    files = [path for path in data_dir.rglob("*") if path.is_file()]
    assert [path.name for path in files if password.encode() in path.read_bytes()] == ["nats.env"]
    modes = {mode(path) for path in files if path.parent == data_dir}
    assert modes == {0o600}
    assert mode(data_dir / "nats.env") == 0o600
    assert {mode(path) for path in (data_dir, data_dir / "nats")} == {0o700}


async def test_a_second_server_on_the_directory_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    with trio.fail_after(SECONDS_MAX):
        async with run_server(tmp_path) as server:
            holder = lock_holder(tmp_path)
            assert holder is not None
            assert (os.getpid(), False) == (holder.pid, holder.orphan)
            with pytest.raises(DataDirLocked, match=rf"{tmp_path} is in use by .*pid {os.getpid()}\)"):
                async with run_server(tmp_path):
                    pass
            assert server.running


async def test_a_killed_server_is_replaced_on_the_same_port(tmp_path: Path) -> None:
    with trio.fail_after(SECONDS_MAX):
        async with run_server(tmp_path) as server:
            first, pid = server.endpoint, server.pid
            for times in (1, 2):
                os.kill(server.pid, signal.SIGKILL)
                await server.wait_changed()
                assert not server.running
                await restarted(server, times)
                assert server.running
                assert await answers(server.endpoint)
            assert first == server.endpoint
            assert pid != server.pid
            assert holder_pid(tmp_path) == os.getpid(), "the lock is held through restarts"


async def test_it_comes_back_when_a_stranger_has_left_its_port(tmp_path: Path) -> None:
    with trio.fail_after(SECONDS_MAX):
        async with run_server(tmp_path) as server:
            os.kill(server.pid, signal.SIGKILL)
            await server.wait_changed()
            listeners = await trio.open_tcp_listeners(int(server.endpoint.url.rpartition(":")[2]), host="127.0.0.1")
            async with listeners[0], await listeners[0].accept():
                assert not server.running, "it was the stranger who answered"
            await restarted(server, 1)
            assert await answers(server.endpoint)


async def test_a_server_that_hangs_is_killed_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arc_es.journal.server_process.STOP_SECONDS_MAX", 0.2)
    with trio.fail_after(SECONDS_MAX):
        async with run_server(tmp_path) as server:
            os.kill(server.pid, signal.SIGSTOP)
        assert not alive(server.pid)


async def test_the_main_thread_forks_it_into_a_session_of_its_own(tmp_path: Path) -> None:
    """The kernel kills the child when the thread that forked it ends; trio's workers end after 10 idle seconds."""
    with trio.fail_after(SECONDS_MAX):
        async with run_server(tmp_path) as server:
            children = await trio.Path(f"/proc/self/task/{os.getpid()}/children").read_text()
            assert str(server.pid) in children.split()
            assert os.getsid(server.pid) == server.pid, "Ctrl-C does not reach it"


async def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "nats").mkdir()
    (tmp_path / "nats" / "jetstream").write_text("in the way")
    with (
        trio.fail_after(SECONDS_MAX),
        pytest.raises(ServerDidNotStart, match="storage directory is not a directory") as caught,
    ):
        async with run_server(tmp_path):
            pass
    assert "ARC_NATS" not in str(caught.value)
    assert lock_holder(tmp_path) is None


async def test_a_taken_port_is_changed_at_the_next_start_and_a_torn_file_is_replaced(tmp_path: Path) -> None:
    with trio.fail_after(SECONDS_MAX):
        async with run_server(tmp_path) as server:
            first = server.endpoint
        listeners = await trio.open_tcp_listeners(int(first.url.rpartition(":")[2]), host="127.0.0.1")
        async with listeners[0], run_server(tmp_path) as server:
            assert first.url != server.endpoint.url
            assert first.password == server.endpoint.password
        (tmp_path / "nats.env").write_text("ARC_NATS_PASSWORD='arc12")
        async with run_server(tmp_path) as server:
            assert first.password != server.endpoint.password


async def test_cancelling_ends_the_child(tmp_path: Path) -> None:
    with trio.fail_after(SECONDS_MAX):
        with trio.CancelScope() as scope:
            async with run_server(tmp_path) as server:
                scope.cancel()
                await trio.sleep_forever()
        assert not alive(server.pid)


def test_nats_conf_is_accepted_as_it_is_and_names_what_is_missing(tmp_path: Path) -> None:
    command = [str(find_nats_server()), "-t", "-c", str(config_path())]
    variables = server_files.Variables(14_222, "arc0", tmp_path, 1_000_000)
    given = subprocess.run(command, env=variables.as_environ(), capture_output=True, text=True, check=False)
    assert given.returncode == 0, given.stderr
    without = subprocess.run(command, env={}, capture_output=True, text=True, check=False)
    assert without.returncode != 0
    assert "ARC_NATS_PORT" in without.stderr


def test_the_program_is_found_and_new_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    assert nats_server_version(checked_nats_server()) >= (2, 15, 1)
    monkeypatch.setattr(server_files, "VERSION_MIN", (99, 0, 0))
    with pytest.raises(NatsServerTooOld, match=r"99\.0\.0 or newer"):
        checked_nats_server()


def test_free_disk_is_told_for_a_directory_that_is_not_there_yet(tmp_path: Path) -> None:
    assert disk_free_bytes(tmp_path / "not" / "yet") > 0
