-- A load may cost time, never work, and may not look like a person (docs/decisions/0018-a-load-is-no-loss.md).

-- A clear is told from a retry -------------------------------------------------------------------------------------------------
ALTER TABLE attempts
  ADD COLUMN admit_tries int;          -- tries that Airflow allowed its admit step when it granted: only a clear gives a step more

-- The minute without a watch counts only while Airflow keeps up ------------------------------------------------------------------
-- Airflow's scheduler beats in each of its loops, at most twice a second. Two seconds without a beat: it does not keep up.
CREATE FUNCTION airflow_beats() RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
  SELECT beat('airflow/scheduler', '2 s')
$$;

-- When a lease that nobody watches is over. The period begins anew with each time that Airflow did not keep up; after ten periods it is over
-- all the same. A scheduler that has not beaten for a period is dead, not busy, and is not waited for.
CREATE FUNCTION unwatched_at(watched_at timestamptz, period interval) RETURNS timestamptz LANGUAGE plpgsql STABLE AS $$
DECLARE
  s pulses%ROWTYPE;
  now timestamptz := clock_timestamp();
BEGIN
  SELECT * INTO s FROM pulses WHERE name = 'airflow/scheduler';
  RETURN least(watched_at + 10 * period, greatest(watched_at + period, CASE
    WHEN s.beat_at + period <= now THEN NULL
    WHEN s.beat_at < now - interval '2 s' THEN s.beat_at + period
    ELSE s.steady_since + period END));
END $$;

CREATE OR REPLACE FUNCTION standing(l leases, calm interval, unwatched interval, silence interval) RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN CASE
    WHEN l.ended_at IS NOT NULL THEN 'ended'
    WHEN l.revoked_at IS NOT NULL THEN 'revoked'
    WHEN l.watched_at + unwatched <= clock_timestamp() AND unwatched_at(l.watched_at, unwatched) <= clock_timestamp()
      AND clock_timestamp() > pg_postmaster_start_time() + calm THEN 'unwatched'
    WHEN l.expires_at <= clock_timestamp() AND calm_until(l, calm) <= clock_timestamp() THEN 'expired'
    WHEN l.kind <> 'work' THEN NULL
    WHEN l.tokens_used > l.max_tokens THEN 'tokens'
    WHEN l.excess_micro > 0 THEN 'usd'
    WHEN l.started_at IS NOT NULL AND l.heartbeat_at + silence <= clock_timestamp() AND calm_until(l, calm) <= clock_timestamp() THEN 'silent'
  END;
END $$;

CREATE OR REPLACE FUNCTION next_due_s(the_node text, calm interval, unwatched interval) RETURNS float LANGUAGE sql STABLE AS $$
  SELECT extract(epoch FROM min(due) - clock_timestamp()) FROM (
    SELECT CASE WHEN revoked_at IS NOT NULL THEN revoked_at + grace
                ELSE least(CASE WHEN expires_at > clock_timestamp() THEN expires_at ELSE calm_until(l, calm) END,
                           greatest(unwatched_at(watched_at, unwatched), pg_postmaster_start_time() + calm)) END AS due
    FROM leases l WHERE node = the_node AND ended_at IS NULL) AS lives
  WHERE due <> 'infinity'
$$;

-- An attempt that is resumed leaves nothing more: its sandbox is gone, or its warden is away, or was at it for five minutes ----------
CREATE FUNCTION leaves_no_more(l leases) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT l.ended_at IS NOT NULL OR COALESCE(l.revoked_at < clock_timestamp() - CASE
    WHEN EXISTS (SELECT FROM nodes n WHERE n.name = l.node AND n.heartbeat_at > clock_timestamp() - interval '30 s')
    THEN interval '5 min' ELSE interval '30 s' END, false)
$$;

-- Rights ------------------------------------------------------------------------------------------------------------------------
REVOKE EXECUTE ON FUNCTION airflow_beats() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION airflow_beats() TO airlock_airflow;
