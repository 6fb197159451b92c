-- name: evidence | the sandbox of a verification has ended; whoever asks is watching it
WITH watched AS (UPDATE leases SET watched_at = clock_timestamp() WHERE id = %(subject)s::uuid AND ended_at IS NULL)
SELECT EXISTS (SELECT FROM evidence WHERE lease = %(subject)s::uuid)

-- name: judged | the gatekeeper has given its verdict
SELECT green IS NOT NULL FROM verdicts WHERE id = %(subject)s::uuid

-- name: answered | the broker has answered a model request
SELECT state <> 'requested' FROM model_requests WHERE address = %(subject)s

-- name: room | a node has room for one more worker
SELECT %(subject)s IS NOT NULL AND EXISTS (SELECT FROM nodes n WHERE n.heartbeat_at > clock_timestamp() - interval '30 seconds'
  AND (SELECT count(*) FROM leases l WHERE l.node = n.name AND l.kind = 'work' AND l.ended_at IS NULL) < n.capacity)

-- name: run_ended | a goal run has come to its end
SELECT ended_at IS NOT NULL FROM goal_runs WHERE id = %(subject)s
