"""The web application: a function of the service, so that tests can build it without sockets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from quart import Request, Response
from quart_trio import QuartTrio
from werkzeug.routing import BaseConverter, MapAdapter

from arc_es.http.api import Api
from arc_es.http.audit import audit_blueprint
from arc_es.http.bodies import bodies_blueprint
from arc_es.http.commands import commands_blueprint
from arc_es.http.connection import BodyBudget, BodyLimits, ClientGone, Connection
from arc_es.http.controls import controls_blueprint
from arc_es.http.creating import creating_blueprint
from arc_es.http.deployments import deployments_blueprint
from arc_es.http.discovery import discovery_blueprint
from arc_es.http.erasing import erasing_blueprint
from arc_es.http.explain import explain_blueprint
from arc_es.http.feed import feed_blueprint
from arc_es.http.finding import finding_blueprint
from arc_es.http.health import health_blueprint
from arc_es.http.leases import leases_blueprint
from arc_es.http.problems import Refusal, response_of
from arc_es.http.proof import proof_blueprint
from arc_es.http.redriving import redriving_blueprint
from arc_es.http.tokens import tokens_blueprint

Handler = Callable[..., Awaitable[Response]]
ALWAYS_ANSWERED: Final = ("health.",)
"""Endpoints that answer while the start-up replay runs."""


class CommandIdConverter(BaseConverter):
    """A command id in a path: not one of the words that are paths of their own (`arc.v1` 1.1)."""

    regex = r"(?!(?:leases|bootstrap|batch|redrive)$)[^/]+"
    part_isolating = True


class ArcApp(QuartTrio):
    """A Quart application whose handlers take the request as an argument.

    Quart's contexts, sessions, signals and hooks cost more than a command does, and nothing here uses them: a request
    is matched to its rule, handled, and every error becomes JSON in one place.
    """

    asgi_http_class = Connection  # type: ignore[assignment]  # it takes this class only

    def __init__(
        self,
        api: Api,
        *,
        body_bytes_max: int,
        batch_bytes_max: int,
        slow_seconds_max: float,
        bodies_bytes_max: int,
        storage_bytes_max: int,
    ) -> None:
        super().__init__(__name__, static_folder=None)
        self.api = api
        self.body_limits = BodyLimits(body_bytes_max, batch_bytes_max, slow_seconds_max, BodyBudget(bodies_bytes_max))
        self.config["PROVIDE_AUTOMATIC_OPTIONS"] = False  # nobody answers them: the handlers would be called
        self.url_map.converters["command"] = CommandIdConverter
        for blueprint in (
            health_blueprint(api),
            leases_blueprint(api),
            creating_blueprint(api),
            commands_blueprint(api),
            redriving_blueprint(api),
            erasing_blueprint(api),
            bodies_blueprint(api, storage_bytes_max),
            deployments_blueprint(api),
            controls_blueprint(api),
            audit_blueprint(api),
            feed_blueprint(api),
            explain_blueprint(api),
            finding_blueprint(api),
            discovery_blueprint(api),
            tokens_blueprint(api),
            proof_blueprint(api),
        ):
            self.register_blueprint(blueprint)
        self.url_map.strict_slashes = False
        self.url_map.merge_slashes = False
        self._routes: MapAdapter = self.url_map.bind("arc")
        self._handlers: dict[str, Handler] = dict[str, Any](self.view_functions)

    async def handle_request(self, request: Request) -> Response:
        """The answer to a request; never raises but for a client that is gone."""
        try:
            endpoint, arguments = self._routes.match(request.path, request.method)
            if not endpoint.startswith(ALWAYS_ANSWERED):
                if not self.api.service.ready:
                    raise Refusal("NOT_READY", "The service is replaying its journal; see /readyz")
                await self.api.service.abreast()
            return await self._handlers[endpoint](request, **arguments)
        except ClientGone:
            raise
        except Exception as error:  # noqa: BLE001 - the edge: everything becomes an answer
            return response_of(error)
