import { defineConfig } from 'vitest/config';

const infra = 'test/infra/**/*.test.ts';

export default defineConfig({
  test: {
    globalSetup: ['test/support/global-setup.ts'],
    reporters: ['default', './test/support/summary-reporter.ts'],
    // Only there to end a hang: a machine that is slow, or has other work, needs many times as long as a quiet one.
    testTimeout: 300_000,
    hookTimeout: 300_000,
    expect: { poll: { timeout: 60_000 } },
    // Two cores: more workers would only start more PostgreSQL servers.
    maxWorkers: 2,
    projects: [
      { extends: true, test: { name: 'product', include: ['test/**/*.test.ts'], exclude: [infra] } },
      // CDK, its rules and the bundles are loaded and made once a worker. Nothing there keeps a state that another file could find.
      { extends: true, test: { name: 'infra', include: [infra], isolate: false } },
    ],
  },
});
