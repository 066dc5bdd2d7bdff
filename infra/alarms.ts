import { type MetricName, metricNames } from '../functions/lib/health/metrics.ts';
import type { rateRules } from './constructs/firewall.ts';
import type { Settings } from './settings.ts';

/** What wakes somebody. Each has its section in RUNBOOK.md, under its name: what it means and what to run. */
export type AlarmName =
  | 'isolation-in-doubt'
  | 'canary-not-running'
  | 'public-url-failing'
  | 'sessions-pinned'
  | 'foreign-session-locks'
  | 'borrow-latency'
  | 'errors-5xx'
  | 'throttles'
  | 'operations-failed'
  | 'operations-timed-out'
  | 'homes-quarantined'
  | 'shared-cpu-high'
  | 'shared-storage-low'
  | 'dedicated-cpu-high'
  | 'dedicated-storage-low';

/** Where an alarm's figure comes from: the product's own metrics, or AWS's of one of the things deployed. */
export type Source =
  | { readonly own: MetricName }
  | { readonly proxy: string }
  /** Of the shared cluster: the busiest of its servers, or the fullest. */
  | { readonly cluster: 'CPUUtilization' | 'FreeStorageSpace' }
  /** The worst of all servers of the account and region: dedicated ones come and go without a deployment. */
  | { readonly anyServer: 'CPUUtilization' | 'FreeStorageSpace' }
  /** Of calls alone, not of `/health`, which says 503 by itself. */
  | { readonly call: string }
  | { readonly api: string }
  /** By Lambda, and by the firewall where many agents share an address: one agent's own limit wakes nobody. */
  | { readonly throttledEndpoint: true }
  /** Requests that a rule of the firewall refused. */
  | { readonly blockedBy: (typeof rateRules)[keyof typeof rateRules] }
  /** Executions that ended so, of all machines: an alarm adds up ten figures at most. */
  | { readonly machines: 'failed' | 'timedOut' };

export interface AlarmRow {
  readonly name: AlarmName;
  /** One sentence: what is the matter. */
  readonly says: string;
  readonly source: Source;
  readonly statistic: 'Maximum' | 'Minimum' | 'Sum' | 'Average' | 'p99';
  readonly periodMinutes: number;
  /** In alarm from this value on, or, for `below`, under it. */
  readonly threshold: number;
  readonly below?: true;
  /** Of the last so many periods, how many have to be beyond it. */
  readonly periods: { readonly of: number; readonly beyond: number };
  /** What no data means. Of the canary's own figures: that nobody is watching. */
  readonly silence: 'breaching' | 'fine';
}

/**
 * Of a count that RDS Proxy tells: each of its nodes tells its own, once a minute. Their sum is the proxy's, and over a longer
 * period it would be the minutes' too.
 */
export const overNodes = { statistic: 'Sum', periodMinutes: 1 } as const;

const ofEveryDeployment: readonly AlarmRow[] = [
  {
    name: 'isolation-in-doubt',
    says: 'The canary can’t say that every tenant is kept apart.',
    source: { own: metricNames.isolationInDoubt },
    statistic: 'Maximum',
    periodMinutes: 1,
    threshold: 1,
    // At once: it is what the product promises.
    periods: { of: 1, beyond: 1 },
    silence: 'fine',
  },
  {
    name: 'canary-not-running',
    says: 'The canary has not finished a run for three minutes: nobody is watching.',
    source: { own: metricNames.canaryRuns },
    statistic: 'Sum',
    periodMinutes: 1,
    threshold: 1,
    below: true,
    periods: { of: 3, beyond: 3 },
    silence: 'breaching',
  },
  {
    name: 'public-url-failing',
    says: 'The canary’s own calls of the public URL fail: nobody else’s may get through.',
    source: { own: metricNames.publicUrlFailures },
    statistic: 'Maximum',
    periodMinutes: 1,
    threshold: 1,
    periods: { of: 3, beyond: 3 },
    // That nobody is watching has its own alarm.
    silence: 'fine',
  },
  {
    name: 'sessions-pinned',
    says: 'RDS Proxy keeps connections for single clients: soon there are none for others.',
    source: { proxy: 'DatabaseConnectionsCurrentlySessionPinned' },
    ...overNodes,
    // Nothing of the product's own pins; a migration of an adopting team may, for moments.
    threshold: 5,
    periods: { of: 15, beyond: 15 },
    silence: 'fine',
  },
  {
    name: 'foreign-session-locks',
    says: 'A session of a tenant’s login holds a lock that no call of ours takes: somebody may be running SQL through a tool.',
    source: { own: metricNames.foreignSessionLocks },
    statistic: 'Maximum',
    periodMinutes: 1,
    threshold: 1,
    // At once: the canary looks again before it counts one.
    periods: { of: 1, beyond: 1 },
    silence: 'fine',
  },
  {
    name: 'borrow-latency',
    says: 'Calls wait for a connection of RDS Proxy.',
    source: { proxy: 'DatabaseConnectionsBorrowLatency' },
    statistic: 'Average',
    periodMinutes: 5,
    // µs: a tenth of a second, of the three after which a call is given up.
    threshold: 100_000,
    periods: { of: 3, beyond: 2 },
    silence: 'fine',
  },
  {
    name: 'errors-5xx',
    says: 'The endpoint answers with 5xx.',
    source: { call: '5XXError' },
    statistic: 'Sum',
    periodMinutes: 5,
    threshold: 5,
    periods: { of: 3, beyond: 2 },
    silence: 'fine',
  },
  {
    name: 'throttles',
    says: 'Calls of the endpoint are refused for their number: by Lambda, which has no environments left, or by the firewall, which counts an address’s.',
    source: { throttledEndpoint: true },
    statistic: 'Sum',
    periodMinutes: 5,
    threshold: 1,
    periods: { of: 2, beyond: 2 },
    silence: 'fine',
  },
  {
    name: 'operations-failed',
    says: 'An operation on a tenant has failed.',
    source: { machines: 'failed' },
    statistic: 'Sum',
    periodMinutes: 5,
    threshold: 1,
    periods: { of: 1, beyond: 1 },
    silence: 'fine',
  },
  {
    name: 'operations-timed-out',
    says: 'An operation ran out of time and has not ended: its tenant is blocked until somebody looks.',
    source: { machines: 'timedOut' },
    statistic: 'Sum',
    periodMinutes: 5,
    threshold: 1,
    periods: { of: 1, beyond: 1 },
    silence: 'fine',
  },
  {
    name: 'homes-quarantined',
    says: 'A migration has left homes behind; they serve on with their old tables.',
    source: { own: metricNames.homesQuarantined },
    statistic: 'Maximum',
    periodMinutes: 5,
    threshold: 1,
    periods: { of: 1, beyond: 1 },
    silence: 'fine',
  },
];

const gibibyte = 2 ** 30;

const cpuHigh = { statistic: 'Maximum', periodMinutes: 1, threshold: 90, silence: 'fine' } as const;
const storageLow = {
  statistic: 'Minimum',
  periodMinutes: 5,
  below: true,
  periods: { of: 3, beyond: 3 },
  silence: 'fine',
} as const;

/** The alarms of one deployment. */
export const alarmsOf = ({
  cluster,
  dedicated,
}: Pick<Settings, 'cluster' | 'dedicated'>): readonly AlarmRow[] => [
  ...ofEveryDeployment,
  {
    name: 'shared-cpu-high',
    says: 'A server of the shared cluster has been busy for a quarter of an hour.',
    source: { cluster: 'CPUUtilization' },
    ...cpuHigh,
    periods: { of: 15, beyond: 15 },
  },
  // Aurora's grows by itself, and has no such figure.
  ...(cluster.kind === 'instance'
    ? [
        {
          name: 'shared-storage-low',
          says: 'The shared server’s disk is nearly full: full, it takes no writes.',
          source: { cluster: 'FreeStorageSpace' },
          ...storageLow,
          threshold: Math.round(0.1 * cluster.storageGb * gibibyte),
        } as const,
      ]
    : []),
  {
    name: 'dedicated-cpu-high',
    says: 'A server, a tenant’s own maybe, has been busy for half an hour.',
    source: { anyServer: 'CPUUtilization' },
    ...cpuHigh,
    // Longer: several that are busy by turns look like one.
    periods: { of: 30, beyond: 30 },
  },
  {
    name: 'dedicated-storage-low',
    says: 'A server’s disk, a tenant’s own maybe, is nearly full, and has not grown by itself.',
    source: { anyServer: 'FreeStorageSpace' },
    ...storageLow,
    // RDS lets one grow when a tenth is left.
    threshold: Math.round(0.05 * dedicated.storageGb * gibibyte),
  },
];
