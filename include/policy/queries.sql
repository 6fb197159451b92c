-- name: insert_decisions | every decision is recorded with its inputs; the table is append-only
INSERT INTO decisions (id, goal_run, task_run, epoch, action, decision, decided_by, rules, reason, policy_sha256, inputs)
SELECT id, goal_run, task_run, epoch, action, decision, decided_by, ARRAY(SELECT jsonb_array_elements_text(rules::jsonb)), reason, policy_sha256,
  inputs::jsonb
FROM unnest(%(ids)b::uuid[], %(goal_runs)b::text[], %(task_runs)b::text[], %(epochs)b::int[], %(actions)b::text[], %(decisions)b::text[],
            %(deciders)b::text[], %(rules)b::text[], %(reasons)b::text[], %(hashes)b::text[], %(inputs)b::text[])
  AS w(id, goal_run, task_run, epoch, action, decision, decided_by, rules, reason, policy_sha256, inputs)
