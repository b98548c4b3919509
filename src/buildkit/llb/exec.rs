//! A command as an operation: its mounts in order, which of them have outputs, and its message.
//!
//! Mounts are sorted by target, as outputs are counted in that order. Source: client/llb/exec.go.

use std::sync::Arc;

use lemnos_proto::pb;

use super::graph::{Kind, Node, Output, place};
use super::run::{Device, Mount, Proxy, Run, Secret, Ssh};
use super::state::Values;
use super::{Constraints, ContentCache, LlbError, NetMode, SecurityMode, State, cap};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command that was described: the file systems that it leaves behind.
#[derive(Clone)]
pub struct Exec {
    root: State,
    mounts: Vec<(String, State)>,
}

impl Exec {
    /// What the root is after it.
    pub fn root(&self) -> State {
        self.root.clone()
    }

    /// What was mounted at `target` is after it, under the values of the mounted state. The last, where several are.
    pub fn mount(&self, target: &str) -> Option<State> {
        self.mounts.iter().rev().find(|(known, _)| known == target).map(|(_, state)| state.clone())
    }

    pub(super) fn new(state: &State, run: Run) -> Self {
        let base = state.with(run.changes.clone());
        let root = Mount {
            readonly: run.readonly_root,
            source: State { output: base.output.clone(), ..State::default() },
            ..Mount::bind("/", &State::scratch())
        };
        let mut mounts: Vec<(usize, Mount)> = std::iter::once(root).chain(run.mounts).enumerate().collect();
        mounts.sort_by(|(_, a), (_, b)| a.target.cmp(&b.target));
        let mut inputs = Vec::new();
        let mut plan = Vec::new();
        for (_, mount) in &mounts {
            let input = mount.source.output.as_ref().map(|output| place(&mut inputs, output));
            plan.push((mount.clone(), input));
        }
        // the inputs are held by the node alone
        let plan = plan.into_iter().map(|(mount, input)| PlannedMount::new(mount, input)).collect();
        let mut values = (*base.values).clone();
        (values.args, values.exit_codes) = (run.args, run.exit_codes);
        let platform = run.constraints.platform.clone();
        let exec = ExecNode {
            mounts: plan,
            values,
            secrets: run.secrets,
            ssh: run.ssh,
            devices: run.devices,
            proxy: run.proxy,
        };
        let node = Arc::new(Node {
            inputs,
            kind: Kind::Exec(Box::new(exec)),
            constraints: run.constraints,
            mistake: None,
        });
        let outputs = outputs(&node, &mounts, platform.as_ref());
        let root = outputs.first().and_then(|(_, output)| output.clone());
        let states = mounts_in_order(mounts, outputs);
        Self { root: state.with_output(root), mounts: states }
    }
}

/// The output of each mount, in the order in which mounts were given.
fn outputs(
    node: &Arc<Node>,
    sorted: &[(usize, Mount)],
    platform: Option<&super::Platform>,
) -> Vec<(usize, Option<Output>)> {
    let mut count = 0;
    let mut found = Vec::new();
    for (at, mount) in sorted {
        let no = |what| Err(LlbError::NoOutput { target: mount.target.clone(), what });
        let index = if mount.readonly {
            found.push((*at, mount.source.output.clone()));
            continue;
        } else if mount.tmpfs.is_some() {
            no("a tmpfs")
        } else if mount.no_output {
            no("marked as without output")
        } else if !mount.cache_id.is_empty() {
            no("a cache")
        } else {
            count += 1;
            Ok(count - 1)
        };
        found.push((*at, Some(Output { node: node.clone(), index, platform: platform.cloned() })));
    }
    found.sort_by_key(|(at, _)| *at);
    found
}

fn mounts_in_order(
    mut mounts: Vec<(usize, Mount)>,
    outputs: Vec<(usize, Option<Output>)>,
) -> Vec<(String, State)> {
    mounts.sort_by_key(|(at, _)| *at);
    mounts
        .into_iter()
        .zip(outputs)
        .map(|((_, mount), (_, output))| (mount.target, mount.source.with_output(output)))
        .collect()
}

/// The command in the graph.
pub(super) struct ExecNode {
    mounts: Vec<PlannedMount>,
    values: Values,
    secrets: Vec<Secret>,
    ssh: Vec<Ssh>,
    devices: Vec<Device>,
    proxy: Option<Proxy>,
}

/// A mount whose source is one of the node's inputs.
struct PlannedMount {
    mount: Mount,
    input: Option<usize>,
}

impl PlannedMount {
    fn new(mut mount: Mount, input: Option<usize>) -> Self {
        mount.source = State::default();
        Self { mount, input }
    }

    fn has_output(&self) -> bool {
        let Mount { no_output, readonly, cache_id, tmpfs, .. } = &self.mount;
        !no_output && !readonly && cache_id.is_empty() && tmpfs.is_none()
    }
}

impl ExecNode {
    /// The message, what it needs, and its inputs: `edges` are those of the node's, in order.
    pub(super) fn message(
        &self,
        base: &Constraints,
        constraints: &mut Constraints,
        edges: &[pb::Input],
    ) -> Result<(pb::ExecOp, Vec<pb::Input>), LlbError> {
        if self.values.args.is_empty() {
            return Err(LlbError::NoArguments);
        }
        if self.values.dir().is_empty() {
            return Err(LlbError::NoDirectory { args: self.values.args.clone() });
        }
        self.add_needs(base, constraints);
        if constraints.platform.is_none() {
            constraints.platform.clone_from(&self.values.platform);
        }
        let (mut mounts, inputs) = self.mounts(edges)?;
        mounts.extend(self.secrets.iter().filter_map(secret_mount));
        mounts.extend(self.ssh.iter().enumerate().map(|(at, ssh)| ssh_mount(at, ssh)));
        let variable = |secret: &Secret| {
            let name = secret.env.clone()?;
            Some(pb::SecretEnv { id: secret.id.clone(), name, optional: secret.optional })
        };
        let device = |device: &Device| pb::CdiDevice { name: device.name.clone(), optional: device.optional };
        let op = pb::ExecOp {
            meta: Some(self.meta(base)),
            mounts,
            network: self.values.network.into(),
            security: self.values.security.into(),
            secretenv: self.secrets.iter().filter_map(variable).collect(),
            cdi_devices: self.devices.iter().map(device).collect(),
        };
        Ok((op, inputs))
    }

    fn add_needs(&self, base: &Constraints, constraints: &mut Constraints) {
        let values = &self.values;
        let some_env = self.secrets.iter().any(|secret| secret.env.is_some());
        let mut needs = |needed: bool, cap: &str| {
            if needed {
                constraints.needs(cap);
            }
        };
        needs(true, cap::EXEC_META_BASE);
        needs(
            base.caps.is_some() && base.supports(cap::EXEC_META_SETS_DEFAULT_PATH),
            cap::EXEC_META_SETS_DEFAULT_PATH,
        );
        needs(!values.exit_codes.is_empty(), cap::EXEC_VALID_EXIT_CODE);
        needs(!values.ulimits.is_empty(), cap::EXEC_META_ULIMIT);
        needs(values.network != NetMode::Unset, cap::EXEC_META_NETWORK);
        needs(values.security != SecurityMode::Sandbox, cap::EXEC_META_SECURITY);
        needs(self.proxy.is_some(), cap::EXEC_META_PROXY);
        needs(!self.secrets.is_empty(), cap::EXEC_MOUNT_SECRET);
        needs(some_env, cap::EXEC_SECRET_ENV);
        needs(!self.ssh.is_empty(), cap::EXEC_MOUNT_SSH);
        needs(!self.devices.is_empty(), cap::EXEC_META_CDI);
        for PlannedMount { mount, input } in &self.mounts {
            needs(!mount.selector.is_empty(), cap::EXEC_MOUNT_SELECTOR);
            needs(mount.content_cache != ContentCache::Default, cap::EXEC_MOUNT_CONTENT_CACHE);
            if !mount.cache_id.is_empty() {
                needs(true, cap::EXEC_MOUNT_CACHE);
                needs(true, cap::EXEC_MOUNT_CACHE_SHARING);
            } else if let Some(size) = mount.tmpfs {
                needs(true, cap::EXEC_MOUNT_TMPFS);
                needs(size > 0, cap::EXEC_MOUNT_TMPFS_SIZE);
            } else {
                needs(input.is_some(), cap::EXEC_MOUNT_BIND);
            }
        }
        let limited = constraints.metadata.linux_resources.is_some();
        if limited {
            constraints.needs(cap::EXEC_META_LINUX_RESOURCES);
        }
    }

    fn meta(&self, base: &Constraints) -> pb::Meta {
        let mut values = self.values.clone();
        if let Some(ssh) = self.ssh.first()
            && values.env("SSH_AUTH_SOCK").is_none()
        {
            values.set_env("SSH_AUTH_SOCK", &ssh_target(0, ssh));
        }
        // an old daemon does not set it; Windows images have their own
        let windows = base.platform.as_ref().is_some_and(|platform| platform.os == "windows");
        if !base.supports(cap::EXEC_META_SETS_DEFAULT_PATH) && !windows && values.env("PATH").is_none() {
            values.set_env("PATH", DEFAULT_PATH);
        }
        let proxy = |proxy: &Proxy| pb::ProxyEnv {
            http_proxy: proxy.http.clone(),
            https_proxy: proxy.https.clone(),
            ftp_proxy: proxy.ftp.clone(),
            no_proxy: proxy.no.clone(),
            all_proxy: proxy.all.clone(),
        };
        let ulimit = |(name, soft, hard)| pb::Ulimit { name, soft, hard };
        // Go writes an IPv4 address within IPv6 as the IPv4 address
        let host =
            |(host, ip): (String, std::net::IpAddr)| pb::HostIp { host, ip: ip.to_canonical().to_string() };
        pb::Meta {
            args: values.args,
            env: values.env.into_iter().map(|(key, value)| format!("{key}={value}")).collect(),
            cwd: values.dir.unwrap_or_default(),
            user: values.user,
            proxy_env: self.proxy.as_ref().map(proxy),
            extra_hosts: values.extra_hosts.into_iter().map(host).collect(),
            hostname: values.hostname,
            ulimit: values.ulimits.into_iter().map(ulimit).collect(),
            cgroup_parent: values.cgroup_parent,
            remove_mount_stubs_recursive: true,
            valid_exit_codes: values.exit_codes,
        }
    }

    fn mounts(&self, edges: &[pb::Input]) -> Result<(Vec<pb::Mount>, Vec<pb::Input>), LlbError> {
        let mut inputs: Vec<pb::Input> = Vec::new();
        let mut mounts = Vec::new();
        let mut outputs = 0;
        for planned @ PlannedMount { mount, input } in &self.mounts {
            if mount.tmpfs.is_some() && input.is_some() {
                return Err(LlbError::TmpfsSource { target: mount.target.clone() });
            }
            let mut output = -1;
            if planned.has_output() {
                output = outputs;
                outputs += 1;
            }
            let input = input.and_then(|at| edges.get(at)).map_or(-1, |edge| position(&mut inputs, edge));
            mounts.push(mount_message(mount, input, output));
        }
        Ok((mounts, inputs))
    }
}

/// The place of an edge among an operation's inputs: equal edges are one input.
pub(super) fn position(inputs: &mut Vec<pb::Input>, edge: &pb::Input) -> i64 {
    let at = inputs.iter().position(|known| known == edge).unwrap_or_else(|| {
        inputs.push(edge.clone());
        inputs.len() - 1
    });
    i64::try_from(at).unwrap_or(i64::MAX)
}

fn mount_message(mount: &Mount, input: i64, output: i64) -> pb::Mount {
    let cache = !mount.cache_id.is_empty();
    let kind = match (mount.tmpfs, cache) {
        (Some(_), _) => pb::MountType::Tmpfs,
        (None, true) => pb::MountType::Cache,
        (None, false) => pb::MountType::Bind,
    };
    pb::Mount {
        input,
        selector: mount.selector.clone(),
        dest: mount.target.clone(),
        output,
        readonly: mount.readonly,
        mount_type: kind.into(),
        tmpfs_opt: mount.tmpfs.map(|size| pb::TmpfsOpt { size }),
        cache_opt: cache.then(|| pb::CacheOpt { id: mount.cache_id.clone(), sharing: mount.sharing.into() }),
        content_cache: mount.content_cache.into(),
        ..Default::default()
    }
}

fn secret_mount(secret: &Secret) -> Option<pb::Mount> {
    let Secret { id, uid, gid, mode, optional, .. } = secret.clone();
    Some(pb::Mount {
        input: -1,
        dest: secret.target.clone()?,
        mount_type: pb::MountType::Secret.into(),
        secret_opt: Some(pb::SecretOpt { id, uid, gid, mode, optional }),
        ..Default::default()
    })
}

fn ssh_target(at: usize, ssh: &Ssh) -> String {
    if ssh.target.is_empty() { format!("/run/buildkit/ssh_agent.{at}") } else { ssh.target.clone() }
}

fn ssh_mount(at: usize, ssh: &Ssh) -> pb::Mount {
    let Ssh { id, uid, gid, mode, optional, .. } = ssh.clone();
    pb::Mount {
        input: -1,
        dest: ssh_target(at, ssh),
        mount_type: pb::MountType::Ssh.into(),
        ssh_opt: Some(pb::SshOpt { id, uid, gid, mode, optional }),
        ..Default::default()
    }
}
