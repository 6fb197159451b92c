-- name: add | register a folder under a name; a second time changes nothing
INSERT INTO repositories (name, path, listed) VALUES (%(name)s, %(path)s, %(listed)s) ON CONFLICT DO NOTHING

-- name: list_one | from now on forms and REST may name it
UPDATE repositories SET listed = true WHERE name = %(name)s

-- name: named | the repository of a name
SELECT name, path, listed FROM repositories WHERE name = %(name)s

-- name: find | a repository by its name or its path
SELECT name, path, listed FROM repositories WHERE name = %(word)s OR path = %(word)s ORDER BY (path = %(word)s) DESC LIMIT 1

-- name: every | all registered repositories
SELECT name, path, listed FROM repositories ORDER BY name

-- name: listed | the names that a form may use
SELECT name FROM repositories WHERE listed ORDER BY name
