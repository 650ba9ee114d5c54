"""The contract: what Intel's SDM lets a CPU answer. Knows nothing of KVM; see docs/design.md."""

from kvmodel.sdm.contract import allowed, allowed_beside, explaining, stale
from kvmodel.sdm.leaves import rule_left

__all__ = ["allowed", "allowed_beside", "explaining", "rule_left", "stale"]
