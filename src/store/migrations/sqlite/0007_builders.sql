-- Builders that were added while the server ran, and which builders are drained. spec is null for those that flags or the
-- configuration file name.

CREATE TABLE builders (
    name          TEXT PRIMARY KEY,
    spec          TEXT,
    drained       INTEGER NOT NULL DEFAULT 0,
    changed_at_ms INTEGER NOT NULL
) STRICT;
