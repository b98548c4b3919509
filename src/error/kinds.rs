//! `kinds` errors as people see them.
