//! `registry` errors as people see them.
