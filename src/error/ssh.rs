//! `ssh` errors as people see them.
