-- Roles of users, access levels of grants, and keys that belong to an app in place of a user.
-- What was granted before could push; whoever had a key was what is a member now.

ALTER TABLE users ADD COLUMN role TEXT NOT NULL DEFAULT 'member' CHECK (role IN ('admin', 'member'));
ALTER TABLE grants ADD COLUMN access TEXT NOT NULL DEFAULT 'write' CHECK (access IN ('read', 'write'));

-- One table for both kinds of keys: a fingerprint is a user's or an app's, never both.
CREATE TABLE keys_of_both (
    fingerprint TEXT PRIMARY KEY,
    user        TEXT REFERENCES users (name) ON DELETE CASCADE,
    app_id      TEXT REFERENCES apps (id) ON DELETE CASCADE,
    access      TEXT CHECK (access IN ('read', 'write')),
    public_key  TEXT NOT NULL,
    comment     TEXT NOT NULL,
    added_at_ms INTEGER NOT NULL,
    CHECK ((user IS NULL) != (app_id IS NULL)),
    CHECK ((app_id IS NULL) = (access IS NULL))
) STRICT, WITHOUT ROWID;
INSERT INTO keys_of_both (fingerprint, user, public_key, comment, added_at_ms)
    SELECT fingerprint, user, public_key, comment, added_at_ms FROM keys;
DROP TABLE keys;
ALTER TABLE keys_of_both RENAME TO keys;
CREATE INDEX keys_by_user ON keys (user);
CREATE INDEX keys_by_app ON keys (app_id);
CREATE INDEX grants_by_user ON grants (user);
