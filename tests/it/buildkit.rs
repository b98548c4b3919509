//! Tests of buildkit.
