//! Tests of reading public keys.

use super::*;

const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDv/UWWtoNtMA6gn7s+MuknCLWZJyMlNpNtH3IP0q89X";
const ECDSA: &str = "ecdsa-sha2-nistp384 AAAAE2VjZHNhLXNoYTItbmlzdHAzODQAAAAIbmlzdHAzODQAAABhBPlQAKYxmEpg3mqvv6YkANYMDqKgYKRYCbHPjp1k895g3KboUT8y725UcSnP/YzBwwYrcPezvan1qWCDOCAvT0MkE7IeRq3QiG5KO8ONbg4oMtEWICHwgg5s4WlBymPq8A==";
const RSA: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQDX0vPspEuWNOKjc5cBIjyYWFdTVDC0Skzz4qhS6pMMFx+7sLs30Lh0Z0+4TQJAcQTWkfq3pfXvWBwB25lGvtNT/tsOw40DlxRx0nz3YespN4oIhNn1WrwktbwdEla/yykOth2zmRYYG4ePj9e77x5MPBHT8vbzYDm0jTgJHFcGDSoMeMtm6tcKKvIVwHe8tTGARdhVNwG+t2suEnUknhWhZUzg3X1HAfIsJ2hlgHc7r2ZM7Dqfsw2sI46YpoAb+3Njrk3esxMXK7tzALOsRfT6bgEpKn4WJagyAixk1T6xStpV9yKiYzW8+2EHIRVdtVrxivArVEeLlofvAZUVMeY5";
const RSA_1024: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQDVaKusCuHL/bwNk68DMh0DhPJ7JiCP+vViqNj0if4N7mZlU8j1PdfBBH8p5XjU3naOWNSB5O6NlWXU04u6J61jvQWP0hc/Sh8UJcgLHstCYL/n+f7FiHgHIUG+Xmaxvm2jn/x1mcyjQw1kjqH3h5Qd6WvxNoyusV0uOfLb7HMHHQ==";
const DSA: &str = "ssh-dss AAAAB3NzaC1kc3MAAACBAKSdCvJQmFFdPtjICdi+Jitb7opg++A0pst6RGNQxA+SZ8vJ/j3+PL+f11O2AGnYOmibOHg1RVdlW98d56M25ghM0/pJiiFMB7tl/BJgFq8Fmo9CefGWp4RjYop4Mx6qcHTUiutEHJ7F+ApCQY5d95arnXyj1UijkNbZgPTGP2XDAAAAFQD9fMnPIyRttPc5bCVbrGiICfdQSQAAAIBsrLAw3XMVmT1803xuEqCZ07rWbs+dA9EOKSizWlz3B9csnA6vOArQs5On+zhTuo5ETMIUq+XzwA31ZJpKSJRZVPvKxQuwD6rtLzHDOV7z9PSmjpMCrmxzjnDDrXKultAsE/sdK/YT2uqDeQ7/mm9XXFZ7vXwTxGN9k7pmgcVUHAAAAIB5LSh35ALPe+y/dclsPGdlokitIBKXlgrWM1aZ18FbNa/FIvMwkkRBGKDL6XI3yR4ENTFL8TlWR1XSSN5qa/sCAsAKOFnCr1syz94pzvYCWZRnpI/wQdbgS5EJRHDxCR6xqOrDQOSrJ91I2j48uuzcjsbFW9cQJZL2xK10mgUTKQ==";
const SK: &str = "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gAAAABHNzaDo=";

fn parsed(text: &str) -> Result<Vec<UserKey>, Report> {
    parse(&"ann".parse().unwrap(), text, 7)
}

fn refused(text: &str) -> String {
    parsed(text).unwrap_err().to_string()
}

#[test]
fn every_kind_of_key_that_may_log_in_is_taken() {
    let text = format!(
        "# ann's keys\n\n{ED25519} ann@host\r\n{ECDSA}\n  {RSA}   two  words \n{SK} a\u{7}b\n{ED25519} again\n"
    );
    let keys = parsed(&text).unwrap();
    let seen: Vec<_> = keys.iter().map(|k| (k.fingerprint.as_str(), k.comment.as_str())).collect();
    // the fingerprints are ssh-keygen's
    let expected = [
        ("SHA256:7TvMabxLmq7dUiszEhii8VWzAJ4CVIZ018qUNc/7zxg", "ann@host"),
        ("SHA256:kb2ShiS9AqJCG6ckzwweV51YDSLTsXJXVTldpGoUSbI", ""),
        ("SHA256:nP+DxtjV+2yN/ucz4of78klwfk8MDLtC69n0Td7R62A", "two words"),
        ("SHA256:nX0hpi5mKbTIJ10yBq5/sLQhiI1Y0RBAqN0drDdgJWs", "ab"),
    ];
    assert_eq!(seen, expected);
    let lines: Vec<_> = keys.iter().map(|k| k.public_key.as_str()).collect();
    assert_eq!(lines, [ED25519, ECDSA, RSA, SK]);
    assert!(keys.iter().all(|k| k.user.as_str() == "ann" && k.added_at_ms == 7));
}

#[test]
fn a_private_key_is_refused_and_not_repeated() {
    for text in
        ["-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n", "PuTTY-User-Key-File-3: ssh-ed25519\nc2VjcmV0\n"]
    {
        let said = refused(text);
        assert!(
            said.starts_with("error: this is a private key\nhint: ") && !said.contains("c2VjcmV0"),
            "{said}"
        );
    }
}

#[test]
fn what_cannot_be_a_key_is_refused_with_its_line() {
    insta::assert_snapshot!(refused("---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n"), @r"
    error: this is not in OpenSSH's format
    hint: `ssh-keygen -i -f FILE` converts an SSH2 key (`-m PKCS8` for a PEM one)
    ");
    insta::assert_snapshot!(refused(&format!("{ED25519}\n\ncommand=\"x\",no-pty {ED25519} ann")), @r"
    error: line 3: options before a key are not supported
    hint: remove everything before the key's type: what a user may do is said by `lemnos apps grant`
    ");
    insta::assert_snapshot!(refused("hello"), @r"
    error: line 1: this is not a public key in OpenSSH's format
    hint: a line is TYPE BASE64 [COMMENT], for example ssh-ed25519 AAAA… name@host
    ");
    insta::assert_snapshot!(refused(&ED25519[..60]), @r"
    error: line 1: this is not a public key in OpenSSH's format
    hint: its base64 is broken or belongs to another type: copy the whole line again
    ");
    insta::assert_snapshot!(refused("\n# only a comment\n"), @r"
    error: there is no key
    hint: give the content of a .pub file: ssh-ed25519 AAAA…
    ");
    let mismatch = ED25519.replace("ssh-ed25519 ", "ssh-rsa ");
    assert!(refused(&mismatch).contains("belongs to another type"), "{}", refused(&mismatch));
}

#[test]
fn weak_and_strange_keys_are_refused() {
    insta::assert_snapshot!(refused(RSA_1024), @r"
    error: line 1: an RSA key of 1024 bits is not accepted: from 2048 to 16384 bits are
    hint: make a new one: ssh-keygen -t ed25519
    ");
    let dsa = refused(DSA);
    assert!(dsa.contains("ssh-dss keys are too weak"), "{dsa}");
    let certificate =
        refused("ssh-ed25519-cert-v01@openssh.com AAAAIHNzaC1lZDI1NTE5LWNlcnQtdjAxQG9wZW5zc2guY29t ann");
    assert!(certificate.contains("a certificate is not registered as a key"), "{certificate}");
}

#[test]
fn size_and_number_are_bounded() {
    assert!(refused(&"# x\n".repeat(LIMIT_BYTES)).contains("more than"));
    assert!(
        parsed(&format!("{ED25519} {}", "c".repeat(1_000))).unwrap()[0].comment.len() == LIMIT_COMMENT_CHARS
    );
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(ssh-ed25519|ssh-rsa|ssh-dss|sk-ssh-ed25519@openssh.com|x)? ?[A-Za-z0-9+/=]{0,80} ?\\PC{0,20}") {
        drop(parsed(&text));
    }
}
