import { inDoubt } from './findings.ts';
import { metricNames as names } from './metrics.ts';
import { publish } from './publish.ts';
import type { HealthRun } from './run.ts';

/** What a run says to whoever started it. `skipped`: another one was under way. */
export interface Summary {
  readonly state: HealthRun['state'] | 'skipped';
  /** A line for each of the worst, with the object's name. */
  readonly problems: readonly string[];
}

export const summaryOf = ({ state, report }: HealthRun): Summary => ({
  state,
  problems: report.findings
    .slice(0, 10)
    .map(
      ({ check, object, finding, remedy }) =>
        `${check}: ${sentence(`${object} ${finding}`)} ${sentence(remedy)}`,
    ),
});

/** What is told of a failure is often one already. */
const sentence = (text: string) => (/[.…]$/.test(text) ? text : `${text}.`);

/** The run's metrics: of every strategy in use whether its wall is in doubt, and over all. */
export function publishRun({ report }: HealthRun): void {
  const { findings, strategies, checks } = report;
  const doubtful = inDoubt(findings);
  for (const strategy of strategies)
    publish({ [names.isolationInDoubt]: doubtful.has(strategy) ? 1 : 0 }, strategy);
  publish({
    [names.isolationInDoubt]: findings.some(({ risk }) => risk === 'isolation') ? 1 : 0,
    [names.canaryRuns]: 1,
    [names.canaryFailures]: Object.values(checks).filter((verdict) => verdict === 'red').length,
    [names.auditFindings]: report.found,
    [names.publicUrlFailures]: checks.public_url === 'red' ? 1 : 0,
    [names.foreignSessionLocks]: report.sessionLocks,
    [names.operationsFailed]: report.operationsFailed,
    [names.homesQuarantined]: report.homesQuarantined,
  });
}
