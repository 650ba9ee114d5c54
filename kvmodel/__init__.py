"""The mirror of KVM at each level of the series, and the contract of the SDM. Pure: no I/O, no clock."""
