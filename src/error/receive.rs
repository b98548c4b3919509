//! `receive` errors as people see them.
