import { afterEach, expect, test, vi } from 'vitest';
import { createHealthTeller, startSchedules } from '../../infra/local/schedule.ts';

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

test('calls what has a schedule at once and then every minute, until it is closed', async () => {
  vi.useFakeTimers();
  const errors = vi.spyOn(console, 'error').mockImplementation(() => {});
  const invoke = vi.fn(async (_name: string) => 'answer' as unknown);
  const told: unknown[] = [];
  const schedules = startSchedules({ invoke }, (name, answer) => told.push([name, answer]));
  await vi.advanceTimersByTimeAsync(120_000);
  expect(invoke.mock.calls.map(([name]) => name)).toEqual(Array(3).fill('health-canary'));
  expect(told).toEqual(Array(3).fill(['health-canary', 'answer']));
  invoke.mockRejectedValueOnce(new Error('it broke'));
  await vi.advanceTimersByTimeAsync(60_000);
  expect(errors).toHaveBeenCalledWith('health-canary: it broke');
  schedules.close();
  await vi.advanceTimersByTimeAsync(600_000);
  expect(invoke).toHaveBeenCalledTimes(4);
});

test('the terminal is told what turned red, and that it is well again, once each', () => {
  const lines: string[] = [];
  const tell = createHealthTeller((text) => lines.push(text));
  const run = (state: string, ...problems: string[]) => tell('health-canary', { state, problems });
  run('ok');
  run('broken', 'tables: shared.notes is open. close it.');
  run('skipped');
  run('broken', 'tables: shared.notes is open. close it.');
  run('degraded', 'orphans: login t_0 is there. drop it.');
  run('ok');
  run('ok');
  expect(lines).toEqual([
    'Health: broken\n  tables: shared.notes is open. close it.',
    'Health: degraded\n  orphans: login t_0 is there. drop it.',
    'Health: ok again',
  ]);
});
