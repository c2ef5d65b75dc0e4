"""Where everything lies in memory. Handlers, dispatchers and kernels agree on this page and on nothing else.

A kernel knows no model and a handler knows no kernel. Between them lies the *context block*, an array of 64-bit words: the
kernel writes which event it is, calls ``dispatch(address of the block)``, and reads what the handler did. All numbers are
native words; the canonical bytes of :mod:`tidewarp.kernel.records` are made at the borders only.
"""

from __future__ import annotations

import numpy as np

__all__ = ["ADD", "BLOCK_WORDS", "EFFECT_HEAD", "EMIT", "EVENT", "EVENT_WORDS", "ROW_HEAD", "SEND"]

# --- context block ----------------------------------------------------------------------------------
# Written by the kernel before the call:
NOW = 0  # tick of the event
LP = 1  # its destination
CLASS = 2  # place of the LP's class in model.classes
KIND = 3  # message index; with the bit REVERSE set: call the inverse handler of that message, with NOTE as its bits
GENERATION = 4
STATE = 5  # address of the LP's row
MESSAGE = 6  # address of the message's fields
KEY, GAMMA = 7, 8  # the LP's random stream
# Written by the handler:
EFFECTS = 9  # how many rows of the effects buffer are filled
NOTE = 10  # bits for the reverse handler
ERROR = 11  # 0, or an error code below: then nothing of what the handler did counts
# Of the event, for the message about a handler that hangs; BEAT counts up before and after each call: odd means inside a handler:
SRC, SEQ, BEAT = 12, 13, 14
PAUSE = 15  # set to 1 by the shell from another thread: leave the slice at the next event, so that Ctrl-C is heard
# Constant during a run, set by the shell:
OUT, OUT_STRIDE, OUT_MAX = 16, 17, 18  # effects buffer: address, bytes of a row, rows
N_LPS, PARAMS, LOOKAHEAD, TABLES = 19, 20, 21, 22  # TABLES: address of an array of the tables' addresses
LINKED = 23  # 1 if links are declared
LINK_FIRST, LINK_DST, LINK_SORTED, LINK_AHEAD = (
    24,
    25,
    26,
    27,
)  # CSR: first, destinations as declared; sorted with least delays
BLOCK_WORDS = 32
REVERSE = 1 << 20

# --- error codes: the text is made by running the event once more in the Python tier ------------------
RAISED, BAD_DESTINATION, BAD_DELAY, LOW_LOOKAHEAD, TOO_MANY_GENERATIONS, BAD_NUMBER, TOO_MANY_EFFECTS, UNHANDLED = (
    range(1, 9)
)
OUT_FULL = 9
"""Not the model's fault: the effects buffer has no row left. Put the LP's row back, enlarge the buffer, run the event again."""

# --- effects buffer: rows (a, b, tag << 32 | index, message fields...) ---------------------------------
SEND, EMIT, ADD = 0, 1, 2
"""Tags. SEND: a = destination, b = delay, index = message. EMIT: index = message. ADD: a = accumulator, b = n."""
EFFECT_HEAD = 3  # words before the fields

# --- state row -----------------------------------------------------------------------------------------
DRAWS, SENT = 0, 1
ROW_HEAD = 2
"""Hidden words of every row: draws made, messages sent; they roll back with the fields that follow (native, aligned).

DRAWS is counted by the handler, SENT by the kernel when it takes the sends out of the effects buffer (old value = src_seq).
A reverse handler gets them as they were after the event; the kernel puts both back itself. Rows have as many words as
their class needs; they lie one after the other in one flat int64 array, and the table of LPs says where."""

# --- table of LPs: int64 (n_lps, 4), made by image.py ----------------------------------------------------
ROW_AT, ROW_CLASS, ROW_KEY, ROW_GAMMA = 0, 1, 2, 3
"""First word of the LP's row in the flat array (one row more at the end, so row words = difference of neighbours); place of its
class; its random stream: with CLASS, KEY and GAMMA of the context block they are one cache line's load."""

# --- event slot: one cache line --------------------------------------------------------------------------
EVENT = np.dtype(
    [
        ("time", "i8"),
        ("seq", "u8"),
        ("channel", "i8"),  # number of a message that crossed PEs
        ("send_time", "i8"),
        ("dst", "i4"),
        ("src", "i4"),
        ("generation", "i4"),
        ("kind", "i2"),  # message index
        ("status", "i2"),
        ("newer", "i4"),  # executed events of a KP, in key order
        ("older", "i4"),
        ("child", "i4"),  # first effect of this event
        ("sibling", "i4"),  # next effect of the same event
    ]
)
EVENT_WORDS = EVENT.itemsize // 8
