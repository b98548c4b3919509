//! `assemble` errors as people see them.
