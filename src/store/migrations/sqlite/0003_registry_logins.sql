-- Credentials for registries, sealed with the key file beside this database. app_id is null for those of all apps.

CREATE TABLE registry_logins (
    id          INTEGER PRIMARY KEY,
    app_id      TEXT REFERENCES apps (id) ON DELETE CASCADE,
    place       TEXT NOT NULL,
    username    TEXT NOT NULL,
    sealed      BLOB NOT NULL,
    added_at_ms INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX registry_logins_by_place ON registry_logins (coalesce(app_id, ''), place);
