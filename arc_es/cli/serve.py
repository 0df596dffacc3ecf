"""`arc-es serve`: settings from all sources, then the service until a signal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from arc_es.cli.options import EXIT_USAGE, CommandFailure

_LOG_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def serve(  # one option a setting
    *,
    bind: Annotated[str | None, Parameter(help="HOST:PORT to listen on; port 0 lets the system choose.")] = None,
    data_dir: Annotated[Path | None, Parameter(help="Folder that keeps everything; made if missing.")] = None,
    nats_url: Annotated[str | None, Parameter(help="NATS server to use; without it the service runs its own.")] = None,
    public_url: Annotated[str | None, Parameter(help="URL at which clients reach the service.")] = None,
    config: Annotated[Path | None, Parameter(help="Settings file; without it arc.toml, if there is one here.")] = None,
    workers: Annotated[int | None, Parameter(help="Number of processes that serve.")] = None,
    log_level: Annotated[str | None, Parameter(help="DEBUG, INFO, WARNING, ERROR or CRITICAL.")] = None,
) -> int:
    """Run the service.

    Settings come from arc.toml, then ARC_* environment variables, then these options; the later wins. When ready it
    prints one line to stdout: arc-es ready on http://HOST:PORT. SIGTERM or Ctrl-C drains and exits 0. The admin token
    comes from ARC_ADMIN_TOKEN or ARC_ADMIN_TOKEN_FILE only; without one the service is open, on loopback only.

    For example:

        arc-es serve

        arc-es serve --bind 127.0.0.1:9000 --data-dir /var/lib/arc

        ARC_ADMIN_TOKEN_FILE=/run/secrets/arc arc-es serve --bind 0.0.0.0:8420 --public-url https://arc.example
    """
    from arc_es.config import ConfigError, load

    flags = {
        "bind": bind,
        "data_dir": data_dir,
        "nats_url": nats_url,
        "public_url": public_url,
        "workers": workers,
        "log_level": log_level,
    }
    try:
        settings = load(flags, toml=config)
    except ConfigError as error:
        raise CommandFailure(str(error), exit_status=EXIT_USAGE) from error
    if settings.log_level.upper() not in _LOG_LEVELS:
        advice = f"write one of {', '.join(_LOG_LEVELS)}"
        raise CommandFailure(f"log_level is {settings.log_level!r}", advice=advice, exit_status=EXIT_USAGE)
    if settings.workers > 1:
        from arc_es.workers.supervisor import run
    else:
        from arc_es.serving import run
    return run(settings)
