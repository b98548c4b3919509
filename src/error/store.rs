//! `store` errors as people see them.
