"""The floor: what one request costs in Quart-Trio under hypercorn's trio worker when nothing is done with it."""

from __future__ import annotations

import socket
import sys

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart import Response, request
from quart_trio import QuartTrio

ANSWER = (
    b'{"commandId":"cmd_3b1f6a52-6c1d-4f0e-9a55-0d3a1f2b7c11","state":"PENDING","inlineAllowedUpTo":150000,'
    b'"next":"poll"}'
)
BODY = bytes(1024 * 1024)


def main() -> None:
    """Serve POST /v1/commands, and PUT and GET /v1/storage, on a free port of 127.0.0.1."""
    app = QuartTrio("bare", static_folder=None)

    @app.post("/v1/commands")
    async def create() -> Response:
        await request.get_data()
        return Response(ANSWER, content_type="application/json")

    @app.put("/v1/storage")
    async def upload() -> Response:
        async for _ in request.body:
            pass
        return Response(b"")

    @app.get("/v1/storage")
    async def download() -> Response:
        return Response(BODY, content_type="application/octet-stream")

    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.setblocking(False)  # noqa: FBT003 - a positional-only parameter
    config = Config()
    config.bind = [f"fd://{listener.fileno()}"]
    config.keep_alive_max_requests = sys.maxsize
    config.errorlog = None
    print(f"bare ready on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    trio.run(serve, app, config)


if __name__ == "__main__":
    main()
