import { type FunctionRow, functions } from '../functions.ts';
import type { LambdaHost } from './lambda/host.ts';

/** What EventBridge does on AWS: calls each function that has a schedule, now and then every so many minutes. */
export function startSchedules(
  lambda: Pick<LambdaHost, 'invoke'>,
  told: (name: string, answer: unknown) => void,
): { close(): void } {
  let closed = false;
  const timers = (functions as readonly FunctionRow[]).flatMap(({ name, scheduleMinutes }) => {
    if (scheduleMinutes === undefined) return [];
    const run = () =>
      lambda.invoke(name, {}).then(
        (answer) => closed || told(name, answer),
        (error: unknown) =>
          closed || console.error(`${name}: ${error instanceof Error ? error.message : error}`),
      );
    void run();
    return [setInterval(run, scheduleMinutes * 60_000)];
  });
  return {
    close() {
      closed = true;
      for (const timer of timers) clearInterval(timer);
    },
  };
}

/** Says how the canary finds the system, whenever that changes. */
export function createHealthTeller(print: (text: string) => void): (name: string, answer: unknown) => void {
  let last = 'ok';
  return (name, answer) => {
    if (name !== 'health-canary') return;
    const { state, problems } = answer as { state: string; problems: readonly string[] };
    if (state === 'skipped') return;
    const news = [
      `Health: ${state}${state === 'ok' ? ' again' : ''}`,
      ...problems.map((problem) => `  ${problem}`),
    ];
    const text = state === 'ok' ? 'ok' : news.join('\n');
    if (text !== last) print(news.join('\n'));
    last = text;
  };
}
