"""What must not change while the house is rebuilt: frozen as files, compared by test_frozen.py."""
