//! Tests of filesync.
