import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { ensureKeys } from '../functions/lib/lifecycle/keys.ts';
import { functions } from '../infra/functions.ts';
import { secretsOf } from '../infra/local/control-plane.ts';
import { startAwsEmulator } from '../infra/local/emulator/server.ts';
import { bytes, families, loadedAtStart, loadedFor, synthesizeBundles } from '../test/infra/bundles.ts';
import { type Figure, table } from './report.ts';

const rounds = 9;
const initMs = 150;
const kilobytes = 600;
const kb = (count: number) => count / 1_024;

/** One process, as Lambda starts one: how long the module takes until it stands, top-level awaits included. */
const start = `
  globalThis.awslambda = { streamifyResponse: (handler) => handler };
  const begun = performance.now();
  await import(process.argv[1]);
  console.log('INIT', performance.now() - begun);
  process.exit();`;

/**
 * What a new environment costs: loading each function's bundle as it would be uploaded, with the template's environment,
 * against loading an empty module. All of them take turns, round by round; the shortest of each counts, because whatever
 * else the machine does only adds. Those that read a key while they load read it from the emulator on this machine.
 */
export async function run(report: (line: string) => void): Promise<Figure[]> {
  const folder = mkdtempSync(join(tmpdir(), 'tenantry-empty-'));
  const empty = join(folder, 'handler.mjs');
  writeFileSync(empty, 'export const handler = () => {};\n');
  const emulator = await startAwsEmulator({});
  try {
    const bundles = synthesizeBundles();
    const aws = {
      AWS_ENDPOINT_URL: emulator.url,
      AWS_REGION: 'eu-west-1',
      AWS_ACCESS_KEY_ID: 'bench',
      AWS_SECRET_ACCESS_KEY: 'bench',
      NODE_EXTRA_CA_CERTS: '',
    };
    const subjects = functions.map(({ name }) => {
      const { folder, environment } = bundles.of(name);
      return { name, folder, file: join(folder, 'handler.mjs'), environment, times: [] as number[] };
    });
    const { CONTEXT_KEY_SECRET: contextKeySecret, SIGNING_KEY_SECRET: signingKeySecret } = subjects.find(
      ({ name }) => name === 'install',
    )!.environment;
    await ensureKeys(secretsOf(emulator.secrets), {
      contextKeySecret: contextKeySecret!,
      signingKeySecret: signingKeySecret!,
    });

    const all = [...subjects, { name: '', folder, file: empty, environment: {}, times: [] as number[] }];
    for (let round = -1; round < rounds; round += 1)
      for (const { name, file, environment, times } of all) {
        const time = await initialisation(name, file, { ...environment, ...aws });
        // The first reads the files into the system's cache.
        if (round >= 0) times.push(time);
      }
    const nothing = Math.min(...all.at(-1)!.times);
    const over = subjects.map(({ name, folder, times }) => ({
      name,
      ms: Math.min(...times) - nothing,
      size: kb(bytes(folder, loadedAtStart(folder))),
    }));
    report(`Cold start: module initialisation over an empty module’s (${nothing.toFixed(1)} ms).`);
    table(
      report,
      ['function', 'ms more', 'KB at start'],
      over.map(({ name, ms, size }) => [name, ms.toFixed(0), size.toFixed(0)]),
    );
    const mcp = bundles.of('mcp').folder;
    return [
      ...over.map(({ name, ms }) => ({
        name: `${name}, initialisation over an empty module, ms`,
        value: ms,
        ...(name === 'mcp' && { atMost: initMs }),
      })),
      ...families.map((family) => ({
        name: `mcp, bundle for a client of the ${family} family, KB`,
        value: kb(bytes(mcp, loadedFor(mcp, family))),
        atMost: kilobytes,
      })),
    ];
  } finally {
    await emulator.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

async function initialisation(
  name: string,
  file: string,
  env: Readonly<Record<string, string>>,
): Promise<number> {
  const args = ['--input-type=module', '-e', start, file];
  const { stdout, stderr } = await promisify(execFile)(process.execPath, args, { env });
  const [, time] = /INIT ([\d.]+)/.exec(stdout) ?? [];
  if (time === undefined) throw new Error(`${name} did not start: ${stderr || stdout}`);
  return Number(time);
}
