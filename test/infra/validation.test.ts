import { CfnBucket } from 'aws-cdk-lib/aws-s3';
import { afterEach, expect, it, vi } from 'vitest';
import { synthesize, variants } from './synthesize.ts';

// The first loads the library's schemas and rules, and bundles all functions.
afterEach(() => {
  vi.unstubAllEnvs();
});

/** As `npm run synth` does it, which knows the settings of cdk.json alone. */
function validated({ app }: ReturnType<typeof synthesize>) {
  vi.stubEnv('CDK_VALIDATION', 'true');
  return app.synth();
}

it.each(Object.entries(variants))('CloudFormation’s rules find no fault: %s', (_, changes) => {
  expect(() => validated(synthesize(changes))).not.toThrow();
});

it('notices a fault, so that the check above means something', () => {
  const built = synthesize();
  new CfnBucket(built.stacks.data, 'Faulty').addPropertyOverride('NoSuchProperty', 'x');
  expect(() => validated(built)).toThrow('NoSuchProperty');
});
