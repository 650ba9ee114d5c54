"""The mirror and the contract's CPU put together: from a vector to what KVM of one level does with it.

This is the one place that imports both. ``answers`` is the way in, ``vcpu`` an L1's virtual CPU and its loop of
accesses and exits, ``l2`` an L2 under the probe, ``client`` what the small client's guest does.
"""

from kvmodel.machine.answers import events, predict, virtual_cpu, warns

__all__ = ["events", "predict", "virtual_cpu", "warns"]
