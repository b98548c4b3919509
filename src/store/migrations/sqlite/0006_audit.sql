-- The audit record: rows are added, never changed. Each row's hash covers the row before it, so that a change by other
-- means shows. Only retention removes rows, from the oldest on, and only when a row says so.

CREATE TABLE audit (
    seq            INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms          INTEGER NOT NULL,
    event          TEXT NOT NULL,
    user           TEXT,
    app            TEXT,
    request        TEXT,
    entry_json     TEXT NOT NULL,
    hash           TEXT NOT NULL,
    purged_through INTEGER
) STRICT;
CREATE INDEX audit_by_time ON audit (at_ms);
CREATE INDEX audit_by_user ON audit (user, seq) WHERE user IS NOT NULL;
CREATE INDEX audit_by_app ON audit (app, seq) WHERE app IS NOT NULL;
CREATE INDEX audit_by_request ON audit (request, seq) WHERE request IS NOT NULL;
CREATE INDEX audit_purges ON audit (purged_through) WHERE purged_through IS NOT NULL;

CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit record is not changed');
END;

-- INSERT OR REPLACE would remove a row without asking the trigger below
CREATE TRIGGER audit_is_not_replaced BEFORE INSERT ON audit
WHEN EXISTS (SELECT 1 FROM audit WHERE seq = NEW.seq)
BEGIN
    SELECT RAISE(ABORT, 'the audit record is not changed');
END;

CREATE TRIGGER audit_is_not_removed BEFORE DELETE ON audit
WHEN NOT EXISTS (SELECT 1 FROM audit WHERE purged_through >= OLD.seq AND seq > OLD.seq)
BEGIN
    SELECT RAISE(ABORT, 'the audit record is not removed');
END;
