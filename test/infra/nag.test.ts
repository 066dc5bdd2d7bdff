import { readFileSync } from 'node:fs';
import { Validations } from 'aws-cdk-lib';
import { Bucket } from 'aws-cdk-lib/aws-s3';
import { AwsSolutionsChecks, HIPAASecurityChecks, NIST80053R5Checks, PCIDSS321Checks } from 'cdk-nag';
import { describe, expect, it } from 'vitest';
import { synthesize, variants } from './synthesize.ts';

const acknowledged = Validations.ACKNOWLEDGED_RULES_METADATA_KEY;

it.each(Object.entries(variants))('leaves no finding of the AwsSolutions pack open: %s', (_, changes) => {
  const { app } = synthesize(changes);
  Validations.of(app).addPlugins(new AwsSolutionsChecks(app));
  expect(() => app.synth()).not.toThrow();
});

it.each(['aurora', 'instance'])('leaves none open where the settings ask for less of an %s', (kind) => {
  const { app } = synthesize({ cluster: { kind, standby: false, deletionProtection: false } });
  Validations.of(app).addPlugins(new AwsSolutionsChecks(app));
  expect(() => app.synth()).not.toThrow();
});

it('notices a finding, so that the check above means something', () => {
  const { app, stacks } = synthesize();
  new Bucket(stacks.data, 'Unprotected');
  Validations.of(app).addPlugins(new AwsSolutionsChecks(app));
  expect(() => app.synth()).toThrow('AwsSolutions-S10');
});

it('acknowledges a finding at one resource, with a reason, never for a stack', () => {
  const { app } = synthesize(variants['another region, with a domain and issuers']);
  const entries = app.node.findAll().flatMap(({ node }) =>
    node.metadata
      .filter(({ type }) => type === acknowledged)
      .flatMap(({ data }) => Object.entries(data as Record<string, string>))
      .filter(([id]) => id.includes('AwsSolutions'))
      .map(([, reason]) => ({ depth: node.scopes.length, reason })),
  );
  expect(entries.length).toBeGreaterThan(0);
  for (const { depth, reason } of entries) {
    // App, stack, resource or its construct.
    expect(depth).toBeGreaterThanOrEqual(3);
    expect(reason.length).toBeGreaterThan(30);
  }
});

describe('other packs have the findings that SECURITY.md explains, and no others', () => {
  const text = readFileSync(new URL('../../SECURITY.md', import.meta.url), 'utf8');
  const [, section] = /## What other rule packs say\n([\s\S]*?)\n## /.exec(text)!;
  const explained = [...section!.matchAll(/^\| ([\w, ]+) \|/gm)]
    .flatMap(([, rules]) => rules!.split(', '))
    .filter((rule) => rule !== 'rule');
  /** In the sentence about AWS's keys. */
  const withoutOwnKey = [...section!.matchAll(/`([A-Z]\w+)`/g)].map(([, rule]) => rule!);

  it.each(Object.entries(variants))('%s', (name, changes) => {
    const { app } = synthesize(changes);
    Validations.of(app).addPlugins(
      new HIPAASecurityChecks(app),
      new NIST80053R5Checks(app),
      new PCIDSS321Checks(app),
    );
    let report = '';
    try {
      app.synth();
    } catch (error) {
      report = (error as Error).message;
    }
    const found = new Set([...report.matchAll(/Acknowledge with '[^']+-(\w+)'/g)].map(([, rule]) => rule!));
    const known = [...explained, ...(changes.ownKey ? [] : withoutOwnKey)];
    expect([...found].filter((rule) => !known.includes(rule))).toEqual([]);
    // One with everything that the product has.
    if (name === 'another region, with a domain and issuers')
      expect(explained.filter((rule) => !found.has(rule))).toEqual([]);
    if (name === 'the defaults') expect(withoutOwnKey.filter((rule) => !found.has(rule))).toEqual([]);
  });
});
