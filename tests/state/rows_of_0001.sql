-- A database of version 0001 at work: at least one row in every table. g1 is at work (its parser is executing), g2 has ended and landed.
INSERT INTO transitions VALUES
  ('goal_run','SUBMITTED','RUNNING'), ('goal_run','RUNNING','LANDING'), ('goal_run','LANDING','COMPLETED'),
  ('task_run','PENDING','POLICY_CHECK'), ('task_run','POLICY_CHECK','LEASED'), ('task_run','LEASED','EXECUTING'),
  ('task_run','EXECUTING','VERIFYING'), ('task_run','VERIFYING','MERGE_QUEUE'), ('task_run','MERGE_QUEUE','COMPLETED'),
  ('attempt','SPAWNING','READY'), ('attempt','READY','WORKING'), ('attempt','WORKING','COMPLETING'), ('attempt','COMPLETING','DONE');
INSERT INTO agents VALUES ('jarvis', 'p', 'w', 'a', '{test,git-commit}', 50000000, 500000000);
INSERT INTO repositories VALUES ('sample', '/nowhere', true);
INSERT INTO base_results VALUES ('sample', 'c0', '{"tests/test_a.py::test_a": "passed"}', NULL);
INSERT INTO nodes VALUES ('local', 4, 'bubblewrap', 'no own kernel');
INSERT INTO goals (id, dag_id, title, text, repository, base_branch, agent, budget_micro, deadline_s, landing, idempotency_key, request_sha256, created_by)
VALUES ('00000000-0000-7000-8000-000000000001', 'goal_1', 'Add a parser', 'Add a parser', 'sample', 'main', 'jarvis', 5000000, 7200, 'per_goal', 'k1', 'h1', 'ada'),
       ('00000000-0000-7000-8000-000000000002', 'goal_2', 'Add a table', 'Add a table', 'sample', 'main', 'jarvis', 5000000, 7200, 'per_goal', 'k2', 'h2', 'ada');
INSERT INTO plans (goal, revision, sha256, document)
VALUES ('00000000-0000-7000-8000-000000000001', 1, 'p1', '{"tasks": []}'), ('00000000-0000-7000-8000-000000000002', 1, 'p2', '{"tasks": []}');
INSERT INTO goal_runs (id, goal, dag_id, run_id, plan, goal_branch, base_commit, budget_micro, deadline_at)
SELECT 'g' || n, ('00000000-0000-7000-8000-00000000000' || n)::uuid, 'goal_' || n, 'run_' || n, n, 'airlock/g' || n, 'c0', 5000000,
       clock_timestamp() + interval '2 hours' FROM generate_series(1, 2) n;
UPDATE goal_runs SET state = 'RUNNING';
INSERT INTO task_runs (id, goal_run, key) VALUES ('g1-parser', 'g1', 'parser'), ('g2-table', 'g2', 'table');
UPDATE task_runs SET state = 'POLICY_CHECK';
UPDATE task_runs SET state = 'LEASED', epoch = 1;
INSERT INTO attempts (task_run, epoch, node, rung) VALUES ('g1-parser', 1, 'local', 'bubblewrap'), ('g2-table', 1, 'local', 'bubblewrap');
UPDATE attempts SET state = 'READY';
UPDATE attempts SET state = 'WORKING', step = 'reading';
UPDATE task_runs SET state = 'EXECUTING';
INSERT INTO task_events (machine, subject, kind, detail) VALUES ('attempt', 'g1-parser/1', 'milestone', 'tests run');
INSERT INTO leases (id, kind, sandbox, goal_run, task_run, epoch, node, capabilities, input_commit, max_tokens, max_micro, ti_id, started_at, expires_at)
VALUES ('00000000-0000-7000-8000-0000000000a1', 'work', 'airlock-g1-parser-1', 'g1', 'g1-parser', 1, 'local', '{test}', 'c0', 200000, 1000000, 'ti',
        clock_timestamp(), clock_timestamp() + interval '15 minutes'),
       ('00000000-0000-7000-8000-0000000000a2', 'work', 'airlock-g2-table-1', 'g2', 'g2-table', 1, 'local', '{test}', 'c0', 200000, 1000000, 'ti',
        clock_timestamp(), clock_timestamp() + interval '15 minutes'),
       ('00000000-0000-7000-8000-0000000000a3', 'verify', 'airlock-v-0000000000a3', 'g2', 'g2-table', 1, 'local', '{}', 'c1', 0, 0, 'ti',
        clock_timestamp(), clock_timestamp() + interval '15 minutes');
INSERT INTO attempt_keys VALUES ('00000000-0000-7000-8000-0000000000a1', decode(repeat('ab', 32), 'hex'), decode(repeat('cd', 32), 'hex'));
INSERT INTO processed_messages (task_run, epoch, seq, idempotency_key, message_id, type, body_sha256)
VALUES ('g1-parser', 1, 1, 'g1-parser/1/k', '00000000-0000-7000-8000-0000000000b1', 'llm.request', 'h');
INSERT INTO outbox (agent, task_run, epoch, seq, idempotency_key, type, body, signature)
VALUES ('jarvis', 'g1-parser', 1, 1, 'assign:g1-parser/1', 'task.assign', '{}', 's');
INSERT INTO model_requests (id, agent, goal_run, purpose, address, body)
VALUES ('00000000-0000-7000-8000-0000000000c1', 'jarvis', 'g1', 'plan', 'g1/plan/1', '{}');
INSERT INTO model_calls (id, agent, goal_run, task_run, epoch, lease, request, purpose, model, address, offline, owner, reserved_micro, price_table)
VALUES ('00000000-0000-7000-8000-0000000000d1', 'jarvis', 'g1', 'g1-parser', 1, '00000000-0000-7000-8000-0000000000a1', 'g1-parser/1/k', 'work', 'm',
        'g1/parser/1', false, 'o', 3000, 'table');
UPDATE goal_runs SET reserved_micro = 3000 WHERE id = 'g1';
UPDATE leases SET reserved_micro = 3000 WHERE id = '00000000-0000-7000-8000-0000000000a1';
INSERT INTO transcripts (task_run, epoch, position, role, content) VALUES ('g1-parser', 1, 1, 'user', '[]'), ('g2-table', 1, 1, 'user', '[]');
INSERT INTO questions (message_id, task_run, epoch, question, options, context, urgency)
VALUES ('00000000-0000-7000-8000-0000000000e1', 'g1-parser', 1, 'which?', '[]', '', 'blocking');
INSERT INTO decisions (id, goal_run, task_run, epoch, action, decision, decided_by, rules, reason, policy_sha256, inputs)
VALUES ('00000000-0000-7000-8000-0000000000f1', 'g1', 'g1-parser', 1, 'admit', 'permit', 'policy', '{permit}', 'fine', 'h', '{}');
INSERT INTO artifacts (id, goal_run, task_run, epoch, type, source, sha256, data)
VALUES ('00000000-0000-7000-8000-0000000000f2', 'g2', 'g2-table', 1, 'log', 'warden', 'h', '{"text": "x"}');
INSERT INTO reworks (id, task_run, epoch, ti_id, steps, reason, feedback)
VALUES ('00000000-0000-7000-8000-0000000000f3', 'g2-table', 1, 'ti', '{verify,merge}', 'the target moved', '');
UPDATE attempts SET state = 'COMPLETING', finished_at = clock_timestamp() WHERE task_run = 'g2-table';
UPDATE attempts SET state = 'DONE' WHERE task_run = 'g2-table';
UPDATE task_runs SET state = 'VERIFYING' WHERE id = 'g2-table';
UPDATE task_runs SET state = 'MERGE_QUEUE' WHERE id = 'g2-table';
INSERT INTO verdicts (id, goal_run, task_run, epoch, tree, suite, facts, green, judged_at)
VALUES ('00000000-0000-7000-8000-0000000000f4', 'g2', 'g2-table', 1, 't1', 'change', '{}', true, clock_timestamp());
INSERT INTO merges (task_run, epoch, target, commit_id, tree, verdict)
VALUES ('g2-table', 1, 'refs/heads/airlock/g2', 'c1', 't1', '00000000-0000-7000-8000-0000000000f4');
UPDATE task_runs SET state = 'COMPLETED', merged_commit = 'c1' WHERE id = 'g2-table';
INSERT INTO evidence (lease, exit_code, log) VALUES ('00000000-0000-7000-8000-0000000000a2', 0, 'a log');
UPDATE leases SET ended_at = clock_timestamp() WHERE goal_run = 'g2';
UPDATE goal_runs SET state = 'LANDING' WHERE id = 'g2';
UPDATE goal_runs SET state = 'COMPLETED', landed_commit = 'c1', ended_at = clock_timestamp() WHERE id = 'g2';
