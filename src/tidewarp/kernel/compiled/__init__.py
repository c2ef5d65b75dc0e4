"""The compiled tier: the same model over arrays of machine words, in Numba. The kernel's only imports of Numba are here.

layout                              where everything lies: context block, state rows, event slots, effects
words, atomics, spans, heap         memory at an address, words of two threads, arrays without overhead, the pending set
exact, handlers, context, dispatch  a model's handlers: Python's whole numbers, the compilable subset, ``ctx``, the call
image, records, replay, refusals    canonical bytes to arrays and back; the text of an error; what does not compile
sequential, conservative            two of the engines
slices, rollback, rings, gvt,       the optimistic kernel: a slice of a PE's work and its parts
fossils, memory, recall, pe, pools
optimistic, merge, gateway          its engine, commits of all PEs in key order, the border to other ranks
"""
