/** A moment as operators read it: `2026-11-26 20:15:03Z`. */
export const moment = (iso: string | null) =>
  iso === null ? '' : iso.replace('T', ' ').replace(/\.\d+Z$/, 'Z');
