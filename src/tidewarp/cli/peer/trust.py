"""`tidewarp peer trust`: name a site, and say what its records may bring about."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.peer.answers import parse_key, parse_roles
from tidewarp.cli.store.places import store_argument
from tidewarp.codec.records import domain_of
from tidewarp.federation.shell.site import open_site
from tidewarp.store.admission import Role

__all__ = ["command"]


@click.command()
@store_argument
@click.argument("name")
@click.option("--key", metavar="HEX", callback=parse_key, required=True, help="The root public key of its domain.")
@click.option("--url", metavar="URL", default="", help="Where it answers. Default: nobody pulls from it directly.")
@click.option(
    "--role", "roles", metavar="R", callback=parse_roles, multiple=True, help=f"Repeatable; one of: {', '.join(Role)}."
)
@click.option(
    "--tls-key", metavar="HEX", callback=parse_key, help="The public key of its certificate, if it has one of its own."
)
@json_option
def command(
    place: Path, name: str, key: bytes, url: str, roles: tuple[Role, ...], tls_key: bytes | None, as_json: bool
) -> int:
    """Name the site with the root public key HEX in the policy of the store DIR, with these roles and no others.

    The first call closes the store: from then on only domains that are named are pulled, and count. Without --role a
    new one gets produce, execute and publish. A role that it had and is not given again is withdrawn: the records
    that are here keep it. The new policy is in force by a record, and written to policy.toml; what is this site's own
    affair, the address and the key of the certificate, to peers.toml.
    """
    with open_site(place) as site:
        policy, changes = site.trust(name, key, url, roles or None, tls_key)
        document = {"domain": domain_of(key), "policy_hash": policy.hash, "changes": changes}
    emit(document, as_json, _render)
    return 0


def _render(document: Mapping[str, Any]) -> str:
    lines = [f"domain {document['domain'].hex()}", f"policy {document['policy_hash'].hex()}", *document["changes"]]
    return "\n".join(lines)
