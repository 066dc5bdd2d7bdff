import net from 'node:net';

/** Preloaded into the suite's process: a connection to anything but this machine fails, loudly. */
const connect = net.Socket.prototype.connect;
net.Socket.prototype.connect = function (...args) {
  const [options] = Array.isArray(args[0]) ? args[0] : args;
  const host = options?.host ?? (typeof args[1] === 'string' ? args[1] : 'localhost');
  if (!options?.path && !['127.0.0.1', '::1', 'localhost'].includes(host)) {
    throw new Error(`The conformance suite tried to reach ${host}.`);
  }
  return connect.apply(this, args);
};
