"""What the commands about peers share: domains, keys and roles as text, and that somebody has to answer."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path

import click

from tidewarp.cli.store.places import STORE
from tidewarp.codec.ed25519 import is_public_key
from tidewarp.errors import MissingExtra, OperatorError
from tidewarp.federation.addresses import ADDRESS_RULE, parse_address
from tidewarp.federation.shell import PullReport, PushReport
from tidewarp.federation.shell.site import Site
from tidewarp.federation.shell.tls import Tls
from tidewarp.store.admission import Role

__all__ = ["EXIT_UNANSWERED", "check_answered", "domains_option", "parse_key", "parse_roles", "tls_for", "tls_option"]

EXIT_UNANSWERED = MissingExtra.exit_code

_WORD_MAX = 64
_DIGITS = re.compile("[0-9a-f]{64}")


def _parse_domains(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[bytes, ...]:
    """Domains of 32 bytes, from their 64 digits."""
    for value in values:
        if _DIGITS.fullmatch(value) is None:
            rule = "a domain has 64 lower-case hexadecimal digits"
            raise click.BadParameter(f"{value!r:.80}: {rule}", ctx, param)
    return tuple(map(bytes.fromhex, values))


domains_option = click.option(
    "--domain",
    "domains",
    metavar="HEX",
    callback=_parse_domains,
    multiple=True,
    help="Of this domain only; repeatable.",
)


def parse_key(ctx: click.Context, param: click.Parameter, value: str | None) -> bytes | None:
    """A public key of 32 bytes, from its 64 digits."""
    if value is None:
        return None
    if _DIGITS.fullmatch(value) is None:
        rule = "a public key has 64 lower-case hexadecimal digits"
        raise click.BadParameter(f"{value!r:.80}: {rule}", ctx, param)
    key = bytes.fromhex(value)
    if not is_public_key(key):
        raise click.BadParameter(f"{value}: it is nobody's public key: copy it from tidewarp peer status", ctx, param)
    return key


def parse_roles(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[Role, ...]:
    """Roles; of a word that is none, the nearest is named."""
    for value in values:
        if value not in list(Role):
            (near,) = get_close_matches(value[:_WORD_MAX], list(Role), n=1, cutoff=0)
            raise click.BadParameter(f"{value!r:.80} is no role: did you mean {near}?", ctx, param)
    return tuple(map(Role, values))


tls_option = click.option(
    "--tls",
    "tls_file",
    metavar="CERT.pem",
    type=STORE,
    help="Key and certificate for an https URL, made if missing. Default: those beside the store.",
)


def tls_for(site: Site, url: str, file: Path | None) -> Tls | None:
    """How to speak to ``url``: with TLS if it is an https one. Raises OperatorError: it is no address, or an http one."""
    address = parse_address(url)
    if address is None:
        raise OperatorError(f"{url!r:.200}", ADDRESS_RULE, "give http://HOST:PORT or https://HOST:PORT")
    if file is not None and address.scheme == "http":
        raise OperatorError(url, "--tls goes with https", "leave --tls out, or give https://HOST:PORT")
    return site.tls(file, url) if file is not None or url.startswith("https:") else None


def check_answered(report: PullReport | PushReport, url: str) -> None:
    """Raise MissingExtra unless the peer has said anything."""
    if not report.answered:
        raise MissingExtra(
            url, f"nobody answers: {report.incomplete}", "start it there: tidewarp peer serve DIR --port P"
        )
