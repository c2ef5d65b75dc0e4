"""One pull from one peer: which questions to ask, what to believe, what to commit, and when to go on.

A state machine without I/O: each event returns instructions, of which the last is the one request that is open (or
:class:`~tidewarp.federation.messages.Finish`), and an event for any other request is ignored. Own holdings are read
through a protocol, and changed by instructions alone.

    idle → heads → records(domain) → proof → bytes → commit → records | next domain → bytes → done

What it guarantees, whatever a peer says and wherever the pull ends:

* what is committed is the contiguous continuation of what is held, and a head that the domain signed covers it;
* the question is always for what follows *our own prefix*: a cursor is kept as evidence, and nothing is read from it;
* a committed record has its bytes, or a recorded reason why not: the peer does not publish, hold or keep them, which the
  next pull from anybody asks about again (but for those that all who add them have hidden, once a peer has answered that
  it has none); a peer that fails for now ends the pull, and the record is not committed;
* where the journals do not fit, the last record that both have is searched for, never record 0 taken in its place; a fork is
  believed only with a proof that anybody can check;
* a refusal ends its domain, a broken connection ends the pull, and neither undoes a commit.

``machine`` takes the events and keeps the order; each of the others is one thing that a pull does, written as a generator
that yields requests and is sent their answers (``steps``): ``heads`` chooses the domains, ``records`` brings one of them,
``artifacts`` its bytes, ``stubs`` the bodies that others withheld, ``parting`` shows where journals part. ``context`` is what
they share.
"""

from tidewarp.federation.pull.artifacts import LACKING_MAX, missed
from tidewarp.federation.pull.context import ARTIFACT_BYTES_MAX, RECORDS_PER_BATCH
from tidewarp.federation.pull.machine import PullMachine

__all__ = ["ARTIFACT_BYTES_MAX", "LACKING_MAX", "RECORDS_PER_BATCH", "PullMachine", "missed"]
