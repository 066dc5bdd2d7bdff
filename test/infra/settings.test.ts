import { readFileSync } from 'node:fs';
import { Annotations, Match } from 'aws-cdk-lib/assertions';
import { describe, expect, it } from 'vitest';
import { versionFloors } from '../../functions/lib/health/audit-server.ts';
import { isBelowFloor } from '../../infra/engine-versions.ts';
import { readSettings } from '../../infra/settings.ts';
import { readVerifySettings } from '../../infra/verify/settings.ts';
import { Assembly } from './assembly.ts';
import { synthesize } from './synthesize.ts';

describe('settings', () => {
  it('need nothing: everything has a default', () => {
    expect(readSettings({})).toMatchObject({
      issuers: [],
      tiers: { starter: 'rls', pro: 'schema', enterprise: 'database' },
      cluster: { kind: 'aurora', deletionProtection: true, standby: true },
      concurrency: { connections: 4 },
      logRetentionDays: 30,
    });
    expect(readSettings(undefined)).toEqual(readSettings({}));
  });

  it('can be given as text for one environment', () => {
    const staging = { cluster: { kind: 'instance', standby: false }, alarmEmail: 'ops@example.com' };
    expect(readSettings(JSON.stringify(staging))).toEqual(readSettings(staging));
  });

  it('report every fault together', () => {
    const faulty = {
      region: 'Ireland',
      issuers: [{ issuer: 'http://login.example.com', jwksUri: 'https://login.example.com/$keys' }],
      tiers: { pro: 'silo' },
      network: { existing: { vpcId: 'vpc-1', subnetIds: ['subnet-0123456789abcdef0'] } },
      cluster: { kind: 'aurora', engineVersion: '16.4', instanceClass: 'db.m7g.large' },
      concurrency: { reserved: 2, provisioned: 3 },
      alarmEmail: 'nobody',
      allowedOrigins: ['https://app.example.com/', 'app.example.com', 'https://app.example.com'],
      tries: 3,
    };
    const message = (() => {
      try {
        readSettings(faulty);
      } catch (error) {
        return (error as Error).message;
      }
    })();
    for (const fault of [
      /tenantry\.region: must be an AWS region/,
      /tenantry\.issuers\.0\.issuer: must be an https/,
      /tenantry\.issuers\.0\.jwksUri: must not contain/,
      /tenantry\.tiers\.pro: /,
      /tenantry\.network\.existing\.vpcId: must be an id/,
      /tenantry\.network\.existing\.subnetIds: /,
      /tenantry\.cluster\.engineVersion: must be an exact version of PostgreSQL 17/,
      /tenantry\.cluster: .*instanceClass/,
      /tenantry\.concurrency: provisioned must not be more/,
      /tenantry\.alarmEmail: /,
      /tenantry\.allowedOrigins\.0: must be an origin/,
      /tenantry\.allowedOrigins\.1: must be an origin/,
      /tenantry: .*tries/,
    ])
      expect(message).toMatch(fault);
    expect(message).not.toMatch(/allowedOrigins\.2/);
  });

  it.each([
    [{}, /routeTableIds .* or endpointSecurityGroupId/],
    [
      { routeTableIds: ['rtb-0123456789abcdef0'], endpointSecurityGroupId: 'sg-0123456789abcdef0' },
      /endpointsThere names them/,
    ],
    [{ endpointsThere: ['s3', 'rds'] }, /needs endpointSecurityGroupId/],
    [
      { endpointSecurityGroupId: 'sg-0123456789abcdef0', endpointsThere: ['rds'] },
      /needs routeTableIds for the endpoint of S3/,
    ],
    [{ endpointsThere: ['sqs'] }, /endpointsThere\.0/],
  ])('know where the endpoints of an existing network are: %j', (endpoints, fault) => {
    const subnetIds = ['subnet-0123456789abcdef0', 'subnet-0123456789abcdef1'];
    const existing = { vpcId: 'vpc-0123456789abcdef0', subnetIds, ...endpoints };
    expect(() => readSettings({ network: { existing } })).toThrow(fault);
  });

  it.each([
    [{ routeTableIds: ['rtb-0123456789abcdef0'] }, []],
    [
      { endpointSecurityGroupId: 'sg-0123456789abcdef0' },
      ['lambda', 'rds', 's3', 'secretsmanager', 'states'],
    ],
    [{ endpointsThere: ['s3'] }, ['s3']],
  ])('take it from what they name which endpoints are there: %j', (endpoints, expected) => {
    const subnetIds = ['subnet-0123456789abcdef0', 'subnet-0123456789abcdef1'];
    const existing = { vpcId: 'vpc-0123456789abcdef0', subnetIds, ...endpoints };
    const there = readSettings({ network: { existing } }).network.existing!.endpointsThere;
    expect([...there].sort()).toEqual(expected);
  });

  it.each(['10.0.0.0/20', '10.0.0.0/8', '10.0.0.0'])(
    'refuse a network of %s, where the subnets don’t fit',
    (cidr) => {
      expect(() => readSettings({ network: { cidr } })).toThrow(/tenantry\.network\.cidr: must be/);
    },
  );

  it.each([
    [['us-east-1b'], /tenantry\.network\.zones: /],
    [['us-east-1b', 'us-east-1b'], /tenantry\.network\.zones: must be two zones/],
    [['us-east-1b', 'use1-az4'], /tenantry\.network\.zones\.1: must be a zone’s name/],
  ])('refuse %j as the zones of a network', (zones, fault) => {
    expect(() => readSettings({ network: { zones } })).toThrow(fault);
  });

  it('refuse more connections than Aurora gives a server that may shrink to half a unit', () => {
    const aurora = (cluster: object) => readSettings({ cluster: { kind: 'aurora', ...cluster } });
    expect(() => aurora({ maxConnections: 2_001 })).toThrow(/tenantry\.cluster\.maxConnections: .* 2000/);
    expect(aurora({ maxConnections: 2_000 }).cluster.maxConnections).toBe(2_000);
    expect(aurora({ minCapacity: 1, maxConnections: 2_001 }).cluster.maxConnections).toBe(2_001);
    const instance = { kind: 'instance', maxConnections: 2_001 };
    expect(readSettings({ cluster: instance }).cluster.maxConnections).toBe(2_001);
  });

  it.each(['', '{', '[]', 7])('refuse %j and say where they belong', (context) => {
    expect(() => readSettings(context)).toThrow(/tenantry/);
  });
});

describe('settings of npm run verify:aws', () => {
  const outputs = {
    TenantryEndpoint: { EndpointUrl: 'https://mcp.example.com/mcp' },
    TenantryData: { ProxyName: 'proxy' },
    TenantryControl: { AdminUrl: 'https://abc.execute-api.eu-west-1.amazonaws.com/admin' },
  };

  it('are the last deployment’s outputs, so that it needs no variable', () => {
    expect(readVerifySettings(outputs, {})).toMatchObject({
      url: 'https://mcp.example.com/mcp',
      proxy: 'proxy',
      key: undefined,
    });
    const env = { VERIFY_URL: 'https://other.example.com/mcp', VERIFY_KEY: 'tnt_x' };
    expect(readVerifySettings(outputs, env)).toMatchObject({ url: env.VERIFY_URL, key: 'tnt_x' });
  });

  it('look for the proxy in the region that it was deployed to, unless it is another one', () => {
    const env = { AWS_REGION: 'us-west-2' };
    expect(readVerifySettings(outputs, env).region).toBe('eu-west-1');
    expect(readVerifySettings(outputs, { ...env, VERIFY_PROXY: 'other' }).region).toBe('us-west-2');
    expect(readVerifySettings({}, { ...env, VERIFY_URL: 'https://a.example.com/mcp' }).region).toBe(
      'us-west-2',
    );
  });

  it('say which output is missing where nothing was deployed from here', () => {
    expect(() => readVerifySettings({}, {})).toThrow(/VERIFY_URL: .*EndpointUrl/);
  });

  it('are outputs of the deployment, in the file that cdk.json names', () => {
    const named = new Assembly(synthesize()).outputs();
    for (const [stack, values] of Object.entries(outputs))
      for (const output of Object.keys(values)) expect(named).toHaveProperty([`${stack}.${output}`]);
    const { outputsFile } = JSON.parse(readFileSync('cdk.json', 'utf8'));
    expect(readFileSync('infra/verify/main.ts', 'utf8')).toContain(`'${outputsFile}'`);
  });
});

describe('versions of PostgreSQL', () => {
  it.each([{ kind: 'aurora' }, { kind: 'instance' }])(
    'have no hole that the canary would complain of, unless somebody asks for one: %j',
    (cluster) => {
      const settings = readSettings({ cluster });
      for (const { engineVersion } of [settings.cluster, settings.dedicated])
        expect(isBelowFloor(engineVersion), engineVersion).toBe(false);
    },
  );

  it('are compared with the canary’s own floor', () => {
    expect(versionFloors[17]).toBe(170010);
    expect(['17.9', '17.10', '17.11', '17.4'].map(isBelowFloor)).toEqual([true, false, false, true]);
  });

  it('below it are said at synthesis, with the setting that chose them', () => {
    const warnings = (changes: object) =>
      Annotations.fromStack(synthesize({ ...changes }).stacks.data).findWarning(
        '*',
        Match.stringLikeRegexp('CVE-2026-6473'),
      );
    expect(warnings({})).toEqual([]);
    const found = warnings({
      cluster: { kind: 'aurora', engineVersion: '17.9' },
      dedicated: { engineVersion: '17.7' },
    });
    expect(found.map(({ entry }) => entry.data).join()).toMatch(/cluster\.engine.*dedicated\.engine/);
  });
});
