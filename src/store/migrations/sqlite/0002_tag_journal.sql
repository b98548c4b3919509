-- The commit point of a push, while it is being passed: a row stands from before the first tag moves until ref and tags agree.
-- forward = 1: it was decided that ref and tags go to the new values; else what stands in the registry decides.
-- refs_done = 1: the refs have moved, only tags are owed.

CREATE TABLE tag_journal (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    app_id       TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    forward      INTEGER NOT NULL DEFAULT 0 CHECK (forward IN (0, 1)),
    refs_done    INTEGER NOT NULL DEFAULT 0 CHECK (refs_done IN (0, 1)),
    moves_json   TEXT NOT NULL,
    opened_at_ms INTEGER NOT NULL
) STRICT;

-- The tags that an entry still owes. A later publication that moves the same tag takes the row away.
CREATE TABLE tag_journal_owed (
    journal_id INTEGER NOT NULL REFERENCES tag_journal (id) ON DELETE CASCADE,
    image      TEXT NOT NULL,
    tag        TEXT NOT NULL,
    PRIMARY KEY (journal_id, image, tag)
) STRICT, WITHOUT ROWID;
CREATE INDEX tag_journal_owed_by_tag ON tag_journal_owed (image, tag);
