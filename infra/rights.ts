/**
 * What a function may be allowed to do, in words. `infra/functions.ts` gives them out, one function a row;
 * `infra/constructs/grant.ts` says what each is in IAM.
 */
export type Right =
  /** Log in to homes as their own logins, and look up routes: the data plane. */
  | 'enter-homes'
  /** Look up routes, and the canary's last word: nothing else of the catalog. */
  | 'ask-catalog'
  | 'read-tenant-secrets'
  | 'keep-tenant-secrets'
  /** See whether one is there, and delete it. */
  | 'remove-tenant-secrets'
  | 'read-context-key'
  | 'read-signing-key'
  /** Give the two keys of the deployment their first value. */
  | 'make-keys'
  /** Log in as tenancy_provisioner. */
  | 'operate-shared-cluster'
  | 'operate-dedicated-instances'
  /** The master's password of the shared cluster: makes tenancy_provisioner, once. */
  | 'read-shared-master-secret'
  /** The same of dedicated instances. */
  | 'read-master-secrets'
  /** Dedicated instances of this product, marked with their tenant. */
  | 'create-instances'
  | 'delete-instances'
  /** The names of all secrets of the account, to find one that nobody uses; of ours, whether they are still there. Never a value. */
  | 'list-secrets'
  | 'list-instances'
  | 'start-operations'
  /** Of a single tenant. */
  | 'start-moves'
  /** Of the canaries: their operation is provision-tenant's, as everybody's. */
  | 'start-provisioning'
  | 'call-mcp'
  /** Let the public URL be called from outside the VPC. */
  | 'call-endpoint-canary'
  | 'read-canary-keys'
  | 'keep-canary-keys'
  | 'keep-exports';

/** What a right leads to in the network: databases by their security group, AWS by an endpoint in the VPC. */
interface Reach {
  readonly databases?: readonly ('proxy' | 'cluster' | 'dedicated')[];
  readonly service?: Service;
}
export const serviceNames = ['secretsmanager', 'rds', 'states', 'lambda', 's3'] as const;
export type Service = (typeof serviceNames)[number];

export const reach: Readonly<Record<Right, Reach>> = {
  'enter-homes': { databases: ['proxy', 'dedicated'] },
  'ask-catalog': { databases: ['proxy'] },
  'read-tenant-secrets': { service: 'secretsmanager' },
  'keep-tenant-secrets': { service: 'secretsmanager' },
  'remove-tenant-secrets': { service: 'secretsmanager' },
  'read-context-key': { service: 'secretsmanager' },
  'read-signing-key': { service: 'secretsmanager' },
  'make-keys': { service: 'secretsmanager' },
  'operate-shared-cluster': { databases: ['cluster'] },
  'operate-dedicated-instances': { databases: ['dedicated'] },
  'read-shared-master-secret': { service: 'secretsmanager' },
  'read-master-secrets': { service: 'secretsmanager' },
  'create-instances': { service: 'rds' },
  'delete-instances': { service: 'rds' },
  'list-secrets': { service: 'secretsmanager' },
  'list-instances': { service: 'rds' },
  'start-operations': { service: 'states' },
  'start-moves': { service: 'states' },
  'start-provisioning': { service: 'states' },
  'call-mcp': { service: 'lambda' },
  'call-endpoint-canary': { service: 'lambda' },
  'read-canary-keys': { service: 'secretsmanager' },
  'keep-canary-keys': { service: 'secretsmanager' },
  'keep-exports': { service: 's3' },
};

const known = <T>(value: T | undefined): value is T => value !== undefined;

export const databasesOf = (rights: readonly Right[]) => [
  ...new Set(rights.flatMap((right) => reach[right].databases ?? [])),
];
export const servicesOf = (rights: readonly Right[]) => [
  ...new Set(rights.map((right) => reach[right].service).filter(known)),
];
