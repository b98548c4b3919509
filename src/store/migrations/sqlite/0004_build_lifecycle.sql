-- Builds live from being queued to one end, and know what it takes to do them again. SQLite cannot change a CHECK, and events
-- refer to builds, so that both are made anew; what a state may be is the model's to say.

CREATE TABLE builds_new (
    id             TEXT PRIMARY KEY,
    app_id         TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    user           TEXT NOT NULL,
    reference      TEXT NOT NULL,
    commit_sha     TEXT NOT NULL,
    state          TEXT NOT NULL,
    started_at_ms  INTEGER NOT NULL,
    running_at_ms  INTEGER,
    finished_at_ms INTEGER,
    image          TEXT,
    digest         TEXT,
    tags_json      TEXT NOT NULL,
    reason         TEXT,
    push           TEXT NOT NULL,
    key            TEXT,
    old_sha        TEXT NOT NULL,
    detached       INTEGER NOT NULL CHECK (detached IN (0, 1)),
    generation     INTEGER,
    options_json   TEXT NOT NULL,
    retry_of       TEXT,
    superseded_by  TEXT,
    cancelled_by   TEXT
) STRICT, WITHOUT ROWID;
INSERT INTO builds_new
SELECT id, app_id, user, reference, commit_sha, state, started_at_ms, started_at_ms, finished_at_ms, image, digest, tags_json,
       reason, '', NULL, '0000000000000000000000000000000000000000', 0, NULL, '{}', NULL, NULL, NULL
FROM builds;

CREATE TABLE events_new (
    build_id   TEXT NOT NULL REFERENCES builds_new (id) ON DELETE CASCADE,
    seq        INTEGER NOT NULL,
    at_ms      INTEGER NOT NULL,
    event_json TEXT NOT NULL,
    PRIMARY KEY (build_id, seq)
) STRICT, WITHOUT ROWID;
INSERT INTO events_new SELECT build_id, seq, at_ms, event_json FROM events;

DROP TABLE events;
DROP TABLE builds;
-- references to a table follow its name
ALTER TABLE builds_new RENAME TO builds;
ALTER TABLE events_new RENAME TO events;
CREATE INDEX builds_by_app ON builds (app_id, id);
CREATE INDEX builds_live ON builds (id) WHERE state IN ('queued', 'running');

-- The accepted moves of each ref are counted. Shared tags stand at what `published` built, and go to a greater generation only.
CREATE TABLE ref_generations (
    app_id           TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    reference        TEXT NOT NULL,
    accepted         INTEGER NOT NULL,
    published        INTEGER NOT NULL DEFAULT 0,
    published_build  TEXT,
    published_commit TEXT,
    PRIMARY KEY (app_id, reference)
) STRICT, WITHOUT ROWID;
