"""Declaring deployments (extensions, "Deployments")."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from quart import Blueprint, Request, Response

from arc_es.declarations import declaration_json, parse_declaration
from arc_es.domain.events import DeclaredTarget, DeploymentDeclared
from arc_es.domain.ids import Target
from arc_es.domain.tokens import Grant
from arc_es.http.api import Api, json_of
from arc_es.http.problems import json_response
from arc_es.wire import WireError, name_text


def deployments_blueprint(api: Api) -> Blueprint:
    """PUT, GET /deployments/{id} and GET /deployments."""
    blueprint = Blueprint("deployments", __name__)
    service = api.service

    def seal(deployment_id: str, target_id: str, token: str) -> str:
        return api.sealer.seal(token, deployment_id, target_id)

    @blueprint.put("/deployments/<deployment_id>")
    async def declare(request: Request, deployment_id: str) -> Response:
        by = (await api.caller(request, "administer")).principal
        declaration = parse_declaration(await json_of(request), partial(seal, deployment_id))
        name_text(deployment_id, "deploymentId")
        if api.public_url is None and any(target.delivery == "push" for target in declaration.targets):
            raise WireError(
                400, "INVALID_COMMAND", "Push targets need the public base URL: start the service with --public-url"
            )
        stored = await service.declare(deployment_id, declaration, by)
        return json_response(declaration_json(deployment_id, stored))

    @blueprint.get("/deployments/<deployment_id>")
    async def show(request: Request, deployment_id: str) -> Response:
        caller = await api.caller(request, "read")
        declaration = service.declaration(deployment_id)
        caller.must_cover(deployment_id)
        return json_response(declaration_json(deployment_id, covered(caller.grant, deployment_id, declaration)))

    @blueprint.get("/deployments")
    async def list_all(request: Request) -> Response:
        grant = (await api.caller(request, "read")).grant
        names = filter(grant.covers_deployment, service.declared_deployments())
        found = [declaration_json(name, covered(grant, name, service.declaration(name))) for name in names]
        return json_response({"deployments": found})

    return blueprint


def covered(grant: Grant, deployment_id: str, declared: DeploymentDeclared) -> DeploymentDeclared:
    """What a token may see of a declaration: where the workers of other targets are is not its business."""

    def covers(target: DeclaredTarget) -> bool:
        return grant.covers(deployment_id, Target(target.resource_id, target.resource_type))

    return replace(declared, targets=tuple(filter(covers, declared.targets)))
