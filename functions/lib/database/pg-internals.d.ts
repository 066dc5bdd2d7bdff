/**
 * The parts of node-postgres that pg-cursor and pg-query-stream are built on, and that its published types
 * leave out. Checked against pg 8.23; look here first when it is upgraded.
 */
declare module 'pg/lib/utils.js' {
  const utils: { prepareValue(value: unknown): string | Buffer | null };
  export default utils;
}
