import type { Right } from './rights.ts';

/**
 * The manifest: one row per Lambda. CDK builds from it (`infra/stacks`), the local cloud serves from it
 * (`infra/local`), so that a function cannot exist in one of the two only.
 */
export interface FunctionRow {
  /** Also the folder below `functions/` and the suffix of the deployed function's name. */
  readonly name: string;
  /** From the project's root; its export `handler` is called. */
  readonly entry: string;
  readonly timeoutSeconds: number;
  readonly memoryMb: number;
  /** The handler writes to a response stream (`awslambda.streamifyResponse`) instead of returning. */
  readonly streaming: boolean;
  /** Reaches the databases. What can answer without them stays outside: nothing unauthenticated enters the VPC. */
  readonly inVpc: boolean;
  /** Serves tenants' agents; operates tenants; or runs while a deployment does, before the others' new code serves. */
  readonly plane: 'data' | 'control' | 'deployment';
  /** All that it may do beside writing its log; what it reaches in the network follows from it. */
  readonly may: readonly Right[];
  /**
   * PostgreSQL connections past the proxy that the budget sets aside for all its environments together. Nothing holds them
   * to it but how much operators begin at once (`concurrency.reservedFor` bounds the admin function); only migrations and
   * batches of moves bound themselves. A connection that the server refuses is tried again by the state machine.
   */
  readonly connections?: number;
  /** Run by the clock, every so many minutes. */
  readonly scheduleMinutes?: number;
}

export const functions = [
  {
    name: 'mcp',
    entry: 'functions/mcp/handler.ts',
    // What API Gateway allows an answer that is not streamed: no client learns to wait longer than every route can.
    timeoutSeconds: 29,
    // Lambda gives CPU by memory; a whole core (1,769 MB) would wait for the database most of the time.
    memoryMb: 1024,
    streaming: true,
    inVpc: true,
    plane: 'data',
    may: ['enter-homes', 'read-tenant-secrets', 'read-context-key'],
  },
  {
    name: 'authorizer',
    entry: 'functions/authorizer/handler.ts',
    // Verifying is milliseconds; the rest is for fetching an issuer's keys once per environment.
    timeoutSeconds: 5,
    memoryMb: 512,
    streaming: false,
    inVpc: false,
    plane: 'data',
    may: [],
  },
  {
    name: 'health',
    entry: 'functions/health/handler.ts',
    // One question to the catalog; a load balancer or a person waits for it.
    timeoutSeconds: 10,
    memoryMb: 256,
    streaming: false,
    inVpc: true,
    plane: 'data',
    may: ['ask-catalog'],
  },
  {
    name: 'admin',
    entry: 'functions/admin/handler.ts',
    // As long as API Gateway waits; what takes longer is an operation.
    timeoutSeconds: 29,
    memoryMb: 512,
    streaming: false,
    inVpc: true,
    plane: 'control',
    may: [
      'operate-shared-cluster',
      'operate-dedicated-instances',
      'read-context-key',
      'read-signing-key',
      'start-operations',
    ],
    // Ten calls at once, each with the catalog and one home.
    connections: 20,
  },
  {
    name: 'provision-tenant',
    entry: 'functions/provision-tenant/handler.ts',
    // Migrating a new home is its longest step; the state machine gives each step its own limit.
    timeoutSeconds: 900,
    memoryMb: 512,
    streaming: false,
    inVpc: true,
    plane: 'control',
    may: [
      'operate-shared-cluster',
      'operate-dedicated-instances',
      'read-context-key',
      'keep-tenant-secrets',
      'create-instances',
      'delete-instances',
      'read-master-secrets',
      'call-mcp',
    ],
    // Ten tenants at once, each with the catalog and one home.
    connections: 20,
  },
  {
    name: 'install',
    entry: 'functions/install/handler.ts',
    // The catalog's and the runtime's migrations; the tables they change are small.
    timeoutSeconds: 600,
    memoryMb: 512,
    streaming: false,
    inVpc: true,
    plane: 'deployment',
    may: ['operate-shared-cluster', 'make-keys', 'read-shared-master-secret'],
    // One at a time, and one that it keeps for its next step.
    connections: 2,
  },
  {
    name: 'migrate-tenants',
    entry: 'functions/migrate-tenants/handler.ts',
    // A worker hands its slot on after five minutes; the rest is for the batch it is at.
    timeoutSeconds: 900,
    memoryMb: 512,
    streaming: false,
    inVpc: true,
    plane: 'control',
    may: ['operate-shared-cluster', 'operate-dedicated-instances', 'read-context-key', 'call-mcp'],
    // Four workers and as many that were thought dead and are not, each with the catalog and one home; and a step beside them,
    // whose rehearsal takes the catalog and a home of each strategy.
    connections: 20,
  },
  {
    name: 'move-tenant',
    entry: 'functions/move-tenant/handler.ts',
    // A copy hands over after ten minutes; the rest is for the range it is at.
    timeoutSeconds: 900,
    // Rows stream through it.
    memoryMb: 1024,
    streaming: false,
    inVpc: true,
    plane: 'control',
    may: [
      'operate-shared-cluster',
      'operate-dedicated-instances',
      'read-context-key',
      'keep-tenant-secrets',
      'call-mcp',
    ],
    // Four tenants at once, each with the catalog and two homes.
    connections: 12,
  },
  {
    name: 'batch-moves',
    entry: 'functions/batch-moves/handler.ts',
    // It looks after its moves for five minutes at a time; the rest is for the one that it is beginning.
    timeoutSeconds: 600,
    memoryMb: 256,
    streaming: false,
    inVpc: true,
    plane: 'control',
    may: ['operate-shared-cluster', 'start-moves'],
    // There is one batch at a time, and it asks the catalog alone.
    connections: 1,
  },
  {
    name: 'health-canary',
    entry: 'functions/health-canary/handler.ts',
    // A run takes a few seconds; one that takes longer than until the next is given up.
    timeoutSeconds: 55,
    memoryMb: 512,
    streaming: false,
    inVpc: true,
    plane: 'control',
    scheduleMinutes: 1,
    may: [
      'enter-homes',
      'read-tenant-secrets',
      'operate-shared-cluster',
      'operate-dedicated-instances',
      'read-context-key',
      'list-secrets',
      'list-instances',
      'start-provisioning',
      'call-mcp',
      'call-endpoint-canary',
      'keep-canary-keys',
      'read-signing-key',
    ],
    // The catalog, four databases at once and a fenced home; the rest is for what it waits for no longer and is not gone yet.
    connections: 8,
  },
  {
    name: 'endpoint-canary',
    entry: 'functions/endpoint-canary/handler.ts',
    // What it does is over after twelve seconds, answered or not.
    timeoutSeconds: 16,
    memoryMb: 256,
    streaming: false,
    // From its subnets the canary reaches no public address.
    inVpc: false,
    plane: 'control',
    may: ['read-canary-keys'],
  },
  {
    name: 'offboard-tenant',
    entry: 'functions/offboard-tenant/handler.ts',
    // Deleting a tenant's rows from shared tables is its longest step; it is asked again until there are none.
    timeoutSeconds: 900,
    memoryMb: 512,
    streaming: false,
    inVpc: true,
    plane: 'control',
    may: [
      'operate-shared-cluster',
      'operate-dedicated-instances',
      'read-context-key',
      'remove-tenant-secrets',
      'list-instances',
    ],
    // Four tenants at once, each with the catalog and one home.
    connections: 8,
  },
  {
    name: 'transfer-tenant',
    entry: 'functions/transfer-tenant/handler.ts',
    // Lambda's longest: an export goes on in the next one, an import has to fit.
    timeoutSeconds: 900,
    memoryMb: 1024,
    streaming: false,
    inVpc: true,
    plane: 'control',
    may: ['operate-shared-cluster', 'operate-dedicated-instances', 'read-context-key', 'keep-exports'],
    // Four tenants at once, each with the catalog and one home.
    connections: 8,
  },
] as const satisfies readonly FunctionRow[];

export type FunctionName = (typeof functions)[number]['name'];

export function functionNamed(name: FunctionName): FunctionRow {
  return functions.find((row) => row.name === name)!;
}
