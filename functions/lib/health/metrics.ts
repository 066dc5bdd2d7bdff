/** Every metric of the product's own, for those who emit and for those who alarm. */
export const namespace = 'Tenantry';

/** The dimension of what is told for each strategy apart. */
export const strategyDimension = 'strategy';

export const metricNames = {
  /** 0 or 1, over all and for each strategy in use: a tenant may be able to reach another's data. */
  isolationInDoubt: 'IsolationInDoubt',
  /** One a finished run: when they stop, nobody is watching. */
  canaryRuns: 'CanaryRuns',
  /** Checks of a run that are red or could not be made; 1 for a run that could not be finished. */
  canaryFailures: 'CanaryFailures',
  /** Objects that the audits and the comparison of the catalog with its databases complain about. */
  auditFindings: 'AuditFindings',
  /** Sessions of tenants' logins that hold an advisory lock outside any transaction. */
  foreignSessionLocks: 'ForeignSessionLocks',
  /** Operations that failed and that no later one of the same kind and tenant has made good. */
  operationsFailed: 'OperationsFailed',
  /** Homes that the present migration could not change and has left as they were. */
  homesQuarantined: 'HomesQuarantined',
  /** 0 or 1: calls of the public URL with a canary's key fail, or it can't be asked. */
  publicUrlFailures: 'PublicUrlFailures',
  /** Gauge of one environment of the MCP function: its connections now. */
  poolConnections: 'PoolConnections',
  /** Calls of one environment that had to wait for a connection since it last told. */
  poolWaits: 'PoolWaits',
} as const;

export type MetricName = (typeof metricNames)[keyof typeof metricNames];
