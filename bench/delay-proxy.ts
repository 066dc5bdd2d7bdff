import { fork } from 'node:child_process';
import { connect, createServer, type Socket } from 'node:net';

export interface DelayProxy {
  readonly port: number;
  close(): void;
}

/** A TCP proxy in a process of its own that holds back every chunk for `delayMs`, in each direction. */
export async function startDelayProxy(target: number, delayMs: number): Promise<DelayProxy> {
  const child = fork(import.meta.filename, [String(target), String(delayMs)]);
  const port = await new Promise<number>((resolve, reject) => {
    child.once('message', (message) => resolve(message as number));
    child.once('error', reject);
  });
  return { port, close: () => child.kill('SIGKILL') };
}

/** How long the loop may sleep, ms: it is deaf meanwhile, so this is the delay's inaccuracy. Timers have whole ms only. */
const NAP_MS = 0.05;

function serve(target: number, delayMs: number): void {
  const held: { due: number; to: Socket; chunk: Buffer }[] = [];
  const nap = new Int32Array(new SharedArrayBuffer(4));
  let passing = false;

  const pass = () => {
    const now = performance.now();
    while (held[0] && held[0].due <= now) {
      const { to, chunk } = held.shift()!;
      to.write(chunk);
    }
    passing = held.length > 0;
    if (!passing) return;
    Atomics.wait(nap, 0, 0, Math.min(NAP_MS, Math.max(0, held[0]!.due - performance.now())));
    setImmediate(pass);
  };
  const hold = (from: Socket, to: Socket) => {
    from.on('data', (chunk: Buffer) => {
      held.push({ due: performance.now() + delayMs, to, chunk });
      if (!passing) {
        passing = true;
        setImmediate(pass);
      }
    });
    from.on('error', () => to.destroy()).on('close', () => to.destroy());
  };

  const server = createServer({ noDelay: true }, (client) => {
    const upstream = connect({ port: target, host: '127.0.0.1', noDelay: true });
    hold(client, upstream);
    hold(upstream, client);
  });
  server.listen(0, '127.0.0.1', () => process.send!((server.address() as { port: number }).port));
  process.once('disconnect', () => process.exit());
}

if (import.meta.main) serve(Number(process.argv[2]), Number(process.argv[3]));
