-- name: unwatched | no lease step watches this attempt any more
SELECT revoked_at IS NOT NULL OR ended_at IS NOT NULL OR watched_at < clock_timestamp() - interval '3 seconds' FROM leases WHERE id = %(subject)s::uuid

-- name: judged | the gatekeeper has given its verdict
SELECT green IS NOT NULL FROM verdicts WHERE id = %(subject)s::uuid

-- name: answered | the broker has answered a model request
SELECT state <> 'requested' FROM model_requests WHERE address = %(subject)s

-- name: due | PostgreSQL's clock lets the next attempt of a task run in (or a person has moved it)
SELECT state <> 'PENDING_RETRY' OR due_at IS NULL OR due_at <= clock_timestamp() FROM task_runs WHERE id = %(subject)s

-- name: over | the attempt that is resumed leaves nothing more: its sandbox is gone, or its warden had its time for it
SELECT leaves_no_more(l) FROM leases l WHERE id = %(subject)s::uuid

-- name: beat | Airflow's scheduler goes round
SELECT airflow_beats()

-- name: run_ended | a goal run has come to its end
SELECT ended_at IS NOT NULL FROM goal_runs WHERE id = %(subject)s

-- name: one_view | what follows in this transaction sees one state of the database
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ

-- name: version | of the plan bundle: changes when a plan is added (also when it commits late) and when a goal is archived or reopened
SELECT COALESCE(max(p.seq), 0) || '.' || count(*) AS version
FROM plans p JOIN goals g ON g.id = p.goal
WHERE g.archived_at IS NULL

-- name: active_plans | the newest plan of every goal that is not archived
SELECT DISTINCT ON (g.dag_id) g.dag_id, p.seq
FROM plans p JOIN goals g ON g.id = p.goal
WHERE g.archived_at IS NULL
ORDER BY g.dag_id, p.seq DESC

-- name: plan_of | the newest plan of one goal as of a number, with what its DAG shows
SELECT p.revision, p.document, g.id::text AS goal_id, g.dag_id, g.title, g.text, g.repository, g.base_branch, g.agent, g.landing,
       g.budget_micro, g.deadline_s
FROM plans p JOIN goals g ON g.id = p.goal
WHERE g.dag_id = %(dag_id)s AND p.seq <= %(seq)s
ORDER BY p.seq DESC LIMIT 1

-- name: now | by the one clock
SELECT clock_timestamp() AS now

-- name: changed | watched task runs at which something is not as it was when their trigger was called last: all that a look judges by
SELECT w.number::int AS number, f.print
FROM unnest(%(dag_ids)s::text[], %(run_ids)s::text[], %(keys)s::text[], %(ti_ids)s::text[], %(prints)s::text[])
  WITH ORDINALITY AS w(dag_id, run_id, key, ti_id, print, number)
LEFT JOIN goal_runs r ON r.dag_id = w.dag_id AND r.run_id = w.run_id
LEFT JOIN task_runs t ON t.goal_run = r.id AND t.key = w.key
LEFT JOIN attempts a ON a.task_run = t.id AND a.epoch = t.epoch
LEFT JOIN leases l ON l.task_run = t.id AND l.epoch = t.epoch AND l.kind = 'work'
LEFT JOIN evidence e ON e.lease = l.id
CROSS JOIN LATERAL (SELECT ROW(t.state, t.epoch, a.state, a.failure, a.finished_at, l.id, l.ti_id = w.ti_id, l.revoked_at, l.ended_at, e.lease,
  l.revoked_at + l.grace + make_interval(secs => %(patience)s) <= clock_timestamp(),
  CASE WHEN l.id IS NOT NULL THEN standing(l, make_interval(secs => %(calm)s), NULL, make_interval(secs => %(silence)s)) END,
  (SELECT max(m.id) FROM task_events m WHERE m.machine = 'attempt' AND m.subject = t.id || '/' || t.epoch::text AND m.kind = 'milestone')
  )::text AS print OFFSET 0) AS f
WHERE f.print IS DISTINCT FROM w.print
