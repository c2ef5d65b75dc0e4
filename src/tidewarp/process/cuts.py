"""Cuts: an environment as a document at the end of a quiet instant, and a new one that goes on from it.

Generators cannot be saved. So a cut ends every process, in every life, and the model is built anew from the document:
the run goes on as one that is restored goes on, because it is one. What is neither in the document nor in ``twin.state``
is gone at the cut, seen by whoever tries it, and not only after a crash.

Kept are the clock and the counts of events, processes and outputs; the places of the random streams; values and
versions of all paths; the statistics of resources, the levels of containers and the items of stores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NoReturn

from simpy.events import Event, EventPriority

from tidewarp.codec import pack
from tidewarp.errors import CodecError, ModelError
from tidewarp.process.buffers import Buffer
from tidewarp.process.containers import DynamicContainer
from tidewarp.process.resources import DynamicResource
from tidewarp.process.stores import DynamicStore

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tidewarp.process.environment import Environment

__all__ = ["CutDue", "ask", "begin", "complete", "saved"]

_LAST: Final = EventPriority(1 << 30)  # behind all events of its time


class CutDue(Exception):
    """The instant of a cut is over."""


def ask(env: Environment) -> Event:
    """Cut at the end of this instant; an event that never comes, for who has no more to do in it. Raises ModelError."""
    if not env.sealed or not env.writable:
        rule = "a process of the model cuts its run, between its instants"
        raise ModelError("twin.cut()", rule, "call it in a process, at a quiet instant")
    if env.now == env.cut_at:
        rule = f"there was a cut at this time already, {env.now:g} s: it would never end"
        raise ModelError("twin.cut()", rule, "let time pass before the next one")
    if not env.cutting:
        env.cutting = True
        event = Event(env)
        event._ok, event._value, event.callbacks = True, None, [_end_instant]
        env.schedule(event, _LAST)
    return Event(env)


def _end_instant(_: Event) -> NoReturn:
    raise CutDue


def saved(env: Environment) -> dict[str, Any]:
    """The document of the environment. Raises ModelError naming the first thing that cannot be cut."""
    resources = {}
    for path in sorted(env.resources):
        resources[path] = _saved_resource(env.resources[path])
    for name in env._numpy_counts():
        _refuse(f"random stream {name}", "numpy keeps the place of its generator to itself", "draw from twin.stream")
    topology = env.registry.changed_topology()
    if topology is not None:
        _refuse(f"path {topology}", "the model was changed by an update, and build does not know of it", "build it so")
    return {
        "now": float(env.now),
        "events": env.events,
        "started": env.causality.started,
        "undeliverable": env.undeliverable,
        "streams": {name: env._streams[name].count for name in sorted(env._streams)},
        "registry": env.registry.state(),
        "resources": resources,
    }


def begin(env: Environment, document: Mapping[str, Any], last_id: str) -> None:
    """Before the model is built: what its processes and outputs are numbered by. ``last_id``: of the last output."""
    env.cut_at = document["now"]
    env.events = document["events"]
    env.causality.started = document["started"]
    env._outputs.undeliverable = document["undeliverable"]
    if last_id:
        env._outputs.behind[int(last_id[:16], 16)] = int(last_id[17:], 16)
    for name, count in document["streams"].items():
        env.stream(name).count = count


def complete(env: Environment, document: Mapping[str, Any]) -> None:
    """After the model is built: values, and what the resources hold. Raises ModelError if build made other ones."""
    env.registry.resume(document["registry"])
    for path, content in document["resources"].items():
        resource = env.resources.get(path)
        if resource is None:
            raise ModelError(f"resource {path}", "the cut has it, and build did not make it", "make it in build")
        if isinstance(resource, DynamicResource):
            resource.resume_usage(content)
        elif isinstance(resource, DynamicContainer):
            resource._level = content
        elif isinstance(resource, DynamicStore):
            resource.items[:] = content


def _saved_resource(resource: DynamicResource | Buffer) -> Any:
    what = f"{type(resource).__name__} {resource.path}"
    if isinstance(resource, DynamicResource):
        if resource.users or resource.queue:
            rule = f"{len(resource.users)} of its units are in use, and {len(resource.queue)} requests wait"
            _refuse(what, rule, "cut when nothing is in progress")
        return resource.usage_saved()
    if resource.put_queue or resource.get_queue:
        rule = f"{len(resource.put_queue)} puts and {len(resource.get_queue)} gets wait"
        _refuse(what, rule, "cut when nobody waits for it")
    if isinstance(resource, DynamicContainer):
        return resource.level
    items = resource.items if isinstance(resource, DynamicStore) else []
    try:
        pack(items)
    except CodecError as error:
        _refuse(what, f"its items are not plain data ({error.value})", "keep numbers, text, lists and objects in it")
    return list(items)


def _refuse(what: str, rule: str, action: str) -> NoReturn:
    value = f"twin.cut(): {what}"
    raise ModelError(value, f"{rule}; a process that waits for something cannot be saved, and a cut ends it", action)
