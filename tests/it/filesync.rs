//! The file sender, asked as a daemon asks: through gRPC, by a receiver that can also misbehave.

mod oracle;
mod receiver;
mod transfer;
