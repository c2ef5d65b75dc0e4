"""Models that ship.

factory    a production line whose furnace follows real telemetry
phold      the classical benchmark of Time Warp
queueing   a shop, and an open network of queues
spiking    a network of neurons with late sensors
hurt       a model made to hurt, and random cases of it
"""
