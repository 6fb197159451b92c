-- name: register | this node, as the warden found it
INSERT INTO nodes (name, capacity, rung, notice) VALUES (%(name)s, %(capacity)s, %(rung)s, %(notice)s)
ON CONFLICT (name) DO UPDATE SET capacity = EXCLUDED.capacity, rung = EXCLUDED.rung, notice = EXCLUDED.notice, heartbeat_at = clock_timestamp()

-- name: beat | the warden is alive
UPDATE nodes SET heartbeat_at = clock_timestamp() WHERE name = %(name)s

-- name: unended | every lease of this node that has not ended, live or over
SELECT id, kind, sandbox, task_run, epoch, input_commit, spec, started_at IS NOT NULL AS started,
       greatest(1, ceil(%(slack)s + extract(epoch FROM CASE WHEN kind = 'verify' THEN expires_at
         ELSE greatest(expires_at, (SELECT deadline_at FROM goal_runs r WHERE r.id = leases.goal_run)) END - clock_timestamp())))::int
         AS seconds_at_most,
       revoked_at IS NULL AND expires_at > clock_timestamp() AS live
FROM leases WHERE node = %(node)s AND ended_at IS NULL AND (%(sandbox)s::text IS NULL OR sandbox = %(sandbox)s)

-- name: keys | the two keys of an attempt
SELECT in_key, out_key FROM attempt_keys WHERE lease = %(lease)s

-- name: started | the sandbox runs; from now on its worker has the heartbeat timeout for its first word
UPDATE leases SET heartbeat_at = CASE WHEN started_at IS NULL THEN clock_timestamp() ELSE heartbeat_at END,
  started_at = COALESCE(started_at, clock_timestamp()) WHERE id = %(lease)s AND ended_at IS NULL

-- name: over | what the warden may kill, and nothing else
SELECT lease, sandbox, because FROM what_is_over(%(node)s, make_interval(secs => %(calm)s), make_interval(secs => %(unwatched)s))

-- name: due | seconds until something may be over
SELECT next_due_s(%(node)s, make_interval(secs => %(calm)s), make_interval(secs => %(unwatched)s)) AS seconds

-- name: store_evidence | before anything is removed; the first one wins
INSERT INTO evidence (lease, exit_code, out_of_memory, log, handin_sha256, handin_bytes, handin_refused, because)
VALUES (%(lease)s, %(exit_code)s, %(out_of_memory)s, %(log)s, %(sha256)s, %(bytes)s, %(refused)s, %(because)s)
ON CONFLICT (lease) DO NOTHING

-- name: forget_keys | with the attempt go its keys
DELETE FROM attempt_keys WHERE lease = %(lease)s

-- name: pulse | the relay of this node answers
SELECT beat('relay/' || %(node)s, make_interval(secs => %(gap)s))

-- name: forget_keys_of_ended | that a warden which was killed in between has left
DELETE FROM attempt_keys k USING leases l WHERE l.id = k.lease AND l.node = %(node)s AND l.ended_at IS NOT NULL

-- name: ended | evidence is stored and the sandbox is gone
UPDATE leases SET ended_at = clock_timestamp() WHERE id = %(lease)s AND ended_at IS NULL

-- name: to_start | the sandbox of the live work lease of a step's task, if there is one
SELECT l.sandbox FROM leases l
JOIN task_runs t ON t.id = l.task_run AND t.epoch = l.epoch
JOIN goal_runs g ON g.id = t.goal_run
WHERE g.dag_id = %(dag_id)s AND g.run_id = %(run_id)s AND t.key = %(key)s AND l.kind = 'work'
  AND l.ended_at IS NULL AND l.revoked_at IS NULL AND l.expires_at > clock_timestamp()

-- name: live_sandboxes | names of all sandboxes that may still be there
SELECT sandbox FROM leases WHERE ended_at IS NULL
