-- name: insert_decision | every decision is recorded with its inputs; the table is append-only
INSERT INTO decisions (id, goal_run, task_run, epoch, action, decision, decided_by, rules, reason, policy_sha256, inputs)
VALUES (%(id)s, %(goal_run)s, %(task_run)s, %(epoch)s, %(action)s, %(decision)s, %(decided_by)s, %(rules)s, %(reason)s, %(policy_sha256)s, %(inputs)s)
