"""`headrace demo`, and what it plays on."""
