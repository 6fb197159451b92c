-- name: record | append an entry; it is chained when the transaction commits
INSERT INTO audit_log (actor, action, subject, detail) VALUES (%(actor)s, %(action)s, %(subject)s, %(detail)s)

-- name: links | the whole chain, as its hashes cover it
SELECT position, previous, hash, id::text, (extract(epoch FROM at) * 1000000)::bigint AS at_micros, actor, action, subject, detail::text AS detail
FROM audit_log ORDER BY position NULLS LAST

-- name: newest | the newest entries, the last first
SELECT position, at, actor, action, subject, detail, hash FROM audit_log ORDER BY position DESC NULLS FIRST LIMIT %(limit)s

-- name: names_in_airflow | what names a goal run and its submission in Airflow
SELECT r.dag_id, r.run_id, g.idempotency_key AS key FROM goal_runs r JOIN goals g ON g.id = r.goal WHERE r.id = %(run)s

-- name: record_many | entries of one transaction, in this order
INSERT INTO audit_log (actor, action, subject, detail)
SELECT actor, action, subject, detail::jsonb
FROM unnest(%(actors)b::text[], %(actions)b::text[], %(subjects)b::text[], %(details)b::text[])
  WITH ORDINALITY AS w(actor, action, subject, detail, place) ORDER BY place

-- name: insert_notice | the same thing is told once
INSERT INTO notices (key, kind, goal_run, task_run, words) VALUES (%(key)s, %(kind)s, %(goal_run)s, %(task_run)s, %(words)s)
ON CONFLICT (key) DO NOTHING RETURNING id

-- name: notices_of | what people were told of a goal run
SELECT kind, task_run, words, created_at FROM notices WHERE goal_run = %(goal_run)s ORDER BY id
