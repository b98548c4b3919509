//! `engine` errors as people see them.
