-- All images of a build, as JSON, in the place of the columns that held one. Of images of before no more is known than that.

ALTER TABLE builds ADD COLUMN images_json TEXT NOT NULL DEFAULT '[]';
UPDATE builds
SET images_json = json_array(json_object('name', image, 'digest', digest, 'form', NULL, 'media_type', NULL,
                                         'platforms', json('[]'), 'tags', json(tags_json)))
WHERE image IS NOT NULL AND digest IS NOT NULL;
ALTER TABLE builds DROP COLUMN image;
ALTER TABLE builds DROP COLUMN digest;
ALTER TABLE builds DROP COLUMN tags_json;
