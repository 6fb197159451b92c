-- name: runs | every goal run with the key of its goal
SELECT g.idempotency_key AS key, COALESCE(r.id, '') AS run, COALESCE(r.state, '') AS state, COALESCE(r.reason, '') AS reason, g.landing,
       r.ended_at IS NOT NULL AS ended, COALESCE(extract(epoch FROM COALESCE(r.ended_at, clock_timestamp()) - r.created_at), 0)::float AS wall_s
FROM goals g LEFT JOIN goal_runs r ON r.goal = g.id ORDER BY r.created_at;

-- name: tasks | every task run with how often an attempt was lost, and how often one failed
SELECT t.id, t.goal_run AS run, t.state, t.epoch,
       (SELECT count(*) FROM attempts a WHERE a.task_run = t.id AND a.counted IS FALSE) AS lost,
       (SELECT count(*) FROM attempts a WHERE a.task_run = t.id AND a.counted) AS counted
FROM task_runs t ORDER BY t.created_at, t.id;

-- name: failures | how attempts ended that did not merge
SELECT failure, counted, reason, count(*) AS count FROM attempts WHERE failure IS NOT NULL GROUP BY 1, 2, 3 ORDER BY 4 DESC;

-- name: taken | sandboxes that were ended as unwatched, or for what nobody but a person does
SELECT l.sandbox, COALESCE(l.revoke_reason, e.because) AS because FROM leases l LEFT JOIN evidence e ON e.lease = l.id
WHERE e.because LIKE 'unwatched%%' OR l.revoke_reason LIKE '%%cleared in Airflow%%' OR l.revoke_reason LIKE '%%marked in Airflow%%'
   OR l.revoke_reason LIKE '%%marked or cleared%%'
ORDER BY l.granted_at;

-- name: merges | which task runs have merged
SELECT task_run FROM merges ORDER BY created_at;

-- name: events | every change of state, in the order of writing
SELECT machine, subject, COALESCE(from_state, '') AS before, COALESCE(to_state, '') AS after FROM task_events WHERE kind = 'transition' ORDER BY id;

-- name: overspent | rows that hold more than their limit, or whose sums do not agree
SELECT (SELECT count(*) FROM goal_runs WHERE spent_micro + reserved_micro > budget_micro) AS goal_runs,
       (SELECT count(*) FROM goal_runs r WHERE spent_micro <> (SELECT COALESCE(sum(cost_micro), 0) FROM model_calls c WHERE c.goal_run = r.id))
         AS goal_runs_by_their_calls,
       (SELECT count(*) FROM goal_runs WHERE reserved_micro <> 0) AS goal_runs_with_a_reserve,
       (SELECT count(*) FROM leases WHERE kind = 'work' AND spent_micro + reserved_micro > max_micro) AS leases,
       (SELECT count(*) FROM leases l WHERE kind = 'work'
          AND spent_micro <> (SELECT COALESCE(sum(cost_micro), 0) FROM model_calls c WHERE c.lease = l.id)) AS leases_by_their_calls,
       (SELECT count(*) FROM task_runs t WHERE spent_micro <> (SELECT COALESCE(sum(cost_micro), 0) FROM model_calls c WHERE c.task_run = t.id))
         AS task_runs_by_their_calls,
       (SELECT count(*) FROM (
          SELECT c.agent, date_trunc('day', c.reserved_at AT TIME ZONE 'UTC') AS day, sum(COALESCE(c.cost_micro, c.reserved_micro)) AS spent
          FROM model_calls c WHERE c.state <> 'released' GROUP BY 1, 2) AS days
        JOIN agents a ON a.name = days.agent WHERE days.spent > a.day_budget_micro) AS agent_days;

-- name: open_calls | model calls without an end
SELECT count(*) AS count FROM model_calls WHERE state IN ('reserved', 'sent');

-- name: spent | what all model calls cost, and how many ended how
SELECT COALESCE(sum(cost_micro), 0)::bigint AS micro, count(*) AS calls, count(*) FILTER (WHERE state = 'unknown') AS unknown FROM model_calls;

-- name: stale | effects of an epoch that came after a newer one had begun
SELECT (SELECT count(*) FROM merges m JOIN task_runs t ON t.id = m.task_run WHERE m.epoch <> t.epoch) AS merges,
       (SELECT count(*) FROM processed_messages m JOIN attempts a ON a.task_run = m.task_run AND a.epoch > m.epoch AND a.created_at < m.created_at)
         AS messages,
       (SELECT count(*) FROM model_calls c JOIN attempts a ON a.task_run = c.task_run AND a.epoch > c.epoch AND a.created_at < c.reserved_at)
         AS model_calls,
       (SELECT count(*) FROM verdicts v JOIN attempts a ON a.task_run = v.task_run AND a.epoch > v.epoch AND a.created_at < v.requested_at)
         AS verdicts;

-- name: merged | how many tasks are merged
SELECT count(*) FROM task_runs WHERE state = 'COMPLETED';

-- name: run_of_key | the goal run of a key
SELECT r.state, r.reason, r.ended_at FROM goals g JOIN goal_runs r ON r.goal = g.id WHERE g.idempotency_key = %(key)s ORDER BY r.created_at LIMIT 1;

-- name: live_sandboxes | what a worker's kill can hit
SELECT id::text AS lease, sandbox FROM leases
WHERE ended_at IS NULL AND revoked_at IS NULL AND started_at IS NOT NULL ORDER BY granted_at;

-- name: replaced | whether the work of a killed sandbox goes on: in another sandbox, or it was done already
SELECT l.ended_at IS NOT NULL AND (
         EXISTS (SELECT FROM leases n WHERE n.goal_run = l.goal_run AND n.task_run IS NOT DISTINCT FROM l.task_run AND n.kind = l.kind
                 AND n.granted_at > l.granted_at AND n.started_at IS NOT NULL)
         OR EXISTS (SELECT FROM task_runs t WHERE t.id = l.task_run AND t.state IN ('COMPLETED', 'FAILED', 'ESCALATED', 'CANCELLED'))
         OR EXISTS (SELECT FROM goal_runs r WHERE r.id = l.goal_run AND r.ended_at IS NOT NULL)) AS done
FROM leases l WHERE l.id::text = %(lease)s;

-- name: unlanded | goal branches that did not land
SELECT goal_branch FROM goal_runs WHERE state <> 'COMPLETED' AND base_commit IS NOT NULL;
