//! What the table cannot hold: our own ways where Go has none or has a fault, and limits.

use lemnos::buildkit::llb::{
    Build, Caps, Constraints, Copy, Definition, FileActions, Git, LlbError, Local, MakeDir, MakeFile, Mount,
    Platform, Remove, Run, SourceMap, State, cap, diff, merge,
};
use lemnos_proto::pb;
use prost::Message as _;

fn linux() -> Constraints {
    Constraints::new().platform(Platform::new("linux", "amd64")).local_unique_id("one")
}

fn ops(definition: &Definition) -> Vec<pb::Op> {
    definition.ops.iter().map(|op| pb::Op::decode(&op[..]).unwrap()).collect()
}

#[test]
fn a_merge_is_copies_where_the_daemon_cannot_merge() {
    let states = [State::image("a"), State::image("b"), State::image("c")];
    let merged = merge(&states, Constraints::new().custom_name("together"));
    let without = merged.marshal(&linux().caps(Caps::new([cap::FILE_BASE]))).unwrap();
    let [.., copies, last] = &ops(&without)[..] else { panic!() };
    assert_eq!(copies.inputs.len(), 3);
    let Some(pb::op::Op::File(file)) = &copies.op else { panic!("{copies:?}") };
    let edges: Vec<_> = file.actions.iter().map(|a| (a.input, a.secondary_input, a.output)).collect();
    assert_eq!(edges, [(0, 1, -1), (3, 2, 0)], "b onto a, c onto that");
    let metadata = &without.metadata[&last.inputs[0].digest];
    assert!(metadata.caps.contains_key(cap::FILE_BASE) && !metadata.caps.contains_key(cap::MERGE_OP));
    assert_eq!(metadata.description["llb.customname"], "together");

    for caps in [None, Some(Caps::new([cap::MERGE_OP]))] {
        let ground = caps.into_iter().fold(linux(), Constraints::caps);
        let [.., op, _] = &ops(&merged.marshal(&ground).unwrap())[..] else { panic!() };
        assert!(matches!(op.op, Some(pb::op::Op::Merge(_))), "{op:?}");
    }
}

#[test]
fn a_diff_is_refused_where_the_daemon_cannot_diff() {
    let base = State::image("a");
    let changed = base.run(Run::args(["x"])).root();
    let error =
        diff(&base, &changed, Constraints::new()).marshal(&linux().caps(Caps::default())).unwrap_err();
    assert!(matches!(error, LlbError::Unsupported { cap: cap::DIFF_OP, .. }), "{error}");
    assert!(error.to_string().contains("diffop"), "{error}");
}

#[test]
fn a_long_chain_neither_overflows_the_stack_nor_is_walked_twice() {
    let mut state = State::image("a");
    for n in 0..20_000 {
        let twice = Mount::bind("/before", &state);
        state = state.run(Run::args([n.to_string()]).mount(twice)).root();
    }
    let definition = state.marshal(&linux()).unwrap();
    assert_eq!(definition.ops.len(), 20_002);
    let imported = State::from_definition(&definition).unwrap();
    drop(state);
    assert_eq!(imported.marshal(&linux()).unwrap(), definition);
}

#[test]
fn what_nests_without_end_is_refused() {
    let base = State::image("a");
    let mut chain = FileActions::new().rm(Remove::new("/x")).on(&base);
    for _ in 0..200 {
        chain = FileActions::new().copy(Copy::new(&chain, "/", "/")).on(&base);
    }
    let deep = base.file(FileActions::new().copy(Copy::new(&chain, "/", "/")), Constraints::new());
    assert!(matches!(deep.marshal(&linux()), Err(LlbError::TooDeep { .. })));

    let mut state = State::image("a");
    for n in 0..100 {
        let map = SourceMap::new(Some(&state), format!("file {n}"), "", "");
        state = State::source("docker-image://a", Default::default(), Constraints::new().location(&map, []));
    }
    assert!(matches!(state.marshal(&linux()), Err(LlbError::TooDeep { .. })));
}

#[test]
fn mistakes_are_told_with_their_words() {
    let base = State::image("a");
    let empty = base.file(FileActions::new(), Constraints::new());
    let unbuilt = Build::new().of(&State::scratch());
    for (state, words) in [
        (State::image("Not/Valid"), "\"Not/Valid\""),
        (State::image("a@sha256:12"), "sha256:12"),
        (base.run(Run::default()).root(), "Run::args"),
        (base.run(Run::args(["x"]).mount(Mount::tmpfs("/tmp", 0).from(&base))).root(), "/tmp"),
        (base.run(Run::args(["x"]).mount(Mount::tmpfs("/tmp", 0))).mount("/tmp").unwrap(), "a tmpfs"),
        (Git::new("https://h/%ff").state(), "UTF-8"),
        (empty, "empty"),
        (unbuilt, "nested build"),
    ] {
        let error = state.run(Run::args(["y"])).root().marshal(&linux()).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    for (line, within) in [("a 'b", "quoted"), ("a \"b", "quoted"), ("a \\", "escape"), ("\"\\", "escape")] {
        let error = Run::shell_words(line).err().unwrap().to_string();
        assert!(error.contains(within) && error.contains(&format!("{line:?}")), "{error}");
    }
    for bad in ["linux", "linux/", "/amd64", "linux/arm/v7/x", "linux/arm/"] {
        assert!(bad.parse::<Platform>().is_err(), "{bad}");
    }
    assert_eq!("Linux/aarch64".parse::<Platform>().unwrap(), Platform::new("linux", "arm64"));
}

#[test]
fn a_broken_definition_is_no_state_to_build_on() {
    let good = State::image("a").run(Run::args(["x"])).root().marshal(&linux()).unwrap();
    let change = |change: fn(&mut Definition)| {
        let mut broken = good.clone();
        change(&mut broken);
        State::from_definition(&broken).and_then(|state| state.marshal(&linux())).unwrap_err().to_string()
    };
    let lacks = change(|d| drop(d.ops.remove(0)));
    assert!(lacks.contains("lacks the operation"), "{lacks}");
    let metadata = change(|d| d.metadata.clear());
    assert!(metadata.contains("metadata"), "{metadata}");
    let end = change(|d| drop(d.ops.pop().and(d.ops.pop())));
    assert!(end.contains("names no result"), "{end}");
    let bytes = change(|d| d.ops.push(vec![0xff]));
    assert!(bytes.contains("cannot be read"), "{bytes}");
    let map = change(|d| {
        let location = pb::Location { source_index: 7, ranges: Vec::new() };
        let source = d.source.as_mut().unwrap();
        source.locations.values_mut().next().unwrap().locations.push(location);
    });
    assert!(map.contains("source map 7"), "{map}");
    assert!(Definition::from_bytes(b"\xff\xff").is_err());
}

#[test]
fn a_definition_passes_through_its_bytes() {
    let map = SourceMap::new(None, "Dockerfile", "Dockerfile", "FROM a");
    let at = Constraints::new().location(&map, []).ignore_cache().custom_name("b");
    let state = State::image("a").run(Run::args(["x"]).constraints(at)).root();
    let definition = state.marshal(&linux()).unwrap();
    assert_eq!(Definition::from_bytes(&definition.to_bytes()).unwrap(), definition);
    assert_eq!(definition.head().unwrap(), Some(definition.digests()[1].clone()));
    assert_eq!(State::scratch().marshal(&linux()).unwrap(), Definition::default());
    assert_eq!(Definition::default().head().unwrap(), None);
    assert!(State::from_definition(&Definition::default()).unwrap().is_scratch());
}

#[test]
fn a_state_stays_what_it_was() {
    let base = State::image("a").env("A", "1");
    let before = base.run(Run::args(["x"])).root().marshal(&linux()).unwrap();
    let _ = base.env("A", "2").dir("/else").user("u").run(Run::args(["y"]).env("B", "3"));
    assert_eq!(base.run(Run::args(["x"])).root().marshal(&linux()).unwrap(), before);
    assert_eq!((base.env_value("A"), base.current_dir()), (Some("1"), "/"));
    assert!(base.run(Run::args(["x"])).mount("/not/there").is_none());
}

#[test]
fn equal_operations_are_one() {
    let dir = |name: &str| FileActions::new().mkdir(MakeDir::new(name, 0o755));
    let one = State::image("a").file(dir("/x"), Constraints::new());
    let two = State::image("docker.io/library/a:latest").file(dir("/./x/"), Constraints::new());
    let definition = merge(&[one, two], Constraints::new()).marshal(&linux()).unwrap();
    assert_eq!(definition.ops.len(), 4, "image, directory, merge, end");
}

#[test]
fn a_local_source_is_nobody_elses_unless_told() {
    let local = Local::new("context").state();
    let ground = Constraints::new();
    assert_ne!(local.marshal(&ground).unwrap().ops, local.marshal(&ground).unwrap().ops);
    assert_eq!(local.marshal(&linux()).unwrap(), local.marshal(&linux()).unwrap());
}

/// Go's client lets the description of one operation into all that follow, once there is one on everything.
#[test]
fn a_description_stays_with_its_operation() {
    let named = |name: &str| Constraints::new().custom_name(name);
    let first = State::image("a").file(
        FileActions::new().mkfile(MakeFile::new("/f", 0o644, "x")),
        named("first").description("only", "here"),
    );
    let second = first.run(Run::args(["x"])).root();
    let definition = second.marshal(&linux().description("all", "yes")).unwrap();
    let digests = definition.digests();
    let said =
        |at: usize| definition.metadata[&digests[at]].description.clone().into_iter().collect::<Vec<_>>();
    let pair = |key: &str, text: &str| (key.to_owned(), text.to_owned());
    assert_eq!(said(0), [pair("all", "yes")]);
    assert_eq!(said(1), [pair("all", "yes"), pair("llb.customname", "first"), pair("only", "here")]);
    assert_eq!(said(2), [pair("all", "yes")]);
}
