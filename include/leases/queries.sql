-- name: grant_lease | a lease to work or to verify, on one node
INSERT INTO leases (id, kind, sandbox, goal_run, task_run, epoch, node, capabilities, input_commit, spec, max_tokens, max_micro, ti_id, expires_at)
VALUES (%(id)s, %(kind)s, %(sandbox)s, %(goal_run)s, %(task_run)s, %(epoch)s, %(node)s, %(capabilities)s, %(input_commit)s, %(spec)s,
        %(max_tokens)s, %(max_micro)s, %(ti_id)s, clock_timestamp() + make_interval(secs => %(seconds)s))

-- name: store_keys | two random keys, one a direction
INSERT INTO attempt_keys (lease, in_key, out_key) VALUES (%(lease)s, %(in_key)s, %(out_key)s)

-- name: revoke_of_task | revoke what still lives of a task run; the grace runs on PostgreSQL's clock
UPDATE leases SET revoked_at = clock_timestamp(), revoke_reason = %(reason)s, grace = make_interval(secs => %(grace)s)
WHERE task_run = %(task_run)s AND ended_at IS NULL AND revoked_at IS NULL

-- name: revoke_of_goal_run | revoke what still lives of a goal run
UPDATE leases SET revoked_at = clock_timestamp(), revoke_reason = %(reason)s, grace = make_interval(secs => %(grace)s)
WHERE goal_run = %(goal_run)s AND ended_at IS NULL AND revoked_at IS NULL

-- name: work_lease | the lease of one attempt, with its evidence
SELECT l.id, l.sandbox, l.goal_run, l.task_run, l.epoch, l.input_commit, l.max_tokens, l.tokens_used, l.max_micro, l.spent_micro, l.excess_micro,
       l.granted_at, l.started_at, l.ended_at, l.revoked_at, l.revoke_reason, l.broken,
       e.exit_code, e.out_of_memory, e.because, e.handin_sha256, e.handin_refused, e.log,
       standing(l, make_interval(secs => %(calm)s), NULL, make_interval(secs => %(silence)s)) AS standing,
       l.revoked_at + l.grace + make_interval(secs => %(patience)s) <= clock_timestamp() AS past_patience,
       l.revoked_at IS NULL AND l.ended_at IS NULL AND l.watched_at > clock_timestamp() - interval '3 seconds' AS watched
FROM leases l LEFT JOIN evidence e ON e.lease = l.id
WHERE l.task_run = %(task_run)s AND l.epoch = %(epoch)s AND l.kind = 'work'

-- name: stamp_watch | the sensor is awake; it owns the lease from now on
UPDATE leases SET watched_at = clock_timestamp(), ti_id = %(ti_id)s WHERE id = %(lease)s AND ended_at IS NULL

-- name: stamp_verify | whoever waits for a verification is awake; does its sandbox still have to be started?
UPDATE leases SET watched_at = clock_timestamp() WHERE id = %(lease)s AND ended_at IS NULL RETURNING started_at IS NULL AS to_start

-- name: newest_verify | the newest verification of a commit for one asker, with its evidence
SELECT l.id AS lease, l.sandbox, l.node, e.exit_code, e.out_of_memory, e.because, e.handin_sha256, e.handin_refused, e.log,
       (SELECT count(*) FROM leases n WHERE n.kind = 'verify' AND n.input_commit = l.input_commit
          AND n.task_run IS NOT DISTINCT FROM l.task_run AND n.epoch IS NOT DISTINCT FROM l.epoch) AS tries
FROM leases l LEFT JOIN evidence e ON e.lease = l.id
WHERE l.kind = 'verify' AND l.goal_run = %(goal_run)s AND l.input_commit = %(commit)s
  AND l.task_run IS NOT DISTINCT FROM %(task_run)s AND l.epoch IS NOT DISTINCT FROM %(epoch)s
ORDER BY l.granted_at DESC LIMIT 1

-- name: owned | the live lease of an epoch, if this task instance owns it; a stamp after ours means that another triggerer watches it
SELECT watched_at > %(left_at)s AS watched_by_another
FROM leases l WHERE task_run = %(task_run)s AND epoch = %(epoch)s AND kind = 'work' AND ti_id = %(ti_id)s
  AND revoked_at IS NULL AND ended_at IS NULL

-- name: revoke_broken | a term is broken: the worker is told, and has its grace
UPDATE leases SET revoked_at = clock_timestamp(), revoke_reason = %(reason)s, broken = %(broken)s, grace = make_interval(secs => %(grace)s)
WHERE id = %(lease)s AND ended_at IS NULL AND revoked_at IS NULL

-- name: renew | more time for a live lease, never beyond its goal run's deadline
UPDATE leases l SET expires_at = least(greatest(l.expires_at, clock_timestamp()) + make_interval(secs => %(seconds)s), r.deadline_at),
  renewed_at = clock_timestamp()
FROM goal_runs r
WHERE r.id = l.goal_run AND l.id = %(lease)s AND l.kind = 'work' AND l.revoked_at IS NULL AND l.ended_at IS NULL AND l.expires_at < r.deadline_at
RETURNING l.sandbox, l.expires_at

-- name: keep_numbers | the numbers are in, and each is a sign of life: one update a lease
UPDATE leases l SET heartbeat_at = clock_timestamp(), taken = l.taken + n.numbers
FROM (SELECT lease, range_agg(int8range(seq, seq + 1)) AS numbers FROM unnest(%(leases)b::uuid[], %(seqs)b::bigint[]) AS w(lease, seq)
      GROUP BY lease) AS n
WHERE l.id = n.lease

-- name: hold | the worst case of a model call
UPDATE leases SET reserved_micro = reserved_micro + %(micro)s WHERE id = %(lease)s

-- name: settle | the worst case back, cost and tokens kept
UPDATE leases SET reserved_micro = reserved_micro - %(micro)s, spent_micro = spent_micro + %(cost)s, tokens_used = tokens_used + %(tokens)s
WHERE id = %(lease)s

-- name: add_excess | real cost beyond the reserved worst case breaks the lease
UPDATE leases SET excess_micro = excess_micro + %(excess)s WHERE id = %(lease)s

-- name: started | the sandbox runs; from now on its worker has the heartbeat timeout for its first word
UPDATE leases SET heartbeat_at = CASE WHEN started_at IS NULL THEN clock_timestamp() ELSE heartbeat_at END,
  started_at = COALESCE(started_at, clock_timestamp()) WHERE id = %(lease)s AND ended_at IS NULL

-- name: forget_keys | with the attempt go its keys
DELETE FROM attempt_keys WHERE lease = %(lease)s

-- name: forget_keys_of_ended | that a warden which was killed in between has left
DELETE FROM attempt_keys k USING leases l WHERE l.id = k.lease AND l.node = %(node)s AND l.ended_at IS NOT NULL

-- name: ended | evidence is stored and the sandbox is gone
UPDATE leases SET ended_at = clock_timestamp() WHERE id = %(lease)s AND ended_at IS NULL

-- name: watch_evidence | has the sandbox of a verification ended? Whoever asks is watching it
WITH watched AS (UPDATE leases SET watched_at = clock_timestamp() WHERE id = %(lease)s AND ended_at IS NULL)
SELECT EXISTS (SELECT FROM evidence WHERE lease = %(lease)s)

-- name: stamp | the leases whose trigger lives here are watched; one that somebody holds just now is stamped the next time
WITH mine AS (
  SELECT l.id FROM unnest(%(dag_ids)s::text[], %(run_ids)s::text[], %(keys)s::text[], %(ti_ids)s::text[]) AS w(dag_id, run_id, key, ti_id)
  JOIN goal_runs r ON r.dag_id = w.dag_id AND r.run_id = w.run_id
  JOIN task_runs t ON t.goal_run = r.id AND t.key = w.key
  JOIN leases l ON l.task_run = t.id AND l.epoch = t.epoch AND l.kind = 'work' AND l.ti_id = w.ti_id AND l.ended_at IS NULL
  ORDER BY l.id FOR NO KEY UPDATE OF l SKIP LOCKED)
UPDATE leases SET watched_at = clock_timestamp() FROM mine WHERE leases.id = mine.id
