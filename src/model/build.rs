//! Build records.

use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::{
    AppName, Digest, Fingerprint, ImageName, Invalid, PublishedImage, PushOptions, RefName, RefUpdate, Sha,
    Tag, UserName, text_newtype,
};

/// A build's id: a UUID version 7 in its simple form (32 hexadecimal digits). A later id is greater, also where the clock
/// steps back: the order of ids is the order of builds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BuildId(String);
text_newtype!(BuildId);

/// The greatest id that was made or met.
static LAST: Mutex<u128> = Mutex::new(0);
/// The bits of a UUID below its 48 bits of milliseconds.
const BELOW_MS: u32 = 80;

impl BuildId {
    /// A new id, greater than all before: the one place that reads a clock for it.
    pub fn generate() -> Self {
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        let mut id = uuid::Uuid::now_v7().as_u128();
        if id <= *last {
            // the clock is behind: the random part as it is, in the millisecond after the last one
            let millisecond = ((*last >> BELOW_MS) + 1).min((1 << 48) - 1);
            id = (millisecond << BELOW_MS) | (id & ((1 << BELOW_MS) - 1));
        }
        *last = id;
        Self(uuid::Uuid::from_u128(id).simple().to_string())
    }
    /// Makes ids that are generated from now on greater than this one, which an earlier process made.
    pub fn precedes_all_new(&self) {
        let id = uuid::Uuid::try_parse(&self.0).ok().filter(|id| id.get_version_num() == 7);
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        *last = id.map_or(*last, |id| id.as_u128().max(*last));
    }
    /// The last 10 digits: what people see and may type; random, so clashes within a store are reported, not guessed.
    pub fn short(&self) -> &str {
        self.0.get(22..).unwrap_or(&self.0)
    }
}

impl FromStr for BuildId {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(Invalid::new("build id", text, "32 hexadecimal digits"))
        }
    }
}

/// Where a build stands: queued, then running, then exactly one of the others, for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BuildState {
    /// Waits: for a newer or older build of its ref, or for room.
    Queued,
    Running,
    Succeeded,
    Failed,
    /// Somebody ended it.
    Cancelled,
    /// A newer push of its ref took its place.
    Superseded,
    /// The server stopped before it ended.
    Interrupted,
}

impl BuildState {
    pub const ALL: [Self; 7] = [
        Self::Queued,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Superseded,
        Self::Interrupted,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
            Self::Interrupted => "interrupted",
        }
    }

    /// Whether it has not ended.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Queued | Self::Running)
    }
}

const STATE_RULE: &str = "queued, running, succeeded, failed, cancelled, superseded or interrupted";

impl FromStr for BuildState {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let found = Self::ALL.into_iter().find(|state| state.as_str() == text);
        found.ok_or_else(|| Invalid::new("build state", text, STATE_RULE))
    }
}

/// One build of one ref of one push, as recorded: also all that is needed to do it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    pub id: BuildId,
    pub app: AppName,
    pub user: UserName,
    pub reference: RefName,
    pub commit: Sha,
    pub state: BuildState,
    /// When it was asked for. Unix milliseconds, as all times here.
    pub started_at_ms: i64,
    /// When it got its place on a builder, the last time.
    pub running_at_ms: Option<i64>,
    pub finished_at_ms: Option<i64>,
    /// What was published, when it was; the first image of several.
    pub image: Option<ImageName>,
    pub digest: Option<Digest>,
    pub tags: Vec<Tag>,
    /// Everything that was published, in the order of the plan.
    #[serde(default)]
    pub images: Vec<PublishedImage>,
    /// The one-line reason, when it did not succeed.
    pub reason: Option<String>,
    /// The id of the push in logs; empty for builds of an old record.
    pub push: String,
    /// The key that signed the push; none where nobody's key did.
    pub key: Option<Fingerprint>,
    /// Where the ref stood when it was asked for; zeros for nowhere.
    pub old: Sha,
    /// Its end is nobody's answer: the ref has moved already (`-o detach`), or nobody waits (a retry).
    pub detached: bool,
    /// The ref's place in the order of its accepted moves; none as long as the ref has not moved for this build.
    pub generation: Option<i64>,
    pub options: PushOptions,
    /// The build that this one repeats.
    pub retry_of: Option<BuildId>,
    pub superseded_by: Option<BuildId>,
    /// Who cancelled it, by name.
    pub cancelled_by: Option<String>,
}

impl Build {
    /// A queued build of a push that nothing more is known of.
    pub fn queued(id: BuildId, app: AppName, user: UserName, reference: RefName, commit: Sha) -> Self {
        Self {
            id,
            app,
            user,
            reference,
            commit,
            state: BuildState::Queued,
            started_at_ms: 0,
            running_at_ms: None,
            finished_at_ms: None,
            image: None,
            digest: None,
            tags: Vec::new(),
            images: Vec::new(),
            reason: None,
            push: String::new(),
            key: None,
            old: Sha::zero(),
            detached: false,
            generation: None,
            options: PushOptions::default(),
            retry_of: None,
            superseded_by: None,
            cancelled_by: None,
        }
    }

    /// What its push asked of its ref.
    pub fn update(&self) -> RefUpdate {
        RefUpdate { name: self.reference.clone(), old: self.old.clone(), new: self.commit.clone() }
    }
}

/// Who does something to a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// As people know them: `ada`, `the operator`.
    pub name: String,
    /// None: nobody's key; what is begun in this way goes by the name of whoever was there before.
    pub user: Option<UserName>,
    pub key: Option<Fingerprint>,
}

impl Actor {
    /// Whoever reaches the server's own socket.
    pub fn operator() -> Self {
        Self { name: "the operator".to_owned(), user: None, key: None }
    }
    pub fn user(user: UserName, key: Fingerprint) -> Self {
        Self { name: user.to_string(), user: Some(user), key: Some(key) }
    }
}

/// A ref whose image does not stand at it: its newest accepted build has not succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behind {
    pub reference: RefName,
    /// Where the ref stands.
    pub commit: Sha,
    pub build: BuildId,
    pub state: BuildState,
    /// The commit whose image has the ref's tags; none when none was published yet.
    pub tags_at: Option<Sha>,
}

impl std::fmt::Display for Behind {
    /// `main at 0123456789ab: build 1234567890 failed, tags still at fedcba987654`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { reference, commit, build, state, tags_at } = self;
        let build = build.short();
        write!(f, "{} at {}: build {build} ", reference.short(), commit.short(12))?;
        match state {
            BuildState::Queued | BuildState::Running => write!(f, "is {}", state.as_str())?,
            BuildState::Cancelled | BuildState::Superseded | BuildState::Interrupted => {
                write!(f, "was {}", state.as_str())?;
            }
            BuildState::Failed | BuildState::Succeeded => f.write_str(state.as_str())?,
        }
        match tags_at {
            Some(at) => write!(f, ", tags still at {}", at.short(12)),
            None => f.write_str(", no tags yet"),
        }
    }
}
