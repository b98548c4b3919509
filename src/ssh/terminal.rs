//! What stands in for a terminal's line discipline in a session that asked for a terminal: there is no device behind it.
//!
//! Keys become lines, as a kernel would make them; output gets its carriage returns. Pure. Escape sequences are not
//! understood, only left out: nothing here runs that would want them.

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;

/// As many bytes as a line has room for in a kernel's terminal.
const MAX_LINE_BYTES: usize = 4095;

const CTRL_C: u8 = 0x03;
const CTRL_D: u8 = 0x04;
const BACKSPACE: u8 = 0x08;
const CTRL_U: u8 = 0x15;
const CTRL_BACKSLASH: u8 = 0x1c;
const DELETE: u8 = 0x7f;

/// The client's terminal, as far as output goes.
#[derive(Debug, Clone)]
pub struct Terminal {
    pub(super) columns: watch::Receiver<u32>,
    /// Whether it shows colours, by its name.
    pub color: bool,
}

impl Terminal {
    /// Columns at this moment; none when the client does not know.
    pub fn width(&self) -> Option<usize> {
        usize::try_from(*self.columns.borrow()).ok().filter(|columns| *columns > 0)
    }
}

/// Whether terminals of this name show colours.
pub(super) fn shows_color(name: &str) -> bool {
    !name.is_empty() && name != "dumb"
}

/// What some keys came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pressed {
    /// Whole lines, for whoever reads.
    pub(super) input: Vec<u8>,
    /// What the person shall see of it, to be shown as output is.
    pub(super) echo: Vec<u8>,
    /// Ctrl-C: nothing after it counts.
    pub(super) interrupt: bool,
    /// Ctrl-D on an empty line: there will be no more input.
    pub(super) end: bool,
}

/// The line that is being typed.
#[derive(Debug, Default)]
pub(super) struct Keyboard {
    line: Vec<u8>,
    /// Within an escape sequence, which ends with a letter or `~`.
    escape: bool,
}

impl Keyboard {
    pub(super) fn press(&mut self, keys: &[u8]) -> Pressed {
        let mut pressed = Pressed::default();
        for &key in keys {
            if self.escape {
                self.escape = !(key.is_ascii_alphabetic() || key == b'~') && key >= b' ';
                continue;
            }
            match key {
                CTRL_C | CTRL_BACKSLASH => {
                    pressed.interrupt = true;
                    break;
                }
                CTRL_D if self.line.is_empty() => pressed.end = true,
                // on a line that was begun it hands that over, without its end
                CTRL_D => pressed.input.append(&mut self.line),
                b'\r' | b'\n' => {
                    pressed.echo.push(b'\n');
                    pressed.input.append(&mut self.line);
                    pressed.input.push(b'\n');
                }
                BACKSPACE | DELETE => self.erase(&mut pressed.echo),
                CTRL_U => {
                    while !self.line.is_empty() {
                        self.erase(&mut pressed.echo);
                    }
                }
                0x1b => self.escape = true,
                // a tab is a space to whoever reads words
                b'\t' => self.put(b' ', &mut pressed.echo),
                ..b' ' => {}
                _ => self.put(key, &mut pressed.echo),
            }
        }
        pressed
    }

    fn put(&mut self, key: u8, echo: &mut Vec<u8>) {
        if self.line.len() < MAX_LINE_BYTES {
            self.line.push(key);
            echo.push(key);
        }
    }

    /// Takes the last character back: its first byte, and the bytes of UTF-8 that continue it.
    fn erase(&mut self, echo: &mut Vec<u8>) {
        while let Some(byte) = self.line.pop() {
            if byte & 0xc0 != 0x80 {
                echo.extend_from_slice(b"\x08 \x08");
                return;
            }
        }
    }
}

/// Output as a terminal in raw mode needs it: lines end with a carriage return too.
pub(super) fn for_screen(output: &[u8]) -> Bytes {
    let mut shown = BytesMut::with_capacity(output.len() + 64);
    for line in output.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_suffix(b"\n") {
            Some(text) => {
                shown.extend_from_slice(text);
                shown.extend_from_slice(b"\r\n");
            }
            None => shown.extend_from_slice(line),
        }
    }
    shown.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn press(keys: &[&[u8]]) -> (String, String) {
        let mut keyboard = Keyboard::default();
        let (mut input, mut echo) = (Vec::new(), Vec::new());
        for keys in keys {
            let pressed = keyboard.press(keys);
            input.extend(pressed.input);
            echo.extend(pressed.echo);
        }
        (String::from_utf8(input).unwrap(), String::from_utf8(echo).unwrap())
    }

    #[test]
    fn keys_become_lines() {
        let (input, echo) = press(&[b"sho", b"p\rt", b"wo\nthree"]);
        assert_eq!((input.as_str(), echo.as_str()), ("shop\ntwo\n", "shop\ntwo\nthree"));
        assert_eq!(press(&[b"shopp\x7f\r"]).0, "shop\n");
        assert_eq!(press(&["sé\x08hop\r".as_bytes()]), ("shop\n".to_owned(), "sé\x08 \x08hop\n".to_owned()));
        assert_eq!(press(&[b"\x7f\x7fwrong\x15right\r"]).0, "right\n");
        assert_eq!(press(&[b"a\x1b[A\x1b[1;5Cb\x1b[3~\x07c\td\r"]).0, "abc d\n");
    }

    #[test]
    fn control_keys_interrupt_and_end() {
        let pressed = Keyboard::default().press(b"abc\x03def\r");
        assert_eq!(pressed, Pressed { input: vec![], echo: b"abc".to_vec(), interrupt: true, end: false });
        assert!(Keyboard::default().press(b"\x04").end);
        let begun = Keyboard::default().press(b"abc\x04");
        assert!(begun.input == b"abc" && !begun.end);
        assert!(Keyboard::default().press(b"abc\x04\x04").end);
    }

    #[test]
    fn output_gets_carriage_returns() {
        assert_eq!(for_screen(b"a\nb\n\nc"), &b"a\r\nb\r\n\r\nc"[..]);
        assert_eq!(for_screen(b""), &b""[..]);
        assert!(shows_color("xterm-256color") && !shows_color("dumb") && !shows_color(""));
    }

    proptest! {
        #[test]
        fn a_line_is_bounded_and_nothing_that_steers_a_terminal_is_echoed(keys in proptest::collection::vec(any::<u8>(), 0..6000)) {
            let mut keyboard = Keyboard::default();
            let pressed = keyboard.press(&keys);
            prop_assert!(keyboard.line.len() <= MAX_LINE_BYTES);
            prop_assert!(!pressed.echo.contains(&0x1b) && !pressed.echo.contains(&0x07));
            prop_assert!(pressed.input.split(|b| *b == b'\n').all(|line| line.len() <= MAX_LINE_BYTES));
        }
    }
}
