import { Duration } from 'aws-cdk-lib';
import {
  AlarmStatusWidget,
  Dashboard as CloudWatchDashboard,
  GraphWidget,
  type IMetric,
  LogQueryWidget,
  Metric,
  SingleValueWidget,
  TextWidget,
} from 'aws-cdk-lib/aws-cloudwatch';
import type { IFunction } from 'aws-cdk-lib/aws-lambda';
import { Construct } from 'constructs';
import {
  type MetricName,
  metricNames,
  namespace,
  strategyDimension,
} from '../../functions/lib/health/metrics.ts';
import { strategies } from '../../functions/lib/tenant/tenant.ts';
import { overNodes } from '../alarms.ts';
import { type Alarms, metricOf, type Watched } from './alarms.ts';
import { rateRules } from './firewall.ts';

export interface DashboardProps {
  readonly name: string;
  readonly watched: Watched;
  readonly alarms: Alarms;
  readonly cluster: { readonly dimension: Record<string, string>; readonly maxConnections: number };
  readonly mcp: IFunction;
  readonly mcpLog: string;
}

/** What an operator opens first, from the promise at the top to the machine at the bottom. */
export class Dashboard extends Construct {
  constructor(scope: Construct, id: string, props: DashboardProps) {
    super(scope, id);
    const { watched, mcp, cluster } = props;
    const minute = { periodMinutes: 1 };
    const own = (name: MetricName, statistic: 'Sum' | 'Maximum' = 'Maximum') =>
      metricOf({ own: name }, watched, { statistic, ...minute });
    const proxy = (name: string) => metricOf({ proxy: name }, watched, overNodes);
    const api = (name: string, statistic: 'Sum' | 'p99') =>
      metricOf({ api: name }, watched, { statistic, ...minute });
    const server = (metricName: string, label: string): IMetric =>
      new Metric({
        namespace: 'AWS/RDS',
        metricName,
        dimensionsMap: cluster.dimension,
        statistic: 'Maximum',
        period: Duration.minutes(1),
        label,
      });
    const graph = (title: string, left: IMetric[], right: IMetric[] = []) =>
      new GraphWidget({ title, left, right, width: 8, height: 6, leftYAxis: { min: 0 } });

    new CloudWatchDashboard(this, 'Dashboard', {
      dashboardName: props.name,
      defaultInterval: Duration.hours(3),
      widgets: [
        [
          new TextWidget({
            markdown:
              '**Tenantry.** An alarm’s section in RUNBOOK.md says what to run. `npm run tenants -- health` asks the system itself.',
            width: 24,
            height: 1,
          }),
        ],
        [
          new AlarmStatusWidget({ title: 'Alarms', alarms: [...props.alarms.all], width: 16, height: 4 }),
          new SingleValueWidget({
            title: 'Canary: runs and failed checks of the last hour',
            metrics: [
              own(metricNames.canaryRuns, 'Sum'),
              own(metricNames.canaryFailures),
              own(metricNames.auditFindings),
            ].map((metric) => (metric as Metric).with({ period: Duration.hours(1) }) as IMetric),
            width: 8,
            height: 4,
          }),
        ],
        [
          graph(
            'Isolation in doubt, by strategy (0 or 1)',
            strategies.map(
              (strategy) =>
                new Metric({
                  namespace,
                  metricName: metricNames.isolationInDoubt,
                  dimensionsMap: { [strategyDimension]: strategy },
                  statistic: 'Maximum',
                  period: Duration.minutes(1),
                  label: strategy,
                }) as IMetric,
            ),
          ),
          graph(
            'Calls',
            [api('Count', 'Sum')],
            [
              api('4XXError', 'Sum'),
              api('5XXError', 'Sum'),
              ...Object.values(rateRules).map((rule) =>
                metricOf({ blockedBy: rule }, watched, { statistic: 'Sum', ...minute }),
              ),
            ],
          ),
          graph('Latency p99, ms', [
            api('Latency', 'p99'),
            mcp.metricDuration({ statistic: 'p99' }) as IMetric,
          ]),
        ],
        [
          graph(
            `Connections of the proxy, of ${cluster.maxConnections}`,
            [proxy('DatabaseConnections'), proxy('ClientConnections')],
            [proxy('DatabaseConnectionsCurrentlySessionPinned')],
          ),
          graph(
            'Waiting for a connection',
            [
              metricOf({ proxy: 'DatabaseConnectionsBorrowLatency' }, watched, {
                statistic: 'Average',
                ...minute,
              }),
            ],
            [own(metricNames.poolWaits, 'Sum')],
          ),
          graph(
            'Environments of the MCP function',
            [
              mcp.metric('ConcurrentExecutions', { statistic: 'Maximum' }) as IMetric,
              own(metricNames.poolConnections),
            ],
            [mcp.metricThrottles() as IMetric, mcp.metricErrors() as IMetric],
          ),
        ],
        [
          graph(
            'Shared cluster: CPU, %',
            [server('CPUUtilization', 'CPU')],
            [server('ServerlessDatabaseCapacity', 'ACU')],
          ),
          graph(
            'Shared cluster: sessions',
            [server('DatabaseConnections', 'sessions')],
            [server('Deadlocks', 'deadlocks')],
          ),
          graph(
            'Operations',
            [
              ...[...watched.machines.values()].map(({ machine }) => machine.metricStarted() as IMetric),
              own(metricNames.operationsFailed),
            ],
            [own(metricNames.homesQuarantined), own(metricNames.foreignSessionLocks)],
          ),
        ],
        [
          new LogQueryWidget({
            title: 'Busiest tenants of the time shown: calls and milliseconds',
            logGroupNames: [props.mcpLog],
            queryLines: [
              'filter message = "call"',
              'stats count(*) as calls, sum(ms) as total_ms, pct(ms, 99) as p99_ms by tenant, strategy',
              'sort total_ms desc',
              'limit 20',
            ],
            width: 12,
            height: 7,
          }),
          new LogQueryWidget({
            title: 'Outcomes that are not ok, by tool',
            logGroupNames: [props.mcpLog],
            queryLines: [
              'filter message = "call" and outcome != "ok"',
              'stats count(*) as calls, count_distinct(tenant) as tenants by tool, outcome',
              'sort calls desc',
              'limit 20',
            ],
            width: 12,
            height: 7,
          }),
        ],
      ],
    });
  }
}
