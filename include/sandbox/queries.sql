-- name: unended | every lease of this node that has not ended, live or over
SELECT id, kind, sandbox, task_run, epoch, input_commit, spec, started_at IS NOT NULL AS started,
       greatest(1, ceil(%(slack)s + extract(epoch FROM CASE WHEN kind = 'verify' THEN expires_at
         ELSE greatest(expires_at, (SELECT deadline_at FROM goal_runs r WHERE r.id = leases.goal_run)) END - clock_timestamp())))::int
         AS seconds_at_most,
       revoked_at IS NULL AND expires_at > clock_timestamp() AS live
FROM leases WHERE node = %(node)s AND ended_at IS NULL AND (%(sandbox)s::text IS NULL OR sandbox = %(sandbox)s)

-- name: keys | the two keys of an attempt
SELECT in_key, out_key FROM attempt_keys WHERE lease = %(lease)s

-- name: over | what the warden may kill, and nothing else
SELECT sandbox, because FROM what_is_over(%(node)s, make_interval(secs => %(calm)s), make_interval(secs => %(unwatched)s))

-- name: due | seconds until something may be over
SELECT next_due_s(%(node)s, make_interval(secs => %(calm)s), make_interval(secs => %(unwatched)s)) AS seconds

-- name: store_evidence | before anything is removed; the first one wins
INSERT INTO evidence (lease, exit_code, out_of_memory, log, handin_sha256, handin_bytes, handin_refused, because)
VALUES (%(lease)s, %(exit_code)s, %(out_of_memory)s, %(log)s, %(sha256)s, %(bytes)s, %(refused)s, %(because)s)
ON CONFLICT (lease) DO NOTHING

-- name: pulse | the relay of this node answers
SELECT beat('relay/' || %(node)s, make_interval(secs => %(gap)s))

-- name: to_start | the sandbox of the live work lease of a step's task, if there is one
SELECT l.sandbox, l.epoch, l.node FROM leases l
JOIN task_runs t ON t.id = l.task_run AND t.epoch = l.epoch
JOIN goal_runs g ON g.id = t.goal_run
WHERE g.dag_id = %(dag_id)s AND g.run_id = %(run_id)s AND t.key = %(key)s AND l.kind = 'work'
  AND l.ended_at IS NULL AND l.revoked_at IS NULL AND l.expires_at > clock_timestamp()

-- name: live_sandboxes | names of all sandboxes that may still be there
SELECT sandbox FROM leases WHERE ended_at IS NULL
