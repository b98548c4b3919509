//! Text around binary data: the block of a private key file.
//!
//! Pure; says nothing of what the block holds.

use base64::Engine as _;

/// The first block: its label, whether it says to be encrypted, its content.
pub(super) fn first_block(text: &str) -> Option<(&str, bool, Vec<u8>)> {
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once("-----END ")?;
    // headers stand in front of the data, as in a letter
    let headers = body.lines().filter(|line| line.contains(':'));
    let encrypted = headers.clone().any(|line| line.contains("ENCRYPTED"));
    let data: String = body.lines().filter(|line| !line.contains(':')).map(str::trim).collect();
    let data = base64::engine::general_purpose::STANDARD.decode(data).ok()?;
    Some((label, encrypted, data))
}
