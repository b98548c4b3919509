//! An agent's two answers that a build may have, and which requests may ask for them.
//!
//! Invariant: requests are known by their first byte, and what is not on the list is refused. No I/O.

use super::key::PrivateKey;
use super::wire::{Reader, put_string, put_u32};

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

/// Whether a step may ask this.
pub(super) fn allowed(message: &[u8]) -> bool {
    matches!(message.first(), Some(&(REQUEST_IDENTITIES | SIGN_REQUEST)))
}

pub(super) fn failure() -> Vec<u8> {
    vec![FAILURE]
}

/// `answer`, where it is one to `message`.
pub(super) fn expected(message: &[u8], answer: Vec<u8>) -> Vec<u8> {
    match (message.first(), answer.first()) {
        (Some(&REQUEST_IDENTITIES), Some(&IDENTITIES_ANSWER))
        | (Some(&SIGN_REQUEST), Some(&SIGN_RESPONSE)) => answer,
        _ => failure(),
    }
}

/// The answer of an agent with these keys.
pub(super) fn answer(keys: &[PrivateKey], message: &[u8]) -> Vec<u8> {
    let mut message = Reader(message);
    match message.take(1) {
        Some(&[REQUEST_IDENTITIES]) => identities(keys),
        Some(&[SIGN_REQUEST]) => sign(keys, message).unwrap_or_else(failure),
        _ => failure(),
    }
}

fn identities(keys: &[PrivateKey]) -> Vec<u8> {
    let mut answer = vec![IDENTITIES_ANSWER];
    put_u32(&mut answer, u32::try_from(keys.len()).unwrap_or(u32::MAX));
    for key in keys {
        put_string(&mut answer, key.public_blob());
        put_string(&mut answer, key.comment().as_bytes());
    }
    answer
}

fn sign(keys: &[PrivateKey], mut message: Reader<'_>) -> Option<Vec<u8>> {
    let (blob, data, flags) = (message.string()?, message.string()?, message.u32()?);
    let key = keys.iter().find(|key| key.public_blob() == blob)?;
    let mut answer = vec![SIGN_RESPONSE];
    put_string(&mut answer, &key.sign(data, flags)?);
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listing_and_signing_pass() {
        let passing: Vec<u8> = (0..=255).filter(|kind| allowed(&[*kind, 0])).collect();
        assert_eq!(passing, [REQUEST_IDENTITIES, SIGN_REQUEST]);
        assert!(!allowed(&[]));
    }

    #[test]
    fn an_agent_that_answers_something_else_is_not_believed() {
        assert_eq!(expected(&[REQUEST_IDENTITIES], vec![SIGN_RESPONSE, 1]), failure());
        assert_eq!(expected(&[SIGN_REQUEST], vec![IDENTITIES_ANSWER]), failure());
        assert_eq!(expected(&[SIGN_REQUEST], vec![6]), failure());
        assert_eq!(expected(&[SIGN_REQUEST], vec![SIGN_RESPONSE, 7]), [SIGN_RESPONSE, 7]);
    }

    #[test]
    fn requests_cut_short_are_refused() {
        for message in [
            &[][..],
            &[SIGN_REQUEST],
            &[SIGN_REQUEST, 0, 0, 0, 9, 1],
            &[17],
            &[SIGN_REQUEST, 255, 255, 255, 255],
        ] {
            assert_eq!(answer(&[], message), failure(), "{message:?}");
        }
        assert_eq!(answer(&[], &[REQUEST_IDENTITIES]), [IDENTITIES_ANSWER, 0, 0, 0, 0]);
    }
}
