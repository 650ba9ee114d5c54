"""Which of the lines that a series adds run on real KVM: instrumented modules, their counters, and who wrote a line."""
