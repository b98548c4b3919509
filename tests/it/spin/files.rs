//! Which files a component sees.

use lemnos::kinds::spin::{SpinConfig, mounted_files};
use lemnos::model::EntryKind;
use lemnos::model::tree::MemoryTree;

use super::{plan_of, said, tree};

const FILES: [&str; 9] = [
    "a.wasm",
    "static/index.html",
    "static/.hidden",
    "static/img/logo.png",
    "static/img/logo.psd",
    "static/img/big/x.png",
    "README.md",
    "docs/a[1].md",
    "docs/b.md",
];

fn manifest(lines: &str) -> String {
    format!(
        "spin_manifest_version = 2\napplication.name = \"x\"\ntrigger.http = [{{ component = \"a\" }}]\n[component.a]\nsource = \"a.wasm\"\n{lines}\n"
    )
}

fn listed(tree: &MemoryTree) -> String {
    match plan_of(tree, &SpinConfig::default()) {
        Err(error) => said(&error),
        Ok((plan, notes)) => {
            let files = mounted_files(tree, "", &plan.app.components[0]).unwrap();
            let mut lines: Vec<String> = files
                .iter()
                .map(|file| {
                    if file.path == file.source {
                        format!("/{}", file.path)
                    } else {
                        format!("/{} <- {}", file.path, file.source)
                    }
                })
                .collect();
            lines.extend(notes.iter().map(|note| format!("note: {note}")));
            lines.push(format!("wanted: {:?}", plan.wanted.places));
            lines.join("\n")
        }
    }
}

#[test]
fn files_are_found_as_spin_finds_them() {
    let said: Vec<String> = [
        r#"files = ["static/*"]"#,
        r#"files = ["static/**/*.png", "README.md"]"#,
        r#"files = ["static/**"]"#,
        r#"files = ["static"]"#,
        r#"files = ["./static/img/"]"#,
        r#"files = ["static/img/*/"]"#,
        r#"files = ["*"]"#,
        r#"files = ["docs/a[1].md"]"#,
        r#"files = ["docs/[ab].md"]"#,
        r#"files = [{ source = "static", destination = "/" }]"#,
        r#"files = [{ source = "static/img", destination = "/pictures/of/it" }]"#,
        r#"files = [{ source = "README.md", destination = "read.me" }]"#,
        r#"files = [{ source = ".", destination = "/all" }]
exclude_files = ["docs/*", "*.p*", "spin.toml"]"#,
        r#"files = ["static/img/logo.psd", "static/**/*"]
exclude_files = ["*.psd", "static/img/big/*"]"#,
        r#"files = ["static/**/*", "static/img/*"]"#,
        r#"files = ["static/index.html", { source = "docs/b.md", destination = "static/index.html" }]"#,
        r#"files = [{ source = "docs/b.md", destination = "static" }, "static/*"]"#,
    ]
    .iter()
    .map(|lines| format!("{lines}\n{}", listed(&tree(&manifest(lines), &FILES))))
    .collect();
    insta::assert_snapshot!(said.join("\n\n"));
}

#[test]
fn links_and_submodules_are_refused_where_they_would_be_mounted() {
    let with = |lines: &str| {
        let tree = tree(&manifest(lines), &FILES)
            .with_kind("static/link", EntryKind::Symlink, "../../etc/passwd")
            .with_kind("static/sub", EntryKind::Submodule, "");
        listed(&tree)
    };
    assert!(with("files = [\"static/*\"]").contains("static/link is a symbolic link"));
    assert!(
        with("files = [\"static/link\"]\nexclude_files = [\"*link\"]").contains("is a symbolic link"),
        "named, so not excluded"
    );
    assert!(
        with("files = [\"static/*\"]\nexclude_files = [\"*link\"]").contains("static/sub is a submodule")
    );
    assert!(
        with("files = [\"static/*\"]\nexclude_files = [\"static/link\", \"static/sub\"]")
            .starts_with("/static/.hidden")
    );
}

#[test]
fn an_application_below_the_root_has_its_own_paths() {
    let tree = MemoryTree::default()
        .with("web/spin.toml", &manifest("files = [\"static/*\"]"))
        .with("web/a.wasm", "")
        .with("web/static/x", "")
        .with("static/y", "");
    let place = lemnos::kinds::spin::find(&tree, "web").unwrap().unwrap();
    let rules = lemnos::model::SourceRules::default();
    let (plan, _) = lemnos::kinds::spin::plan(&tree, &place, &SpinConfig::default(), &rules).unwrap();
    let files = mounted_files(&tree, &plan.root, &plan.app.components[0]).unwrap();
    assert_eq!(files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["static/x"]);
}
