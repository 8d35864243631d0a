"""The real servers that the tests and the demo talk to, run as local processes; see the `services` script."""
