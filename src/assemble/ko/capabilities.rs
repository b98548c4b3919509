//! File capabilities of the binary: the terms of `linux_capabilities` as the bytes of `security.capability`.
//!
//! A term is a capability's name, which means permitted, or a clause in setcap's language (cap_from_text(3)). Terms work in
//! their order, each on what the earlier ones left. Pure arithmetic.

use super::KoError;

/// By number, from linux/capability.h.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// `VFS_CAP_REVISION_2`, and its flag for "effective" (one bit for the whole file).
const REVISION: u32 = 0x0200_0000;
const EFFECTIVE: u32 = 1;

/// What a file's capabilities are; never none at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    permitted: u64,
    inheritable: u64,
    effective: bool,
}

impl Capabilities {
    /// The capabilities that `terms` come to; none where they leave neither permitted nor inheritable ones.
    pub fn parse(terms: &[String]) -> Result<Option<Self>, KoError> {
        let mut sets = Sets::default();
        for term in terms {
            sets.apply(term)?;
        }
        let Sets { permitted, inheritable, effective } = sets;
        let some = permitted != 0 || inheritable != 0;
        Ok(some.then_some(Self { permitted, inheritable, effective: effective != 0 }))
    }

    /// The extended attribute's value: the kernel's `vfs_cap_data`, little-endian.
    pub fn xattr(&self) -> Vec<u8> {
        let flags = if self.effective { EFFECTIVE } else { 0 };
        let half = |mask: u64, shift: u32| ((mask >> shift) & u64::from(u32::MAX)) as u32;
        let words = [
            REVISION | flags,
            half(self.permitted, 0),
            half(self.inheritable, 0),
            half(self.permitted, 32),
            half(self.inheritable, 32),
        ];
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }
}

#[derive(Default)]
struct Sets {
    permitted: u64,
    inheritable: u64,
    effective: u64,
}

impl Sets {
    fn apply(&mut self, term: &str) -> Result<(), KoError> {
        let refuse = |problem: String| KoError::Capability { term: term.to_owned(), problem };
        let Some(at) = term.find(['+', '-', '=']) else {
            self.permitted |= named(term).ok_or_else(|| refuse(unknown(term)))?;
            return Ok(());
        };
        let (names, actions) = term.split_at(at);
        let names = if names.is_empty() && actions.starts_with('=') { "all" } else { names };
        let mut mask = 0;
        for name in names.split(',') {
            mask |= named(name).ok_or_else(|| refuse(unknown(name)))?;
        }
        let mut kept = u64::MAX;
        for action in actions.chars() {
            match action {
                '+' => kept = u64::MAX,
                '-' => kept = !mask,
                '=' => {
                    kept = u64::MAX;
                    self.permitted &= !mask;
                    self.inheritable &= !mask;
                    self.effective &= !mask;
                }
                'p' => self.permitted = (self.permitted | mask) & kept,
                'i' => self.inheritable = (self.inheritable | mask) & kept,
                'e' => self.effective = (self.effective | mask) & kept,
                other => return Err(refuse(format!("{other:?} is none of +, -, =, p, i, e"))),
            }
        }
        Ok(())
    }
}

fn unknown(name: &str) -> String {
    format!("{name:?} names no capability (cap_net_bind_service, NET_RAW, a number below 64, all)")
}

/// One capability, or all that have a name.
fn named(text: &str) -> Option<u64> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse::<u32>().ok().filter(|&number| number < 64).map(|number| 1 << number);
    }
    let upper = text.to_uppercase();
    if upper == "ALL" {
        return Some((1 << NAMES.len()) - 1);
    }
    let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|known| *known == name).map(|number| 1 << number)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use proptest::prelude::*;

    use super::*;

    fn parse(terms: &[&str]) -> Result<Option<Capabilities>, KoError> {
        Capabilities::parse(&terms.iter().map(|&term| term.to_owned()).collect::<Vec<_>>())
    }

    fn xattr(terms: &[&str]) -> String {
        let value = parse(terms).unwrap().map(|found| found.xattr()).unwrap_or_default();
        base64::engine::general_purpose::STANDARD.encode(value)
    }

    #[test]
    fn terms_work_in_their_order() {
        let is = |permitted, inheritable, effective| Some(Capabilities { permitted, inheritable, effective });
        let all = (1 << 41) - 1;
        for (terms, expected) in [
            (&[][..], None),
            (&["chown", "CAP_DAC_OVERRIDE", "2"], is(7, 0, false)),
            (&["chown,dac_override,dac_read_search=p"], is(7, 0, false)),
            (&["chown=e"], None),
            (&["chown=pe"], is(1, 0, true)),
            (&["=pe"], is(all, 0, true)),
            (&["all=i"], is(0, all, false)),
            (&["63"], is(1 << 63, 0, false)),
            (&["chown=ie", "chown=p"], is(1, 0, false)),
            (&["chown=ie", "chown="], None),
            (&["chown=ie", "chown+p"], is(1, 1, true)),
            (&["chown=pie", "dac_override,chown-p"], is(0, 1, true)),
            (&["="], None),
        ] {
            assert_eq!(parse(terms).unwrap(), expected, "{terms:?}");
        }
        for bad in ["chown,=pie", "-pie", "+pie", "chown=x", "64", "", "+1", "cap_cap_chown", "nothing"] {
            assert!(parse(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_kernel_reads_the_attribute_in_this_form() {
        assert_eq!(xattr(&["chown=p"]), "AAAAAgEAAAAAAAAAAAAAAAAAAAA=");
        assert_eq!(xattr(&["net_bind_service=pie"]), "AQAAAgAEAAAABAAAAAAAAAAAAAA=");
        assert_eq!(xattr(&["checkpoint_restore=pie"]), "AQAAAgAAAAAAAAAAAAEAAAABAAA=");
    }

    proptest! {
        /// A list of names means what the one clause with `=p` over all of them means.
        #[test]
        fn names_mean_permitted(picked in prop::collection::vec(0..NAMES.len(), 1..6)) {
            let names: Vec<&str> = picked.iter().map(|&at| NAMES[at]).collect();
            let clause = format!("{}=p", names.join(",").to_lowercase());
            prop_assert_eq!(parse(&names).unwrap(), parse(&[&clause]).unwrap());
        }
    }
}
