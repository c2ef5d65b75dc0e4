"""A spiking network: populations of neurons that send each other spikes, late sensors, a neuron with an identity.

lif        populations of leaky integrate-and-fire neurons in fixed point
network    settings, projections, synapses; the model
identity   a neuron of three compartments, and three meanings of "never rolled back"
lfsr       stochastic computing
sensor     recorded spikes from outside, in time or late
"""

from __future__ import annotations

from tidewarp.worlds.spiking.network import Network, Settings, build
from tidewarp.worlds.spiking.sensor import Recorded, hand_over, recording

__all__ = ["Network", "Recorded", "Settings", "build", "hand_over", "recording"]
