-- Users, keys, apps, grants; builds and their events; the context ledger; published indexes; tag claims.
-- Text columns hold the newtypes of src/model in their display form; times are Unix milliseconds.

CREATE TABLE users (
    name          TEXT PRIMARY KEY,
    created_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE keys (
    fingerprint TEXT PRIMARY KEY,
    user        TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    public_key  TEXT NOT NULL,
    comment     TEXT NOT NULL,
    added_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX keys_by_user ON keys (user);

CREATE TABLE apps (
    id            TEXT PRIMARY KEY,
    name          TEXT NOT NULL UNIQUE,
    settings_json TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE grants (
    app_id        TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    user          TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    granted_at_ms INTEGER NOT NULL,
    PRIMARY KEY (app_id, user)
) STRICT, WITHOUT ROWID;

-- An id is a UUID version 7, so the primary key is also the order of time.
CREATE TABLE builds (
    id             TEXT PRIMARY KEY,
    app_id         TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    user           TEXT NOT NULL,
    reference      TEXT NOT NULL,
    commit_sha     TEXT NOT NULL,
    state          TEXT NOT NULL CHECK (state IN ('running', 'succeeded', 'failed', 'interrupted')),
    started_at_ms  INTEGER NOT NULL,
    finished_at_ms INTEGER,
    image          TEXT,
    digest         TEXT,
    tags_json      TEXT NOT NULL,
    reason         TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX builds_by_app ON builds (app_id, id);
CREATE INDEX builds_running ON builds (id) WHERE state = 'running';

CREATE TABLE events (
    build_id   TEXT NOT NULL REFERENCES builds (id) ON DELETE CASCADE,
    seq        INTEGER NOT NULL,
    at_ms      INTEGER NOT NULL,
    event_json TEXT NOT NULL,
    PRIMARY KEY (build_id, seq)
) STRICT, WITHOUT ROWID;

-- Keys begin with the app's id and a slash, so that an app's entries go with it.
CREATE TABLE ledger (
    key           TEXT PRIMARY KEY,
    content       BLOB NOT NULL,
    updated_at_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE published (
    fingerprint     TEXT PRIMARY KEY,
    image           TEXT NOT NULL,
    commit_sha      TEXT NOT NULL,
    children_json   TEXT NOT NULL,
    published_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX published_by_image ON published (image);

CREATE TABLE tag_claims (
    app_id    TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    image     TEXT NOT NULL,
    tag       TEXT NOT NULL,
    reference TEXT NOT NULL,
    PRIMARY KEY (app_id, image, tag)
) STRICT, WITHOUT ROWID;
CREATE INDEX tag_claims_by_reference ON tag_claims (app_id, reference);
