//! The graph in graphviz's language.

use lemnos_proto::pb;
use pb::op::Op as Member;

use super::super::definition::{decode, digest};
use super::super::{Definition, LlbError, quote};

pub(in super::super) fn dot(definition: &Definition) -> Result<String, LlbError> {
    let ops = definition
        .ops
        .iter()
        .map(|bytes| Ok((digest(bytes), decode(bytes)?)))
        .collect::<Result<Vec<_>, LlbError>>()?;
    let mut out = String::from("digraph {\n");
    for (digest, op) in &ops {
        let (name, shape) = label(digest, op);
        let line = format!("  {} [label={} shape=\"{shape}\"];\n", quote::go(digest), quote::go(&name));
        out.push_str(&line);
    }
    for (digest, op) in &ops {
        for (at, input) in op.inputs.iter().enumerate() {
            let label = mounted_at(op, at);
            let (from, to) = (quote::go(&input.digest), quote::go(digest));
            out.push_str(&format!("  {from} -> {to} [label={}];\n", quote::go(label)));
        }
    }
    out.push_str("}\n");
    Ok(out)
}

fn mounted_at(op: &pb::Op, input: usize) -> &str {
    let Some(Member::Exec(exec)) = &op.op else { return "" };
    let mut mounts = exec.mounts.iter().filter(|mount| usize::try_from(mount.input) == Ok(input));
    mounts.rfind(|mount| mount.dest != "/").map_or("", |mount| mount.dest.as_str())
}

fn label(digest: &str, op: &pb::Op) -> (String, &'static str) {
    match &op.op {
        Some(Member::Source(source)) => (source.identifier.clone(), "ellipse"),
        Some(Member::Exec(exec)) => {
            (exec.meta.as_ref().map(|meta| meta.args.join(" ")).unwrap_or_default(), "box")
        }
        Some(Member::Build(_)) => ("build".into(), "box3d"),
        Some(Member::Merge(_)) => ("merge".into(), "invtriangle"),
        Some(Member::Diff(_)) => ("diff".into(), "doublecircle"),
        Some(Member::File(file)) => (file.actions.iter().map(action).collect::<Vec<_>>().join(","), "note"),
        Some(Member::Passthrough(_)) | None => (digest.into(), "plaintext"),
    }
}

fn action(action: &pb::FileAction) -> String {
    use pb::file_action::Action;
    match &action.action {
        Some(Action::Copy(copy)) => format!("copy{{src={}, dest={}}}", copy.src, copy.dest),
        Some(Action::Mkfile(file)) => format!("mkfile{{path={}}}", file.path),
        Some(Action::Mkdir(dir)) => format!("mkdir{{path={}}}", dir.path),
        Some(Action::Rm(remove)) => format!("rm{{path={}}}", remove.path),
        Some(Action::Symlink(link)) => {
            format!("symlink{{oldpath={}, newpath={}}}", link.oldpath, link.newpath)
        }
        None => String::new(),
    }
}
