//! `config` errors as people see them.
