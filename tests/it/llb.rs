//! The LLB builder against BuildKit's Go client: the same descriptions, the same bytes.
//!
//! `tests/oracle/llb.jsonl` holds descriptions and Go's answers; where Go is installed the same program also answers for
//! descriptions made up on the spot.

mod describe;
mod generate;
mod generate_sources;
mod go;
mod language;
mod names;
mod oracle;
mod properties;
mod sources;
mod table;
mod units;
