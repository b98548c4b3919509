//! `tag` errors as people see them.
