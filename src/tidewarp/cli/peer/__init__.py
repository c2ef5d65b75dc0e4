"""``tidewarp peer``: one file per command, and ``answers``: what those that ask have in common."""

from __future__ import annotations

import click

from tidewarp.cli.lazy import Entry, LazyGroup

__all__ = ["command"]

COMMANDS: dict[str, Entry] = {
    "serve": Entry("tidewarp.cli.peer.serve:command", "Let other sites read a store."),
    "pull": Entry("tidewarp.cli.peer.pull:command", "Take over what another site has and this one lacks."),
    "push": Entry("tidewarp.cli.peer.push:command", "Give another site what this one has and it lacks."),
    "plan": Entry("tidewarp.cli.peer.plan:command", "Say what a pull would do."),
    "trust": Entry("tidewarp.cli.peer.trust:command", "Name a site, and what its records may bring about."),
    "policy": Entry("tidewarp.cli.peer.policy:command", "Print or adopt the policy that members share."),
    "status": Entry("tidewarp.cli.peer.status:command", "Whom a site knows, and what came of its exchanges."),
}


@click.group(cls=LazyGroup, entries=COMMANDS)
def command() -> None:
    """Exchange records with other sites: each pulls from the others, or pushes to them, and none leads."""
