import { readFileSync } from 'node:fs';
import { beforeAll, describe, expect, it } from 'vitest';
import { metricNames, namespace } from '../../functions/lib/health/metrics.ts';
import { alarmsOf } from '../../infra/alarms.ts';
import { type FunctionRow, functions } from '../../infra/functions.ts';
import { readSettings } from '../../infra/settings.ts';
import { Assembly } from './assembly.ts';
import { type Synthesized, synthesize } from './synthesize.ts';

interface Added {
  readonly MetricName: string;
  readonly Dimensions: readonly { readonly Name: string; readonly Value: string }[];
}
interface Widget {
  readonly properties: { readonly metrics?: readonly (readonly unknown[])[] };
}

let deployment: Synthesized;
let assembly: Assembly;
const alarms = alarmsOf(readSettings({}));
beforeAll(() => {
  deployment = synthesize({ alarmEmail: 'ops@example.com' });
  assembly = new Assembly(deployment);
});

it('has one alarm for each row, which says what to do and tells somebody', () => {
  const made = assembly.of('AWS::CloudWatch::Alarm').map(({ properties }) => properties);
  expect(made.map(({ AlarmName }) => AlarmName).sort()).toEqual(
    alarms.map(({ name }) => `tenantry-${name}`).sort(),
  );
  const topic = `<${assembly.only('AWS::SNS::Topic', /./).id}>`;
  for (const { AlarmName, AlarmDescription, AlarmActions, OKActions } of made) {
    expect(AlarmDescription).toContain(`RUNBOOK.md#${AlarmName.replace('tenantry-', '')}`);
    expect([AlarmActions, OKActions]).toEqual([[topic], [topic]]);
  }
  expect(assembly.only('AWS::SNS::Subscription', /./).properties).toMatchObject({
    Protocol: 'email',
    Endpoint: 'ops@example.com',
  });
});

it('links to the runbook where the settings say that it can be read', () => {
  const runbookUrl = 'https://git.example.com/ops/RUNBOOK.md';
  for (const { properties } of new Assembly(synthesize({ runbookUrl })).of('AWS::CloudWatch::Alarm'))
    expect(properties.AlarmDescription).toMatch(
      `${runbookUrl}#${properties.AlarmName.replace('tenantry-', '')}`,
    );
});

it.each([
  ['aws', 'eu-west-1', 'console.aws.amazon.com'],
  ['aws-us-gov', 'us-gov-west-1', 'console.amazonaws-us-gov.com'],
  ['aws-cn', 'cn-north-1', 'console.amazonaws.cn'],
])('links to the dashboard in the console of %s', (partition, region, console) => {
  const known = { 'AWS::Partition': partition, 'AWS::Region': region };
  expect(new Assembly(deployment, known).outputs()['TenantryWatch.DashboardUrl']).toBe(
    `https://${region}.${console}/cloudwatch/home?region=${region}#dashboards/dashboard/TenantryWatch`,
  );
});

it('encrypts what it tells, with a key that CloudWatch may use', () => {
  const key = assembly.only('AWS::KMS::Key', /./);
  expect(assembly.only('AWS::SNS::Topic', /./).properties.KmsMasterKeyId).toBe(`<${key.id}.Arn>`);
  expect(key.properties.EnableKeyRotation).toBe(true);
  expect(key.properties.KeyPolicy.Statement).toContainEqual(
    expect.objectContaining({
      Principal: { Service: 'cloudwatch.amazonaws.com' },
      Action: ['kms:Decrypt', 'kms:GenerateDataKey*'],
    }),
  );
});

it('links to sections that are there', () => {
  const sections = Array.from(readFileSync('RUNBOOK.md', 'utf8').matchAll(/^## (.+)$/gm), ([, title]) =>
    title!
      .toLowerCase()
      .replaceAll(/[^\w -]/g, '')
      .replaceAll(' ', '-'),
  );
  for (const { name } of alarms) expect(sections).toContain(name);
});

it('wakes somebody in the minute in which isolation is in doubt, and when nobody looks any more', () => {
  const alarm = (name: string) =>
    assembly
      .of('AWS::CloudWatch::Alarm')
      .find(({ properties }) => properties.AlarmName === `tenantry-${name}`)!.properties;
  expect(alarm('isolation-in-doubt')).toMatchObject({
    Namespace: namespace,
    MetricName: metricNames.isolationInDoubt,
    Statistic: 'Maximum',
    Period: 60,
    EvaluationPeriods: 1,
    Threshold: 1,
    ComparisonOperator: 'GreaterThanOrEqualToThreshold',
  });
  expect(alarm('canary-not-running')).toMatchObject({
    MetricName: metricNames.canaryRuns,
    Period: 60,
    EvaluationPeriods: 3,
    DatapointsToAlarm: 3,
    ComparisonOperator: 'LessThanThreshold',
    TreatMissingData: 'breaching',
  });
});

it('wakes somebody by every metric of the product’s own, but for those that are only drawn', () => {
  const { canaryFailures, auditFindings, operationsFailed, poolConnections, poolWaits } = metricNames;
  // The first three stand behind alarms that say more; the pools’ have AWS’s own figures of the same thing.
  const drawn = [canaryFailures, auditFindings, operationsFailed, poolConnections, poolWaits];
  const alarmed = alarms.flatMap(({ source }) => ('own' in source ? [source.own] : []));
  expect([...alarmed, ...drawn].sort()).toEqual(Object.values(metricNames).sort());
  const { DashboardBody } = assembly.only('AWS::CloudWatch::Dashboard', /./).properties;
  for (const name of drawn) expect(DashboardBody).toContain(name);
});

it('takes no health check that says 503 for a failing call', () => {
  const { Dimensions } = assembly
    .of('AWS::CloudWatch::Alarm')
    .find(({ properties }) => properties.AlarmName === 'tenantry-errors-5xx')!.properties;
  expect(Dimensions).toEqual(
    expect.arrayContaining([
      { Name: 'Method', Value: 'POST' },
      { Name: 'Resource', Value: '/mcp' },
    ]),
  );
  // Metrics by method exist where a stage has the detailed ones on.
  const { MethodSettings } = assembly.only('AWS::ApiGateway::Stage', /^McpApi/).properties;
  for (const { MetricsEnabled } of MethodSettings) expect(MetricsEnabled).toBe(true);
});

it('adds up what the nodes of the proxy count, minute by minute', () => {
  const alarmed = assembly
    .of('AWS::CloudWatch::Alarm')
    .map(({ properties }) => properties)
    .filter(({ Dimensions }) => Dimensions?.[0].Name === 'ProxyName')
    .map(({ MetricName, Statistic, Period }) => [MetricName, Statistic, Period]);
  const { DashboardBody } = assembly.only('AWS::CloudWatch::Dashboard', /./).properties;
  const drawn = JSON.parse(DashboardBody).widgets.flatMap(({ properties }: Widget) =>
    (properties.metrics ?? [])
      .filter(([, , dimension]) => dimension === 'ProxyName')
      .map((metric) => {
        // The dashboard's own default is left out.
        const { stat = 'Average', period } = metric.at(-1) as { stat?: string; period: number };
        return [metric[1], stat, period];
      }),
  );
  expect(alarmed).toHaveLength(2);
  expect(drawn).toHaveLength(4);
  for (const [name, statistic, period] of [...alarmed, ...drawn]) {
    // A time is no count: the nodes' mean is what a call waits.
    const isTime = name === 'DatabaseConnectionsBorrowLatency';
    expect(statistic, name).toBe(isTime ? 'Average' : 'Sum');
    if (!isTime) expect(period, name).toBe(60);
  }
});

it('watches things that the other stacks make', () => {
  const dimensions = assembly
    .of('AWS::CloudWatch::Alarm')
    .flatMap(({ properties }) => [
      ...(properties.Dimensions ?? []),
      ...(properties.Metrics ?? []).flatMap(
        (metric: { MetricStat?: { Metric: { Dimensions: unknown[] } } }) =>
          metric.MetricStat?.Metric.Dimensions ?? [],
      ),
    ]);
  const ids = new Set(assembly.resources.map(({ id }) => `<${id}>`));
  expect(dimensions.length).toBeGreaterThan(5);
  for (const { Name, Value } of dimensions) {
    if (Name === 'ApiName') {
      const names = assembly.of('AWS::ApiGateway::RestApi').map(({ properties }) => properties.Name);
      expect(names).toContain(Value);
    } else if (Name === 'WebACL') {
      const { properties } = assembly.only('AWS::WAFv2::WebACL', /./);
      expect([properties.Name, properties.VisibilityConfig.MetricName]).toEqual([Value, Value]);
    } else if (Name === 'Rule') {
      const { Rules } = assembly.only('AWS::WAFv2::WebACL', /./).properties;
      const rule = Rules.find((each: { Name: string }) => each.Name === Value);
      expect(rule.VisibilityConfig).toMatchObject({ MetricName: Value, CloudWatchMetricsEnabled: true });
    } else if (Name === 'Region') expect(Value).toBe('eu-west-1');
    else if (Name !== 'Method' && Name !== 'Resource') expect(ids).toContain(Value);
  }
});

it('hears of calls that are refused for their number, whoever refuses them but an agent’s own limit', () => {
  const { Metrics } = assembly
    .of('AWS::CloudWatch::Alarm')
    .find(({ properties }) => properties.AlarmName === 'tenantry-throttles')!.properties;
  const added = Metrics.flatMap(({ MetricStat }: { MetricStat?: { Metric: Added } }) =>
    MetricStat
      ? [
          [
            MetricStat.Metric.MetricName,
            MetricStat.Metric.Dimensions.find(({ Name }) => Name === 'Rule')?.Value,
          ],
        ]
      : [],
  );
  const endpoint = functions.filter(({ plane }) => plane === 'data');
  expect(added.filter(([name]: [string]) => name === 'Throttles')).toHaveLength(endpoint.length);
  expect(added).toContainEqual(['BlockedRequests', 'per-address']);
});

describe('a server that runs out of something', () => {
  const alarmsIn = (made: Assembly) =>
    new Map(
      made.of('AWS::CloudWatch::Alarm').map(({ properties }) => [properties.AlarmName as string, properties]),
    );

  it('wakes somebody: the shared cluster by its own figures, those of tenants by the worst of all', () => {
    const instance = { cluster: { kind: 'instance', storageGb: 200 }, dedicated: { storageGb: 40 } };
    const made = new Assembly(synthesize(instance));
    const alarm = alarmsIn(made);
    const shared = [
      { Name: 'DBInstanceIdentifier', Value: `<${made.only('AWS::RDS::DBInstance', /./).id}>` },
    ];
    expect(alarm.get('tenantry-shared-cpu-high')).toMatchObject({
      ...{ MetricName: 'CPUUtilization', Dimensions: shared, Statistic: 'Maximum', Period: 60 },
      ...{ Threshold: 90, EvaluationPeriods: 15, DatapointsToAlarm: 15 },
    });
    expect(alarm.get('tenantry-shared-storage-low')).toMatchObject({
      ...{ MetricName: 'FreeStorageSpace', Dimensions: shared, Statistic: 'Minimum', Period: 300 },
      ...{ Threshold: 20 * 2 ** 30, ComparisonOperator: 'LessThanThreshold', DatapointsToAlarm: 3 },
    });
    expect(alarm.get('tenantry-dedicated-cpu-high')!.Metrics).toMatchObject([
      {
        Expression: 'SELECT MAX(CPUUtilization) FROM SCHEMA("AWS/RDS", DBInstanceIdentifier)',
        Period: 60,
      },
    ]);
    expect(alarm.get('tenantry-dedicated-storage-low')).toMatchObject({
      Metrics: [
        {
          Expression: 'SELECT MIN(FreeStorageSpace) FROM SCHEMA("AWS/RDS", DBInstanceIdentifier)',
          Period: 300,
        },
      ],
      ...{ Threshold: 2 * 2 ** 30, ComparisonOperator: 'LessThanThreshold' },
    });
  });

  it('is not watched for what Aurora has no figure of', () => {
    const alarm = alarmsIn(assembly);
    expect(alarm.has('tenantry-shared-storage-low')).toBe(false);
    expect(alarm.get('tenantry-shared-cpu-high')!.Dimensions).toMatchObject([
      { Name: 'DBClusterIdentifier' },
    ]);
  });
});

it('runs by the clock what the manifest says, and nothing else', () => {
  const rows: readonly FunctionRow[] = functions;
  const scheduled = rows.filter(({ scheduleMinutes }) => scheduleMinutes !== undefined);
  const rules = assembly.of('AWS::Events::Rule').map(({ properties }) => properties);
  expect(rules.map(({ ScheduleExpression }) => ScheduleExpression)).toEqual(
    scheduled.map(
      ({ scheduleMinutes }) => `rate(${scheduleMinutes} minute${scheduleMinutes === 1 ? '' : 's'})`,
    ),
  );
  for (const { Targets } of rules) expect(Targets).toHaveLength(1);
});

it('draws the promise, the proxy, the server and the operations on one dashboard', () => {
  const { properties } = assembly.only('AWS::CloudWatch::Dashboard', /./);
  const { widgets } = JSON.parse(properties.DashboardBody);
  expect(widgets.length).toBeGreaterThan(10);
  for (const wanted of [
    'IsolationInDoubt',
    'DatabaseConnectionsCurrentlySessionPinned',
    '5XXError',
    'CPUUtilization',
    'ExecutionsStarted',
  ])
    expect(properties.DashboardBody).toContain(wanted);
});
