import { Aws, Duration } from 'aws-cdk-lib';
import {
  Alarm,
  ComparisonOperator,
  type IMetric,
  MathExpression,
  Metric,
  TreatMissingData,
} from 'aws-cdk-lib/aws-cloudwatch';
import { SnsAction } from 'aws-cdk-lib/aws-cloudwatch-actions';
import type { IFunction } from 'aws-cdk-lib/aws-lambda';
import type { ITopic } from 'aws-cdk-lib/aws-sns';
import { Construct } from 'constructs';
import { namespace } from '../../functions/lib/health/metrics.ts';
import type { AlarmRow, Source } from '../alarms.ts';
import { rateRules } from './firewall.ts';
import type { Machine } from './machine.ts';

/** What is watched. */
export interface Watched {
  readonly proxyName: string;
  /** The dimension of the shared cluster's metrics, and its value. */
  readonly cluster: Readonly<Record<string, string>>;
  readonly api: { readonly name: string; readonly stage: string };
  /** Of the endpoint. */
  readonly lambdas: ReadonlyMap<string, IFunction>;
  readonly machines: ReadonlyMap<string, Machine>;
  /** The firewall's name in its metrics. */
  readonly firewall: string;
}

/** Alarms of `infra/alarms.ts`, told to the topic when there is somebody to tell. */
export class Alarms extends Construct {
  readonly all: readonly Alarm[];

  constructor(
    scope: Construct,
    id: string,
    rows: readonly AlarmRow[],
    watched: Watched,
    topic: ITopic,
    runbook = 'RUNBOOK.md',
  ) {
    super(scope, id);
    this.all = rows.map((row) => {
      const alarm = new Alarm(this, row.name, {
        alarmName: `tenantry-${row.name}`,
        alarmDescription: `${row.says} What to do: ${runbook}#${row.name}`,
        metric: metricOf(row.source, watched, row),
        threshold: row.threshold,
        comparisonOperator: row.below
          ? ComparisonOperator.LESS_THAN_THRESHOLD
          : ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
        evaluationPeriods: row.periods.of,
        datapointsToAlarm: row.periods.beyond,
        treatMissingData:
          row.silence === 'breaching' ? TreatMissingData.BREACHING : TreatMissingData.NOT_BREACHING,
      });
      alarm.addAlarmAction(new SnsAction(topic));
      alarm.addOkAction(new SnsAction(topic));
      return alarm;
    });
  }
}

/** A figure of the product's own or of AWS's, as alarms and dashboard draw it. */
export function metricOf(
  source: Source,
  watched: Watched,
  { statistic, periodMinutes }: Pick<AlarmRow, 'statistic' | 'periodMinutes'>,
): IMetric {
  const common = { statistic, period: Duration.minutes(periodMinutes) };
  if ('own' in source) return new Metric({ namespace, metricName: source.own, ...common });
  if ('proxy' in source)
    return new Metric({
      namespace: 'AWS/RDS',
      metricName: source.proxy,
      dimensionsMap: { ProxyName: watched.proxyName },
      ...common,
    });
  if ('cluster' in source)
    return new Metric({
      namespace: 'AWS/RDS',
      metricName: source.cluster,
      dimensionsMap: { ...watched.cluster },
      ...common,
    });
  if ('anyServer' in source)
    // Servers join and leave what is asked for; a SCHEMA of one dimension takes each server's own figure alone.
    return new MathExpression({
      expression: `SELECT ${statistic === 'Minimum' ? 'MIN' : 'MAX'}(${source.anyServer}) FROM SCHEMA("AWS/RDS", DBInstanceIdentifier)`,
      usingMetrics: {},
      period: common.period,
      label: `${source.anyServer} of the worst server`,
    }) as IMetric;
  if ('api' in source || 'call' in source)
    return new Metric({
      namespace: 'AWS/ApiGateway',
      metricName: 'api' in source ? source.api : source.call,
      dimensionsMap: {
        ApiName: watched.api.name,
        Stage: watched.api.stage,
        ...('call' in source && { Method: 'POST', Resource: '/mcp' }),
      },
      ...common,
    });
  const blocked = (Rule: string) =>
    new Metric({
      namespace: 'AWS/WAFV2',
      metricName: 'BlockedRequests',
      dimensionsMap: { WebACL: watched.firewall, Region: Aws.REGION, Rule },
      ...common,
    });
  if ('blockedBy' in source) return blocked(source.blockedBy);
  if ('throttledEndpoint' in source)
    return sum([
      ...[...watched.lambdas.values()].map((lambda) => lambda.metricThrottles(common)),
      blocked(rateRules.perAddress),
    ]);
  return sum(
    [...watched.machines.values()].map(({ machine }) =>
      source.machines === 'failed' ? machine.metricFailed(common) : machine.metricTimedOut(common),
    ),
  );
}

function sum(metrics: readonly Metric[]): IMetric {
  const named = Object.fromEntries(metrics.map((metric, index) => [`m${index}`, metric as IMetric]));
  return new MathExpression({
    expression: Object.keys(named)
      .map((name) => `FILL(${name}, 0)`)
      .join(' + '),
    usingMetrics: named,
    period: metrics[0]!.period,
    label: 'all together',
  }) as IMetric;
}
