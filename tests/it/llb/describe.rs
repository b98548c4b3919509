//! What our builder makes of a description.

use std::collections::BTreeMap;

use lemnos::buildkit::llb::{
    BoundActions, Build, CacheSharing, Caps, Change, Constraints, ContentCache, Copy, CopyFrom, Definition,
    Device, Exec, FileActions, ImageConfig, LinuxResources, LlbError, MakeDir, MakeFile, Mode, Mount,
    NetMode, Owner, Platform, Proxy, Remove, Run, Secret, SecurityMode, SourceMap, Ssh, State, Symlink, cap,
    diff, merge, passthrough, range,
};

use super::language::{Action, Description, Limits, MountAt, SecretAt, Step};

impl Description {
    pub fn marshal(&self) -> Result<Definition, LlbError> {
        let mut maker = Maker { marshal: Constraints::new(), made: Vec::new() };
        maker.marshal = maker.limits(self.marshal.as_ref());
        for step in &self.steps {
            let made = maker.step(step)?;
            maker.made.push(made);
        }
        maker.state(0).marshal(&maker.marshal)
    }
}

/// What a step made.
enum Made {
    State(State),
    Exec(Exec),
    Chain(BoundActions),
    Map(SourceMap),
}

pub(super) struct Maker {
    marshal: Constraints,
    made: Vec<Made>,
}

fn has(flags: &[String], flag: &str) -> bool {
    flags.iter().any(|known| known == flag)
}

/// `then` where `said`.
pub(super) fn when<T>(said: bool, value: T, then: impl FnOnce(T) -> T) -> T {
    if said { then(value) } else { value }
}

impl Maker {
    fn made(&self, number: usize) -> &Made {
        let number = if number == 0 { self.made.len() } else { number };
        &self.made[number - 1]
    }

    fn state(&self, number: usize) -> State {
        match self.made(number) {
            Made::State(state) => state.clone(),
            Made::Exec(exec) => exec.root(),
            Made::Chain(_) | Made::Map(_) => panic!("step {number} is no state"),
        }
    }

    /// The state of a step, or scratch for 0.
    fn source(&self, number: usize) -> State {
        if number == 0 { State::scratch() } else { self.state(number) }
    }

    pub(super) fn limits(&self, limits: Option<&Limits>) -> Constraints {
        let Some(limits) = limits else { return Constraints::new() };
        let mut out = Constraints::new();
        if let Some(on) = &limits.platform {
            out = out.platform(Platform {
                os: on.os.clone(),
                architecture: on.arch.clone(),
                variant: on.variant.clone(),
                os_version: on.version.clone(),
                os_features: on.features.clone(),
            });
        }
        out = limits.require.iter().fold(out, |out, filter| out.require(filter));
        out = when(has(&limits.flags, "ignore_cache"), out, Constraints::ignore_cache);
        out = limits.desc.iter().fold(out, |out, (key, text)| out.description(key, text));
        out = when(!limits.name.is_empty(), out, |out| out.custom_name(&limits.name));
        out = match limits.export.as_str() {
            "on" => out.export_cache(true),
            "off" => out.export_cache(false),
            "default" => out.export_cache(true).default_export_cache(),
            _ => out,
        };
        out = when(!limits.unique.is_empty(), out, |out| out.local_unique_id(&limits.unique));
        if let [id, name, weak] = &limits.group[..] {
            out = out.progress_group(id, name, weak == "weak");
        }
        if let [memory, memory_swap, shares, period, cpu_quota] = limits.limits[..] {
            out = out.linux_resources(LinuxResources {
                memory,
                memory_swap,
                cpu_shares: shares as u64,
                cpu_period: period as u64,
                cpu_quota,
                cpuset_cpus: limits.cpus[0].clone(),
                cpuset_mems: limits.cpus[1].clone(),
            });
        }
        for lines in &limits.loc {
            let Made::Map(map) = self.made(lines.map) else { panic!("step {} is no map", lines.map) };
            out = out.location(map, lines.ranges.iter().map(|r| range((r[0], r[1]), (r[2], r[3]))));
        }
        let all = [cap::EXEC_META_SETS_DEFAULT_PATH, cap::MERGE_OP, cap::DIFF_OP];
        match limits.caps.as_str() {
            "" => out,
            "new" => out.caps(Caps::new(all)),
            _ => out.caps(Caps::new(all.into_iter().skip(1))),
        }
    }

    fn change(&self, change: &[String]) -> Change {
        let text = |at: usize| change[at].clone();
        let number = |at: usize| change[at].parse().unwrap();
        match change[0].as_str() {
            "env" => Change::Env(text(1), text(2)),
            "dir" => Change::Dir(text(1)),
            "user" => Change::User(text(1)),
            "hostname" => Change::Hostname(text(1)),
            "host" => Change::ExtraHost(text(1), change[2].parse().unwrap()),
            "ulimit" => Change::Ulimit(text(1), number(2), number(3)),
            "cgroup" => Change::CgroupParent(text(1)),
            "network" => Change::Network(match change[1].as_str() {
                "host" => NetMode::Host,
                "none" => NetMode::None,
                _ => NetMode::Unset,
            }),
            "security" => Change::Security(match change[1].as_str() {
                "insecure" => SecurityMode::Insecure,
                _ => SecurityMode::Sandbox,
            }),
            "platform" => Change::Platform(Platform::new(&change[1], &change[2]).with_variant(&change[3])),
            "reset" => Change::Reset(self.source(change[1].parse().unwrap())),
            other => panic!("unknown change {other}"),
        }
    }

    fn step(&self, step: &Step) -> Result<Made, LlbError> {
        let states = || step.inputs.iter().map(|number| self.source(*number)).collect::<Vec<_>>();
        let limits = || self.limits(step.c.as_ref());
        Ok(Made::State(match step.op.as_str() {
            "set" => self.state(step.on).with(step.set.iter().map(|change| self.change(change))),
            "config" => self.state(step.on).with_image_config(&ImageConfig::parse(step.config.as_bytes())?),
            "run" => return Ok(Made::Exec(self.state(step.on).run(self.run(step)?))),
            "mount" => match self.made(step.on) {
                Made::Exec(exec) => exec.mount(&step.target).unwrap(),
                _ => panic!("step {} is no command", step.on),
            },
            "file" => self.state(step.on).file(self.chain(&step.actions), limits()),
            "chain" => return Ok(Made::Chain(self.chain(&step.actions).on(&self.state(step.on)))),
            "merge" => merge(&states(), limits()),
            "diff" => diff(&states()[0], &states()[1], limits()),
            "build" => Build::new().filename(&step.filename).constraints(limits()).of(&self.state(step.on)),
            "passthrough" => {
                let states: Vec<_> = states().into_iter().zip(step.out.iter().copied()).collect();
                passthrough(&step.id, &states, limits())[usize::try_from(step.layers).unwrap()].clone()
            }
            "requires" => self.state(step.on).requires(&step.id, &states()),
            "import" => State::from_definition(&self.state(step.on).marshal(&self.marshal)?)?,
            "map" => {
                let of = (step.on != 0).then(|| self.state(step.on));
                let map = SourceMap::new(of.as_ref(), &step.filename, &step.lang, step.data.as_bytes());
                return Ok(Made::Map(map));
            }
            _ => super::sources::source(step, limits()),
        }))
    }

    fn run(&self, step: &Step) -> Result<Run, LlbError> {
        let mut run = match step.shell.as_str() {
            "" => Run::args(&step.args),
            line => Run::shell_words(line)?,
        };
        run = step.set.iter().fold(run, |run, change| run.with(self.change(change)));
        run = step.mounts.iter().fold(run, |run, mount| run.mount(self.mount(mount)));
        run = step.secrets.iter().fold(run, |run, at| run.secret(secret(at)));
        run = step.ssh.iter().fold(run, |run, at| run.ssh(ssh(at)));
        for device in &step.devices {
            run = run.device(Device { name: device[0].clone(), optional: has(&device[1..], "optional") });
        }
        run = run.valid_exit_codes(step.codes.iter().copied());
        run = when(has(&step.flags, "readonly_root"), run, Run::readonly_root);
        if let [http, https, ftp, no, all] = &step.proxy[..] {
            let [http, https, ftp, no, all] = [http, https, ftp, no, all].map(Clone::clone);
            run = run.proxy(Proxy { http, https, ftp, no, all });
        }
        Ok(run.constraints(self.limits(step.c.as_ref())))
    }

    fn mount(&self, at: &MountAt) -> Mount {
        let source = self.source(at.from);
        let sharing = match at.sharing.as_str() {
            "private" => CacheSharing::Private,
            "locked" => CacheSharing::Locked,
            _ => CacheSharing::Shared,
        };
        let mount = match at.kind.as_str() {
            "cache" => Mount::cache(&at.target, &at.id, sharing).from(&source),
            "tmpfs" => Mount::tmpfs(&at.target, at.size).from(&source),
            _ => Mount::bind(&at.target, &source),
        };
        let mount = mount.source_path(&at.path);
        let mount = when(has(&at.flags, "readonly"), mount, Mount::readonly);
        let mount = when(has(&at.flags, "no_output"), mount, Mount::no_output);
        mount.content_cache(match at.content.as_str() {
            "on" => ContentCache::On,
            "off" => ContentCache::Off,
            _ => ContentCache::Default,
        })
    }

    fn chain(&self, actions: &[Action]) -> FileActions {
        actions.iter().fold(FileActions::new(), |chain, action| self.action(chain, action))
    }

    fn action(&self, chain: FileActions, at: &Action) -> FileActions {
        let owner = match (&at.owner[..], &at.ids[..]) {
            ("", []) => None,
            ("", ids) => Some(Owner::ids(ids[0], ids[1])),
            (name, _) => Some(Owner::parse(name)),
        };
        let created = (!at.created.is_empty()).then(|| at.created.parse::<i64>().unwrap());
        macro_rules! common {
            ($action:expr) => {{
                let mut action = $action;
                if let Some(owner) = owner {
                    action = action.owner(owner);
                }
                if let Some(created) = created {
                    action = action.created(created);
                }
                action
            }};
        }
        match at.kind.as_str() {
            "mkdir" => {
                let dir = common!(MakeDir::new(&at.path, at.mode));
                chain.mkdir(when(has(&at.flags, "parents"), dir, MakeDir::parents))
            }
            "mkfile" => chain.mkfile(common!(MakeFile::new(&at.path, at.mode, at.data.as_bytes()))),
            "symlink" => chain.symlink(common!(Symlink::new(&at.path, &at.to))),
            "rm" => {
                let remove = Remove::new(&at.path);
                let remove = when(has(&at.flags, "allow_not_found"), remove, Remove::allow_not_found);
                chain.rm(when(has(&at.flags, "wildcard"), remove, Remove::wildcard))
            }
            "copy" => chain.copy(common!(self.copy(at))),
            other => panic!("unknown action {other}"),
        }
    }

    fn copy(&self, at: &Action) -> Copy {
        let from = match self.made(at.from) {
            Made::Chain(chain) => CopyFrom::from(chain),
            _ => CopyFrom::from(&self.state(at.from)),
        };
        let flags: BTreeMap<&str, fn(Copy) -> Copy> = BTreeMap::from([
            ("follow_symlinks", Copy::follow_symlinks as fn(Copy) -> Copy),
            ("contents_only", Copy::contents_only),
            ("unpack", Copy::unpack),
            ("create_target_path", Copy::create_target_path),
            ("wildcard", Copy::wildcard),
            ("empty_wildcard", Copy::empty_wildcard),
            ("replace_existing", Copy::replace_existing),
        ]);
        let copy = Copy::new(from, &at.path, &at.to);
        let copy = at.flags.iter().fold(copy, |copy, flag| flags[flag.as_str()](copy));
        let copy =
            copy.include_patterns(&at.include).exclude_patterns(&at.exclude).required_paths(&at.required);
        match (&at.mode_text[..], at.mode) {
            ("", 0) => copy,
            ("", bits) => copy.mode(Mode::Bits(bits)),
            (text, _) => copy.mode(Mode::Text(text.into())),
        }
    }
}

fn secret(at: &SecretAt) -> Secret {
    let secret = match (&at.target[..], &at.env[..]) {
        ("", env) => Secret::variable(env),
        (target, "") => Secret::file(target),
        (target, env) => Secret::file(target).and_variable(env),
    };
    let secret = secret.id(&at.id);
    let secret = when(at.mode != 0, secret, |secret| secret.file_mode(at.uid, at.gid, at.mode));
    when(has(&at.flags, "optional"), secret, Secret::optional)
}

fn ssh(at: &SecretAt) -> Ssh {
    let ssh = Ssh::default().id(&at.id).target(&at.target);
    let ssh = when(at.mode != 0, ssh, |ssh| ssh.socket_mode(at.uid, at.gid, at.mode));
    when(has(&at.flags, "optional"), ssh, Ssh::optional)
}
