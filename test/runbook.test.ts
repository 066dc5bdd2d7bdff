import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { checks } from '../functions/lib/health/findings.ts';
import { metricNames } from '../functions/lib/health/metrics.ts';
import { alarmsOf } from '../infra/alarms.ts';
import { readSettings } from '../infra/settings.ts';
import { expectCommands, help } from './support/command-line.ts';

/** What the alarms link to, where there are most of them. */
const anchors = alarmsOf(readSettings({ cluster: { kind: 'instance' } })).map(({ name }) => name as string);

const runbook = readFileSync('RUNBOOK.md', 'utf8');
const anchorOf = (heading: string) => heading.toLowerCase().replaceAll(' ', '-');
const sections = new Map(
  runbook
    .split(/^## /m)
    .slice(1)
    .map((text) => [anchorOf(text.slice(0, text.indexOf('\n'))), text]),
);

describe('every alarm', () => {
  it('has its section, and every section its alarm', () => {
    expect([...sections.keys()].sort()).toEqual([...anchors].sort());
  });

  it.each(anchors)('%s: what it means, for whom, what to run and what to do then', (anchor) => {
    const text = sections.get(anchor)!;
    for (const part of ['**What it means.**', '**Who is affected.**', '**Run**', '**Then**'])
      expect(text).toContain(part);
    const [, run] = /\*\*Run\*\*\n\n```\n([\s\S]*?)```/.exec(text)!;
    expect(run!.trim().split('\n').length).toBeGreaterThan(0);
    for (const line of run!.trim().split('\n')) expect(line).toMatch(/^npm run tenants -- /);
  });
});

describe('what it names', () => {
  it('exists on the command line', async () => {
    const inline = Array.from(runbook.matchAll(/`npm run tenants -- ([^`\n]+)`/g), (match) => match[1]!);
    const lines = Array.from(runbook.matchAll(/^npm run tenants -- (.+)$/gm), (match) => match[1]!);
    const named = new Set([...inline, ...lines]);
    expect(named.size).toBeGreaterThan(8);
    for (const text of named) {
      const words = text.split(' ');
      const commands = words.slice(0, words.findIndex((word) => /^[<-]/.test(word)) >>> 0);
      await expectCommands(commands, text);
      const about = await help(...commands);
      for (const word of words.slice(commands.length))
        if (word.startsWith('--')) expect(about, text).toContain(word);
        else expect(about, text).toMatch(/<\w+>|\[(slug|id|tenant|run)\]/);
    }
  });

  it('is a metric, a check or a file of ours', () => {
    const codes = new Set(Array.from(runbook.matchAll(/`(\w+)`/g), (match) => match[1]!));
    const ours = new Set<string>([...Object.values(metricNames), ...Object.keys(checks)]);
    // A word of the checks' or metrics' form that is none of them is a mistake.
    const foreign = new Set([
      ...[
        'DatabaseConnectionsCurrentlySessionPinned',
        'DatabaseConnectionsBorrowLatency',
        'Throttles',
        'ExecutionsFailed',
        'ExecutionsTimedOut',
        'FreeStorageSpace',
        'DomainTarget',
      ],
      ...['tenancy_app', 'tenancy_provisioner', 'max_connections', 'active_pool_count', 'connection_budget'],
    ]);
    const named = [...codes].filter((code) => /_|^[A-Z][a-z]+[A-Z]/.test(code) && !foreign.has(code));
    expect(named.filter((code) => !ours.has(code))).toEqual([]);
    for (const metric of ['IsolationInDoubt', 'CanaryRuns', 'OperationsFailed', 'HomesQuarantined'])
      expect(runbook).toContain(metric);
    for (const [, path] of runbook.matchAll(/`((?:functions|infra|migrations)\/[\w./-]*)`/g))
      expect(existsSync(path!), path).toBe(true);
  });

  it('says what every isolation check means', () => {
    const dangerous = Object.entries(checks).filter(([, risk]) => risk === 'isolation');
    expect(dangerous.map(([check]) => check).filter((check) => !runbook.includes(`\`${check}\``))).toEqual(
      [],
    );
  });
});
