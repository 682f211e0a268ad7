"""What a tenant may try from its own session, as SQL; `{other}` is the victim's schema and role."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Ends(Enum):
    """How an attack must end."""

    REFUSED = "refused"
    """By an error; whatever it says tells nothing of the victim."""
    HARMLESS = "harmless"
    """With nothing of the victim in what comes out."""


@dataclass(frozen=True)
class Attack:
    """Statements of one session, the last of which must end so."""

    name: str
    statements: tuple[str, ...]
    ends: Ends
    state: str = "42501"
    """The SQLSTATE of the refusal: where another than `insufficient_privilege` is right, an entry says so."""


def _refused(name: str, *statements: str, state: str = "42501") -> Attack:
    return Attack(name, statements, Ends.REFUSED, state)


def _harmless(name: str, *statements: str) -> Attack:
    return Attack(name, statements, Ends.HARMLESS)


SEQUENTIAL = ("SET enable_indexscan = off", "SET enable_bitmapscan = off", "SET enable_indexonlyscan = off")
"""Has a scan read all that a relation holds, and EXPLAIN ANALYZE count what a policy takes out."""

ATTACKS = (
    # Other tenants' rows by name.
    _harmless("another tenant_id", "SELECT * FROM items WHERE tenant_id = 'umbrella'"),
    _harmless("all tenant_ids", "SELECT * FROM items WHERE tenant_id IS NOT NULL OR true"),
    _harmless("a count of all", "SELECT count(*), count(DISTINCT tenant_id), max(id) FROM items"),
    _refused("the victim's table", "SELECT * FROM {other}.items"),
    _refused("a union", "SELECT id FROM items UNION ALL SELECT id FROM {other}.items"),
    _refused("a subquery", "SELECT (SELECT count(*) FROM {other}.items)"),
    _refused("the shared table", "SELECT count(*) FROM tenantry.vector_3"),
    _refused("the shared table, own rows only", "SELECT * FROM tenantry.vector_3 WHERE tenant_id = 'acme'"),
    _refused("the record of owners", "SELECT * FROM tenantry.owners"),
    _refused("the key of all passwords", "SELECT * FROM tenantry.key"),
    _refused("the canary", "SELECT * FROM tenantry.canary_vector_3"),
    _refused("the search path", "SET search_path = {other}, public", "SELECT * FROM items", state="42P01"),
    _refused(
        "set_config", "SELECT set_config('search_path', '{other}', false)", "TABLE items", state="42P01"
    ),
    _refused("a lock", "BEGIN", "LOCK TABLE {other}.items IN ACCESS SHARE MODE"),
    # Other tenants' rows by writing.
    _refused(
        "an insert for the victim",
        "INSERT INTO items (tenant_id, id, embedding) VALUES ('umbrella', 'x', '[1,2,3]')",
    ),
    _refused(
        "an insert into the victim's", "INSERT INTO {other}.items (id, embedding) VALUES ('x', '[1,2,3]')"
    ),
    _refused(
        "an insert into the shared table",
        "INSERT INTO tenantry.vector_3 (tenant_id, id, embedding) VALUES ('acme', 'x', '[1,2,3]')",
    ),
    _refused("rows given away", "UPDATE items SET tenant_id = 'umbrella'", state="23514"),
    _harmless(
        "an update of the victim's", "UPDATE items SET content = 'x' WHERE tenant_id = 'umbrella' RETURNING *"
    ),
    _harmless("a delete of the victim's", "DELETE FROM items WHERE tenant_id = 'umbrella' RETURNING *"),
    _refused("a merge", "MERGE INTO items USING {other}.items o ON false WHEN NOT MATCHED THEN DO NOTHING"),
    _refused("truncate", "TRUNCATE items"),
    _refused("truncate of the victim's", "TRUNCATE {other}.items"),
    _refused("truncate of all", "TRUNCATE tenantry.vector_3"),
    # Row-level security itself.
    _refused("security switched off", "SET row_security = off", "SELECT * FROM items"),
    _refused("security off by set_config", "SELECT set_config('row_security', 'off', false)", "TABLE items"),
    _refused("security disabled", "ALTER TABLE items DISABLE ROW LEVEL SECURITY"),
    _refused("security not forced", "ALTER TABLE items NO FORCE ROW LEVEL SECURITY"),
    _refused("the policy dropped", "DROP POLICY own ON items"),
    _refused("the policy opened", "ALTER POLICY own ON items USING (true)"),
    _refused("another policy", "CREATE POLICY open ON items USING (true)"),
    _refused("the function of the policy", "SELECT tenantry.tenant()"),
    _refused(
        "that function replaced",
        "CREATE OR REPLACE FUNCTION tenantry.tenant() RETURNS text LANGUAGE sql AS 'SELECT 1::text'",
    ),
    _refused(
        "a trigger",
        "CREATE TRIGGER t BEFORE INSERT ON items EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    ),
    _refused("a rule", "CREATE RULE r AS ON SELECT TO items DO INSTEAD SELECT 1"),
    _refused("detaching", "ALTER TABLE tenantry.vector_3 DETACH PARTITION items"),
    # Who one is.
    _refused("SET ROLE victim", "SET ROLE {other}"),
    _refused("SET ROLE victim's login", "SET ROLE {other}_a"),
    _refused("SET ROLE owner", "SET ROLE tenantry_owner"),
    _refused("SET ROLE superuser", "SET ROLE postgres"),
    _refused("SET SESSION AUTHORIZATION", "SET SESSION AUTHORIZATION {other}_a"),
    _refused("set_config of the role", "SELECT set_config('role', '{other}', false)"),
    _harmless("one's own group", "SET ROLE {mine}", "TABLE items"),
    _harmless("reset to oneself", "SET ROLE {mine}", "RESET ROLE", "TABLE items"),
    _refused("a grant of the victim", "GRANT {other} TO CURRENT_USER"),
    _refused("a role", "CREATE ROLE mallory IN ROLE {other}"),
    _refused("BYPASSRLS", "ALTER ROLE CURRENT_USER BYPASSRLS"),
    _refused("another's password", "ALTER ROLE {other}_a PASSWORD 'x'"),
    _refused("a grant on the table", "GRANT SELECT ON {other}.items TO CURRENT_USER"),
    # Code that runs as somebody else, or later.
    _refused("a view", "CREATE VIEW mine AS SELECT * FROM items"),
    _refused("a view in public", "CREATE VIEW public.mine AS SELECT 1"),
    _refused("a temporary table", "CREATE TEMPORARY TABLE mine (a int)"),
    _refused("a materialized view", "CREATE MATERIALIZED VIEW mine AS SELECT * FROM items"),
    _refused(
        "a function", "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'"
    ),
    _refused(
        "a function in one's schema",
        "CREATE FUNCTION f(text) RETURNS bool LANGUAGE sql COST 0.001 AS 'SELECT true'",
    ),
    _refused(
        "an operator", "CREATE OPERATOR public.=== (LEFTARG = text, RIGHTARG = text, FUNCTION = texteq)"
    ),
    _refused("a schema", "CREATE SCHEMA mine"),
    _refused(
        "an event trigger",
        "CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION pg_catalog.version()",
    ),
    _refused("a DO block", "DO $$ BEGIN EXECUTE 'SELECT * FROM {other}.items'; END $$"),
    _refused("query_to_xml", "SELECT query_to_xml('SELECT * FROM {other}.items', true, true, '')"),
    _refused("table_to_xml", "SELECT table_to_xml('{other}.items', true, true, '')"),
    _refused("database_to_xml", "SELECT table_to_xml('tenantry.vector_3', true, true, '')"),
    # Files and programs.
    _harmless("COPY TO", "COPY items TO STDOUT"),
    _harmless("COPY of a query", "COPY (SELECT * FROM items WHERE tenant_id <> 'acme') TO STDOUT"),
    _refused("COPY of the victim's", "COPY {other}.items TO STDOUT"),
    _refused("COPY of a query of the victim's", "COPY (SELECT * FROM {other}.items) TO STDOUT"),
    _refused("COPY of the shared table", "COPY (SELECT * FROM tenantry.vector_3) TO STDOUT"),
    _refused("COPY to a file", "COPY items TO '/tmp/out'"),
    _refused("COPY from a file", "COPY items FROM '/etc/passwd'"),
    _refused("COPY to a program", "COPY items TO PROGRAM 'cat'"),
    _refused("COPY from a program", "COPY items FROM PROGRAM 'id'"),
    _refused("a file read", "SELECT pg_read_file('postgresql.conf')"),
    _refused("a folder listed", "SELECT pg_ls_dir('.')"),
    _refused("the log folder listed", "SELECT pg_ls_logdir()"),
    _refused("the data file's size", "SELECT pg_stat_file(pg_relation_filepath('items'))"),
    # What the planner and errors tell.
    _harmless("EXPLAIN", "EXPLAIN SELECT * FROM items"),
    _harmless("EXPLAIN of the victim's id", "EXPLAIN SELECT * FROM items WHERE tenant_id = 'umbrella'"),
    _harmless(
        "EXPLAIN of the victim's text", "EXPLAIN SELECT * FROM items WHERE content = 'umbrella-' || 'secret'"
    ),
    _harmless("EXPLAIN ANALYZE", "EXPLAIN (ANALYZE, BUFFERS) SELECT * FROM items"),
    _harmless("what a policy removes", *SEQUENTIAL, "EXPLAIN ANALYZE SELECT * FROM items"),
    _harmless(
        "what an index scan removes", "SET enable_seqscan = off", "EXPLAIN ANALYZE SELECT * FROM items"
    ),
    _harmless(
        "a nearest neighbour removed",
        *SEQUENTIAL,
        "EXPLAIN ANALYZE SELECT * FROM items ORDER BY embedding <-> '[7919,5,6]' LIMIT 1",
    ),
    _refused("EXPLAIN of the victim's table", "EXPLAIN SELECT * FROM {other}.items"),
    _refused(
        "EXPLAIN of the shared table", "EXPLAIN SELECT * FROM tenantry.vector_3 WHERE tenant_id = 'umbrella'"
    ),
    _harmless("the nearest of all", "SELECT * FROM items ORDER BY embedding <-> '[7919,5,6]' LIMIT 5"),
    _refused("an error that quotes", "SELECT content::int FROM items", state="22P02"),
    _harmless(
        "an error at another's row",
        "SELECT 1 / (CASE WHEN tenant_id = 'umbrella' THEN 0 ELSE 1 END) FROM items",
    ),
    _harmless("a sample", "SELECT * FROM items TABLESAMPLE SYSTEM (100)"),
    _harmless("by place", "SELECT ctid, xmin, tableoid::regclass, * FROM items WHERE ctid > '(0,0)'"),
    # Cursors, prepared statements, notifications.
    _harmless("a cursor", "BEGIN", "DECLARE c CURSOR FOR SELECT * FROM items", "FETCH ALL FROM c"),
    _refused("a cursor on the victim's", "BEGIN", "DECLARE c CURSOR FOR SELECT * FROM {other}.items"),
    _harmless(
        "a prepared statement",
        "PREPARE p AS SELECT * FROM items WHERE tenant_id = $1",
        "EXECUTE p('umbrella')",
    ),
    _refused("one prepared for the victim's", "PREPARE p AS SELECT * FROM {other}.items"),
    _harmless("others' prepared statements", "SELECT name, statement FROM pg_prepared_statements"),
    _harmless("others' cursors", "SELECT name, statement FROM pg_cursors"),
    # Replication.
    _refused("a logical slot", "SELECT pg_create_logical_replication_slot('s', 'pgoutput')"),
    _refused("a physical slot", "SELECT pg_create_physical_replication_slot('s')"),
    _refused("a slot's changes", "SELECT * FROM pg_logical_slot_peek_changes('s', NULL, NULL)"),
    _refused("a publication", "CREATE PUBLICATION p FOR TABLE items"),
    _refused("a subscription", "CREATE SUBSCRIPTION s CONNECTION 'host=localhost' PUBLICATION p"),
    _refused("slots", "SELECT * FROM pg_replication_slots"),
    _refused("a message into the log", "SELECT pg_logical_emit_message(false, 'a', 'b')"),
    # Sizes and statistics.
    _refused("estimates", "SELECT relname, reltuples FROM pg_class"),
    _refused("pages", "SELECT relpages FROM pg_class WHERE relname = 'items'"),
    _refused("all of pg_class", "SELECT * FROM pg_class"),
    _refused("partition bounds", "SELECT pg_get_expr(relpartbound, oid) FROM pg_class"),
    _harmless("policies", "SELECT * FROM pg_policies"),
    _harmless("defaults", "SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef"),
    _harmless("constraints", "SELECT pg_get_constraintdef(oid) FROM pg_constraint"),
    _refused(
        "the partition's constraint",
        "SELECT pg_get_partition_constraintdef(oid) FROM pg_class WHERE relname = 'items'",
    ),
    _harmless("comments", "SELECT description FROM pg_description WHERE objoid >= 16384"),
    *(
        _refused(function, f"SELECT {function}(c.oid) FROM pg_class c WHERE relname = 'items'")
        for function in (
            *("pg_relation_size", "pg_table_size", "pg_indexes_size", "pg_total_relation_size"),
            *("pg_stat_get_live_tuples", "pg_stat_get_dead_tuples", "pg_stat_get_tuples_inserted"),
            *("pg_stat_get_numscans", "pg_stat_get_blocks_fetched", "pg_stat_get_last_analyze_time"),
        )
    ),
    _refused("the database's size", "SELECT pg_database_size(current_database())"),
    *(
        _refused(view, f"SELECT * FROM {view}")
        for view in (
            *(
                "pg_stat_user_tables",
                "pg_stat_all_tables",
                "pg_stat_xact_user_tables",
                "pg_statio_user_tables",
            ),
            *("pg_stat_user_indexes", "pg_stats", "pg_stats_ext", "pg_statistic", "pg_statistic_ext_data"),
            *(
                "pg_stat_activity",
                "pg_stat_database",
                "pg_stat_replication",
                "pg_stat_progress_copy",
                "pg_locks",
            ),
            *("pg_stat_io", "pg_prepared_xacts", "pg_authid", "pg_shadow", "pg_subscription", "pg_stat_wal"),
        )
    ),
    _refused("sessions by function", "SELECT pg_stat_get_activity(NULL)"),
    _refused("locks by function", "SELECT pg_lock_status()"),
    _refused("counters reset", "SELECT pg_stat_reset()"),
    _refused("another's session ended", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"),
    _refused("vacuum", "VACUUM (VERBOSE) {other}.items"),
    # What all sessions of a database share.
    _refused("a large object", "SELECT lo_create(0)"),
    _refused("a large object from bytes", "SELECT lo_from_bytea(0, 'x')"),
    _refused("all large objects", "SELECT * FROM pg_largeobject"),
    _refused("the list of large objects", "SELECT * FROM pg_largeobject_metadata"),
    _refused("an advisory lock", "SELECT pg_advisory_lock(1)"),
    _refused("a try at one", "SELECT pg_try_advisory_xact_lock(1)"),
    _refused("a setting of the server", "ALTER SYSTEM SET log_statement = 'all'"),
    _refused("a setting that logs", "SET log_statement = 'all'"),
    _refused("preloading", "SET session_preload_libraries = 'x'"),
    _refused("loading", "LOAD 'dblink'"),
)
