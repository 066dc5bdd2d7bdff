import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  AddTagsToResourceCommand,
  CreateDBInstanceCommand,
  type CreateDBInstanceCommandInput,
  DBInstanceAlreadyExistsFault,
  DBInstanceNotFoundFault,
  DBSnapshotAlreadyExistsFault,
  DeleteDBInstanceCommand,
  DescribeDBInstancesCommand,
  InstanceQuotaExceededFault,
  InvalidDBInstanceStateFault,
  ListTagsForResourceCommand,
  ModifyDBInstanceCommand,
  paginateDescribeDBInstances,
  RDSClient,
  RebootDBInstanceCommand,
  StartDBInstanceCommand,
  StopDBInstanceCommand,
  waitUntilDBInstanceAvailable,
  waitUntilDBInstanceDeleted,
} from '@aws-sdk/client-rds';
import { GetSecretValueCommand, SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { withConnection } from '../../functions/lib/database/connect.ts';
import type { RdsOptions } from '../../infra/local/emulator/rds-instances.ts';
import type { InstanceStatus } from '../../infra/local/emulator/rds-state.ts';
import { type AwsEmulator, startAwsEmulator } from '../../infra/local/emulator/server.ts';
import { postgresBase } from '../../infra/local/postgres.ts';

let folder: string;
let emulator: AwsEmulator;
let rds: RDSClient;
let secrets: SecretsManagerClient;
/** What every instance went through, in order. */
const history: Record<string, InstanceStatus[]> = {};
/** A status at which an instance is held until the test lets it go. */
let hold: { identifier: string; status: InstanceStatus; until: Promise<void> } | undefined;

const options = (): RdsOptions => ({
  postgresBase: postgresBase(folder),
  instanceQuota: 3,
  onStatus: async (identifier, status) => {
    history[identifier] = [...(history[identifier] ?? []), status];
    if (hold?.identifier === identifier && hold.status === status) await hold.until;
  },
});

async function start(kept: { stateFile?: string } = { stateFile: join(folder, 'aws.json') }): Promise<void> {
  emulator = await startAwsEmulator({ ...kept, rds: options() });
  await emulator.resumed;
  const config = {
    endpoint: emulator.url,
    region: 'eu-west-1',
    credentials: { accessKeyId: 'local', secretAccessKey: 'local' },
    maxAttempts: 1,
  };
  rds = new RDSClient(config);
  secrets = new SecretsManagerClient(config);
}

const tenant = (name: string): CreateDBInstanceCommandInput => ({
  DBInstanceIdentifier: name,
  DBInstanceClass: 'db.t4g.micro',
  Engine: 'postgres',
  EngineVersion: '17.10',
  AllocatedStorage: 20,
  MasterUsername: 'tenantry_master',
  ManageMasterUserPassword: true,
  DBName: 'tenantry',
  StorageEncrypted: true,
  VpcSecurityGroupIds: ['sg-1', 'sg-2'],
  Tags: [{ Key: 'tenantry:tenant', Value: 'one' }],
});

const waiting = { minDelay: 0.1, maxDelay: 0.1, maxWaitTime: 300 };
const wait = async (name: string) => {
  await waitUntilDBInstanceAvailable({ client: rds, ...waiting }, { DBInstanceIdentifier: name });
  // A status is answered a moment before `history` has it.
  await emulator.instances!.settled(name);
};
const remove = async (name: string) => {
  await rds.send(new DeleteDBInstanceCommand({ DBInstanceIdentifier: name, SkipFinalSnapshot: true }));
  await waitUntilDBInstanceDeleted({ client: rds, ...waiting }, { DBInstanceIdentifier: name });
};
const show = async (name: string) =>
  (await rds.send(new DescribeDBInstancesCommand({ DBInstanceIdentifier: name }))).DBInstances![0]!;

async function masterPassword(name: string): Promise<string> {
  const { MasterUserSecret } = await show(name);
  const { SecretString } = await secrets.send(
    new GetSecretValueCommand({ SecretId: MasterUserSecret!.SecretArn! }),
  );
  return JSON.parse(SecretString!).password as string;
}

async function asMaster(name: string, statement: string, password?: string) {
  const { Endpoint } = await show(name);
  const secret = password ?? (await masterPassword(name));
  const endpoint = {
    host: Endpoint!.Address!,
    port: Endpoint!.Port!,
    database: 'tenantry',
    login: 'tenantry_master',
    password: async () => secret,
    tls: 'off' as const,
  };
  return withConnection(endpoint, (connection) => connection.query(statement));
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tenantry-rds-'));
  await start();
  await rds.send(new CreateDBInstanceCommand(tenant('initech')));
  await wait('initech');
});

afterAll(async () => {
  await emulator.close();
  await rm(postgresBase(folder), { recursive: true, force: true });
  await rm(folder, { recursive: true, force: true });
});

test('an instance is a real PostgreSQL that its master reaches with the managed secret', async () => {
  expect(history.initech).toEqual(['creating', 'backing-up', 'available']);
  expect(await show('initech')).toMatchObject({
    DBInstanceStatus: 'available',
    DBInstanceClass: 'db.t4g.micro',
    AllocatedStorage: 20,
    StorageEncrypted: true,
    DBName: 'tenantry',
    MasterUserSecret: { SecretStatus: 'active' },
  });
  const { rows } = await asMaster('initech', 'select current_database() as name, version() as version');
  expect(rows[0]!.name).toBe('tenantry');
  expect(rows[0]!.version).toMatch(/^PostgreSQL 17\./);
});

test('the master has the rights of RDS’s: no superuser, no BYPASSRLS, owner of its database, may hand out rds_iam', async () => {
  const { rows } = await asMaster(
    'initech',
    `select rolsuper, rolbypassrls, rolreplication, rolcreaterole, rolcreatedb,
       (select datdba::regrole::text from pg_database where datname = current_database()) as owner
     from pg_roles where rolname = current_user`,
  );
  expect(rows[0]).toEqual({
    rolsuper: false,
    rolbypassrls: false,
    rolreplication: false,
    rolcreaterole: true,
    rolcreatedb: true,
    owner: 'tenantry_master',
  });
  await asMaster('initech', "create role by_token login password 'never-used'");
  await asMaster('initech', 'grant rds_iam to by_token');
  const { Endpoint } = await show('initech');
  const byToken = {
    host: '127.0.0.1',
    port: Endpoint!.Port!,
    database: 'tenantry',
    login: 'by_token',
    password: async () => 'never-used',
    tls: 'off' as const,
  };
  await expect(withConnection(byToken, (connection) => connection.query('select 1'))).rejects.toThrow();
  await expect(asMaster('initech', 'create role too_much superuser')).rejects.toThrow();
});

test('a caller sees an instance being created, without an endpoint', async () => {
  let release = () => {};
  const until = new Promise<void>((resolve) => {
    release = resolve;
  });
  hold = { identifier: 'slow', status: 'creating', until };
  const { DBInstance } = await rds.send(new CreateDBInstanceCommand(tenant('Slow')));
  expect(DBInstance).toMatchObject({ DBInstanceIdentifier: 'slow', DBInstanceStatus: 'creating' });
  expect((await show('SLOW')).Endpoint).toBeUndefined();
  await expect(
    rds.send(new DeleteDBInstanceCommand({ DBInstanceIdentifier: 'slow', SkipFinalSnapshot: true })),
  ).rejects.toBeInstanceOf(InvalidDBInstanceStateFault);
  release();
  hold = undefined;
  await wait('slow');
  await remove('slow');
});

test('an identifier that is taken, a full quota and an unknown instance are typed faults', async () => {
  await expect(rds.send(new CreateDBInstanceCommand(tenant('INITECH')))).rejects.toBeInstanceOf(
    DBInstanceAlreadyExistsFault,
  );
  await rds.send(new CreateDBInstanceCommand(tenant('second')));
  await rds.send(new CreateDBInstanceCommand(tenant('third')));
  await expect(rds.send(new CreateDBInstanceCommand(tenant('fourth')))).rejects.toBeInstanceOf(
    InstanceQuotaExceededFault,
  );
  const names: string[] = [];
  for await (const page of paginateDescribeDBInstances({ client: rds, pageSize: 20 }, {})) {
    names.push(...page.DBInstances!.map(({ DBInstanceIdentifier }) => DBInstanceIdentifier!));
  }
  expect(names).toEqual(['initech', 'second', 'third']);
  const { DBInstances } = await rds.send(
    new DescribeDBInstancesCommand({ Filters: [{ Name: 'db-instance-id', Values: ['third'] }] }),
  );
  expect(DBInstances!.map(({ DBInstanceIdentifier }) => DBInstanceIdentifier)).toEqual(['third']);
  await expect(show('nowhere')).rejects.toBeInstanceOf(DBInstanceNotFoundFault);
  await wait('second');
  await wait('third');
  await Promise.all([remove('second'), remove('third')]);
});

test('deletion protection and the final snapshot rule', async () => {
  const name = 'guarded';
  await rds.send(new CreateDBInstanceCommand({ ...tenant(name), DeletionProtection: true }));
  await wait(name);
  const { SecretArn } = (await show(name)).MasterUserSecret!;
  const drop = { DBInstanceIdentifier: name };
  await expect(rds.send(new DeleteDBInstanceCommand({ ...drop, SkipFinalSnapshot: true }))).rejects.toThrow(
    /deletion protection/,
  );
  await rds.send(new ModifyDBInstanceCommand({ ...drop, DeletionProtection: false }));
  await expect(rds.send(new DeleteDBInstanceCommand(drop))).rejects.toMatchObject({
    name: 'InvalidParameterCombination',
    message: 'FinalDBSnapshotIdentifier is required unless SkipFinalSnapshot is specified.',
  });
  await rds.send(new DeleteDBInstanceCommand({ ...drop, FinalDBSnapshotIdentifier: 'last-of-guarded' }));
  await waitUntilDBInstanceDeleted({ client: rds, ...waiting }, drop);
  await expect(secrets.send(new GetSecretValueCommand({ SecretId: SecretArn! }))).rejects.toThrow();

  await rds.send(new CreateDBInstanceCommand(tenant(name)));
  await wait(name);
  await expect(
    rds.send(new DeleteDBInstanceCommand({ ...drop, FinalDBSnapshotIdentifier: 'last-of-guarded' })),
  ).rejects.toBeInstanceOf(DBSnapshotAlreadyExistsFault);
  await remove(name);
});

test('the master password is replaced, by value or by rotation', async () => {
  const old = await masterPassword('initech');
  await rds.send(
    new ModifyDBInstanceCommand({
      DBInstanceIdentifier: 'initech',
      RotateMasterUserPassword: true,
      ApplyImmediately: true,
    }),
  );
  await wait('initech');
  const rotated = await masterPassword('initech');
  expect(rotated).not.toBe(old);
  await asMaster('initech', 'select 1', rotated);
  await expect(asMaster('initech', 'select 1', old)).rejects.toThrow();
  await expect(
    rds.send(
      new ModifyDBInstanceCommand({ DBInstanceIdentifier: 'initech', MasterUserPassword: 'chosen-by-hand' }),
    ),
  ).rejects.toThrow(/RDS manages/);
});

test('tags are listed and added by ARN', async () => {
  const { DBInstanceArn: ResourceName } = await show('initech');
  await rds.send(
    new AddTagsToResourceCommand({ ResourceName, Tags: [{ Key: 'tier', Value: 'enterprise' }] }),
  );
  const { TagList } = await rds.send(new ListTagsForResourceCommand({ ResourceName }));
  expect(TagList).toEqual([
    { Key: 'tenantry:tenant', Value: 'one' },
    { Key: 'tier', Value: 'enterprise' },
  ]);
});

test.each([
  [{ Engine: 'mysql' }, /Engine mysql is not emulated/],
  [{ EngineVersion: '16.4' }, /only 17/],
  [{ Port: 5433 }, /CreateDBInstance with Port is not emulated/],
  [{ DBInstanceIdentifier: 'two--hyphens' }, /two in a row/],
  [{ MasterUsername: 'rdsadmin' }, /cannot be used/],
  [{ DBName: 'postgres' }, /which every instance has/],
  [{ MasterUserPassword: 'a-password' }, /ManageMasterUserPassword/],
  [{ ManageMasterUserPassword: false }, /MasterUserPassword is required/],
])('a request with %j is refused', async (part, message) => {
  await expect(rds.send(new CreateDBInstanceCommand({ ...tenant('refused'), ...part }))).rejects.toThrow(
    message,
  );
  await expect(show('refused')).rejects.toBeInstanceOf(DBInstanceNotFoundFault);
});

test('an operation that is not emulated is named', async () => {
  await expect(rds.send(new RebootDBInstanceCommand({ DBInstanceIdentifier: 'initech' }))).rejects.toThrow(
    'rds:RebootDBInstance is not emulated locally.',
  );
});

test('data and endpoint survive stopping, a crash, and a restart of the emulator', async () => {
  await asMaster('initech', 'create table kept as select 1 as n');
  const { Endpoint: before } = await show('initech');

  await rds.send(new StopDBInstanceCommand({ DBInstanceIdentifier: 'initech' }));
  await emulator.instances!.settled('initech');
  expect((await show('initech')).DBInstanceStatus).toBe('stopped');
  await expect(asMaster('initech', 'select 1')).rejects.toThrow();
  await rds.send(new StartDBInstanceCommand({ DBInstanceIdentifier: 'initech' }));
  await wait('initech');

  const restarted = history.initech!.length;
  process.kill(emulator.instances!.pids()[0]!, 'SIGQUIT');
  await expect.poll(() => history.initech!.slice(restarted)).toEqual(['available']);

  // A session that is at work outlives its dead server for a while, and holds the data.
  const killed = history.initech!.length;
  const busy = asMaster('initech', 'do $$ begin for i in 1..100000000 loop null; end loop; end $$').catch(
    () => {},
  );
  await new Promise((resolve) => setTimeout(resolve, 300));
  process.kill(emulator.instances!.pids()[0]!, 'SIGKILL');
  await expect.poll(() => history.initech!.slice(killed), { timeout: 60_000 }).toEqual(['available']);
  await busy;

  const pids = emulator.instances!.pids();
  await emulator.close();
  for (const pid of pids) expect(() => process.kill(pid, 0)).toThrow('ESRCH');
  await start();
  expect((await show('initech')).Endpoint).toEqual(before);
  expect((await asMaster('initech', 'select n from kept')).rows).toEqual([{ n: 1 }]);
});

test('without a state file nothing is left of instances and their final snapshots', async () => {
  const clusters = join(postgresBase(folder), 'clusters');
  await emulator.close();
  const before = await readdir(clusters);
  await start({});
  for (const name of ['left', 'snapped']) {
    await rds.send(new CreateDBInstanceCommand(tenant(name)));
    await wait(name);
  }
  const deleted = { DBInstanceIdentifier: 'snapped', FinalDBSnapshotIdentifier: 'snapped-final' };
  await rds.send(new DeleteDBInstanceCommand(deleted));
  await waitUntilDBInstanceDeleted({ client: rds, ...waiting }, { DBInstanceIdentifier: 'snapped' });
  expect(await readdir(clusters)).toEqual(expect.arrayContaining(['left', 'snapshot.snapped-final']));
  await emulator.close();
  expect(await readdir(clusters)).toEqual(before);
  await start();
});
