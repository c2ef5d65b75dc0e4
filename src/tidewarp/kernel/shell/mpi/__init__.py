"""The ranks of an ``mpiexec`` as one run. Only the main thread of a rank calls MPI.

world       the ranks: who is there, the same bytes on all of them, one error for all of them
post        letters between ranks, in batches
rounds      GVT over all ranks
kernel      the engine of one rank, and rank 0 that commits
alone       the sequential engine: rank 0 runs it, the others hear what came of it
"""
