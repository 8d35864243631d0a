"""Events that functions are invoked with asynchronously: taken in, run, told of."""
