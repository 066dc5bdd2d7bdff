import { randomUUID } from 'node:crypto';
import { expect, it } from 'vitest';
import { instanceName } from '../../../functions/lib/aws/rds.ts';
import { auditInstances } from '../../../functions/lib/health/account.ts';

const clusterId = randomUUID();
const place = { host: 'db.example', port: 5432 };
const server = {
  clusterId,
  kind: 'dedicated',
  callHost: place.host,
  callPort: place.port,
  ...place,
  database: null,
  databaseId: null,
} as const;
const audit = (instance: { identifier: string; status: string; host?: string; port?: number }) =>
  auditInstances({ servers: [server], busy: new Set() }, [
    { host: undefined, port: undefined, tenant: randomUUID(), ...instance },
  ]).findings.map(({ check, object, finding }) => `${check}: ${object} ${finding}`);

it('an instance that failed and has no address any more is its tenant’s, and nothing to delete', () => {
  const identifier = instanceName(clusterId);
  expect(audit({ identifier, status: 'failed' })).toEqual([
    `instances: instance ${identifier} is failed: its tenant is not served`,
  ]);
  expect(audit({ identifier, status: 'available', ...place })).toEqual([]);
});

it('an instance of a tenant at an address that the catalog does not know is an orphan', () => {
  expect(audit({ identifier: 'tenantry-other', status: 'available', ...place, port: 5433 })).toEqual([
    `instances: instance at db.example is not there`,
    expect.stringMatching(/^orphans: instance tenantry-other is tenant .*'s, but the catalog knows no/),
  ]);
});

it.each([
  ['storage-full', /^give it more storage/],
  ['stopped', /^start it/],
  ['inaccessible-encryption-credentials', /events in RDS/],
])('of one that is %s it says what to do', (status, remedy) => {
  const instance = { identifier: instanceName(clusterId), ...place, status, tenant: randomUUID() };
  const { findings, away } = auditInstances({ servers: [server], busy: new Set() }, [instance]);
  expect(findings).toMatchObject([{ check: 'instances', remedy: expect.stringMatching(remedy) }]);
  expect([...away]).toEqual([clusterId]);
});
