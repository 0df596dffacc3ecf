"""The public JSON of what controls deliveries: pauses and limits (extensions, "Deployments")."""

from __future__ import annotations

from typing import Any

from arc_es.domain.deployments import Controls
from arc_es.domain.events import ConcurrencyLimited, DeliveryPaused, DeliveryResumed
from arc_es.domain.limits import CONCURRENT_MAX, REASON_CHARS_MAX
from arc_es.wire import WireError, count, format_time, name_text, optional, parse_object, required, text, wrong_shape


def parse_pause(value: object) -> DeliveryPaused:
    """POST /deployments/{id}/pause; None: no body was sent. Raises WireError 422, or 400 for an id that is none."""
    data = parse_object({} if value is None else value)
    reason = optional(data, "reason", text) or ""
    return DeliveryPaused(target_id=optional(data, "target", _target_id), reason=reason[:REASON_CHARS_MAX])


def parse_resume(value: object) -> DeliveryResumed:
    """POST /deployments/{id}/resume; None: no body was sent. Raises as `parse_pause`."""
    return DeliveryResumed(target_id=optional(parse_object({} if value is None else value), "target", _target_id))


def parse_limit(value: object) -> ConcurrencyLimited:
    """POST /deployments/{id}/limit; without `maxConcurrent` there is no limit any more. Raises as `parse_pause`."""
    data = parse_object(value)
    leases_max = optional(data, "maxConcurrent", count)
    if leases_max == 0:
        raise wrong_shape("maxConcurrent must be at least 1; to let nothing through, pause the target")
    if leases_max is not None:
        leases_max = min(leases_max, CONCURRENT_MAX)
    return ConcurrencyLimited(target_id=required(data, "target", _target_id), leases_max=leases_max)


def _target_id(value: object, name: str) -> str:
    target_id = name_text(text(value, name), name)
    if not target_id or ":" in target_id:
        raise WireError(400, "COMMAND_TARGET_ID_INVALID", f"{name} must be the resourceId of a target")
    return target_id


def controls_json(deployment_id: str, controls: Controls) -> dict[str, Any]:
    """All that is paused or limited in a deployment; targets of which nothing was said are left out."""
    names = sorted({name for name in controls.pauses if name is not None} | set(controls.leases_max))
    return {
        "deploymentId": deployment_id,
        **_pause_json(controls, None),
        "targets": [_target_json(controls, name) for name in names],
    }


def _target_json(controls: Controls, name: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"target": name, **_pause_json(controls, name)}
    if name in controls.leases_max:
        entry["maxConcurrent"] = controls.leases_max[name]
    return entry


def _pause_json(controls: Controls, name: str | None) -> dict[str, Any]:
    pause = controls.pauses.get(name)
    if pause is None:
        return {"paused": False}
    said = {"reason": pause.reason} if pause.reason else {}
    return {"paused": True, "pausedAt": format_time(pause.since), **said}
