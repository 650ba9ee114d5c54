"""``kvmirror bench``: what a kernel's MBEC costs and saves, counted on a real run."""
