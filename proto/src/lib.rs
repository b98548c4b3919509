//! The wire formats that lemnos speaks with BuildKit.
