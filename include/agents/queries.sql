-- name: upsert_agent | as agents.yaml says
INSERT INTO agents (name, planner_model, worker_model, advice_model, capabilities, day_budget_micro, month_budget_micro)
VALUES (%(name)s, %(planner_model)s, %(worker_model)s, %(advice_model)s, %(capabilities)s, %(day_micro)s, %(month_micro)s)
ON CONFLICT (name) DO UPDATE SET planner_model = EXCLUDED.planner_model, worker_model = EXCLUDED.worker_model,
  advice_model = EXCLUDED.advice_model, capabilities = EXCLUDED.capabilities,
  day_budget_micro = EXCLUDED.day_budget_micro, month_budget_micro = EXCLUDED.month_budget_micro;

-- name: agent | one agent by name
SELECT * FROM agents WHERE name = %(name)s;

-- name: agent_names | all of them
SELECT name FROM agents ORDER BY name;

-- name: raise_budgets | of every agent, a day and a month
UPDATE agents SET day_budget_micro = %(micro)s, month_budget_micro = %(micro)s;
