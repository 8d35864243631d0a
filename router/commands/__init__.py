"""What commands ask, do and say. What carries it out is handed in."""
