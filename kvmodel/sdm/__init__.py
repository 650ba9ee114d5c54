"""The contract: what Intel's SDM lets a CPU answer. Knows nothing of KVM; see docs/design.md."""

from kvmodel.sdm.contract import allowed, explaining, stale

__all__ = ["allowed", "explaining", "stale"]
