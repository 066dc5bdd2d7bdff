import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { metricNames, namespace } from '../../../functions/lib/health/metrics.ts';
import { publish } from '../../../functions/lib/health/publish.ts';

const lines: string[] = [];
beforeEach(() => {
  // The library then writes to the console that a test can listen to.
  vi.stubEnv('POWERTOOLS_DEV', 'true');
  vi.stubEnv('POWERTOOLS_METRICS_DISABLED', 'false');
  vi.spyOn(console, 'log').mockImplementation((line: string) => void lines.push(line));
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
  lines.length = 0;
});

it('writes what CloudWatch reads: with the strategy as the only dimension, or with none', () => {
  publish({ [metricNames.isolationInDoubt]: 1 }, 'rls');
  publish({ [metricNames.canaryRuns]: 1, [metricNames.auditFindings]: 0 });
  const [scoped, plain] = lines.map((line) => JSON.parse(line));
  const metric = (Name: string) => ({ Name, Unit: 'Count' });
  expect(scoped).toMatchObject({ strategy: 'rls', IsolationInDoubt: 1 });
  expect(scoped._aws.CloudWatchMetrics).toEqual([
    { Namespace: namespace, Dimensions: [['strategy']], Metrics: [metric('IsolationInDoubt')] },
  ]);
  expect(plain).toMatchObject({ CanaryRuns: 1, AuditFindings: 0 });
  expect(plain._aws.CloudWatchMetrics).toEqual([
    { Namespace: namespace, Dimensions: [[]], Metrics: [metric('CanaryRuns'), metric('AuditFindings')] },
  ]);
});
