"""Time Warp (Jefferson 1985): execute ahead of what is known, and repair.

entries     events on their way through a PE, the letters between PEs, what a PE asks of those who run its handlers
rollback    the history of a PE: what is pending, what was executed, and how it is undone
pe          one processing element as a pure machine: letters in, a step, letters out
gvt         rounds that find global virtual time
window      how far ahead of GVT a PE may run
memory      the bound of the event pools
commit      final events of all PEs into the ledger, in key order
saving      LPs as Python objects with their policies of state saving
scheduler   takes turns between PEs, in any order that a seed says
kernel      the engine that is made of these
"""
