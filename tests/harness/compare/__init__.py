"""Two runs beside one another."""
