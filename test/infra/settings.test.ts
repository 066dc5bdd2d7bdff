import { describe, expect, it } from 'vitest';
import { readSettings } from '../../infra/settings.ts';

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
      /tenantry: .*tries/,
    ])
      expect(message).toMatch(fault);
  });

  it.each([
    [{}, /routeTableIds .* or endpointSecurityGroupId/],
    [
      { routeTableIds: ['rtb-0123456789abcdef0'], endpointSecurityGroupId: 'sg-0123456789abcdef0' },
      /not both/,
    ],
  ])('know where the endpoints of an existing network are: %j', (endpoints, fault) => {
    const subnetIds = ['subnet-0123456789abcdef0', 'subnet-0123456789abcdef1'];
    const existing = { vpcId: 'vpc-0123456789abcdef0', subnetIds, ...endpoints };
    expect(() => readSettings({ network: { existing } })).toThrow(fault);
  });

  it.each(['', '{', '[]', 7])('refuse %j and say where they belong', (context) => {
    expect(() => readSettings(context)).toThrow(/tenantry/);
  });
});
