import { defineConfig } from '@hey-api/openapi-ts';

// Node.js runs TypeScript as it is, and finds modules by their whole names.
export default defineConfig({
  input: process.env['WXGATE_DOCUMENT']!,
  output: { path: 'generated', module: { extension: '.ts' } },
  logs: { file: false },
});
