"""The public JSON of a deployment's declaration (extensions, "Deployments")."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final, Literal, TypeAlias

from arc_es.domain.events import DeclaredTarget, DeploymentDeclared, PushSettings, RetryPolicy
from arc_es.domain.ids import Delivery
from arc_es.domain.limits import (
    ATTEMPTS_DEFAULT,
    ATTEMPTS_MAX,
    LEASE_COUNT_MAX,
    PUSH_TOKEN_CHARS_MAX,
    TARGETS_PER_DEPLOYMENT_MAX,
    WORKER_TIMEOUT_SECONDS_DEFAULT,
)
from arc_es.sealing import Sealer
from arc_es.wire import (
    WireError,
    clamp,
    count,
    name_text,
    optional,
    parse_field_object,
    parse_object,
    parse_target,
    required,
    text,
    wrong_shape,
)

_PUSH_TOKEN: Final = re.compile(r"[\x21-\x7e]+")
Seal: TypeAlias = Callable[[str, str], str]
"""From the id of a target and its push token to the text that is stored."""


def parse_declaration(value: object, seal: Seal) -> DeploymentDeclared:
    """PUT /deployments/{id} (extensions, "Deployments"). Push tokens are sealed as they are read.

    Raises:
        WireError: 422, or 400 for ':' in a target id, or for too many targets.
    """
    data = parse_object(value)
    model = optional(data, "model", text) or "pull"
    if model not in ("pull", "push"):
        raise wrong_shape("model must be pull or push")
    default_delivery: Delivery = model  # type: ignore[assignment]
    targets = data.get("targets")
    if not isinstance(targets, list):
        raise wrong_shape("targets must be a list")
    if len(targets) > TARGETS_PER_DEPLOYMENT_MAX:
        raise WireError(400, "INVALID_COMMAND", f"targets: at most {TARGETS_PER_DEPLOYMENT_MAX}")
    declared = tuple(_declared_target(target, default_delivery, seal) for target in targets)
    if len({target.resource_id for target in declared}) != len(declared):
        raise wrong_shape("targets: two have the same resourceId")
    conflict = optional(data, "idempotencyConflict", text) or "reject"
    if conflict not in ("reject", "replay"):
        raise wrong_shape("idempotencyConflict must be reject or replay")
    on_conflict: Literal["reject", "replay"] = conflict  # type: ignore[assignment]
    return DeploymentDeclared(
        model=default_delivery,
        targets=declared,
        project_id=optional(data, "projectId", name_text),
        max_attempts=clamp(optional(data, "maxAttempts", count), 1, ATTEMPTS_MAX, ATTEMPTS_DEFAULT),
        retry=optional(data, "retry", _retry),
        idempotency_conflict=on_conflict,
        max_leases_without_target=optional(data, "maxLeasesWithoutTarget", _leases_max),
    )


def _declared_target(value: object, model: Delivery, seal: Seal) -> DeclaredTarget:
    target = parse_target(value, "targets")
    data = parse_field_object(value, "targets")
    if not target.resource_id:
        raise wrong_shape("targets: a resourceId is empty")
    if ":" in target.resource_id:
        raise WireError(400, "COMMAND_TARGET_ID_INVALID", "targets: a resourceId must not contain ':'")
    name_text(target.resource_id, "resourceId")
    is_worker = target.resource_type == "worker"
    delivery = optional(data, "delivery", text) or (model if is_worker else "pull")
    if delivery not in ("pull", "push"):
        raise wrong_shape("targets: delivery must be pull or push")
    if delivery == "push" and not is_worker:
        raise wrong_shape("targets: only workers can be pushed to")
    push = optional(data, "push", lambda given, name: _push(given, name, partial(seal, target.resource_id)))
    if delivery == "push" and push is None:
        raise wrong_shape("targets: a push target needs push.url")
    chosen: Delivery = delivery  # type: ignore[assignment]
    assert target.resource_type is not None
    return DeclaredTarget(
        resource_id=target.resource_id, resource_type=target.resource_type, delivery=chosen, push=push
    )


def _push(value: object, name: str, seal: Callable[[str], str]) -> PushSettings:
    data = parse_field_object(value, name)
    url = required(data, "url", text)
    if not url.startswith(("http://", "https://")):
        raise wrong_shape("push.url must be an absolute http or https URL")
    token = optional(data, "token", text)
    if token is not None and (not _PUSH_TOKEN.fullmatch(token) or len(token) > PUSH_TOKEN_CHARS_MAX):
        raise wrong_shape(f"push.token must be 1 to {PUSH_TOKEN_CHARS_MAX} visible ASCII characters")
    return PushSettings(
        url=url,
        token_sealed=None if token is None else seal(token),
        timeout_seconds=clamp(optional(data, "timeoutSeconds", count), 1, 3_600, WORKER_TIMEOUT_SECONDS_DEFAULT),
    )


def _leases_max(value: object, name: str) -> int:
    return clamp(count(value, name), 1, LEASE_COUNT_MAX, 1)


def _retry(value: object, name: str) -> RetryPolicy:
    data = parse_field_object(value, name)

    def number(field_name: str, low: float, high: float, default: float) -> float:
        given = data.get(field_name)
        if given is None:
            return default
        if isinstance(given, bool) or not isinstance(given, int | float) or not low <= given <= high:
            raise wrong_shape(f"retry.{field_name} must be a number between {low:g} and {high:g}")
        return float(given)

    return RetryPolicy(
        initial_seconds=number("initialSeconds", 0, 86_400, 1),
        max_seconds=number("maxSeconds", 0, 86_400, 60),
        factor=number("factor", 1, 100, 2),
    )


def resealed(deployment_id: str, declared: DeploymentDeclared, sealer: Sealer) -> DeploymentDeclared:
    """The declaration with all push tokens sealed under the current key; the same if they are.

    Raises:
        CannotUnseal: one was sealed with a key that is gone.
    """
    return replace(declared, targets=tuple(_resealed(deployment_id, target, sealer) for target in declared.targets))


def _resealed(deployment_id: str, target: DeclaredTarget, sealer: Sealer) -> DeclaredTarget:
    push = target.push
    if push is None or (token := sealer.token_of(deployment_id, target)) is None:
        return target
    sealed = sealer.seal(token, deployment_id, target.resource_id)
    return replace(target, push=replace(push, token=None, token_sealed=sealed))


def declaration_json(deployment_id: str, declared: DeploymentDeclared) -> dict[str, Any]:
    """The stored form of a declaration; push tokens are secrets and stay out."""
    targets = []
    for target in declared.targets:
        entry: dict[str, Any] = {
            "resourceId": target.resource_id,
            "resourceType": target.resource_type,
            "delivery": target.delivery,
        }
        if target.push is not None:
            entry["push"] = {"url": target.push.url, "timeoutSeconds": target.push.timeout_seconds}
        targets.append(entry)
    answer: dict[str, Any] = {"deploymentId": deployment_id, "model": declared.model, "targets": targets}
    if declared.project_id is not None:
        answer["projectId"] = declared.project_id
    answer["maxAttempts"] = declared.max_attempts
    if (retry := declared.retry) is not None:
        answer["retry"] = {
            "initialSeconds": retry.initial_seconds,
            "maxSeconds": retry.max_seconds,
            "factor": retry.factor,
        }
    answer["idempotencyConflict"] = declared.idempotency_conflict
    if declared.max_leases_without_target is not None:
        answer["maxLeasesWithoutTarget"] = declared.max_leases_without_target
    return answer
