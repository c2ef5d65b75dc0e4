"""`tidewarp store keys`: who may sign the heads of the store's domain, and who does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.peer.answers import parse_key
from tidewarp.cli.store.places import read_key_file, store_argument
from tidewarp.codec.bodies import KEYS, KeysBody
from tidewarp.codec.ed25519 import public_key_of
from tidewarp.codec.records import PUBLISHED
from tidewarp.errors import OperatorError
from tidewarp.store import Entry, SqliteStore, key_fault
from tidewarp.store.signers import keys_of

__all__ = ["command"]


def _parse_keys(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[bytes, ...]:
    """Public keys of 32 bytes, from their 64 digits."""
    return tuple([key for key in (parse_key(ctx, param, value) for value in values) if key is not None])


@click.command()
@store_argument
@click.option("--add", metavar="HEX", multiple=True, callback=_parse_keys, help="Let this public key sign. Repeatable.")
@click.option("--withdraw", metavar="HEX", multiple=True, callback=_parse_keys, help="Let it sign no more. Repeatable.")
@click.option(
    "--sign-with",
    "key_file",
    metavar="F",
    type=click.Path(path_type=Path, readable=False),
    help="Let the private key in F, 32 bytes, sign, and sign with it from now on.",
)
@json_option
def command(
    place: Path, add: tuple[bytes, ...], withdraw: tuple[bytes, ...], key_file: Path | None, as_json: bool
) -> int:
    """Print which keys may sign how far the journal of the store DIR goes, or choose them anew.

    The root key, of which the domain is the hash, always may. Others are named in a record of the journal, and the last
    such record counts. With --sign-with the private key is copied to keys/signing.key beside the root key, which can
    then be kept elsewhere, until a withdrawn key or a program needs it. Other sites follow by themselves. Withdraw the
    key that signs, and the root key signs again.
    """
    seed = None if key_file is None else read_key_file(key_file)
    chooses = bool(add or withdraw or seed)
    with SqliteStore(place, read_only=not chooses) as store:
        if chooses:
            _choose(store, place, [*add, *([] if seed is None else [public_key_of(seed)])], withdraw, seed)
        document = {
            "domain": store.domain,
            "root": store.domains()[0].key,
            "keys": _named(store),
            "signer": store.signer,
            "heads": [head.size for head in store.signed_heads()],
        }
    emit(document, as_json, _render)
    return 0


def _named(store: SqliteStore) -> list[bytes]:
    return list(keys_of(store.keys_record(store.domain, store.journal.size)))


def _choose(store: SqliteStore, place: Path, add: list[bytes], withdraw: tuple[bytes, ...], seed: bytes | None) -> None:
    """Write the new list, sign a head that covers it, and let the key of ``seed`` sign from then on."""
    before = _named(store)
    for key in withdraw:
        if key not in before or key in add:
            rule = "it is to be added too" if key in add else "the domain names it not"
            raise OperatorError(f"--withdraw {key.hex()}", rule, "see tidewarp store keys DIR")
    keys = [key for key in dict.fromkeys([*before, *add]) if key not in withdraw]
    if store.signer in withdraw and seed is None:
        fault = key_fault(place, store.domain)
        if fault is not None:
            action = "put the root key back beside the store, or name another with --sign-with"
            raise OperatorError(
                f"--withdraw {store.signer.hex()}", f"the root key has to sign then, and {fault}", action
            )
        store.sign_with(None)
    if keys != before:
        store.journal.append([Entry(KEYS, KeysBody(tuple(keys)).to_bytes(), PUBLISHED)])
    if seed is None:
        store.signed_head()
    else:
        store.sign_with(seed)


def _render(document: Mapping[str, Any]) -> str:
    signer = document["signer"]
    rows = [("root key", document["root"]), *(("key", key) for key in document["keys"])]
    return "\n".join([f"{name:<9}{key.hex()}{'  signs' if key == signer else ''}" for name, key in rows])
