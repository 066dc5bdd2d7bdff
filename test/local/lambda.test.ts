import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, expect, test } from 'vitest';
import { LambdaHost } from '../../infra/local/lambda/host.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const row = {
  timeoutSeconds: 10,
  memoryMb: 128,
  streaming: true,
  inVpc: true,
  plane: 'data' as const,
  may: [],
};

let host: LambdaHost;
let initErrors: string[] = [];
let logged = '';
afterEach(() => host.close());

function serve(
  entry: string,
  options: { timeoutSeconds?: number; streaming?: boolean; maxEnvironments?: number } = {},
) {
  const { maxEnvironments = 2, ...change } = options;
  initErrors = [];
  logged = '';
  host = new LambdaHost({
    root,
    functions: [{ ...row, ...change, name: 'fixture', entry }],
    variables: () => ({}),
    maxEnvironments,
    log: (_name, text) => {
      logged += text;
    },
    onInitError: (_name, error) => initErrors.push(error.message),
  });
}

async function call(body: unknown): Promise<{ pid: number; calls: number }> {
  let text = '';
  await host.stream('fixture', { httpMethod: 'POST', body: JSON.stringify(body) }, (data) => {
    text += Buffer.from(data).toString();
  });
  return JSON.parse(text.slice(text.indexOf('\0') + 8));
}

const mcp = 'test/local/functions/mcp.ts';

test('one environment serves one call at a time and is used again', async () => {
  serve(mcp);
  const first = await call({ does: 'show' });
  const second = await call({ does: 'show' });
  expect(second).toMatchObject({ pid: first.pid, calls: 2 });
});

test('calls that overlap get environments of their own, up to the limit; the others wait', async () => {
  serve(mcp);
  // Lets two calls go on when both are there: with one environment they would wait for ever.
  let present: (() => void)[] = [];
  let most = 0;
  const meeting = createServer((_request, response) => {
    present.push(() => response.end());
    most = Math.max(most, present.length);
    if (present.length < 2) return;
    for (const go of present) go();
    present = [];
  });
  await new Promise<void>((resolve) => meeting.listen(0, '127.0.0.1', resolve));
  const at = `http://127.0.0.1:${(meeting.address() as { port: number }).port}/`;
  const answers = await Promise.all(Array.from({ length: 6 }, () => call({ does: 'meet', at })));
  meeting.close();
  expect(most).toBe(2);
  expect(new Set(answers.map(({ pid }) => pid)).size).toBe(2);
});

test('a call beyond its time is ended with its process', async () => {
  serve(mcp, { timeoutSeconds: 1, maxEnvironments: 1 });
  const { pid } = await call({ does: 'show' });
  await expect(call({ does: 'wait', ms: 60_000 })).rejects.toMatchObject({
    type: 'Sandbox.Timedout',
    message: 'Task timed out after 1.00 seconds',
  });
  const next = await call({ does: 'show' });
  expect(next.pid).not.toBe(pid);
  expect(() => process.kill(pid, 0)).toThrow('ESRCH');
});

test('a process that ends fails its call only', async () => {
  serve(mcp, { maxEnvironments: 1 });
  await expect(call({ does: 'exit' })).rejects.toMatchObject({ type: 'Runtime.ExitError' });
  expect((await call({ does: 'show' })).calls).toBe(1);
});

test('an error keeps its name and message', async () => {
  serve(mcp);
  await expect(call({ does: 'throw' })).rejects.toMatchObject({ type: 'RangeError', message: 'as asked' });
});

test('a function that can’t be loaded says why, at every call', async () => {
  serve('test/local/functions/not-loadable.ts');
  await host.warm();
  expect(initErrors).toEqual(['the settings are wrong']);
  await expect(host.invoke('fixture', {})).rejects.toThrow('the settings are wrong');
});

test('a handler of another kind than the manifest says is refused', async () => {
  serve('test/local/functions/authorizer.ts');
  await host.warm();
  expect(initErrors).toEqual([
    'infra/functions.ts says that fixture streams its answer, but its handler does not.',
  ]);
});

test('after an edit no call sees the old file, and calls under way finish', async () => {
  const folder = await mkdtemp(join(root, 'test/local/functions/edited-'));
  try {
    await cp(join(root, mcp), join(folder, 'mcp.ts'));
    serve(join(folder, 'mcp.ts').slice(root.length));
    await call({ does: 'show' });
    const underWay = call({ does: 'wait', ms: 500 });
    const source = await readFile(join(folder, 'mcp.ts'), 'utf8');
    await writeFile(join(folder, 'mcp.ts'), source.replace('let calls = 0', 'let calls = 100'));
    await host.reload();
    expect((await call({ does: 'show' })).calls).toBe(101);
    expect((await underWay).pid).toBeGreaterThan(0);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('closing leaves no process', async () => {
  serve(mcp);
  await Promise.all([call({ does: 'wait', ms: 50 }), call({ does: 'wait', ms: 50 })]);
  const pids = host.pids();
  expect(pids.length).toBeGreaterThan(0);
  await host.close();
  for (const pid of pids) expect(() => process.kill(pid, 0)).toThrow('ESRCH');
  expect(logged).toBe('');
});
