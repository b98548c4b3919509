-- Kubernetes YAML that names a build's images. It goes with the build.

CREATE TABLE resolved (
    build_id TEXT PRIMARY KEY REFERENCES builds (id) ON DELETE CASCADE,
    yaml     TEXT NOT NULL
) STRICT, WITHOUT ROWID;
