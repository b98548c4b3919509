//! The commit point, with real repositories and a registry that fails on demand.
