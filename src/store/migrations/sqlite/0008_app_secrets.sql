-- What an app's builds may mount, sealed with the key file beside this database. bytes is the value's length, so that all of
-- an app together can be bounded without the key.

CREATE TABLE app_secrets (
    app_id      TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    name        TEXT NOT NULL,
    used_as     TEXT NOT NULL,
    sealed      BLOB NOT NULL,
    bytes       INTEGER NOT NULL,
    added_at_ms INTEGER NOT NULL,
    PRIMARY KEY (app_id, name)
) STRICT, WITHOUT ROWID;
