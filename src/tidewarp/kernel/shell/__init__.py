"""The kernel's shells: sessions, threads, MPI ranks, the cache of compiled code. They do what the pure parts ask."""
