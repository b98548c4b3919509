//! `buildkit` errors as people see them.
