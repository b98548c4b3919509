//! The network of RUN steps: a bridge of the data directory's own, out through NAT, and walls around it.
//!
//! Invariant: from a RUN step, addresses of this machine (all of them, not only loopback) and the clouds' metadata services
//! cannot be reached, whatever the step does within the capabilities it has: the walls stand on the host's side of the bridge.
//! DNS is let through, since some clouds serve it at the metadata address. Two lemnos on one machine have two bridges.
//! Rules are set once a start, not once a step: the CNI plugins only make a veth pair and hand out an address.

use std::ffi::OsStr;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{EngineConfig, EngineError, executable};

/// Where distributions and the CNI project put the plugins.
const PLUGIN_DIRS: [&str; 3] = ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"];

/// Metadata and control addresses of clouds: link-local (most), Azure, Alibaba, Oracle.
const METADATA: [&str; 4] = ["169.254.0.0/16", "168.63.129.16/32", "100.100.100.200/32", "192.0.0.192/32"];

/// A bridge, its /24 and the rules around it.
#[derive(Debug, Clone)]
pub(super) struct Bridge {
    /// 12 characters of the 15 that an interface name may have.
    pub name: String,
    /// `10.x.y`
    prefix: String,
    pub plugins: PathBuf,
    iptables: PathBuf,
    path: std::ffi::OsString,
}

impl Bridge {
    /// Finds the programs and a network that no route here overlaps.
    pub(super) fn plan(config: &EngineConfig) -> Result<Self, EngineError> {
        let plugins = plugins().ok_or_else(|| EngineError::NoCni(PLUGIN_DIRS.to_vec()))?;
        let iptables = config.find(&["iptables"]).ok_or(EngineError::NoTool("iptables"))?;
        let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
        let (name, prefix) = choose(&config.data_dir, &routes).ok_or(EngineError::NoSubnet)?;
        Ok(Self { name, prefix, plugins: plugins.into(), iptables, path: config.path.clone() })
    }

    /// The CNI configuration. `addresses` is where host-local notes what it has handed out.
    pub(super) fn conflist(&self, addresses: &Path) -> String {
        serde_json::json!({
            "cniVersion": "0.4.0",
            "name": self.name,
            "plugins": [{
                "type": "bridge",
                "bridge": self.name,
                "isDefaultGateway": true,
                // the rules below do it, once
                "ipMasq": false,
                // steps do not see each other; plugins before 1.7 do not know it and ignore it
                "portIsolation": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": addresses,
                    "ranges": [[{ "subnet": self.subnet() }]],
                },
            }],
        })
        .to_string()
    }

    fn subnet(&self) -> String {
        format!("{}.0/24", self.prefix)
    }

    /// Sets the walls, replacing what an earlier run left.
    pub(super) fn raise(&self) -> Result<(), EngineError> {
        self.restore("iptables-restore", &self.rules())?;
        for (table, chain, rule) in self.hooks() {
            self.hook(&self.iptables, table, chain, &rule)?;
        }
        if !Path::new("/proc/net/if_inet6").exists() {
            return Ok(());
        }
        // nothing of IPv6 is handed out; without these a step could still use the bridge's link-local address
        let ip6tables = self.iptables.with_file_name("ip6tables");
        for chain in ["INPUT", "FORWARD"] {
            self.hook(&ip6tables, "filter", chain, &words(&format!("-i {} -j DROP", self.name)))?;
        }
        Ok(())
    }

    /// Takes rules and bridge away again, as far as they are there.
    pub(super) fn raze(&self) {
        let ip6tables = self.iptables.with_file_name("ip6tables");
        let mut gone: Vec<(&Path, Vec<String>)> = Vec::new();
        for (table, chain, rule) in self.hooks() {
            gone.push((&self.iptables, [words(&format!("-t {table} -D {chain}")), rule].concat()));
        }
        for chain in [self.chain("IN"), self.chain("OUT")] {
            gone.push((&self.iptables, words(&format!("-F {chain}"))));
            gone.push((&self.iptables, words(&format!("-X {chain}"))));
        }
        for chain in ["INPUT", "FORWARD"] {
            gone.push((&ip6tables, words(&format!("-D {chain} -i {} -j DROP", self.name))));
        }
        for (program, args) in gone {
            let _ = self.run(program, &[words("-w 5"), args].concat());
        }
        if let Some(ip) = super::find_on(&self.path, "ip") {
            let _ = self.run(&ip, &words(&format!("link delete {} type bridge", self.name)));
        }
    }

    fn chain(&self, direction: &str) -> String {
        format!("{}-{direction}", self.name.to_ascii_uppercase())
    }

    /// Our two chains, whole, for `iptables-restore --noflush`: it empties chains that it names and leaves all others.
    fn rules(&self) -> String {
        let (bridge, input, output) = (&self.name, self.chain("IN"), self.chain("OUT"));
        let mut rules = format!("*filter\n:{input} - [0:0]\n:{output} - [0:0]\n");
        for proto in ["udp", "tcp"] {
            rules += &format!("-A {input} -p {proto} --dport 53 -j RETURN\n");
        }
        rules += &format!("-A {input} -j REJECT\n");
        for net in METADATA {
            for proto in ["udp", "tcp"] {
                rules += &format!("-A {output} -d {net} -p {proto} --dport 53 -j ACCEPT\n");
            }
            rules += &format!("-A {output} -d {net} -j REJECT\n");
        }
        // an explicit yes: where Docker runs, the policy of FORWARD is DROP
        rules + &format!("-A {output} -i {bridge} -j ACCEPT\nCOMMIT\n")
    }

    /// What leads into our chains: (table, chain, rule).
    fn hooks(&self) -> [(&'static str, &'static str, Vec<String>); 4] {
        let (bridge, subnet) = (&self.name, self.subnet());
        [
            ("filter", "INPUT", words(&format!("-i {bridge} -j {}", self.chain("IN")))),
            ("filter", "FORWARD", words(&format!("-i {bridge} -j {}", self.chain("OUT")))),
            (
                "filter",
                "FORWARD",
                words(&format!("-o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")),
            ),
            ("nat", "POSTROUTING", words(&format!("-s {subnet} ! -o {bridge} -j MASQUERADE"))),
        ]
    }

    /// Puts a rule first in a chain, once.
    fn hook(&self, program: &Path, table: &str, chain: &str, rule: &[String]) -> Result<(), EngineError> {
        let with = |verb: &str| [words(&format!("-w 5 -t {table} {verb} {chain}")), rule.to_vec()].concat();
        if self.run(program, &with("-C")).is_ok() {
            return Ok(());
        }
        self.run(program, &with("-I"))
    }

    fn restore(&self, program: &str, rules: &str) -> Result<(), EngineError> {
        let program = self.iptables.with_file_name(program);
        let mut command = self.command(&program);
        command.args(["-w", "5", "--noflush"]).stdin(Stdio::piped());
        let failed =
            |output: String| EngineError::NetworkSetup { command: program.display().to_string(), output };
        let mut child = command.spawn().map_err(|e| failed(e.to_string()))?;
        if let Some(mut stdin) = child.stdin.take() {
            // one that ends early says why itself
            let _ = stdin.write_all(rules.as_bytes());
        }
        let out = child.wait_with_output().map_err(|e| failed(e.to_string()))?;
        if out.status.success() { Ok(()) } else { Err(failed(said(&out.stderr))) }
    }

    fn run(&self, program: &Path, args: &[String]) -> Result<(), EngineError> {
        let failed = |output: String| {
            let command = format!("{} {}", program.display(), args.join(" "));
            EngineError::NetworkSetup { command, output }
        };
        let out = self
            .command(program)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .map_err(|e| failed(e.to_string()))?;
        if out.status.success() { Ok(()) } else { Err(failed(said(&out.stderr))) }
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", AsRef::<OsStr>::as_ref(&self.path));
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }
}

fn said(stderr: &[u8]) -> String {
    String::from_utf8_lossy(stderr).trim().to_owned()
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// A bridge name and `10.x.y` from the data directory's path: the same at every start, another for another directory. Networks
/// that a route of `routes` (the kernel's table) overlaps are passed over, unless the route is that bridge's own.
/// The directory with all the CNI plugins that are needed.
fn plugins() -> Option<&'static str> {
    let complete = |dir: &&&str| {
        ["bridge", "host-local", "loopback"].iter().all(|plugin| executable(&Path::new(dir).join(plugin)))
    };
    PLUGIN_DIRS.iter().find(complete).copied()
}

pub fn has_cni_plugins() -> bool {
    plugins().is_some()
}

/// The name of the bridge of a data directory's builds, where it is there now.
pub fn bridge_left(data_dir: &Path) -> Option<String> {
    let (name, _) = choose(data_dir, "")?;
    Path::new("/sys/class/net").join(&name).exists().then_some(name)
}

fn choose(data_dir: &Path, routes: &str) -> Option<(String, String)> {
    use sha2::Digest as _;
    use std::os::unix::ffi::OsStrExt;
    let hash = sha2::Sha256::digest(data_dir.as_os_str().as_bytes());
    let name = format!("lmn-{}", hex::encode(hash.get(..4)?));
    let start = usize::from(u16::from_be_bytes([*hash.get(4)?, *hash.get(5)?]));
    let taken: Vec<(u32, u32)> = routes
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            // the kernel prints the bytes, network order, as if they were one of its own numbers
            let address = |at: usize| Some(u32::from_be(u32::from_str_radix(fields.get(at)?, 16).ok()?));
            let (net, mask) = (address(1)?, address(7)?);
            (mask != 0 && *fields.first()? != name).then_some((net, mask))
        })
        .collect();
    // 10.192.0.0/11: away from what Docker, Kubernetes and VPNs like to take
    let candidates = (0..32 * 256_usize).map(|step| (start + step) % (32 * 256));
    let free = |n: &usize| {
        let net = u32::from(Ipv4Addr::new(10, 192 + u8::try_from(n / 256).unwrap_or(0), (n % 256) as u8, 0));
        taken.iter().all(|(other, mask)| {
            let both = mask & 0xffff_ff00;
            net & both != other & both
        })
    };
    candidates.into_iter().find(free).map(|n| (name, format!("10.{}.{}", 192 + n / 256, n % 256)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n";

    #[test]
    fn another_directory_has_another_bridge_and_the_same_one_keeps_it() {
        let one = choose(Path::new("/var/lib/lemnos"), HEAD).unwrap();
        assert_eq!(one, choose(Path::new("/var/lib/lemnos"), HEAD).unwrap());
        let two = choose(Path::new("/srv/lemnos"), HEAD).unwrap();
        assert!(one.0 != two.0 && one.1 != two.1, "{one:?} {two:?}");
        assert!(one.0.len() <= 15, "an interface name");
        assert!(one.1.starts_with("10."));
    }

    #[test]
    fn routes_of_this_machine_are_kept_clear_but_for_the_bridge_itself() {
        let data = Path::new("/var/lib/lemnos");
        let (name, prefix) = choose(data, HEAD).unwrap();
        let hex: Vec<u8> = prefix.split('.').map(|p| p.parse().unwrap()).collect();
        let route = |iface: &str| {
            format!("{HEAD}{iface}\t00{:02X}{:02X}0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\n", hex[2], hex[1])
        };
        assert_ne!(choose(data, &route("eth0")).unwrap().1, prefix);
        assert_eq!(choose(data, &route(&name)).unwrap().1, prefix);
        // a default route overlaps everything and hinders nothing; a route to 10.0.0.0/8 leaves no room
        let default = format!("{HEAD}eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\n");
        assert_eq!(choose(data, &default).unwrap().1, prefix);
        let vpn = format!("{HEAD}tun0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\n");
        assert_eq!(choose(data, &vpn), None);
    }

    #[test]
    fn the_walls() {
        let bridge = Bridge {
            name: "lmn-00112233".into(),
            prefix: "10.200.1".into(),
            plugins: "/usr/lib/cni".into(),
            iptables: "/usr/sbin/iptables".into(),
            path: "/bin".into(),
        };
        insta::assert_snapshot!(bridge.rules(), @r#"
        *filter
        :LMN-00112233-IN - [0:0]
        :LMN-00112233-OUT - [0:0]
        -A LMN-00112233-IN -p udp --dport 53 -j RETURN
        -A LMN-00112233-IN -p tcp --dport 53 -j RETURN
        -A LMN-00112233-IN -j REJECT
        -A LMN-00112233-OUT -d 169.254.0.0/16 -p udp --dport 53 -j ACCEPT
        -A LMN-00112233-OUT -d 169.254.0.0/16 -p tcp --dport 53 -j ACCEPT
        -A LMN-00112233-OUT -d 169.254.0.0/16 -j REJECT
        -A LMN-00112233-OUT -d 168.63.129.16/32 -p udp --dport 53 -j ACCEPT
        -A LMN-00112233-OUT -d 168.63.129.16/32 -p tcp --dport 53 -j ACCEPT
        -A LMN-00112233-OUT -d 168.63.129.16/32 -j REJECT
        -A LMN-00112233-OUT -d 100.100.100.200/32 -p udp --dport 53 -j ACCEPT
        -A LMN-00112233-OUT -d 100.100.100.200/32 -p tcp --dport 53 -j ACCEPT
        -A LMN-00112233-OUT -d 100.100.100.200/32 -j REJECT
        -A LMN-00112233-OUT -d 192.0.0.192/32 -p udp --dport 53 -j ACCEPT
        -A LMN-00112233-OUT -d 192.0.0.192/32 -p tcp --dport 53 -j ACCEPT
        -A LMN-00112233-OUT -d 192.0.0.192/32 -j REJECT
        -A LMN-00112233-OUT -i lmn-00112233 -j ACCEPT
        COMMIT
        "#);
    }
}
