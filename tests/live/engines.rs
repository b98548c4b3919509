//! Tests of the engines under lemnos' supervision.
