//! References found and replaced in texts of all shapes; ko's own answer is a live test.

use super::*;

fn image(text: &str) -> String {
    format!("127.0.0.1:5000/shop/{}@sha256:{}", text.rsplit('/').next().unwrap(), "0".repeat(64))
}

fn resolved_with(text: &str, selector: Option<&str>) -> Result<String, ResolveError> {
    let selector = selector.map(|text| text.parse().unwrap());
    let manifest = Manifest::read("deploy/app.yaml", text, selector.as_ref())?;
    let images = manifest.references().iter().map(|found| (found.text.clone(), image(&found.text))).collect();
    manifest.written(&images)
}

fn resolved(text: &str) -> String {
    resolved_with(text, None).unwrap()
}

#[test]
fn references_are_replaced_where_they_stand_and_nothing_else_moves() {
    let (a, b) = ("ko://example.com/shop/cmd/a", "ko://example.com/shop/cmd/b");
    let text = format!(
        "# leading\nimage: {a}   # trailing\nlist: [ {a},'{b}' , \"{b}\"]\nnot: --x={a}\nkeys:\n    {a}:  1\n    ? {b}\n    : 2\n\
         anchor: &x {a}\nalias: *x\ntagged: !!str {a}\nother: !mine {a}\nmulti: |\n  some {a}\nfölded: \"ü\"\nlast:\n-   {b}\n"
    );
    let (image_a, image_b) = (image(a), image(b));
    let expected = format!(
        "# leading\nimage: {image_a}   # trailing\nlist: [ {image_a},'{image_b}' , \"{image_b}\"]\nnot: --x={a}\nkeys:\n    {image_a}:  1\n    ? {image_b}\n    : 2\n\
         anchor: &x {image_a}\nalias: *x\ntagged: !!str {image_a}\nother: !mine {a}\nmulti: |\n  some {a}\nfölded: \"ü\"\nlast:\n-   {image_b}\n---\n"
    );
    assert_eq!(resolved(&text), expected);
}

#[test]
fn a_block_of_text_that_is_a_reference_becomes_one_line() {
    let a = "ko://example.com/shop/cmd/a";
    let image = image(a);
    for (header, tail) in [("|", ""), (">", ""), ("|-", ""), (">+2", ""), ("|  # why | not", "  # why | not")]
    {
        let text = format!("spec:\n  \"a|\": {header}\n    {a}\n\n  next: 1\n");
        assert_eq!(
            resolved(&text),
            format!("spec:\n  \"a|\": \"{image}\"{tail}\n\n  next: 1\n---\n"),
            "{header}"
        );
    }
    assert_eq!(resolved(&format!("- |\n  {a}")), format!("- \"{image}\"\n---\n"));
}

#[test]
fn json_windows_lines_and_several_documents_are_kept_as_they_are() {
    let a = "ko://example.com/shop/cmd/a";
    let image = image(a);
    assert_eq!(resolved(&format!("{{\"image\": \"{a}\"}}")), format!("{{\"image\": \"{image}\"}}\n---\n"));
    assert_eq!(resolved(&format!("a: {a}\r\nb: 1\r\n")), format!("a: {image}\r\nb: 1\r\n---\n"));
    let many = format!("---\na: {a}\n...\n---\n# only a comment\n---\nb: '{a}'\n");
    assert_eq!(
        resolved(&many),
        format!("---\na: {image}\n...\n---\n# only a comment\n---\nb: '{image}'\n---\n")
    );
    assert_eq!(
        resolved("\u{feff}a: ko://x.y/z\n"),
        format!("\u{feff}a: {}\n---\n", super::tests::image("ko://x.y/z"))
    );
}

#[test]
fn an_image_that_is_no_plain_text_is_quoted() {
    let manifest = Manifest::read("a.yaml", "a: ko://x.y/z\nb: [ko://x.y/z]\n", None).unwrap();
    let images = BTreeMap::from([("ko://x.y/z".to_owned(), "[::1]:5000/z@sha256:0".to_owned())]);
    let expected = "a: \"[::1]:5000/z@sha256:0\"\nb: [\"[::1]:5000/z@sha256:0\"]\n---\n";
    assert_eq!(manifest.written(&images).unwrap(), expected);
}

#[test]
fn what_cannot_be_resolved_says_where_it_stands() {
    let error = |text: &str| resolved_with(text, None).unwrap_err().to_string();
    assert_eq!(
        error("a: 1\nb:\n  - ko://\n"),
        "deploy/app.yaml:3:5: \"ko://\" names no Go package: write ko:// and an import path"
    );
    assert!(error("a: 'ko://a b'\n").starts_with("deploy/app.yaml:1:4: "));
    assert!(error("a: [1\nb: 2\n").starts_with("deploy/app.yaml:"));
    assert!(error(&format!("a: {}", "x".repeat(LIMIT_BYTES))).contains("larger than 8388608 bytes"));
    let manifest = Manifest::read("a.yaml", "a: ko://x.y/z\n", None).unwrap();
    let error = manifest.written(&BTreeMap::new()).unwrap_err().to_string();
    assert_eq!(error, "a.yaml:1:4: no image was built for ko://x.y/z");
}

const OBJECTS: &str = "# head
apiVersion: v1
kind: Service
metadata: {labels: {app: web}}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  labels:
    app: api
image: ko://example.com/shop/cmd/api
--- # a list
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Pod
  metadata: {labels: {app: web}}
  image: ko://example.com/shop/cmd/web
# about the second
- apiVersion: v1
  kind: Pod
  metadata: {labels: {app: api}}
metadata: {}
---
";

#[test]
fn a_selector_leaves_the_objects_that_it_means() {
    let chosen = |selector| resolved_with(OBJECTS, Some(selector)).unwrap();
    let web = image("ko://example.com/shop/cmd/web");
    assert_eq!(
        chosen("app=web"),
        format!(
            "# head\napiVersion: v1\nkind: Service\nmetadata: {{labels: {{app: web}}}}\n--- # a list\napiVersion: v1\nkind: List\nitems:\n\
             - apiVersion: v1\n  kind: Pod\n  metadata: {{labels: {{app: web}}}}\n  image: {web}\n# about the second\nmetadata: {{}}\n---\n"
        )
    );
    // what is left out is not built either
    let manifest = Manifest::read("a.yaml", OBJECTS, Some(&"app=web".parse().unwrap())).unwrap();
    assert_eq!(manifest.references().len(), 1);
    assert_eq!(chosen("app=none"), "");
    assert!(chosen("app in (web,api)").contains("  metadata: {labels: {app: api}}\nmetadata: {}\n"));
    // a document without dashes of its own gets them where it would run on
    let bare = "apiVersion: v1\nkind: A\n...\napiVersion: v1\nkind: B\nmetadata: {labels: {x: y}}\n...\napiVersion: v1\nkind: C\n";
    assert_eq!(
        resolved_with(bare, Some("!x")).unwrap(),
        "apiVersion: v1\nkind: A\n...\n---\napiVersion: v1\nkind: C\n---\n"
    );
}

#[test]
fn a_selector_needs_objects() {
    let error = |text: &str| resolved_with(text, Some("a=b")).unwrap_err().to_string();
    assert!(error("---\nkind: Pod\n").contains("deploy/app.yaml:2: this is no Kubernetes object"));
    let list = "{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: A, metadata: {labels: {a: b}}}, {apiVersion: v1, kind: B}]}";
    assert!(error(list).contains("cannot narrow a List"));
    assert_eq!(resolved_with("# nothing\n", Some("a=b")).unwrap(), "");
}
