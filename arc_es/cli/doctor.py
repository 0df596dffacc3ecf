"""`arc-es doctor`: look at everything a service needs, say what is wrong and what to do."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from arc_es.cli.options import EXIT_FAILED, Json, run_trio
from arc_es.cli.output import print_json, print_table

if TYPE_CHECKING:
    from arc_es.cli.checks import Check, Level
    from arc_es.config import Config
    from arc_es.nats_access import Access

_ANSWER_SECONDS_MAX: Final = 3.0
_NATS_SECONDS_MAX: Final = 6.0
_NATS_PORT: Final = 4222


def doctor(
    *,
    bind: str | None = None,
    data_dir: Path | None = None,
    nats_url: str | None = None,
    config: Path | None = None,
    json: Json = False,
) -> int:
    """Check this machine, the settings and the service.

    Give it the options and the environment of arc-es serve. Nothing is changed, and it may run beside a running
    service. Exit status 1 if something must be repaired.

    For example:

        arc-es doctor

        arc-es doctor --data-dir /var/lib/arc --json | jq '.checks[] | select(.level != "ok")'

    Args:
        bind: As for arc-es serve.
        data_dir: As for arc-es serve.
        nats_url: As for arc-es serve.
        config: As for arc-es serve.
        json: Print one JSON object: ok, and checks with name, level, found and advice.
    """
    from arc_es.cli.checks import Check
    from arc_es.config import Config, ConfigError, load

    flags = {"bind": bind, "data_dir": data_dir, "nats_url": nats_url}
    try:
        settings = load(flags, toml=config)
        loaded = Check("settings", "ok", f"bind {settings.bind}, data dir {settings.data_dir}, {_mode(settings)}")
    except ConfigError as error:
        settings = Config(data_dir=data_dir) if data_dir else Config()
        loaded = Check("settings", "fail", str(error), "repair it; the checks below use the defaults")
    checks = [loaded, *_run(settings)]
    healthy = all(check.level != "fail" for check in checks)
    if json:
        print_json({"ok": healthy, "checks": [asdict(check) for check in checks]})
    else:
        rows = ((_mark(check.level), check.name, check.found, check.advice) for check in checks)
        print_table(("", "check", "found", "what to do"), rows, empty="", wrap=("found", "what to do"))
    return 0 if healthy else EXIT_FAILED


def _run(settings: Config) -> list[Check]:
    """All checks, in the order in which a repair makes sense."""
    from arc_es.cli import checks

    existing = settings.data_dir if settings.data_dir.is_dir() else Path.cwd()
    steps: list[Callable[[], Check]] = [
        checks.check_python,
        checks.check_packages,
        lambda: checks.check_data_dir(settings.data_dir),
        lambda: checks.check_lock(settings.data_dir),
        lambda: checks.check_disk(settings.data_dir),
        lambda: checks.check_clock(existing),
        lambda: run_trio(_check_port, settings),
    ]
    if settings.nats_url is None:
        steps.append(checks.check_nats_server)
    found = [_safely(step) for step in steps]
    if (access := _access(settings)) is not None:
        found.append(run_trio(_check_stream, settings, access))
    return found


def _safely(step: Callable[[], Check]) -> Check:
    """What the system refuses to show is a finding, not a crash."""
    from arc_es.cli.checks import Check

    try:
        return step()
    except OSError as error:
        where = error.filename or "this machine"
        return Check("access", "fail", f"{where}: {error.strerror or error}", "run as the user of the service")


async def _check_port(settings: Config) -> Check:
    """Who answers at `bind`; if nobody, whether we could listen there."""
    import trio

    from arc_es.cli.checks import Check, check_port
    from arc_es.client import ArcClient, ArcError, ServerUnreachable

    free = check_port(settings)
    if free.level == "ok":
        return free
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - not to bind
    host = f"[{host}]" if ":" in host else host
    with trio.move_on_after(_ANSWER_SECONDS_MAX):
        async with ArcClient(f"http://{host}:{settings.port}") as client:
            try:
                await client.readiness()
            except ServerUnreachable:
                return free
            except ArcError as error:
                if error.code != "BAD_ANSWER":
                    return Check("port", "warn", f"{settings.bind}: the service there is not ready: {error}", "wait")
                return free
            return Check("port", "ok", f"{settings.bind}: a service runs there and is ready")
    return free


def _access(settings: Config) -> Access | None:
    """How to reach the NATS server; None if it is our own and not running."""
    from arc_es.journal.data_lock import lock_holder
    from arc_es.journal.server_files import recorded_access
    from arc_es.nats_access import Access

    if settings.nats_url is not None:
        return Access([settings.nats_url])
    with suppress(OSError):  # check_data_dir and check_lock have told why
        return None if lock_holder(settings.data_dir) is None else recorded_access(settings.data_dir)
    return None


async def _check_stream(settings: Config, access: Access) -> Check:
    """The NATS server answers, is new enough, and its stream is as this version needs it."""
    import trio

    from arc_es.cli.checks import Check
    from arc_es.journal.server_files import VERSION_MIN
    from arc_es.journal.stream import StreamSettings, check_server, compare_stream
    from arc_es.nats_bridge import open_bridge
    from arc_es.ports import JournalError

    logging.getLogger("arc_es").addHandler(logging.NullHandler())  # what matters is in the table
    where = _without_password(settings.nats_url) if settings.nats_url else "our nats-server"
    if (refusal := await _connection_refused(access.servers[0])) is not None:
        return Check("stream", "fail", f"{where}: {refusal}", "is the NATS server running there?")
    with trio.move_on_after(_NATS_SECONDS_MAX):
        async with open_bridge(access) as bridge:
            try:
                await bridge.wait_available()
                version = bridge.server_info().version
                check_server(bridge)
                differences = await compare_stream(bridge, StreamSettings(settings.replicas, settings.stream_bytes_max))
            except JournalError as error:
                return Check("stream", "fail", f"{where}: {error}", "repair the NATS server, then look again")
            if _numbers(version) < VERSION_MIN:
                needed = ".".join(map(str, VERSION_MIN))
                return Check("stream", "fail", f"{where} is version {version}", f"use nats-server {needed} or newer")
            if differences is None:
                return Check("stream", "ok", f"{where} {version} has no stream yet; serve makes it")
            if differences:
                found = f"{where} {version}: " + "; ".join(map(str, differences))
                return Check("stream", "fail", found, "serve refuses it: change the stream, or use another server")
            return Check("stream", "ok", f"{where} {version}: as this version needs it")
    return Check("stream", "fail", f"{where} does not answer", "is it running, and are name and password right?")


async def _connection_refused(url: str) -> str | None:
    """Why nobody answers at the address of a NATS URL, without waiting as long as a client that keeps trying."""
    import trio

    from arc_es.client.answers import reason_of

    address = urlsplit(url if "//" in url else f"nats://{url}")
    with trio.move_on_after(_ANSWER_SECONDS_MAX):
        try:
            stream = await trio.open_tcp_stream(address.hostname or "localhost", address.port or _NATS_PORT)
        except OSError as error:
            return reason_of(error)
        async with stream:
            return None
    return "it took too long to connect"


def _without_password(url: str) -> str:
    scheme, separator, rest = url.rpartition("//")
    return scheme + separator + rest.rpartition("@")[2]


def _numbers(version: str) -> tuple[int, ...]:
    """2.15.1-beta.2 -> (2, 15, 1)."""
    return tuple(int(part) for part in version.partition("-")[0].split(".") if part.isdecimal())


def _mode(settings: Config) -> str:
    return "open (no admin token)" if settings.admin_token is None else "with tokens"


def _mark(level: Level) -> str:
    return {"ok": "ok", "warn": "WARN", "fail": "FAIL"}[level]
