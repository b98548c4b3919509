//! Tests of ssh.
