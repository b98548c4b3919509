//! What `tests/run` has prepared: addresses and tools, read from the environment.
