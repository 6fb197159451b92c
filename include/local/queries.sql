-- name: revoke_all | everything that is at work, whoever started it; each in the audit log
WITH live AS (SELECT id FROM leases WHERE revoked_at IS NULL AND ended_at IS NULL ORDER BY task_run, id FOR NO KEY UPDATE),
gone AS (UPDATE leases l SET revoked_at = clock_timestamp(), revoke_reason = %(reason)s FROM live WHERE l.id = live.id RETURNING l.sandbox)
INSERT INTO audit_log (actor, action, subject, detail)
SELECT 'supervisor', 'lease.revoked', sandbox, jsonb_build_object('reason', %(reason)s::text) FROM gone;

-- name: any_live_lease | is a sandbox still there
SELECT 1 FROM leases WHERE ended_at IS NULL LIMIT 1;
