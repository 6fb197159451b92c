-- name: insert_plan | a plan of a goal; the same revision once
INSERT INTO plans (goal, revision, sha256, document) VALUES (%(goal)s, %(revision)s, %(sha256)s, %(document)s)
ON CONFLICT (goal, revision) DO NOTHING

-- name: newest_plan | the plan that a new run follows
SELECT seq, revision, sha256 FROM plans WHERE goal = %(goal)s ORDER BY seq DESC LIMIT 1
