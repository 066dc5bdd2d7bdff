import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/support/global-setup.ts'],
    reporters: ['default', './test/support/summary-reporter.ts'],
    // The first use of a cluster boots a PostgreSQL server; synthesis of the CDK app takes seconds.
    testTimeout: 30_000,
    hookTimeout: 60_000,
    // Two cores: more workers would only start more PostgreSQL servers.
    maxWorkers: 2,
  },
});
