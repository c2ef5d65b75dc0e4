"""The ranks of an ``mpiexec`` as one run. Only the main thread of a rank calls MPI.

world            the ranks: who is there, the same bytes on all of them, one error for all of them
post             messages between ranks, in batches, counted by colour
rounds           GVT over all ranks, and who holds it
breaker          shuts the windows of all ranks when together they thrash
kernel           the engine of one rank in the Python tier
letters          its messages as bytes
commits          what its rounds made final, merged on rank 0
compiled         the engine of one rank in the compiled tier
images, tallies  state and statistics of all ranks as one
survivors        goes on with the ranks that are left when one dies, where MPI can do that
alone            the sequential engine: rank 0 runs it, the others hear what came of it
"""
