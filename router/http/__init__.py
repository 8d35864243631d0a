"""What is served on `listen`: connections, their bounds, and what goes over them."""
