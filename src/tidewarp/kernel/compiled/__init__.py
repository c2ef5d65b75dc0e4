"""The compiled tier: the same model over arrays of machine words, in Numba. The kernel's only imports of Numba are here.

layout      where everything lies: context block, state rows, event slots, effects
"""
