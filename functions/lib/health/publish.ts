import { Metrics } from '@aws-lambda-powertools/metrics';
import { type MetricName, namespace, strategyDimension } from './metrics.ts';

/** Writes the values as one line in CloudWatch's embedded metric format; `strategy` is their dimension, or they have none. */
export function publish(values: Partial<Record<MetricName, number>>, strategy?: string): void {
  const metrics = new Metrics({ namespace });
  // The library's own dimension would stand between a value and its alarm.
  metrics.clearDefaultDimensions();
  metrics.addDimensions(strategy === undefined ? {} : { [strategyDimension]: strategy });
  for (const [name, value] of Object.entries(values)) metrics.addMetric(name, 'Count', value);
  metrics.publishStoredMetrics();
}
