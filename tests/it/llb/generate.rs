//! Descriptions made up: any step on any step before it, options by chance, names from short lists so that parts of a
//! graph come out equal.
//!
//! Left out are the few things in which the two builders differ on purpose (see `units`): command lines that end within a
//! quote, descriptions on everything together with descriptions on one operation, several mounts at one place.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::Union;

use super::generate_sources::{Any, one_of, pairs, path, some_of, source, text, word};
use super::language::{Action, Description, Limits, Lines, MountAt, On, SecretAt, Step};

fn on() -> Any<On> {
    let os = one_of(&["linux", "Linux", "windows", "macos", ""]);
    let arch =
        one_of(&["amd64", "x86_64", "arm64", "aarch64", "arm", "armhf", "armel", "i386", "riscv64", ""]);
    let variant = one_of(&["", "", "v1", "v7", "7", "v8", "9"]);
    (os, arch, variant, one_of(&["", "10.0"]), some_of(&["z", "a"]))
        .prop_map(|(os, arch, variant, version, features)| On { os, arch, variant, version, features })
        .boxed()
}

/// Constraints of one operation, with locations in the maps among the steps before.
fn limits(maps: Vec<usize>) -> Any<Option<Limits>> {
    let ranges = vec([0..9i32, -1..9i32, 0..9i32, 0..9i32], 0..3);
    let location = match maps.is_empty() {
        true => Just(Vec::new()).boxed(),
        false => vec((select(maps), ranges).prop_map(|(map, ranges)| Lines { map, ranges }), 0..3).boxed(),
    };
    let group = prop_oneof![2 => Just(Vec::new()), 1 => (word(), text(), one_of(&["weak", "strong"]))
        .prop_map(|(id, name, weak)| vec![id, name, weak])];
    let numbers = prop_oneof![2 => Just(Vec::new()), 1 => vec(0..9i64, 5)];
    let parts = (
        proptest::option::weighted(0.3, on()),
        some_of(&["a==b", "c"]),
        some_of(&["ignore_cache"]),
        pairs(),
        one_of(&["", "a name"]),
        one_of(&["", "", "on", "off", "default"]),
        one_of(&["", "own"]),
        group,
        numbers,
        location,
    );
    let limits =
        parts.prop_map(|(platform, require, flags, desc, name, export, unique, group, limits, loc)| Limits {
            platform,
            require,
            flags,
            desc,
            name,
            export,
            unique,
            group,
            cpus: if limits.is_empty() { Vec::new() } else { vec!["0".into(), "0-1".into()] },
            limits,
            loc,
            caps: String::new(),
        });
    proptest::option::weighted(0.4, limits).boxed()
}

/// Constraints of everything.
fn ground() -> Any<Limits> {
    let caps = one_of(&["", "new", "old"]);
    (on(), limits(Vec::new()), caps)
        .prop_map(|(platform, limits, caps)| Limits {
            platform: Some(platform),
            unique: "everyone".into(),
            // Go lets one operation's description into those that follow when there is one on everything
            desc: Vec::new(),
            name: String::new(),
            caps,
            ..limits.unwrap_or_default()
        })
        .boxed()
}

/// A value that a state or a command is given; `states` may be reset to.
fn change(states: Vec<usize>) -> Any<Vec<String>> {
    let list = |texts: Vec<String>| texts;
    let two = |name: &'static str, a: Any<String>, b: Any<String>| {
        (a, b).prop_map(move |(a, b)| vec![name.to_owned(), a, b]).boxed()
    };
    let one = |name: &'static str, a: Any<String>| a.prop_map(move |a| vec![name.to_owned(), a]).boxed();
    let mut all = vec![
        two("env", word(), text()),
        one("dir", path()),
        one("user", text()),
        one("hostname", word()),
        two("host", word(), one_of(&["1.2.3.4", "::1", "::ffff:1.2.3.4", "fe80::"])),
        one("cgroup", word()),
        one("network", one_of(&["unset", "host", "none"])),
        one("security", one_of(&["sandbox", "insecure"])),
        ("nofile|nproc", -1..9i64, -1..9i64)
            .prop_map(move |(name, soft, hard)| {
                list(vec!["ulimit".into(), name, soft.to_string(), hard.to_string()])
            })
            .boxed(),
        on().prop_map(|on| vec!["platform".into(), on.os, on.arch, on.variant]).boxed(),
    ];
    if !states.is_empty() {
        all.push(select(states).prop_map(|at| vec!["reset".into(), at.to_string()]).boxed());
    }
    Union::new(all).boxed()
}

fn mounts(states: Vec<usize>) -> Any<Vec<MountAt>> {
    let from = std::iter::once(0).chain(states).collect::<Vec<_>>();
    let mount = (
        one_of(&["bind", "bind", "bind", "cache", "tmpfs"]),
        select(from),
        one_of(&["", "", "sub/dir"]),
        prop_oneof![2 => Just(Vec::new()), 1 => some_of(&["readonly", "no_output"])],
        word(),
        one_of(&["", "private", "locked"]),
        0..3i64,
        one_of(&["", "", "on", "off"]),
    )
        .prop_map(|(kind, from, path, flags, id, sharing, size, content)| MountAt {
            from: if kind == "tmpfs" && size < 2 { 0 } else { from },
            kind,
            target: String::new(),
            path,
            flags,
            id,
            sharing,
            size,
            content,
        });
    (vec(mount, 0..4), Just(["/m", "/a", "/z", ""]).prop_shuffle())
        .prop_map(|(mounts, targets)| {
            mounts
                .into_iter()
                .zip(targets)
                .map(|(at, target)| MountAt { target: target.into(), ..at })
                .collect()
        })
        .boxed()
}

fn secrets(env: bool) -> Any<Vec<SecretAt>> {
    let secret =
        (word(), one_of(&["", "/run/s", "t"]), 0..3u32, 0..3u32, 0..0o777u32, some_of(&["optional"]))
            .prop_map(move |(id, target, uid, gid, mode, flags)| SecretAt {
                env: if env && (target.is_empty() || uid == 0) { "NAME".into() } else { String::new() },
                id,
                target,
                uid,
                gid,
                mode,
                flags,
            });
    prop_oneof![2 => Just(Vec::new()), 1 => vec(secret, 0..3)].boxed()
}

fn run(states: Vec<usize>) -> Any<Step> {
    let args = prop_oneof![9 => vec(text(), 1..4), 1 => Just(Vec::new())];
    let shell = one_of(&["", "", "", "sh -c 'a b'", "a \\\"b #c", "'' \"\\\\\""]);
    let rarely = |strategy: Any<Vec<String>>| prop_oneof![3 => Just(Vec::new()), 1 => strategy];
    let device = vec!["v/c=0".to_owned(), "optional".to_owned()];
    let devices = prop_oneof![4 => Just(Vec::new()), 1 => Just(vec![device.clone(), device[..1].to_vec()])];
    let codes = prop_oneof![3 => Just(Vec::new()), 1 => vec(-1..300i32, 1..3)];
    (
        args,
        shell,
        vec(change(states.clone()), 0..3),
        mounts(states),
        (secrets(true), secrets(false)),
        devices,
        codes,
        rarely(some_of(&["readonly_root"])),
        rarely(vec(text(), 5).boxed()),
    )
        .prop_map(|(args, shell, set, mounts, (secrets, ssh), devices, codes, flags, proxy)| Step {
            op: "run".into(),
            args,
            shell,
            set,
            mounts,
            secrets,
            ssh,
            devices,
            codes,
            flags,
            proxy,
            ..Step::default()
        })
        .boxed()
}

/// `from` are states and chains.
fn actions(from: Vec<usize>) -> Any<Vec<Action>> {
    let owner = one_of(&["", "", "", "root", "u:g", "1:2", "-1:x", ":"]);
    let ids = prop_oneof![2 => Just(Vec::new()), 1 => vec(any::<u32>(), 2)];
    let created = prop_oneof![2 => Just(String::new()), 1 => any::<i64>().prop_map(|at| at.to_string())];
    let copy = some_of(&[
        "follow_symlinks",
        "contents_only",
        "unpack",
        "create_target_path",
        "wildcard",
        "empty_wildcard",
        "replace_existing",
    ]);
    let lists = || prop_oneof![2 => Just(Vec::new()), 1 => vec(text(), 0..2)];
    let mode = prop_oneof![1 => Just(0), 2 => 0..0o177_777u32];
    let action = (
        one_of(&["mkdir", "mkfile", "symlink", "rm", "copy", "copy", "copy"]),
        select(from),
        path(),
        path(),
        (mode, one_of(&["", "", "u+x"])),
        text(),
        (owner, ids, created),
        copy,
        some_of(&["parents", "allow_not_found", "wildcard"]),
        (lists(), lists(), lists()),
    )
        .prop_map(
            |(kind, from, path, to, (mode, mode_text), data, (owner, ids, created), copy, flags, lists)| {
                let is_copy = kind == "copy";
                Action {
                    flags: if is_copy { copy } else { flags },
                    kind,
                    from,
                    path,
                    to,
                    mode,
                    mode_text,
                    data,
                    owner,
                    ids,
                    created,
                    include: lists.0,
                    exclude: lists.1,
                    required: lists.2,
                }
            },
        );
    vec(action, 1..4).boxed()
}

/// The numbers of the steps so far that are of one sort.
#[derive(Clone, Debug, Default)]
struct Before {
    states: Vec<usize>,
    chains: Vec<usize>,
    maps: Vec<usize>,
    runs: Vec<(usize, Vec<String>)>,
}

fn config() -> Any<Step> {
    let config = one_of(&[
        r#"{"architecture":"arm64","os":"linux","variant":"v8","config":{"Env":["A=1","B","=c"],"WorkingDir":"w"}}"#,
        r#"{"config":{"Env":null,"WorkingDir":"/abs/"}}"#,
    ]);
    config.prop_map(|config| Step { op: "config".into(), config, ..Step::default() }).boxed()
}

/// A step that is made of states before.
fn step(before: &Before) -> Any<Step> {
    let Before { states, chains, maps, runs } = before.clone();
    let from: Vec<usize> = states.iter().chain(&chains).copied().collect();
    let on = select(states.clone());
    let inputs = |count: std::ops::Range<usize>| vec(select(states.clone()), count);
    let named = |op: &'static str| Just(Step { op: op.into(), ..Step::default() });
    let map = (one_of(&["", "f"]), one_of(&["", "l"]), text(), proptest::option::weighted(0.2, on.clone()));
    let map = map.prop_map(|(filename, lang, data, of)| Step {
        op: "map".into(),
        on: of.unwrap_or(0),
        filename,
        lang,
        data,
        ..Step::default()
    });
    let combined = prop_oneof![
        2 => (named("merge"), inputs(1..4)),
        2 => (named("diff"), inputs(2..3)),
        1 => (named("requires"), inputs(0..3)),
        1 => (named("passthrough"), inputs(1..4)),
    ]
    .prop_map(|(step, inputs)| Step {
        out: inputs.iter().enumerate().map(|(at, _)| at % 2 == 0).collect(),
        inputs,
        id: "together".into(),
        ..step
    });
    let build =
        one_of(&["", "file"]).prop_map(|filename| Step { op: "build".into(), filename, ..Step::default() });
    let mut all = vec![
        (4, source()),
        (6, run(states.clone())),
        (
            6,
            actions(from.clone())
                .prop_map(|actions| Step { op: "file".into(), actions, ..Step::default() })
                .boxed(),
        ),
        (
            2,
            actions(from).prop_map(|actions| Step { op: "chain".into(), actions, ..Step::default() }).boxed(),
        ),
        (
            3,
            vec(change(states.clone()), 1..4)
                .prop_map(|set| Step { op: "set".into(), set, ..Step::default() })
                .boxed(),
        ),
        (1, config()),
        (4, combined.boxed()),
        (1, build.boxed()),
        (1, named("import").boxed()),
    ];
    if !runs.is_empty() {
        let mount = select(runs).prop_flat_map(|(on, targets)| {
            select(targets).prop_map(move |target| Step { op: "mount".into(), on, target, ..Step::default() })
        });
        all.push((3, mount.boxed()));
    }
    let step = (Union::new_weighted(all), on, limits(maps)).prop_map(|(step, on, c)| {
        let on = if step.on == 0 && !["mount"].contains(&step.op.as_str()) { on } else { step.on };
        let plain =
            ["scratch", "set", "config", "chain", "mount", "requires", "import"].contains(&step.op.as_str());
        Step { on, c: if plain { None } else { c }, ..step }
    });
    prop_oneof![6 => step, 1 => map].boxed()
}

fn more(steps: Vec<Step>, before: Before, left: usize) -> Any<Vec<Step>> {
    if left == 0 {
        return Just(steps).boxed();
    }
    let next = if before.states.is_empty() { source() } else { step(&before) };
    next.prop_flat_map(move |step| {
        let (mut steps, mut before) = (steps.clone(), before.clone());
        let number = steps.len() + 1;
        match step.op.as_str() {
            "map" => before.maps.push(number),
            "chain" => before.chains.push(number),
            _ => before.states.push(number),
        }
        let targets: Vec<String> = step.mounts.iter().map(|at| at.target.clone()).collect();
        if !targets.is_empty() {
            before.runs.push((number, targets));
        }
        steps.push(step);
        more(steps, before, left - 1)
    })
    .boxed()
}

/// A description whose last step is a state.
pub fn description() -> Any<Description> {
    let steps = (1..9usize).prop_flat_map(|count| more(Vec::new(), Before::default(), count));
    (steps, ground())
        .prop_map(|(mut steps, marshal)| {
            while steps.last().is_some_and(|step| ["map", "chain"].contains(&step.op.as_str())) {
                steps.pop();
            }
            Description { steps, marshal: Some(marshal), ..Description::default() }
        })
        .boxed()
}
