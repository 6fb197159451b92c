-- name: record | append an entry; it is chained when the transaction commits
INSERT INTO audit_log (actor, action, subject, detail) VALUES (%(actor)s, %(action)s, %(subject)s, %(detail)s)

-- name: links | the whole chain, as its hashes cover it
SELECT position, previous, hash, id::text, (extract(epoch FROM at) * 1000000)::bigint AS at_micros, actor, action, subject, detail::text AS detail
FROM audit_log ORDER BY position NULLS LAST

-- name: newest | the newest entries, the last first
SELECT position, at, actor, action, subject, detail, hash FROM audit_log ORDER BY position DESC NULLS FIRST LIMIT %(limit)s

-- name: names_in_airflow | what names a goal run and its submission in Airflow
SELECT r.dag_id, r.run_id, g.idempotency_key AS key FROM goal_runs r JOIN goals g ON g.id = r.goal WHERE r.id = %(run)s
