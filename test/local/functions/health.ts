/** Answers whoever asks. */
export const handler = async () => ({
  statusCode: 503,
  headers: { 'content-type': 'application/json' },
  body: '{"status":"down"}',
});
