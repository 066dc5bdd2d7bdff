import { literal } from '../../../../functions/lib/database/connect.ts';
import type { Aim, Theme } from '../attack.ts';

/** The system catalogs, statistics and other sessions: what they say about the victim. */
export const learning: Theme = {
  title: 'Learning from catalogs and other sessions',
  attacks: [
    {
      name: 'statistics of columns',
      sql: ({ victim }) => [
        `select * from pg_stats where schemaname = '${victim.schema}'`,
        'select * from pg_statistic',
        'select * from pg_stats_ext',
        'select * from pg_stats_ext_exprs',
        'select * from pg_statistic_ext_data',
      ],
    },
    {
      name: "others' statements in pg_stat_activity",
      sql: () => [
        'select * from pg_stat_activity',
        'select * from pg_stat_get_activity(null)',
        'select pg_stat_get_backend_activity(i) from generate_series(0, 50) i',
      ],
    },
    {
      name: 'secrets of roles and servers',
      sql: () => [
        'select * from pg_authid',
        'select * from pg_shadow',
        'select * from pg_user_mapping',
        'select * from pg_hba_file_rules',
        'select * from pg_file_settings',
        'select * from pg_ident_file_mappings',
        "select * from pg_settings where name in ('data_directory', 'hba_file', 'config_file')",
      ],
      betrays: () => /SCRAM-SHA-256\$|pg_hba\.conf/,
    },
    {
      name: "the victim's identity in constraints and defaults",
      sql: () => [
        "select pg_get_constraintdef(oid) from pg_constraint where connamespace <> 'pg_catalog'::regnamespace",
        'select pg_get_expr(adbin, adrelid) from pg_attrdef',
        'select pg_get_expr(polqual, polrelid) from pg_policy',
        'select * from information_schema.check_constraints',
        'select obj_description(oid) from pg_class',
        'select * from pg_description where objoid > 16384',
        'select * from pg_db_role_setting',
      ],
      betrays: ({ victim }) => new RegExp(victim.tenant),
    },
    {
      name: 'definitions of what stands in the other schema',
      sql: ({ victim }) => [
        `select pg_get_viewdef(oid), pg_get_indexdef(oid) from pg_class where relnamespace::regnamespace::text = '${victim.schema}'`,
        `select pg_get_functiondef(oid) from pg_proc where pronamespace::regnamespace::text = '${victim.schema}'`,
      ],
    },
    {
      name: 'large objects',
      sql: () => [
        'select lo_get(oid) from pg_largeobject_metadata where lomowner <> (select oid from pg_roles where rolname = current_user)',
        'select * from pg_largeobject',
        "select lo_import('/etc/passwd')",
        "select lo_export(1, '/tmp/loot')",
      ],
    },
    {
      name: 'snapshots and replication',
      sql: () => [
        'select pg_export_snapshot()',
        "select pg_create_logical_replication_slot('spy', 'test_decoding')",
        "select pg_create_physical_replication_slot('spy')",
        "select pg_replication_origin_create('spy')",
        "select * from pg_logical_slot_get_changes('spy', null, null)",
        'select pg_switch_wal()',
        "select pg_backup_start('spy')",
      ],
    },
  ],
};

/** Out of the database: files, programs, the network, other processes. */
export const server: Theme = {
  title: 'Reaching the server',
  attacks: [
    {
      name: 'files',
      sql: () => [
        "select pg_read_file('postgresql.conf')",
        "select pg_read_binary_file('pg_hba.conf')",
        "select pg_stat_file('PG_VERSION')",
        "select pg_ls_dir('.')",
        'select * from pg_ls_logdir()',
        'select * from pg_ls_waldir()',
        'select * from pg_ls_tmpdir()',
        'select pg_current_logfile()',
        'select pg_rotate_logfile()',
      ],
      betrays: () => /listen_addresses|PG_VERSION"|scram-sha-256/,
    },
    {
      name: 'COPY with files and programs',
      sql: ({ victim }) => [
        `copy (select 1) to '/tmp/loot'`,
        `copy ${victim.relation} from '/etc/passwd'`,
        `copy (select 1) to program 'id'`,
        `copy ${victim.relation} from program 'id'`,
        "load '/tmp/evil.so'",
        "load 'auto_explain'",
        "create function f() returns int language c as '/tmp/evil.so', 'f'",
        "create function f() returns text language internal as 'pg_read_file'",
      ],
    },
    {
      name: 'another connection out of the database',
      sql: (aim: Aim) => [
        `select * from dblink('host=127.0.0.1', ${literal(`select * from ${aim.victim.relation}`)}) as t(x text)`,
        `select dblink_connect('host=127.0.0.1 dbname=${aim.victim.database}')`,
        "create server out foreign data wrapper postgres_fdw options (host '127.0.0.1')",
        'create user mapping for current_user server out',
      ],
    },
    {
      name: 'server-wide controls',
      sql: () => [
        'select pg_reload_conf()',
        'select pg_promote()',
        'select pg_stat_reset()',
        'select pg_stat_reset_shared()',
        'select pg_log_backend_memory_contexts(pid) from pg_stat_activity',
        "select set_config('log_statement', 'all', false)",
        "select set_config('session_preload_libraries', 'x', false)",
        "prepare transaction 'held'",
      ],
    },
    {
      name: 'ends or cancels sessions of another login',
      sql: ({ victim }) => [
        `select pg_terminate_backend(pid), pg_cancel_backend(pid) from pg_stat_activity where usename = '${victim.login}' and usename <> session_user`,
        "select pg_terminate_backend(pid) from pg_stat_activity where usename in ('tenancy_provisioner', 'postgres', 'tenancy_catalog_reader') or backend_type <> 'client backend'",
      ],
    },
  ],
};
