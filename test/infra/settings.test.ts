import { describe, expect, it } from 'vitest';
import { readSettings } from '../../infra/settings.ts';
import { exampleSettings } from './synthesize.ts';

describe('settings', () => {
  it('are complete with what cdk.json gives', () => {
    expect(readSettings(exampleSettings)).toMatchObject({
      allowedOrigins: [],
      concurrency: { connections: 4 },
      logRetentionDays: 30,
    });
  });

  it('can be given as text for one environment', () => {
    expect(readSettings(JSON.stringify(exampleSettings))).toEqual(readSettings(exampleSettings));
  });

  it('report every fault together', () => {
    const faulty = {
      ...exampleSettings,
      region: 'Ireland',
      clusters: [],
      issuers: [{ issuer: 'http://login.example.com', jwksUri: 'https://login.example.com/$keys' }],
      catalog: { host: 'not a host' },
      tiers: {},
    };
    expect(() => readSettings(faulty)).toThrow(
      /tenantry\.region: must be an AWS region[\s\S]*issuers\.0\.issuer: must be an https[\s\S]*issuers\.0\.jwksUri: must not contain[\s\S]*catalog\.host[\s\S]*clusters[\s\S]*tiers/,
    );
  });

  it.each([undefined, null, {}, '', '{', '[]', 7])('refuse %j and say where they belong', (context) => {
    expect(() => readSettings(context)).toThrow(/"tenantry"/);
  });
});
