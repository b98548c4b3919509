-- Names that are not the apps' own and that apps push to: each is one app's, so that no two apps share a tag.

CREATE TABLE destinations (
    image  TEXT PRIMARY KEY,
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX destinations_by_app ON destinations (app_id);
