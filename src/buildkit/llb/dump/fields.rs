//! The messages of a graph as JSON objects.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lemnos_proto::pb;
use pb::op::Op as Member;

use super::super::quote;

/// A JSON object in the making. What is empty is left out, but for `raw`.
#[derive(Default)]
pub(super) struct Object(String);

impl Object {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn raw(mut self, name: &str, json: &str) -> Self {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        quote::json(name, &mut self.0);
        self.0.push(':');
        self.0.push_str(json);
        self
    }

    pub(super) fn text(self, name: &str, text: &str) -> Self {
        if text.is_empty() {
            return self;
        }
        let mut json = String::new();
        quote::json(text, &mut json);
        self.raw(name, &json)
    }

    fn number(self, name: &str, number: impl Into<i128>) -> Self {
        match number.into() {
            0 => self,
            number => self.raw(name, &number.to_string()),
        }
    }

    fn flag(self, name: &str, flag: bool) -> Self {
        if flag { self.raw(name, "true") } else { self }
    }

    fn bytes(self, name: &str, bytes: &[u8]) -> Self {
        self.text(name, &STANDARD.encode(bytes))
    }

    fn texts(self, name: &str, texts: &[String]) -> Self {
        if texts.is_empty() { self } else { self.raw(name, &quote::json_list(texts)) }
    }

    fn some<T>(self, name: &str, value: Option<&T>, json: impl Fn(&T) -> String) -> Self {
        match value {
            Some(value) => self.raw(name, &json(value)),
            None => self,
        }
    }

    fn list<T>(self, name: &str, values: &[T], json: impl Fn(&T) -> String) -> Self {
        if values.is_empty() {
            return self;
        }
        let values: Vec<String> = values.iter().map(json).collect();
        self.raw(name, &format!("[{}]", values.join(",")))
    }

    fn map<T>(self, name: &str, map: &BTreeMap<String, T>, json: impl Fn(&T) -> String) -> Self {
        if map.is_empty() {
            return self;
        }
        let map = map.iter().fold(Self::new(), |object, (key, value)| object.raw(key, &json(value)));
        self.raw(name, &map.close())
    }

    pub(super) fn close(self) -> String {
        if self.0.is_empty() { "{}".into() } else { self.0 + "}" }
    }
}

fn quoted(text: &str) -> String {
    let mut json = String::new();
    quote::json(text, &mut json);
    json
}

pub(super) fn op(op: &pb::Op) -> String {
    let member = match &op.op {
        None => Object::new(),
        Some(Member::Exec(op)) => Object::new().raw("exec", &exec(op)),
        Some(Member::Source(op)) => {
            let source =
                Object::new().text("identifier", &op.identifier).map("attrs", &op.attrs, |text| quoted(text));
            Object::new().raw("source", &source.close())
        }
        Some(Member::File(op)) => {
            Object::new().raw("file", &Object::new().list("actions", &op.actions, file_action).close())
        }
        Some(Member::Build(op)) => Object::new().raw("build", &build(op)),
        Some(Member::Merge(op)) => {
            let inputs = |input: &pb::MergeInput| one_input(input.input);
            Object::new().raw("merge", &Object::new().list("inputs", &op.inputs, inputs).close())
        }
        Some(Member::Diff(op)) => {
            let diff = Object::new().some("lower", op.lower.as_ref(), |lower| one_input(lower.input)).some(
                "upper",
                op.upper.as_ref(),
                |upper| one_input(upper.input),
            );
            Object::new().raw("diff", &diff.close())
        }
        Some(Member::Passthrough(op)) => {
            let op = Object::new().text("id", &op.id).list("outputs", &op.outputs, i64::to_string);
            Object::new().raw("passthrough", &op.close())
        }
    };
    Object::new()
        .list("inputs", &op.inputs, |input| {
            Object::new().text("digest", &input.digest).number("index", input.index).close()
        })
        .raw("Op", &member.close())
        .some("platform", op.platform.as_ref(), platform)
        .some("constraints", op.constraints.as_ref(), |constraints| {
            Object::new().texts("filter", &constraints.filter).close()
        })
        .close()
}

fn one_input(input: i64) -> String {
    Object::new().number("input", input).close()
}

fn platform(platform: &pb::Platform) -> String {
    Object::new()
        .text("Architecture", &platform.architecture)
        .text("OS", &platform.os)
        .text("Variant", &platform.variant)
        .text("OSVersion", &platform.os_version)
        .texts("OSFeatures", &platform.os_features)
        .close()
}

fn exec(op: &pb::ExecOp) -> String {
    let device = |name: &str, optional| Object::new().text("name", name).flag("optional", optional).close();
    Object::new()
        .some("meta", op.meta.as_ref(), meta)
        .list("mounts", &op.mounts, mount)
        .number("network", op.network)
        .number("security", op.security)
        .list("secretenv", &op.secretenv, |secret| {
            Object::new()
                .text("ID", &secret.id)
                .text("name", &secret.name)
                .flag("optional", secret.optional)
                .close()
        })
        .list("cdiDevices", &op.cdi_devices, |cdi| device(&cdi.name, cdi.optional))
        .close()
}

fn meta(meta: &pb::Meta) -> String {
    Object::new()
        .texts("args", &meta.args)
        .texts("env", &meta.env)
        .text("cwd", &meta.cwd)
        .text("user", &meta.user)
        .some("proxy_env", meta.proxy_env.as_ref(), |proxy| {
            Object::new()
                .text("http_proxy", &proxy.http_proxy)
                .text("https_proxy", &proxy.https_proxy)
                .text("ftp_proxy", &proxy.ftp_proxy)
                .text("no_proxy", &proxy.no_proxy)
                .text("all_proxy", &proxy.all_proxy)
                .close()
        })
        .list("extraHosts", &meta.extra_hosts, |host| {
            Object::new().text("Host", &host.host).text("IP", &host.ip).close()
        })
        .text("hostname", &meta.hostname)
        .list("ulimit", &meta.ulimit, |limit| {
            Object::new()
                .text("Name", &limit.name)
                .number("Soft", limit.soft)
                .number("Hard", limit.hard)
                .close()
        })
        .text("cgroupParent", &meta.cgroup_parent)
        .flag("removeMountStubsRecursive", meta.remove_mount_stubs_recursive)
        .list("validExitCodes", &meta.valid_exit_codes, i32::to_string)
        .close()
}

fn mount(mount: &pb::Mount) -> String {
    let file = |id: &str, uid: u32, gid: u32, mode: u32, optional| {
        Object::new()
            .text("ID", id)
            .number("uid", uid)
            .number("gid", gid)
            .number("mode", mode)
            .flag("optional", optional)
            .close()
    };
    Object::new()
        .number("input", mount.input)
        .text("selector", &mount.selector)
        .text("dest", &mount.dest)
        .number("output", mount.output)
        .flag("readonly", mount.readonly)
        .number("mountType", mount.mount_type)
        .some("TmpfsOpt", mount.tmpfs_opt.as_ref(), |opt| Object::new().number("size", opt.size).close())
        .some("cacheOpt", mount.cache_opt.as_ref(), |opt| {
            Object::new().text("ID", &opt.id).number("sharing", opt.sharing).close()
        })
        .some("secretOpt", mount.secret_opt.as_ref(), |o| file(&o.id, o.uid, o.gid, o.mode, o.optional))
        .some("SSHOpt", mount.ssh_opt.as_ref(), |o| file(&o.id, o.uid, o.gid, o.mode, o.optional))
        .text("resultID", &mount.result_id)
        .number("contentCache", mount.content_cache)
        .close()
}

fn build(op: &pb::BuildOp) -> String {
    Object::new()
        .number("builder", op.builder)
        .map("inputs", &op.inputs, |input| one_input(input.input))
        .map("attrs", &op.attrs, |text| quoted(text))
        .close()
}

/// Symbolic links are missing from what buildctl writes, and so here.
fn file_action(action: &pb::FileAction) -> String {
    use pb::file_action::Action;
    let member = match &action.action {
        Some(Action::Copy(action)) => Object::new().raw("copy", &copy(action)),
        Some(Action::Mkfile(file)) => {
            let object =
                Object::new().text("path", &file.path).number("mode", file.mode).bytes("data", &file.data);
            Object::new().raw("mkfile", &made(object, file.owner.as_ref(), file.timestamp))
        }
        Some(Action::Mkdir(dir)) => {
            let object = Object::new().text("path", &dir.path).number("mode", dir.mode);
            let object = object.flag("makeParents", dir.make_parents);
            Object::new().raw("mkdir", &made(object, dir.owner.as_ref(), dir.timestamp))
        }
        Some(Action::Rm(remove)) => {
            let object = Object::new()
                .text("path", &remove.path)
                .flag("allowNotFound", remove.allow_not_found)
                .flag("allowWildcard", remove.allow_wildcard);
            Object::new().raw("rm", &object.close())
        }
        Some(Action::Symlink(_)) | None => Object::new(),
    };
    Object::new()
        .raw("input", &action.input.to_string())
        .raw("secondaryInput", &action.secondary_input.to_string())
        .raw("output", &action.output.to_string())
        .raw("Action", &member.close())
        .close()
}

fn made(object: Object, owner: Option<&pb::ChownOpt>, timestamp: i64) -> String {
    object.some("owner", owner, chown).number("timestamp", timestamp).close()
}

fn copy(copy: &pb::FileActionCopy) -> String {
    Object::new()
        .text("src", &copy.src)
        .text("dest", &copy.dest)
        .some("owner", copy.owner.as_ref(), chown)
        .number("mode", copy.mode)
        .flag("followSymlink", copy.follow_symlink)
        .flag("dirCopyContents", copy.dir_copy_contents)
        .flag("attemptUnpackDockerCompatibility", copy.attempt_unpack_docker_compatibility)
        .flag("createDestPath", copy.create_dest_path)
        .flag("allowWildcard", copy.allow_wildcard)
        .flag("allowEmptyWildcard", copy.allow_empty_wildcard)
        .number("timestamp", copy.timestamp)
        .texts("include_patterns", &copy.include_patterns)
        .texts("exclude_patterns", &copy.exclude_patterns)
        .flag("alwaysReplaceExistingDestPaths", copy.always_replace_existing_dest_paths)
        .text("modeStr", &copy.mode_str)
        .texts("required_paths", &copy.required_paths)
        .close()
}

fn chown(owner: &pb::ChownOpt) -> String {
    Object::new()
        .some("user", owner.user.as_ref(), account)
        .some("group", owner.group.as_ref(), account)
        .close()
}

fn account(account: &pb::UserOpt) -> String {
    let user = match &account.user {
        Some(pb::user_opt::User::ByName(named)) => {
            let named = Object::new().text("name", &named.name).number("input", named.input);
            Object::new().raw("byName", &named.close())
        }
        Some(pb::user_opt::User::ById(id)) => Object::new().number("byId", *id),
        None => Object::new(),
    };
    Object::new().raw("User", &user.close()).close()
}

pub(super) fn metadata(metadata: &pb::OpMetadata) -> String {
    Object::new()
        .flag("ignore_cache", metadata.ignore_cache)
        .map("description", &metadata.description, |text| quoted(text))
        .some("export_cache", metadata.export_cache.as_ref(), |cache| {
            Object::new().flag("Value", cache.value).close()
        })
        .map("caps", &metadata.caps, bool::to_string)
        .some("progress_group", metadata.progress_group.as_ref(), |group| {
            Object::new().text("id", &group.id).text("name", &group.name).flag("weak", group.weak).close()
        })
        .some("linux_resources", metadata.linux_resources.as_ref(), |limits| {
            Object::new()
                .number("memory", limits.memory)
                .number("memorySwap", limits.memory_swap)
                .number("cpuShares", limits.cpu_shares)
                .number("cpuPeriod", limits.cpu_period)
                .number("cpuQuota", limits.cpu_quota)
                .text("cpusetCpus", &limits.cpuset_cpus)
                .text("cpusetMems", &limits.cpuset_mems)
                .close()
        })
        .close()
}
