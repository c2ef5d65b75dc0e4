"""A site: a store, the policy in force in it, and the files beside it that are its own affair.

DIR/policy.toml       NAME.tw.policy.toml    the policy as people edit it; in force is the POLICY record
DIR/peers.toml        NAME.tw.peers.toml     where peers answer and which keys they hold; not hashed
DIR/keys/tls.pem      NAME.tw.tls.pem        the private key and the certificate of this site, mode 0600
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from tidewarp.clocks.pacing import Clock
from tidewarp.codec.artifacts import TAG_POLICY
from tidewarp.codec.bodies import POLICY, PolicyBody
from tidewarp.codec.records import PUBLISHED, domain_of
from tidewarp.codec.snapshots import Snapshot
from tidewarp.errors import NotFound, OperatorError, OwnDomainBehind, OwnDomainForked
from tidewarp.federation.acknowledgements import AwaitedPeers
from tidewarp.federation.conflicts import place_of, rivals, settle
from tidewarp.federation.exchange import in_force, ledger_of
from tidewarp.federation.ledger import Ledger
from tidewarp.federation.peers import Peer, Peers
from tidewarp.federation.policy import NEWCOMER_ROLES, Member, Policy
from tidewarp.federation.shell.tls import Tls, make_identity
from tidewarp.store import Store, open_store
from tidewarp.store.admission import OPEN, Decision, Role, Standing
from tidewarp.store.contract import Entry
from tidewarp.store.files import open_regular
from tidewarp.store.fold.conflicts import FORK

__all__ = ["Site", "open_site", "read_policy"]

_TEXT_BYTES_MAX = 16 << 20


class _Files(NamedTuple):
    policy: Path
    peers: Path
    tls: Path
    seed: Path


class Site:
    """A store that is open, as a member of a federation. :func:`open_site` makes it."""

    def __init__(self, store: Store, place: Path, *, read_only: bool) -> None:
        self.store = store
        self.ledger = _ledger(store)
        """What was noted of exchanges; None where a store that is open read-only has had none."""
        self.policy = in_force(store, self.ledger, note=not read_only)
        """What is in force; None: the store is open, and everything that was pulled counts."""
        self._policy_size = store.journal.size
        self._files = _files(place)
        self.admit()

    def admit(self) -> None:
        """Let the views of the store follow the policy, and stop where a domain was proved to be forked."""
        admission = OPEN if self.policy is None else self.policy.admission()
        self.store.admit(admission, rivals(self.store, self.ledger))

    def noted(self) -> Ledger | None:
        """What was noted of exchanges: where the store is open read-only, it may come later."""
        if self.ledger is None:
            self.ledger = _ledger(self.store)
        return self.ledger

    def follow_policy(self) -> None:
        """See which policy is in force now: another process may have adopted one, or one has come with the own tail."""
        size = self.store.journal.size
        if size == self._policy_size:
            return
        policy = in_force(self.store, self.noted())
        self._policy_size = size
        if policy != self.policy:
            self.policy = policy
            self.admit()

    def peers_stamp(self) -> tuple[int, ...]:
        """What is another one when peers.toml was written; empty where there is none."""
        try:
            found = self._files.peers.stat()
        except OSError:
            return ()
        return found.st_ino, found.st_mtime_ns, found.st_size

    def peers(self) -> Peers:
        """What is known of the peers. Raises OperatorError: the file cannot be read, or breaks a rule."""
        text = _read(self._files.peers)
        try:
            return Peers() if text is None else Peers.from_toml(text)
        except OperatorError as error:
            raise OperatorError(f"{self._files.peers}: {error.value}", error.rule, error.action) from None

    def tls(self, file: Path | None = None, url: str | None = None) -> Tls:
        """How this site speaks TLS: to all its peers, or to the one at ``url``. Its certificate is made if it is missing.

        ``file``: in place of that beside the store.

        Raises:
            OperatorError: no peer is known, none at that address, or the file is not for its owner alone.
        """
        peers = self.peers()
        pinned = peers.keys()
        if url is not None:
            peer = peers.at(url)
            if peer is None:
                rule = "no peer is known to answer there, so there is no key to compare"
                raise OperatorError(url[:200], rule, "tidewarp peer trust DIR NAME --key HEX --url URL")
            pinned = frozenset({peer.key})
        identity = self._files.tls if file is None else file
        if not identity.exists():
            make_identity(identity, self._seed())
        return Tls(identity, pinned)

    def roles(self) -> dict[bytes, frozenset[Role]]:
        """By the key of its certificate (32 bytes), what the policy of now gives to a peer."""
        return self.roles_of(self.peers())

    def roles_of(self, peers: Peers) -> dict[bytes, frozenset[Role]]:
        """As :meth:`roles`, of peers that were read before."""
        members = {} if self.policy is None else self.policy.members
        return {
            peer.key: members[peer.domain].standing.roles
            for peer in peers.peers
            if peer.domain in members and members[peer.domain].standing.counts
        }

    def check_undivided(self) -> None:
        """Return if records may be added to the own domain.

        Raises:
            OwnDomainForked: another continuation of it was proved.
            OwnDomainBehind: a peer has shown records of it that are not here.
        """
        what = f"domain {self.store.domain.hex()}"
        seq = self.forked_at()
        if seq is not None:
            rule = f"two copies of it were written to, and part at record {seq}; nothing is added to either"
            raise OwnDomainForked(what, rule, "go on under a new one: tidewarp store init NEW --successor DIR")
        shown, size = 0 if self.ledger is None else self.ledger.own_size(), self.store.journal.size
        if shown > size:
            rule = f"it has {size} records here, and a peer has shown {shown}: this is an older copy"
            raise OwnDomainBehind(what, rule, "get the others back: tidewarp peer pull DIR URL")

    def forked_at(self) -> int | None:
        """Where the own domain was proved to part, unless this branch was chosen; None: nowhere."""
        noted = [] if self.ledger is None else self.ledger.conflicts()
        own = [one for one in noted if one.kind == FORK and one.domain == self.store.domain and one.state == "open"]
        return min(map(place_of, own), default=None)

    def frozen(self) -> frozenset[bytes]:
        """The domains (32 bytes) with a fork that is open."""
        return frozenset() if self.ledger is None else frozenset(self.ledger.frozen())

    def common_prefix(self) -> Snapshot:
        """What all copies of the own domain have, where it is forked: what a successor begins with.

        Raises:
            OperatorError: it is not forked.
        """
        domain, seq = self.store.domain, self.forked_at()
        if seq is None:
            rule = "nobody has shown that two copies of it were written to"
            raise OperatorError(f"domain {domain.hex()}", rule, "go on with it")
        head = self.store.hash_at(domain, seq - 1)
        return Snapshot(self.store.admission.policy_hash, ((domain, seq - 1, head),) if seq > 1 and head else ())

    def trust(
        self, name: str, key: bytes, url: str, roles: Collection[Role] | None, tls_key: bytes | None = None
    ) -> tuple[Policy, list[str]]:
        """Name the domain of root ``key`` in the policy, with these roles (None: those it has, or a newcomer's).

        ``tls_key``: of its certificate, where that is not ``key``. Where ``url`` is empty, its place in the peers stays.

        The first call closes the store: the own domain is named too, and no other that was pulled before.

        Returns the policy, and its changes.

        Raises:
            OperatorError: the policy, or the peers, would break a rule; or policy.toml holds changes that nobody adopted.
        """
        domain = domain_of(key)
        self._check_text()
        peers = self.peers()
        known_peer = peers.of(domain)
        at = url or ("" if known_peer is None else known_peer.url)
        if domain != self.store.domain:
            peers = peers.including(Peer(name, domain, key if tls_key is None else tls_key, at))
        before = self.policy or self._first()
        known = before.members.get(domain)
        having = NEWCOMER_ROLES if known is None else known.standing.roles
        policy = before.trusting(domain, name, having if roles is None else roles, self._sizes().get(domain, 0))
        changes = self.adopt(policy)
        if self.ledger is not None and at and (known_peer is None or known_peer.url != at):
            with self.store.transaction():
                self.ledger.forget_acknowledged(at.rstrip("/"))
        _write(self._files.peers, peers.to_toml())
        return policy, changes

    def adopt(self, policy: Policy, *, without_own: bool = False) -> list[str]:
        """Put ``policy`` in force, by a POLICY record, unless it is already; its changes. Durable on return.

        ``without_own``: also one under which nothing of the own domain counts, though something did before.

        Raises:
            OperatorError: a role is withdrawn without a bound; the own domain would count no more.
        """
        changes = policy.changes(self.policy)
        if changes:
            if not without_own:
                self._check_own(policy)
            policy.check_withdrawals(self.policy, self._sizes())
            with self.store.transaction():
                reference = self.store.put(policy.to_bytes(), tag=TAG_POLICY)
                self.store.journal.append([Entry(POLICY, PolicyBody(reference).to_bytes(), PUBLISHED)])
            self.policy = policy
            self.admit()
        _write(self._files.policy, policy.to_toml())
        return changes

    def awaited(self) -> AwaitedPeers:
        """What keeps a collection from dropping bytes before each peer knows that they are hidden.

        Raises:
            OperatorError: as :meth:`peers`.
        """
        peers = () if self.policy is None else self.peers().peers
        admission = OPEN if self.policy is None else self.policy.admission()
        acked = {} if self.ledger is None else {one.url: self.ledger.acked(one.url.rstrip("/")) for one in peers}
        return AwaitedPeers(peers, acked, admission)

    def settle(self) -> None:
        """Follow what the resolver has said, as far as it is here."""
        if self.ledger is not None:
            settle(self.store, self.ledger, self.policy)
            self.admit()

    def _check_own(self, policy: Policy) -> None:
        own = self.store.domain
        before = OPEN if self.policy is None else self.policy.admission()
        if before.standing(own) is None or policy.admission().standing(own) is not None:
            return
        has = "does not name it" if own not in policy.members else f"has it {policy.members[own].standing.decision}"
        (key,) = [one.key.hex() for one in self.store.domains() if one.id == own and one.key is not None]
        raise OperatorError(
            f"own domain {own.hex()}",
            f"this policy {has}: nothing that this store wrote would count in it any more",
            f"name it where the policy is edited: tidewarp peer trust DIR NAME --key {key}; or say --without-own-domain",
        )

    def _first(self) -> Policy:
        """The policy that closes an open store, before anybody else is named in it."""
        own = self.store.domain
        return Policy({own: Member(f"site-{own.hex()[:8]}", Standing(Decision.ACCEPTED, NEWCOMER_ROLES))})

    def _sizes(self) -> dict[bytes, int]:
        return {one.id: one.size for one in self.store.domains()}

    def _check_text(self) -> None:
        """Refuse to write over what somebody has edited."""
        text = _read(self._files.policy)
        if text is not None and Policy.from_toml(text) != self.policy:
            rule = "it is not the policy in force, and would be lost"
            action = f"adopt it: tidewarp peer policy DIR --use {self._files.policy}; or remove it"
            raise OperatorError(str(self._files.policy), rule, action)

    def _seed(self) -> bytes:
        try:
            with open_regular(self._files.seed) as stream:
                return stream.read()
        except OSError as error:
            raise OperatorError(str(self._files.seed), f"cannot be read: {error.strerror}", "put it back") from None


@contextmanager
def open_site(place: Path, *, read_only: bool = False, clock: Clock | None = None) -> Iterator[Site]:
    """The site whose store is at ``place``, under its policy.

    What was written is signed when it is left in order: who serves or exports the store read-only shows what is signed.
    With a ``clock`` each record that is written has a stamp of it.

    Raises:
        OperatorError, StoreLocked, Corrupt: as :func:`tidewarp.store.open_store`.
    """
    with open_store(place, read_only=read_only, clock=clock) as store:
        yield Site(store, place, read_only=read_only)
        if not read_only and store.journal.size:
            store.signed_head()


def read_policy(file: Path) -> Policy:
    """The policy that a file says. Raises OperatorError: it cannot be read, or breaks a rule."""
    text = _read(file)
    if text is None:
        raise OperatorError(str(file), "there is no such file", "check the name")
    return Policy.from_toml(text)


def _ledger(store: Store) -> Ledger | None:
    try:
        return ledger_of(store)
    except NotFound:
        return None


def _files(place: Path) -> _Files:
    real = Path(os.path.realpath(place))
    if real.is_dir():
        return _Files(real / "policy.toml", real / "peers.toml", real / "keys" / "tls.pem", real / "keys" / "root.key")
    return _Files(*(Path(f"{real}.{name}") for name in ("policy.toml", "peers.toml", "tls.pem", "key")))


def _read(file: Path) -> str | None:
    """The text of a file; None if there is none."""
    try:
        with BufferedReader(open_regular(file)) as stream:
            data = stream.read(_TEXT_BYTES_MAX + 1)
        if len(data) > _TEXT_BYTES_MAX:
            raise OperatorError(str(file), f"it has more than {_TEXT_BYTES_MAX} bytes", "name another file")
        return data.decode()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise OperatorError(str(file), f"cannot be read: {reason}", "check the file") from None


def _write(file: Path, text: str) -> None:
    """Replace a file by one with ``text``, as a whole or not at all; durable on return."""
    aside = file.with_name(f"{file.name}.new")
    try:
        with aside.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(aside, file)
        folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise OperatorError(str(file), f"cannot be written: {error.strerror}", "make its folder writable") from None
