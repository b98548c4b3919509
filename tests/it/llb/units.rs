//! What the table cannot hold: our own ways where Go has none, and limits.
