-- All images of a build, as JSON; those of older rows are what image, digest and tags_json say.

ALTER TABLE builds ADD COLUMN images_json TEXT NOT NULL DEFAULT '[]';
