//! The SSH door, as the real OpenSSH client and git see it, and as clients see it that mean no good.

mod certificates;
mod hostile;
mod limits;
mod openssh;
mod support;
mod verbs;
