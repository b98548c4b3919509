//! The language in which a graph is described to both builders.
//!
//! tests/oracle/llb/language.go says what the fields mean. What is absent, empty, false or zero is not said.

use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Description {
    pub name: String,
    pub steps: Vec<Step>,
    pub marshal: Option<Limits>,
    #[serde(skip_serializing)]
    pub want: Option<Value>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Step {
    pub op: String,
    pub on: usize,
    #[serde(rename = "in")]
    pub inputs: Vec<usize>,
    pub out: Vec<bool>,
    pub c: Option<Limits>,
    pub set: Vec<Vec<String>>,
    pub actions: Vec<Action>,
    pub id: String,
    pub attrs: Vec<(String, String)>,
    #[serde(rename = "ref")]
    pub reference: String,
    pub url: String,
    pub fragment: String,
    pub mode: String,
    pub record: String,
    pub layers: i64,
    pub checksum: String,
    pub subdir: String,
    pub flags: Vec<String>,
    pub token: Option<String>,
    pub header: Option<String>,
    pub hosts: Vec<String>,
    pub socket: String,
    pub mtime: String,
    pub bundle: String,
    pub session: String,
    pub store: String,
    pub filename: String,
    pub chmod: u32,
    pub uid: i64,
    pub gid: i64,
    pub headers: Vec<String>,
    pub signed: Vec<String>,
    pub include: Vec<String>,
    pub exclude: Vec<String>,
    pub follow: Vec<String>,
    pub hint: String,
    pub differ: String,
    pub except: Vec<String>,
    pub config: String,
    pub args: Vec<String>,
    pub shell: String,
    pub mounts: Vec<MountAt>,
    pub secrets: Vec<SecretAt>,
    pub ssh: Vec<SecretAt>,
    pub devices: Vec<Vec<String>>,
    pub codes: Vec<i32>,
    pub proxy: Vec<String>,
    pub target: String,
    pub lang: String,
    pub data: String,
}

/// The language's constraints.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    pub platform: Option<On>,
    pub require: Vec<String>,
    pub flags: Vec<String>,
    pub desc: Vec<(String, String)>,
    pub name: String,
    pub export: String,
    pub unique: String,
    pub group: Vec<String>,
    pub limits: Vec<i64>,
    pub cpus: Vec<String>,
    pub loc: Vec<Lines>,
    pub caps: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct On {
    pub os: String,
    pub arch: String,
    pub variant: String,
    pub version: String,
    pub features: Vec<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lines {
    pub map: usize,
    pub ranges: Vec<[i32; 4]>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MountAt {
    pub kind: String,
    pub target: String,
    pub from: usize,
    pub path: String,
    pub flags: Vec<String>,
    pub id: String,
    pub sharing: String,
    pub size: i64,
    pub content: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecretAt {
    pub id: String,
    pub target: String,
    pub env: String,
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    pub flags: Vec<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Action {
    pub kind: String,
    pub from: usize,
    pub path: String,
    pub to: String,
    pub mode: u32,
    pub mode_text: String,
    pub data: String,
    pub owner: String,
    pub ids: Vec<u32>,
    pub created: String,
    pub flags: Vec<String>,
    pub include: Vec<String>,
    pub exclude: Vec<String>,
    pub required: Vec<String>,
}

impl Description {
    /// One line of JSON, with nothing in it that is not said.
    pub fn line(&self) -> String {
        let mut value = serde_json::to_value(self).unwrap();
        prune(&mut value);
        value.to_string()
    }
}

/// Fields only: what is in a list is said, be it empty.
fn prune(value: &mut Value) {
    let nothing = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_i64() == Some(0),
        Value::Array(list) => list.is_empty(),
        Value::Bool(true) | Value::Object(_) => false,
    };
    match value {
        Value::Object(fields) => {
            // an empty secret name is said: it turns the default off
            fields.retain(|name, value| {
                !nothing(value) || (name == "token" || name == "header") && value.is_string()
            });
            fields.values_mut().for_each(prune);
        }
        Value::Array(list) => list.iter_mut().for_each(prune),
        _ => {}
    }
}
