"""The compiled tier: the same model over arrays of machine words, in Numba. The kernel's only imports of Numba are here.

layout                              where everything lies: context block, state rows, event slots, effects
words, atomics, spans, heap         memory at an address, words of two threads, arrays without overhead, the pending set
exact, handlers, context, dispatch  a model's handlers: Python's whole numbers, the compilable subset, ``ctx``, the call
typed, writer, compare, reals       what a variable may be, and operators whose results are Python's
image, records, replay, refusals    canonical bytes to arrays and back; the text of an error; what does not compile
sequential, conservative            two of the engines
slices, rollback, rings, gvt,       the optimistic kernel: a slice of a PE's work and its parts
fossils, memory, recall, pe, pools
optimistic, opening, looking        its engine: what it begins with, what may be seen of it
merge, gateway                      commits of all PEs in key order, the border to other ranks
budget, in_order                    its bound of memory, and how it goes on where that stops the PEs
"""

keeps = False
"""Whether what is decorated now is kept in files: kernel.shell.cache says so while it loads a unit, and knows when they are stale.

Numba alone would keep them beside the sources, and execute them when only what they were compiled with has changed.
"""
