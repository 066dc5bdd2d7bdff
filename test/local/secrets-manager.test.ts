import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  CreateSecretCommand,
  DeleteSecretCommand,
  DescribeSecretCommand,
  GetSecretValueCommand,
  InvalidParameterException,
  InvalidRequestException,
  ListSecretsCommand,
  PutSecretValueCommand,
  paginateListSecrets,
  ResourceExistsException,
  ResourceNotFoundException,
  RestoreSecretCommand,
  RotateSecretCommand,
  SecretsManagerClient,
  TagResourceCommand,
  UpdateSecretCommand,
} from '@aws-sdk/client-secrets-manager';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { type AwsEmulator, startAwsEmulator } from '../../infra/local/emulator/server.ts';

let clock = Date.parse('2026-01-01T00:00:00Z');
let emulator: AwsEmulator;
let client: SecretsManagerClient;

const connect = (url: string, accessKeyId = 'local') =>
  new SecretsManagerClient({
    endpoint: url,
    region: 'eu-west-1',
    credentials: { accessKeyId, secretAccessKey: 'local' },
    maxAttempts: 1,
  });

const current = async (SecretId: string) =>
  (await client.send(new GetSecretValueCommand({ SecretId }))).SecretString;

beforeAll(async () => {
  emulator = await startAwsEmulator({ clock: () => clock });
  client = connect(emulator.url);
});
afterAll(() => emulator.close());

describe('versions', () => {
  test('a secret is read by name, ARN and ARN without its suffix', async () => {
    const { ARN, VersionId } = await client.send(
      new CreateSecretCommand({
        Name: 'mcp-tenant-db/one',
        SecretString: 'first',
        Description: 'what it is for',
      }),
    );
    expect(ARN).toMatch(/^arn:aws:secretsmanager:eu-west-1:\d{12}:secret:mcp-tenant-db\/one-[A-Za-z0-9]{6}$/);
    for (const SecretId of ['mcp-tenant-db/one', ARN!, ARN!.slice(0, -7)]) {
      const value = await client.send(new GetSecretValueCommand({ SecretId }));
      expect(value).toMatchObject({
        Name: 'mcp-tenant-db/one',
        SecretString: 'first',
        VersionId,
        VersionStages: ['AWSCURRENT'],
      });
      expect(value.CreatedDate).toEqual(new Date(clock));
    }
  });

  test('a new value becomes AWSCURRENT and the old one AWSPREVIOUS', async () => {
    const Name = 'rotated';
    const { VersionId: one } = await client.send(new CreateSecretCommand({ Name, SecretString: '1' }));
    const { VersionId: two } = await client.send(
      new PutSecretValueCommand({ SecretId: Name, SecretString: '2' }),
    );
    const { VersionId: three } = await client.send(
      new UpdateSecretCommand({ SecretId: Name, SecretString: '3' }),
    );
    expect(await current(Name)).toBe('3');
    const previous = await client.send(
      new GetSecretValueCommand({ SecretId: Name, VersionStage: 'AWSPREVIOUS' }),
    );
    expect(previous.SecretString).toBe('2');
    expect(
      (await client.send(new GetSecretValueCommand({ SecretId: Name, VersionId: one }))).SecretString,
    ).toBe('1');
    const { VersionIdsToStages } = await client.send(new DescribeSecretCommand({ SecretId: Name }));
    expect(VersionIdsToStages).toEqual({ [two!]: ['AWSPREVIOUS'], [three!]: ['AWSCURRENT'] });
    await expect(
      client.send(new GetSecretValueCommand({ SecretId: Name, VersionId: one, VersionStage: 'AWSCURRENT' })),
    ).rejects.toBeInstanceOf(InvalidRequestException);
  });

  test('a stage of its own leaves AWSCURRENT where it is', async () => {
    const Name = 'pending';
    await client.send(new CreateSecretCommand({ Name, SecretString: 'old' }));
    await client.send(
      new PutSecretValueCommand({ SecretId: Name, SecretString: 'new', VersionStages: ['AWSPENDING'] }),
    );
    expect(await current(Name)).toBe('old');
    const pending = await client.send(
      new GetSecretValueCommand({ SecretId: Name, VersionStage: 'AWSPENDING' }),
    );
    expect(pending.SecretString).toBe('new');
  });

  test('a secret without a value has no current version', async () => {
    const { VersionId } = await client.send(new CreateSecretCommand({ Name: 'empty' }));
    expect(VersionId).toBeUndefined();
    await expect(current('empty')).rejects.toThrow(/staging label: AWSCURRENT/);
  });

  test('binary values come back as they were', async () => {
    const SecretBinary = new Uint8Array([0, 255, 7]);
    await client.send(new CreateSecretCommand({ Name: 'binary', SecretBinary }));
    const value = await client.send(new GetSecretValueCommand({ SecretId: 'binary' }));
    expect([...value.SecretBinary!]).toEqual([0, 255, 7]);
  });

  test('the same token with the same value changes nothing; with another value it is refused', async () => {
    const ClientRequestToken = 'a'.repeat(32);
    const create = { Name: 'once', SecretString: 'x', ClientRequestToken };
    const first = await client.send(new CreateSecretCommand(create));
    const again = await client.send(new CreateSecretCommand(create));
    expect([again.ARN, again.VersionId]).toEqual([first.ARN, ClientRequestToken]);
    const put = { SecretId: 'once', SecretString: 'y', ClientRequestToken: 'b'.repeat(32) };
    await client.send(new PutSecretValueCommand(put));
    await client.send(new PutSecretValueCommand(put));
    expect(await current('once')).toBe('y');
    await expect(
      client.send(new PutSecretValueCommand({ ...put, SecretString: 'z' })),
    ).rejects.toBeInstanceOf(ResourceExistsException);
    expect(await current('once')).toBe('y');
  });
});

describe('deletion', () => {
  test('a deleted secret keeps its name for its recovery window and can be restored', async () => {
    const Name = 'mistake';
    await client.send(new CreateSecretCommand({ Name, SecretString: 'kept' }));
    const { DeletionDate } = await client.send(
      new DeleteSecretCommand({ SecretId: Name, RecoveryWindowInDays: 7 }),
    );
    expect(DeletionDate).toEqual(new Date(clock + 7 * 86_400_000));
    await expect(current(Name)).rejects.toBeInstanceOf(InvalidRequestException);
    await expect(client.send(new CreateSecretCommand({ Name, SecretString: 'new' }))).rejects.toThrow(
      /already scheduled for deletion/,
    );
    expect((await client.send(new DescribeSecretCommand({ SecretId: Name }))).DeletedDate).toEqual(
      DeletionDate,
    );
    await client.send(new RestoreSecretCommand({ SecretId: Name }));
    expect(await current(Name)).toBe('kept');
  });

  test('after the window the name is free', async () => {
    const Name = 'gone';
    await client.send(new CreateSecretCommand({ Name, SecretString: 'old' }));
    await client.send(new DeleteSecretCommand({ SecretId: Name }));
    clock += 30 * 86_400_000 + 1;
    await expect(current(Name)).rejects.toBeInstanceOf(ResourceNotFoundException);
    await client.send(new CreateSecretCommand({ Name, SecretString: 'new' }));
    expect(await current(Name)).toBe('new');
  });

  test('forced deletion is at once, and repeats without complaint', async () => {
    const Name = 'forced';
    await client.send(new CreateSecretCommand({ Name, SecretString: 'x' }));
    const force = new DeleteSecretCommand({ SecretId: Name, ForceDeleteWithoutRecovery: true });
    await client.send(force);
    await client.send(force);
    await expect(current(Name)).rejects.toBeInstanceOf(ResourceNotFoundException);
    await client.send(new CreateSecretCommand({ Name, SecretString: 'y' }));
  });

  test.each([
    { ForceDeleteWithoutRecovery: true, RecoveryWindowInDays: 7 },
    { RecoveryWindowInDays: 6 },
    { RecoveryWindowInDays: 31 },
  ])('%j is refused', async (how) => {
    await expect(
      client.send(new DeleteSecretCommand({ SecretId: 'rotated', ...how })),
    ).rejects.toBeInstanceOf(InvalidParameterException);
  });
});

describe('refusals', () => {
  test('a name that is taken', async () => {
    await client.send(new CreateSecretCommand({ Name: 'taken', SecretString: 'x' }));
    await expect(
      client.send(new CreateSecretCommand({ Name: 'taken', SecretString: 'x' })),
    ).rejects.toBeInstanceOf(ResourceExistsException);
  });

  test('a secret that is not there', async () => {
    for (const SecretId of ['nowhere', 'constructor']) {
      await expect(current(SecretId)).rejects.toBeInstanceOf(ResourceNotFoundException);
    }
  });

  test('a secret that RDS manages', async () => {
    await emulator.secrets.create({ name: 'rds!db-1', region: 'eu-west-1', owner: 'rds', SecretString: 'x' });
    for (const command of [
      new PutSecretValueCommand({ SecretId: 'rds!db-1', SecretString: 'y' }),
      new DeleteSecretCommand({ SecretId: 'rds!db-1', ForceDeleteWithoutRecovery: true }),
    ]) {
      await expect(client.send(command as PutSecretValueCommand)).rejects.toBeInstanceOf(
        InvalidRequestException,
      );
    }
    expect(await current('rds!db-1')).toBe('x');
  });

  test('operations and parameters that are not emulated are named', async () => {
    await expect(client.send(new RotateSecretCommand({ SecretId: 'taken' }))).rejects.toMatchObject({
      name: 'NotEmulated',
      message: 'secretsmanager:RotateSecret is not emulated locally.',
    });
    await expect(
      client.send(new CreateSecretCommand({ Name: 'k', SecretString: 'x', KmsKeyId: 'alias/k' })),
    ).rejects.toThrow('CreateSecret with KmsKeyId is not emulated locally.');
  });

  test('a request without a signature, or with another access key', async () => {
    const bare = await fetch(emulator.url, {
      method: 'POST',
      headers: { 'x-amz-target': 'secretsmanager.ListSecrets' },
      body: '{}',
    });
    expect(bare.status).toBe(403);
    const guarded = await startAwsEmulator({ accessKeyId: 'the-one' });
    try {
      const list = new ListSecretsCommand({});
      await expect(connect(guarded.url, 'another').send(list)).rejects.toThrow(/access key/);
      expect((await connect(guarded.url, 'the-one').send(list)).SecretList).toEqual([]);
    } finally {
      await guarded.close();
    }
  });
});

test('lists page by page, filtered by name prefix and tag', async () => {
  for (let n = 0; n < 5; n++) {
    await client.send(
      new CreateSecretCommand({
        Name: `list/${n}`,
        SecretString: 'x',
        Tags: [{ Key: 'even', Value: String(n % 2 === 0) }],
      }),
    );
  }
  await client.send(new TagResourceCommand({ SecretId: 'list/1', Tags: [{ Key: 'even', Value: 'true' }] }));
  const pages: string[][] = [];
  for await (const page of paginateListSecrets(
    { client, pageSize: 2 },
    {
      Filters: [
        { Key: 'name', Values: ['list/'] },
        { Key: 'tag-value', Values: ['true'] },
      ],
    },
  )) {
    pages.push(page.SecretList!.map(({ Name }) => Name!));
  }
  expect(pages).toEqual([
    ['list/0', 'list/1'],
    ['list/2', 'list/4'],
  ]);
});

describe('state', () => {
  let folder: string;
  afterEach(() => rm(folder, { recursive: true, force: true }));

  test('survives a restart in a file that only its owner reads', async () => {
    folder = await mkdtemp(join(tmpdir(), 'tenantry-secrets-'));
    const stateFile = join(folder, 'aws.json');
    const first = await startAwsEmulator({ stateFile });
    const write = connect(first.url);
    await Promise.all(
      Array.from({ length: 20 }, (_, n) =>
        write.send(new CreateSecretCommand({ Name: `s${n}`, SecretString: `${n}` })),
      ),
    );
    // Saved when the answer comes, not at the end.
    expect(Object.keys(JSON.parse(await readFile(stateFile, 'utf8')).secrets)).toHaveLength(20);
    await first.close();
    expect((await stat(stateFile)).mode & 0o777).toBe(0o600);
    const second = await startAwsEmulator({ stateFile });
    const value = await connect(second.url).send(new GetSecretValueCommand({ SecretId: 's7' }));
    await second.close();
    expect(value.SecretString).toBe('7');
  });
});
