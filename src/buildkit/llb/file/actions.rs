//! The single file actions and their options. Data only.

use lemnos_proto::pb;

use super::super::{State, path};
use super::BoundActions;

/// One action.
#[derive(Clone)]
pub(super) enum Action {
    Copy(Box<Copy>),
    MakeDir(MakeDir),
    MakeFile(MakeFile),
    Remove(Remove),
    Symlink(Symlink),
}

/// Who owns what an action makes. A name is looked up in the state that the action works on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owner {
    user: Option<Account>,
    group: Option<Account>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Account {
    Id(u32),
    Name(String),
}

impl Owner {
    pub fn ids(uid: u32, gid: u32) -> Self {
        Self { user: Some(Account::Id(uid)), group: Some(Account::Id(gid)) }
    }

    /// `user` or `user:group`, each a name or a number.
    pub fn parse(text: &str) -> Self {
        let (user, group) = match text.split_once(':') {
            None => (text, None),
            Some((user, group)) => (user, Some(group)),
        };
        Self { user: Some(Account::parse(user)), group: group.map(Account::parse) }
    }

    fn message(&self) -> pb::ChownOpt {
        let account = |account: &Account| pb::UserOpt { user: Some(account.message()) };
        pb::ChownOpt { user: self.user.as_ref().map(account), group: self.group.as_ref().map(account) }
    }
}

impl Account {
    fn parse(text: &str) -> Self {
        match (text, text.parse::<i32>()) {
            ("root" | "", _) => Self::Id(0),
            (_, Ok(id)) => Self::Id(id.cast_unsigned()),
            (name, Err(_)) => Self::Name(name.into()),
        }
    }

    fn message(&self) -> pb::user_opt::User {
        match self {
            Self::Id(id) => pb::user_opt::User::ById(*id),
            // the input becomes known with the operation's others
            Self::Name(name) => {
                pb::user_opt::User::ByName(pb::NamedUserOpt { name: name.clone(), input: -1 })
            }
        }
    }
}

fn owner(owner: Option<&Owner>) -> Option<pb::ChownOpt> {
    owner.map(Owner::message)
}

/// Nanoseconds since 1970; the time of the build where there is none.
fn timestamp(nanoseconds: Option<i64>) -> i64 {
    nanoseconds.unwrap_or(-1)
}

/// The low nine bits.
fn permissions(mode: u32) -> i32 {
    (mode & 0o777).cast_signed()
}

/// Makes a directory.
#[derive(Debug, Clone)]
#[must_use]
pub struct MakeDir {
    path: String,
    mode: u32,
    parents: bool,
    owner: Option<Owner>,
    created: Option<i64>,
}

impl MakeDir {
    pub fn new(path: impl Into<String>, mode: u32) -> Self {
        Self { path: path.into(), mode, parents: false, owner: None, created: None }
    }

    pub fn parents(mut self) -> Self {
        self.parents = true;
        self
    }

    pub fn owner(mut self, owner: Owner) -> Self {
        self.owner = Some(owner);
        self
    }

    /// In nanoseconds since 1970.
    pub fn created(mut self, nanoseconds: i64) -> Self {
        self.created = Some(nanoseconds);
        self
    }
}

/// Makes a file.
#[derive(Debug, Clone)]
#[must_use]
pub struct MakeFile {
    path: String,
    mode: u32,
    data: Vec<u8>,
    owner: Option<Owner>,
    created: Option<i64>,
}

impl MakeFile {
    pub fn new(path: impl Into<String>, mode: u32, data: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), mode, data: data.into(), owner: None, created: None }
    }

    pub fn owner(mut self, owner: Owner) -> Self {
        self.owner = Some(owner);
        self
    }

    /// In nanoseconds since 1970.
    pub fn created(mut self, nanoseconds: i64) -> Self {
        self.created = Some(nanoseconds);
        self
    }
}

/// Makes a symbolic link at one path to another, both taken as they are written.
#[derive(Debug, Clone)]
#[must_use]
pub struct Symlink {
    old: String,
    new: String,
    owner: Option<Owner>,
    created: Option<i64>,
}

impl Symlink {
    /// At `new`, pointing to `old`.
    pub fn new(old: impl Into<String>, new: impl Into<String>) -> Self {
        Self { old: old.into(), new: new.into(), owner: None, created: None }
    }

    pub fn owner(mut self, owner: Owner) -> Self {
        self.owner = Some(owner);
        self
    }

    /// In nanoseconds since 1970.
    pub fn created(mut self, nanoseconds: i64) -> Self {
        self.created = Some(nanoseconds);
        self
    }
}

/// Removes a file or a directory.
#[derive(Debug, Clone)]
#[must_use]
pub struct Remove {
    path: String,
    allow_not_found: bool,
    wildcard: bool,
}

impl Remove {
    pub fn new(path: impl Into<String>) -> Self {
        Self { path: path.into(), allow_not_found: false, wildcard: false }
    }

    pub fn allow_not_found(mut self) -> Self {
        self.allow_not_found = true;
        self
    }

    /// The path may hold `*`, `?` and `[…]`.
    pub fn wildcard(mut self) -> Self {
        self.wildcard = true;
        self
    }
}

/// Where a copy is from.
#[derive(Clone)]
pub enum CopyFrom {
    State(State),
    Actions(BoundActions),
}

impl From<&State> for CopyFrom {
    fn from(state: &State) -> Self {
        Self::State(state.clone())
    }
}

impl From<&BoundActions> for CopyFrom {
    fn from(actions: &BoundActions) -> Self {
        Self::Actions(actions.clone())
    }
}

/// The mode of what is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    Bits(u32),
    /// As chmod takes it: `u=rw,go=r`.
    Text(String),
}

/// Copies files.
#[derive(Clone)]
#[must_use]
pub struct Copy {
    pub(super) from: CopyFrom,
    source: String,
    target: String,
    message: pb::FileActionCopy,
    mode: Option<Mode>,
    owner: Option<Owner>,
    created: Option<i64>,
}

impl Copy {
    /// `source` within `from`, to `target` within the state that is worked on. A target that ends in `/` is a directory.
    pub fn new(from: impl Into<CopyFrom>, source: impl Into<String>, target: impl Into<String>) -> Self {
        Self {
            from: from.into(),
            source: source.into(),
            target: target.into(),
            message: pb::FileActionCopy::default(),
            mode: None,
            owner: None,
            created: None,
        }
    }

    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = Some(mode);
        self
    }

    pub fn owner(mut self, owner: Owner) -> Self {
        self.owner = Some(owner);
        self
    }

    /// In nanoseconds since 1970.
    pub fn created(mut self, nanoseconds: i64) -> Self {
        self.created = Some(nanoseconds);
        self
    }

    /// What links in the source lead to, in place of the links.
    pub fn follow_symlinks(mut self) -> Self {
        self.message.follow_symlink = true;
        self
    }

    /// What is in a directory, without the directory.
    pub fn contents_only(mut self) -> Self {
        self.message.dir_copy_contents = true;
        self
    }

    /// An archive is unpacked.
    pub fn unpack(mut self) -> Self {
        self.message.attempt_unpack_docker_compatibility = true;
        self
    }

    /// Directories on the way to the target are made.
    pub fn create_target_path(mut self) -> Self {
        self.message.create_dest_path = true;
        self
    }

    /// The source may hold `*`, `?` and `[…]`.
    pub fn wildcard(mut self) -> Self {
        self.message.allow_wildcard = true;
        self
    }

    /// A pattern that nothing matches is no failure.
    pub fn empty_wildcard(mut self) -> Self {
        self.message.allow_empty_wildcard = true;
        self
    }

    pub fn include_patterns<P: Into<String>>(mut self, patterns: impl IntoIterator<Item = P>) -> Self {
        self.message.include_patterns.extend(patterns.into_iter().map(Into::into));
        self
    }

    pub fn exclude_patterns<P: Into<String>>(mut self, patterns: impl IntoIterator<Item = P>) -> Self {
        self.message.exclude_patterns.extend(patterns.into_iter().map(Into::into));
        self
    }

    /// Paths that must be among what the include patterns choose.
    pub fn required_paths<P: Into<String>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        self.message.required_paths.extend(paths.into_iter().map(Into::into));
        self
    }

    /// A directory in a file's place, or the other way round, is replaced.
    pub fn replace_existing(mut self) -> Self {
        self.message.always_replace_existing_dest_paths = true;
        self
    }

    fn message(&self, parent: &str) -> pb::FileActionCopy {
        let source = path::clean(&self.source);
        let dir = match &self.from {
            _ if path::is_absolute(&source) => "/",
            CopyFrom::State(state) => state.current_dir(),
            CopyFrom::Actions(actions) => actions.0.state.current_dir(),
        };
        let (mode, mode_str) = match &self.mode {
            None => (-1, String::new()),
            Some(Mode::Bits(bits)) => (bits.cast_signed(), String::new()),
            Some(Mode::Text(text)) => (0, text.clone()),
        };
        pb::FileActionCopy {
            src: path::join(&[dir, &source]),
            dest: path::within(parent, &self.target, true),
            owner: owner(self.owner.as_ref()),
            timestamp: timestamp(self.created),
            mode,
            mode_str,
            ..self.message.clone()
        }
    }
}

impl Action {
    /// Within the directory `parent`.
    pub(super) fn message(&self, parent: &str) -> pb::file_action::Action {
        use pb::file_action::Action as Message;
        match self {
            Self::Copy(copy) => Message::Copy(copy.message(parent)),
            Self::MakeDir(dir) => Message::Mkdir(pb::FileActionMkDir {
                path: path::within(parent, &dir.path, false),
                mode: permissions(dir.mode),
                make_parents: dir.parents,
                owner: owner(dir.owner.as_ref()),
                timestamp: timestamp(dir.created),
            }),
            Self::MakeFile(file) => Message::Mkfile(pb::FileActionMkFile {
                path: path::within(parent, &file.path, false),
                mode: permissions(file.mode),
                data: file.data.clone(),
                owner: owner(file.owner.as_ref()),
                timestamp: timestamp(file.created),
            }),
            Self::Remove(remove) => Message::Rm(pb::FileActionRm {
                path: path::within(parent, &remove.path, false),
                allow_not_found: remove.allow_not_found,
                allow_wildcard: remove.wildcard,
            }),
            Self::Symlink(link) => Message::Symlink(pb::FileActionSymlink {
                oldpath: link.old.clone(),
                newpath: link.new.clone(),
                owner: owner(link.owner.as_ref()),
                timestamp: timestamp(link.created),
            }),
        }
    }
}
