import type { Reporter, TestModule } from 'vitest/node';

/**
 * Closes a run with one plain line, `N passed, N failed`, that any CI can read. What did not run is never silent: an
 * error outside a test, a file whose tests were not reached and a run without tests each count as a failure. With
 * `TENANTRY_NO_SKIP=1` (`.ci/run`) a skipped test does too.
 */
export default class SummaryReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], errors: readonly unknown[]): void {
    const count = { passed: 0, failed: errors.length, skipped: 0, pending: 0 };
    const skipped: string[] = [];
    for (const module of modules) {
      const tests = [...module.children.allTests()];
      for (const test of tests) {
        const { state } = test.result();
        count[state] += 1;
        if (state === 'skipped') skipped.push(`${module.relativeModuleId}: ${test.fullName}`);
      }
      // Failed to load, or a hook of the file or of a `describe` failed: its tests then count as skipped.
      const suites = [module, ...module.children.allSuites()];
      count.failed += suites.filter((suite) => suite.errors().length > 0).length;
      if (tests.length === 0 && module.errors().length === 0) count.failed += 1;
    }
    if (modules.length === 0) count.failed += 1;
    let failed = count.failed + count.pending;
    if (process.env.TENANTRY_NO_SKIP === '1' && count.skipped > 0) {
      console.log(`Skipped, which counts as failed here:\n${skipped.map((name) => `  ${name}`).join('\n')}`);
      failed += count.skipped;
      count.skipped = 0;
    }
    if (failed > 0) process.exitCode = 1;
    const rest = count.skipped > 0 ? `, ${count.skipped} skipped` : '';
    console.log(`${count.passed} passed, ${failed} failed${rest}`);
  }
}
