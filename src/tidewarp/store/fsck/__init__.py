"""Check everything that a store in SQLite holds, and mend what follows from something that is whole.

page       SQLite's own check                                   its indices are made anew
record     chain, columns and bodies of every domain            never changed
domain     size and head                                        never changed
head       signed heads: their signatures, roots and hashes     never changed
tree       Merkle tables, from the record hashes                dropped: they are made anew when somebody asks
stub       lengths of bodies that are not here                  those of bodies that are here are dropped
event, edge, node, receipt    from the records                  made anew
span       ticks of inputs                                      made anew, without the ends, which no record says
artifact   payloads against their names; rows                   named by their bytes; fetched, or put into quarantine
missing bytes   of artifacts that are shown, and never came     fetched
extent     the pieces of large payloads                         fetched; those of nothing are dropped
block      against their names                                  fetched, or their artifact is put into quarantine
link       what artifacts name, from their bytes                made anew
pin        that there is something under it                     never changed
cursor     positions of sources can be read                     never changed
orphan     blocks and files that nothing names: no damage       the blocks are removed

No row of a journal is ever deleted or changed. While a record is bad, nothing is made anew from the records.

``checking`` runs the parts: ``records`` (domains, chains, heads, trees), ``names`` (rows of artifacts with damaged names),
``derived`` (tables that follow from records), ``spans``, ``payloads`` (artifacts and what they name), ``pieces`` (extents,
blocks, orphans). ``inspection`` is what they share. Nothing is held that grows with the store, but for a few bytes of what
is not in a row of its own.
"""

from tidewarp.store.fsck.checking import Fsck

__all__ = ["Fsck"]
