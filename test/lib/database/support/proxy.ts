import { connect, createServer, type Socket } from 'node:net';

const CANCEL_REQUEST = 80_877_102;

/** A TCP proxy before PostgreSQL that reads along what clients send. */
export interface WatchingProxy {
  readonly port: number;
  /** Type letters of the messages sent since the last reset, in order; the startup message has none. */
  messages: string;
  /** How often a client has sent after the server had spoken: the round trips. */
  roundTrips: number;
  /** Cancel requests; they are not passed on, as RDS Proxy does not. */
  cancelRequests: number;
  reset(): void;
  /** Cuts every connection, without a farewell. */
  cut(): void;
  /** While true, what the server answers is held back and lost. */
  silent: boolean;
  close(): Promise<void>;
}

export async function startProxy(target: number): Promise<WatchingProxy> {
  const sockets = new Set<Socket>();
  const state = {
    port: 0,
    messages: '',
    roundTrips: 0,
    cancelRequests: 0,
    silent: false,
    reset: () => Object.assign(state, { messages: '', roundTrips: 0 }),
    cut: () => {
      for (const socket of sockets) socket.resetAndDestroy();
    },
    close: () =>
      new Promise<void>((resolve) => {
        for (const socket of sockets) socket.destroy();
        server.close(() => resolve());
      }),
  };
  const server = createServer((client) => {
    const upstream = connect(target, '127.0.0.1').setNoDelay(true);
    client.setNoDelay(true);
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => {
        sockets.delete(socket);
        client.destroy();
        upstream.destroy();
      });
    }
    let started = false;
    let serverSpoke = true;
    let pending = Buffer.alloc(0);
    client.on('data', (chunk) => {
      if (serverSpoke) state.roundTrips += 1;
      serverSpoke = false;
      pending = Buffer.concat([pending, chunk as Buffer]);
      if (!started && pending.length >= 8 && pending.readInt32BE(4) === CANCEL_REQUEST) {
        state.cancelRequests += 1;
        client.destroy();
        return;
      }
      for (;;) {
        const header = started ? 1 : 0;
        if (pending.length < header + 4) break;
        const length = header + pending.readInt32BE(header);
        if (pending.length < length) break;
        if (started) state.messages += String.fromCharCode(pending[0]!);
        started = true;
        pending = pending.subarray(length);
      }
      upstream.write(chunk);
    });
    upstream.on('data', (chunk) => {
      serverSpoke = true;
      if (!state.silent) client.write(chunk);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  state.port = (server.address() as { port: number }).port;
  return state;
}
