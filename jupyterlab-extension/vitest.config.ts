import { readFileSync } from 'node:fs';
import { defineConfig } from 'vitest/config';

// Days and clocks in the tests are those of Greenwich, wherever they run.
process.env.TZ = 'UTC';

export default defineConfig({
  plugins: [
    {
      // JupyterLab's packages import their icons as text; their builder does the same.
      name: 'svg-as-text',
      enforce: 'pre',
      load(id) {
        return id.endsWith('.svg')
          ? `// Days and clocks in the tests are those of Greenwich, wherever they run.
process.env.TZ = 'UTC';

export default ${JSON.stringify(readFileSync(id, 'utf8'))}`
          : undefined;
      }
    }
  ],
  test: {
    environment: 'jsdom',
    include: ['tests/**/*.test.{ts,tsx}'],
    server: { deps: { inline: [/@jupyterlab\//, /@jupyter\//, /@rjsf\//] } },
    setupFiles: ['tests/setup.ts'],
    css: false
  }
});
